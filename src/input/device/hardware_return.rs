// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The return of a source that was gone: what is said of it, and whether it may be gone once more.

use crate::backend::DeviceContext;
use crate::input::source::{EventSource, SourceReturn};

use super::service_status::InputStatus;
use super::source_link::SourceLink;

/// What is known of the return of a source.
#[derive(Debug, Default)]
pub(super) struct HardwareReturn {
    /// Why what came instead of a source that is gone cannot be used.
    refusal: Option<String>,
    /// The source was gone, and is back: it may be so again.
    has_returned: bool,
}

/// What became of a source that was gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is back.
    Back,
    /// There is something new to say of it.
    News,
    /// There is not.
    Nothing,
}

impl HardwareReturn {
    /// That of a source that was gone before if `has_returned`.
    pub(super) fn load(has_returned: bool) -> Self {
        Self {
            refusal: None,
            has_returned,
        }
    }

    /// Whether the source was gone, and is back.
    pub(super) fn has_returned(&self) -> bool {
        self.has_returned
    }

    /// The source is gone.
    pub(super) fn begin(&mut self) {
        self.refusal = None;
    }

    /// What came cannot be used, for this reason.
    pub(super) fn refuse(&mut self, why: String) {
        self.refusal = Some(why);
    }

    /// Whether a source that cannot be used now is waited for as it was before.
    pub(super) fn may_come_again<S: EventSource>(&self, source: &SourceLink<S>) -> bool {
        self.has_returned && source.return_fd().is_some()
    }

    /// Publishes that the source is gone. `is_released`: the host keeps it from a guest, so that nobody waits for it.
    pub(super) fn publish<S: EventSource>(
        &self,
        source: &SourceLink<S>,
        status: &InputStatus,
        is_released: bool,
    ) {
        let label = source.label();
        match source.return_fd() {
            None => status.publish_gone_for_good(&label),
            Some(_) if is_released => {
                let why = self.refusal.as_deref();
                status.publish_released(&label, Some(why.unwrap_or("which was unplugged")));
            }
            Some(_) => status.publish_gone(&label, self.refusal.as_deref()),
        }
    }

    /// Takes the source if it is back; `is_wanted` for a guest at once. Returns whether it is, or what became of it
    /// instead.
    pub(super) fn take<S: EventSource>(
        &mut self,
        source: &mut SourceLink<S>,
        context: &DeviceContext,
        is_wanted: bool,
    ) -> Taken {
        let label = source.label();
        match source.take_return(is_wanted) {
            SourceReturn::NotYet => Taken::Nothing,
            SourceReturn::Back => {
                source.watch(context);
                self.has_returned = true;
                self.refusal = None;
                source.inform(format_args!("{label} is back"));
                Taken::Back
            }
            SourceReturn::Refused(why) => {
                // What is tried again and again is said once.
                if self.refusal.as_ref() == Some(&why) {
                    return Taken::Nothing;
                }
                source.warn(format_args!("waiting for {label}: {why}"));
                self.refusal = Some(why);
                Taken::News
            }
            SourceReturn::Never(why) => {
                if let Some(fd) = source.return_fd() {
                    let unwatched = context.unwatch(fd);
                    unwatched.unwrap_or_else(|error| log::debug!("cannot stop watching: {error}"));
                }
                source.set_never_returns();
                log::error!("{label} will not be noticed when it comes back: {why}");
                Taken::News
            }
        }
    }
}
