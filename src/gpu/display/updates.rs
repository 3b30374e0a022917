//! The `DMABUF_UPDATE` that is on its way: one at a time, for its answer does not say which it is.

use std::time::{Duration, Instant};

/// How long the answer to a `DMABUF_UPDATE` is waited for, once all of it is sent. A front-end answers
/// when it has drawn, which a busy one does late, and one whose window is hidden when it is seen again.
/// Until it answers it is sent pixels.
pub const UPDATE_LIMIT: Duration = Duration::from_secs(10);
/// Late answers without one in time between them after which it is sent pixels for good: each makes
/// its screens stand still for as long as is waited.
pub const MOST_LATE: u32 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// There is none.
    #[default]
    Idle,
    /// The socket has not taken all of it: a front-end that does not read is no news.
    Leaving,
    /// Its answer is waited for until then.
    Awaited(Instant),
    /// The answer is late. Nothing more is sent of buffers, so that it is not taken for another's.
    Late,
}

/// Which answers to `DMABUF_UPDATE` came, and whether in time.
#[derive(Debug, Default)]
pub(super) struct Updates {
    stage: Stage,
    /// How many in a row were late.
    late: u32,
}

impl Updates {
    /// Whether another one has to wait.
    pub(super) fn is_busy(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// Whether buffers are no way to show something there.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.stage == Stage::Late || self.is_disabled()
    }

    /// Whether they are no more, even if it answers.
    pub(super) fn is_disabled(&self) -> bool {
        self.late >= MOST_LATE
    }

    /// One begins to be sent.
    pub(super) fn begin(&mut self) {
        self.stage = Stage::Leaving;
    }

    /// The socket has taken all of it.
    pub(super) fn sent(&mut self, now: Instant) {
        self.stage = Stage::Awaited(now + UPDATE_LIMIT);
    }

    /// An answer came. One to nothing, or to what is not sent yet, is no news.
    pub(super) fn answered(&mut self) {
        match self.stage {
            Stage::Idle | Stage::Leaving => return,
            Stage::Awaited(_) => self.late = 0,
            Stage::Late => {}
        }
        self.stage = Stage::Idle;
    }

    /// When [`Updates::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Awaited(until) => Some(until),
            Stage::Idle | Stage::Leaving | Stage::Late => None,
        }
    }

    /// Whether the time for an answer is over; told once.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.deadline().is_some_and(|at| at <= now);
        if is_over {
            self.stage = Stage::Late;
            self.late = self.late.saturating_add(1);
        }
        is_over
    }
}
