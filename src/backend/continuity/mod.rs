// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What outlives the process, so that another one goes on where it died and the guest does not notice.
//!
//! The service manager keeps four descriptors ([`Descriptors`]): the state, a memfd with the ledgers of the proxy and the
//! device; the images, a memfd in extents; and both ends of the locker, a socket pair that holds descriptors. `docs/continuity.md`
//! says in which order what is written, and why a successor that starts at any point is right.
//!
//! The memory is written by this program only. A successor checks it all the same: it may be of another version, or of a
//! process that a guest broke into.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};

pub(crate) use arena::{Arena, Extent};
pub(crate) use deaths::Work;
pub(crate) use header::{EndReason, HeaderError};
pub(crate) use inbox::{Inbox, MAX_EVENTS};
pub(crate) use io_slot::{IoSlot, Slot};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use ledger::{DIED, Death};
pub(crate) use ledger::{InvalidRecord, Ledger, Owner};
pub(crate) use list::List;
pub(crate) use locker::{FdId, Locker, LockerError};
pub(crate) use record_key::RecordKey;
pub(crate) use record_log::LogError;
pub(crate) use value::{ValueError, ValueReader, ValueWriter};

use deaths::Deaths;
use header::Header;
use locker::Ends;
use record_log::Log;
use shared_memory::SharedMemory;

mod arena;
mod cells;
pub(crate) mod crash;
mod deaths;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod header;
mod inbox;
mod io_slot;
mod layout;
mod ledger;
mod list;
mod locker;
mod memory_map;
mod pool;
mod record_key;
mod record_log;
mod shared_memory;
pub(crate) mod value;
mod version;

/// The names of the descriptors (`FDNAME=`), in the order of `Descriptors`.
pub(crate) const NAMES: [&str; 4] = ["state", "images", "locker-in", "locker-out"];

/// What the service manager keeps.
#[derive(Debug)]
pub(crate) struct Descriptors {
    state: OwnedFd,
    images: OwnedFd,
    locker: [OwnedFd; 2],
}

/// Why a predecessor's state is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContinuityError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Locker(#[from] LockerError),
    #[error("cannot map the memory for it: {0}")]
    Memory(#[from] io::Error),
}

/// What this process keeps for a successor. Clones are the same. The default keeps nothing, and what it gives keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Continuity(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    memory: Arc<SharedMemory>,
    header: Header,
    deaths: Deaths,
    proxy: Ledger,
    device: Ledger,
    locker: Locker,
    images: OwnedFd,
    /// The mapping of `images` and its length, once it was made.
    arena: OnceLock<(u64, Arena)>,
    is_resumed: bool,
}

impl Descriptors {
    /// Those of a new state.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `socketpair(2)`.
    pub(crate) fn create() -> io::Result<Self> {
        let Ends { incoming, outgoing } = Ends::new()?;
        Ok(Self {
            state: shared_memory::create("state")?,
            images: shared_memory::create("images")?,
            locker: [incoming, outgoing],
        })
    }

    /// Those that a predecessor had kept, in the order of [`NAMES`].
    pub(crate) fn from_kept([state, images, incoming, outgoing]: [OwnedFd; 4]) -> Self {
        Self {
            state,
            images,
            locker: [incoming, outgoing],
        }
    }

    /// Duplicates.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let [incoming, outgoing] = &self.locker;
        Ok(Self {
            state: self.state.try_clone()?,
            images: self.images.try_clone()?,
            locker: [incoming.try_clone()?, outgoing.try_clone()?],
        })
    }

    /// The descriptors with their names, for the service manager.
    pub(crate) fn named(&self) -> [(&'static str, &OwnedFd); 4] {
        let [incoming, outgoing] = &self.locker;
        let [state, images, locker_in, locker_out] = NAMES;
        [
            (state, &self.state),
            (images, &self.images),
            (locker_in, incoming),
            (locker_out, outgoing),
        ]
    }
}

impl Continuity {
    /// Begins a new state of the program `program`.
    ///
    /// # Errors
    /// If the host has no memory for it.
    pub(crate) fn begin(program: &str, descriptors: Descriptors) -> Result<Self, ContinuityError> {
        let memory = SharedMemory::map(descriptors.state.as_fd(), layout::LEN)?;
        let memory = Arc::new(memory);
        let header = Header::create(memory.clone(), program);
        let header = header.ok_or(HeaderError::Magic)?;
        Self::open(memory, header, descriptors, false)
    }

