// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the guest is told that consoles want its heads to have other sizes: by a configuration change, after which its
//! driver reads the sizes again.

use std::io;
use std::time::{Duration, Instant};

use super::tokens::CONFIG_CHANGE;
use crate::backend::{ConfigChange, ConfigChangeState, DeviceContext};

/// Least time between two changes. A viewer whose window is being dragged asks for more.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a front-end may take for a change.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Sizes that the guest is to be told.
pub(super) struct Resizes {
    /// None where consoles may not ask for sizes.
    channel: Option<ConfigChange>,
    /// Whether sizes changed since the guest was told the last time.
    untold: bool,
    /// When it may be told again.
    next: Option<Instant>,
}

impl Resizes {
    /// Consoles may ask for sizes if that is `allowed`.
    pub(super) fn new(context: &DeviceContext, allowed: bool) -> io::Result<Self> {
        let channel = allowed.then(|| context.config_change(CONFIG_CHANGE));
        Ok(Self {
            channel: channel.transpose()?,
            untold: false,
            next: None,
        })
    }

    /// Whether the guest can be told.
    pub(super) fn are_possible(&self, now: Instant) -> bool {
        match self.state() {
            ConfigChangeState::Unavailable => false,
            ConfigChangeState::Ready => true,
            ConfigChangeState::UnderWay { since } => {
                now.saturating_duration_since(since) < ANSWER_LIMIT
            }
        }
    }

    /// The guest is to be told: a size changed.
    pub(super) fn changed(&mut self) {
        self.untold = true;
    }

    /// The guest knows the sizes, or there is no driver to be told.
    pub(super) fn forget(&mut self) {
        self.untold = false;
    }

    /// When the guest is to be told; none while that waits for the front-end.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let may_tell = self.untold && self.state() == ConfigChangeState::Ready;
        self.next.filter(|_| may_tell)
    }

    /// Whether the guest is to be told now.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        let is_early = self.next.is_some_and(|next| now < next);
        self.untold && !is_early && self.state() == ConfigChangeState::Ready
    }

    /// Has the guest told.
    pub(super) fn tell(&mut self, now: Instant) {
        if let Some(channel) = &self.channel {
            channel.send();
            self.untold = false;
            self.next = Some(now + INTERVAL);
        }
    }

    /// [`CONFIG_CHANGE`] came. A guest that was not told, because the front-end stops the device, is told when the same
    /// driver goes on.
    pub(super) fn woke(&mut self) {
        if let Some(channel) = &self.channel {
            self.untold |= channel.woke();
        }
    }

    fn state(&self) -> ConfigChangeState {
        let channel = self.channel.as_ref();
        channel.map_or(ConfigChangeState::Unavailable, ConfigChange::state)
    }
}
