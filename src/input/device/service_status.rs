// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service's status (`STATUS=`): who has the source.

use conventions::RELEASED_TO_HOST;
use evdev::KeyCode;

use crate::backend::DeviceContext;
use crate::input::source::HostAccess;

/// The `STATUS=` line. The log does not say the same: a guest that resets its device over and over would
/// fill it.
pub(super) struct InputStatus {
    context: DeviceContext,
}

impl InputStatus {
    pub(super) fn new(context: DeviceContext) -> Self {
        Self { context }
    }

    /// No guest has the source.
    pub(super) fn publish_no_guest(&self, label: &str) {
        self.context.status(format_args!("no guest uses {label}"));
    }

    /// The source is gone, and waited for; `why` it cannot be used now, if it is there.
    pub(super) fn publish_gone(&self, label: &str, why: Option<&str>) {
        match why {
            Some(why) => self
                .context
                .status(format_args!("waiting for {label}: {why}")),
            None => self.context.status(format_args!("waiting for {label}")),
        }
    }

    /// The source is gone for good.
    pub(super) fn publish_gone_for_good(&self, label: &str) {
        self.context.status(format_args!(
            "{label} was unplugged, and will not come back"
        ));
    }

    /// A guest waits for the source until `key` is released.
    pub(super) fn publish_waiting(&self, label: &str, key: KeyCode) {
        self.context.status(format_args!(
            "the guest gets {label} once {key:?} is released on the host"
        ));
    }

    /// The host has the source although a guest may run; `why`, if not because the host asked for it.
    pub(super) fn publish_released(&self, label: &str, why: Option<&str>) {
        match why {
            Some(why) => self
                .context
                .status(format_args!("{RELEASED_TO_HOST}: {label}, {why}")),
            None => self
                .context
                .status(format_args!("{RELEASED_TO_HOST}: {label}")),
        }
    }

    /// The host waits for the source until `key` is released.
    pub(super) fn publish_releasing(&self, label: &str, key: KeyCode) {
        self.context.status(format_args!(
            "the host gets {label} once {key:?} is released"
        ));
    }

    /// A guest has the source.
    pub(super) fn publish_guest(&self, label: &str, host_access: HostAccess) {
        match host_access {
            HostAccess::Shared => self
                .context
                .status(format_args!("the guest and the host share {label}")),
            HostAccess::None | HostAccess::UntilGrab => {
                self.context.status(format_args!("the guest has {label}"))
            }
        }
    }
}