    /// Goes on with the state of a predecessor; none if it has ended.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn resume(
        program: &str,
        descriptors: Descriptors,
    ) -> Result<Option<Self>, ContinuityError> {
        let memory = SharedMemory::map(descriptors.state.as_fd(), layout::LEN)?;
        let memory = Arc::new(memory);
        let Some(header) = Header::open(memory.clone(), program)? else {
            return Ok(None);
        };
        // First: to read it may be what the others died of.
        let counted = Deaths::new(memory.clone()).count();
        counted.map_err(HeaderError::Poisoned)?;
        Self::open(memory, header, descriptors, true).map(Some)
    }

    fn open(
        memory: Arc<SharedMemory>,
        header: Header,
        descriptors: Descriptors,
        is_resumed: bool,
    ) -> Result<Self, ContinuityError> {
        let deaths = Deaths::new(memory.clone());
        let ledger = |owner: Owner| {
            let log = Log::open(memory.clone(), owner.index());
            log.map(|log| Ledger::new(log, header.clone(), deaths.clone()))
        };
        let (proxy, device) = (ledger(Owner::Proxy)?, ledger(Owner::Device)?);
        let [incoming, outgoing] = descriptors.locker;
        let locker = Locker::open(Ends { incoming, outgoing })?;
        Ok(Self(Some(Arc::new(Kept {
            memory,
            header,
            deaths,
            proxy,
            device,
            locker,
            images: descriptors.images,
            arena: OnceLock::new(),
            is_resumed,
        }))))
    }

    /// Whether a service manager keeps the state.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a predecessor left a state, with which this process goes on.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.is_resumed)
    }

    /// The records of `owner`.
    pub(crate) fn ledger(&self, owner: Owner) -> Ledger {
        match (&self.0, owner) {
            (None, _) => Ledger::default(),
            (Some(kept), Owner::Proxy) => kept.proxy.clone(),
            (Some(kept), Owner::Device) => kept.device.clone(),
        }
    }

    /// Where descriptors are kept.
    pub(crate) fn locker(&self) -> Locker {
        let kept = self.0.as_ref();
        kept.map_or_else(Locker::default, |kept| kept.locker.clone())
    }

    /// The counted transfers of `slot`. Take each slot once. Where nothing is kept it counts all the same, in private memory.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub(crate) fn slot(&self, slot: Slot) -> io::Result<IoSlot> {
        let memory = match &self.0 {
            Some(kept) => kept.memory.clone(),
            None => Arc::new(SharedMemory::private(layout::AT_INBOX as usize)?),
        };
        Ok(IoSlot::new(memory, slot))
    }

    /// Where events of an evdev device are read into; none if nothing is kept.
    pub(crate) fn inbox(&self) -> Option<Inbox> {
        let kept = self.0.as_ref()?;
        Some(Inbox::new(kept.memory.clone()))
    }

    /// Memory for images of `bytes` bytes in all, and for lists; none if nothing is kept. It is mapped by the first call, before the
    /// sandbox; further calls give the same.
    ///
    /// # Errors
    /// If there is no address space for it, or a predecessor's memory has another size.
    pub(crate) fn arena(&self, bytes: u64) -> io::Result<Option<Arena>> {
        let Some(kept) = &self.0 else {
            return Ok(None);
        };
        let len = bytes
            .checked_next_multiple_of(layout::PAGE)
            .and_then(|bytes| bytes.checked_mul(arena::SPREAD))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        if let Some((_, arena)) = kept.arena.get().filter(|(mapped, _)| *mapped == len) {
            return Ok(Some(arena.clone()));
        }
        let images = SharedMemory::map(kept.images.as_fd(), len)?;
        let arena = Arena::new(images, len, kept.memory.clone());
        let (_, arena) = kept.arena.get_or_init(|| (len, arena));
        kept.device.set_arena(arena.clone());
        Ok(Some(arena.clone()))
    }

    /// `work` is under way: this process may die of it.
    pub(crate) fn begin_work(&self, work: Work) {
        if let Some(kept) = &self.0 {
            kept.deaths.begin(work);
        }
    }

    /// `work` is done, and this process lives.
    pub(crate) fn work_done(&self, work: Work) {
        if let Some(kept) = &self.0 {
            kept.deaths.done(work);
        }
    }

    /// No process has died so far: this one ends because it was asked to.
    pub(crate) fn forget_deaths(&self) {
        if let Some(kept) = &self.0 {
            kept.deaths.forget();
        }
    }

    /// Whether another process goes on when this one ends.
    pub(crate) fn has_successor(&self) -> bool {
        let kept = self.0.as_ref();
        kept.is_some_and(|kept| kept.header.ended().is_none())
    }

    /// No successor may go on: the connection has ended, or would end in the same way again. The first reason stays.
    pub(crate) fn end(&self, reason: EndReason) {
        if let Some(kept) = &self.0 {
            kept.header.end(reason);
        }
    }

    /// From now on `listener` is told why the state ends, by the thread that ends it. Only the first call has an effect.
    pub(crate) fn on_end(&self, listener: impl Fn(EndReason) + Send + Sync + 'static) {
        if let Some(kept) = &self.0 {
            kept.header.on_end(listener);
        }
    }
}

#[cfg(test)]
mod tests;
