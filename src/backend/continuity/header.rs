// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The beginning of the state: whose it is, and whether a successor may go on.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::layout;
use super::shared_memory::SharedMemory;
use super::version::version;

/// Why no successor goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndReason {
    /// The connection has ended, or is about to.
    #[error("the front-end's connection ended")]
    Over,
    #[error("the guest has set up more than can be kept for another process")]
    RecordsFull,
    #[error(
        "no more file descriptors can be kept for another process (net.core.wmem_max, LimitNOFILE=)"
    )]
    LockerFull,
    #[error("the front-end's file descriptors cannot be kept for another process")]
    LockerFailed,
}

impl EndReason {
    /// All, by the number that the state has for them: from 1 on.
    const ALL: [Self; 4] = [
        Self::Over,
        Self::RecordsFull,
        Self::LockerFull,
        Self::LockerFailed,
    ];

    fn number(self) -> u32 {
        let known = (1..).zip(Self::ALL);
        let mut numbers = known.filter(|(_, reason)| *reason == self);
        numbers.next().map_or(1, |(number, _)| number)
    }

    /// None for 0. A number that this program does not know is of a state that is over.
    fn of_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number.checked_sub(1)?).unwrap_or(usize::MAX);
        Some(Self::ALL.get(index).copied().unwrap_or(Self::Over))
    }
}

/// Why a successor does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("it is no state of a backend")]
    Magic,
    #[error("its version is {0}, this program knows {known}", known = version())]
    Version(u32),
    #[error("it is of another program")]
    Program,
    #[error("{0} processes died while they did the same, and none got it done")]
    Poisoned(u32),
    #[error("{0}")]
    Ended(EndReason),
}

/// The header. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Header {
    memory: Arc<SharedMemory>,
    listener: Arc<EndListener>,
}

/// Who is told that the state has ended.
#[derive(Default)]
struct EndListener(OnceLock<Box<dyn Fn(EndReason) + Send + Sync>>);

impl fmt::Debug for EndListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndListener")
    }
}

impl Header {
    /// The header of a new state.
    pub(super) fn create(memory: Arc<SharedMemory>, program: &str) -> Option<Self> {
        let written = memory.write(layout::AT_NAME, &name(program));
        memory
            .u32(layout::AT_VERSION)?
            .store(version(), Ordering::Release);
        memory
            .u64(layout::AT_MAGIC)?
            .store(layout::MAGIC, Ordering::Release);
        written.then(|| Self::in_memory(memory))
    }

    fn in_memory(memory: Arc<SharedMemory>) -> Self {
        Self {
            memory,
            listener: Arc::default(),
        }
    }

    /// The header that a process of `program` left; none if its connection ended, or it never began a state.
    pub(super) fn open(
        memory: Arc<SharedMemory>,
        program: &str,
    ) -> Result<Option<Self>, HeaderError> {
        let header = Self::in_memory(memory);
        match header.memory.u64(layout::AT_MAGIC) {
            Some(magic) if magic.load(Ordering::Acquire) == layout::MAGIC => {}
            Some(magic) if magic.load(Ordering::Acquire) == 0 => return Ok(None),
            _ => return Err(HeaderError::Magic),
        }
        match header.ended() {
            None => {}
            Some(EndReason::Over) => return Ok(None),
            Some(reason) => return Err(HeaderError::Ended(reason)),
        }
        match header.load(layout::AT_VERSION) {
            known if known == version() => {}
            other => return Err(HeaderError::Version(other)),
        }
        match header.memory.equals(layout::AT_NAME, &name(program)) {
            true => Ok(Some(header)),
            false => Err(HeaderError::Program),
        }
    }

    /// No successor may go on. The first reason stays.
    pub(super) fn end(&self, reason: EndReason) {
        let Some(ended) = self.memory.u32(layout::AT_ENDED) else {
            return;
        };
        let ended = ended.compare_exchange(0, reason.number(), Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            log::debug!("another process of this service will not take over: {reason}");
            if let Some(listener) = self.listener.0.get() {
                listener(reason);
            }
        }
    }

    /// From now on `listener` is told why the state ends, by the thread that ends it. Only the first call has an effect.
    pub(super) fn on_end(&self, listener: impl Fn(EndReason) + Send + Sync + 'static) {
        let _ = self.listener.0.set(Box::new(listener));
    }

    pub(super) fn ended(&self) -> Option<EndReason> {
        EndReason::of_number(self.load(layout::AT_ENDED))
    }

    fn load(&self, at: u64) -> u32 {
        let value = self.memory.u32(at);
        value.map_or(0, |value| value.load(Ordering::Acquire))
    }
}

fn name(program: &str) -> [u8; layout::NAME_LEN] {
    let mut name = [0; layout::NAME_LEN];
    for (to, from) in name.iter_mut().zip(program.bytes()) {
        *to = from;
    }
    name
}

#[cfg(test)]
mod tests;
