// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The answer to `DMABUF_UPDATE`: one update is sent at a time, for its answer does not say which it is.

use std::time::{Duration, Instant};

/// How long the answer to a `DMABUF_UPDATE` is awaited, once all of it is sent. A front-end answers
/// when it has drawn: a busy one is late, and one with a hidden window answers when it is visible again.
/// Until it answers it is sent pixels.
pub(crate) const ACK_LIMIT: Duration = Duration::from_secs(10);
/// Late answers without one in time between them after which it is sent pixels for good: with each, its
/// scanouts stand still for [`ACK_LIMIT`].
pub(super) const MAX_LATE: u32 = 3;

/// For how long a front-end whose answer to `DMABUF_UPDATE` is late is sent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PixelFallback {
    /// Until it answers.
    UntilAnswered,
    /// For as long as it is connected: it was late too often.
    Permanent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// No update was sent.
    #[default]
    Idle,
    /// The socket has not taken all of it: a front-end that does not read is not late.
    Sending,
    /// The answer is awaited until then.
    Awaited(Instant),
    /// The answer is late. No other update is sent before it comes, for it would be taken for that one's.
    Late,
}

/// Whether the front-end answers `DMABUF_UPDATE` in time.
#[derive(Debug, Default)]
pub(super) struct DmabufAck {
    stage: Stage,
    /// How many in a row were late.
    late: u32,
}

impl DmabufAck {
    /// Whether the next update must wait.
    pub(super) fn is_pending(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// Whether the front-end is to be sent pixels for now.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.stage == Stage::Late || self.is_disabled()
    }

    /// Whether it is to be sent pixels even if it answers.
    fn is_disabled(&self) -> bool {
        self.late >= MAX_LATE
    }

    /// An update is being sent.
    pub(super) fn sending(&mut self) {
        self.stage = Stage::Sending;
    }

    /// The socket has taken all of it.
    pub(super) fn sent(&mut self, now: Instant) {
        self.stage = Stage::Awaited(now + ACK_LIMIT);
    }

    /// An answer came. One that comes before the update is sent is ignored.
    pub(super) fn answered(&mut self) {
        match self.stage {
            Stage::Idle | Stage::Sending => return,
            Stage::Awaited(_) => self.late = 0,
            Stage::Late => {}
        }
        self.stage = Stage::Idle;
    }

    /// When [`DmabufAck::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Awaited(until) => Some(until),
            Stage::Idle | Stage::Sending | Stage::Late => None,
        }
    }

    /// Gives up waiting for the answer if it is late. Tells what follows, once.
    pub(super) fn expire(&mut self, now: Instant) -> Option<PixelFallback> {
        self.deadline().filter(|at| *at <= now)?;
        self.stage = Stage::Late;
        self.late = self.late.saturating_add(1);
        Some(if self.is_disabled() {
            PixelFallback::Permanent
        } else {
            PixelFallback::UntilAnswered
        })
    }
}
