// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A place for descriptors that outlives the process: the queue of a socket pair, both ends of which the service manager
//! keeps.
//!
//! A descriptor that was sent stays in the kernel's queue. A successor takes duplicates by receiving with `MSG_PEEK`. A
//! packet that is needed no longer is found by going round the queue: each packet is sent again before the old one is
//! consumed, so that none is lost when the process dies; a second one with the same number is dropped.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};
use rustix::rand::GetRandomFlags;

use super::header::EndReason;
use crate::backend::RateLimitedLog;
use crate::backend::lock::lock;

/// Most descriptors in one packet.
const MAX_FDS: usize = 32;
/// Bytes that may wait in the queue, as far as the host allows (net.core.wmem_max).
const QUEUE: usize = 4 << 20;
/// What a packet takes of the queue, and packets that find room beside the others while the queue is gone round.
const PACKET: usize = 1024;
const SPARE: usize = 8;
/// Descriptors in a [`Locker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FdId(NonZeroU64);

impl FdId {
    /// As a number, for a record.
    pub(crate) fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The id of a record; none for 0.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }
}

/// Why descriptors cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockerError {
    #[error("too many file descriptors are kept for the time after a restart")]
    Full,
    #[error("cannot keep file descriptors for the time after a restart: {0}")]
    Socket(#[source] io::Error),
}

impl LockerError {
    /// Why the state ends if it needs what cannot be kept.
    pub(crate) fn end_reason(&self) -> EndReason {
        match self {
            Self::Full => EndReason::LockerFull,
            Self::Socket(error) => {
                log::debug!("{error}");
                EndReason::LockerFailed
            }
        }
    }
}

impl From<Errno> for LockerError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS => Self::Full,
            error => Self::Socket(error.into()),
        }
    }
}

/// Keeps descriptors for a successor. Clones are the same; without one, nothing is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locker(Option<Arc<Mutex<Place>>>);

/// The queue, until it is closed.
type Place = Option<Queue>;

/// A packet: its id, and its descriptors.
type Packet = ([u8; 8], Vec<OwnedFd>);

/// What takes a descriptor's place in a packet.
struct Replacement<'a> {
    id: FdId,
    index: usize,
    by: BorrowedFd<'a>,
}

/// Both ends of a socket pair, for the service manager.
pub(super) struct Ends {
    pub(super) incoming: OwnedFd,
    pub(super) outgoing: OwnedFd,
}

impl Ends {
    pub(super) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (incoming, outgoing) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        sockopt::set_socket_send_buffer_size(&outgoing, QUEUE)?;
        Ok(Self { incoming, outgoing })
    }
}

#[derive(Debug)]
struct Queue {
    incoming: OwnedFd,
    outgoing: OwnedFd,
    /// Most packets.
    capacity: usize,
    next: u64,
    live: BTreeSet<FdId>,
    /// Packets in the queue that are not live.
    forgotten: usize,
    /// What a predecessor kept, until it is taken, or [`Locker::forget_left`].
    left: BTreeMap<FdId, Vec<OwnedFd>>,
    /// What is dropped is often dropped for a guest.
    log: RateLimitedLog,
}

impl Locker {
    /// The locker with these ends, and what a predecessor kept in it.
    pub(super) fn open(ends: Ends) -> Result<Self, LockerError> {
        let size = sockopt::socket_send_buffer_size(&ends.outgoing)?;
        let mut queue = Queue {
            capacity: (size / PACKET).saturating_sub(SPARE),
            incoming: ends.incoming,
            outgoing: ends.outgoing,
            next: 1,
            live: BTreeSet::new(),
            forgotten: 0,
            left: BTreeMap::new(),
            log: RateLimitedLog::default(),
        };
        queue.read()?;
        Ok(Self(Some(Arc::new(Mutex::new(Some(queue))))))
    }

    /// Keeps descriptors, up to 32. When this returns, they are kept. None if nothing is kept.
    ///
    /// # Errors
    /// If no more can be kept.
    pub(crate) fn keep(&self, fds: &[BorrowedFd<'_>]) -> Result<Option<FdId>, LockerError> {
        match fds {
            [] => Ok(None),
            fds => self.with(|queue| queue.keep(fds)).transpose(),
        }
    }

    /// The descriptors are needed no longer: no record names them.
    pub(crate) fn forget(&self, id: FdId) {
        self.with(|queue| queue.forget(id));
    }

    /// The descriptor with this index among those of `id` is needed no longer: no record names it. It gives way to one of
    /// nothing, so that the others keep their places.
    pub(crate) fn forget_one(&self, id: FdId, index: usize) {
        self.with(|queue| {
            if let Err(error) = queue.forget_one(id, index) {
                queue.log.warn(error);
            }
        });
    }

    /// Duplicates of what a predecessor kept as `id`, once, in their order.
    pub(crate) fn take(&self, id: FdId) -> Option<Vec<OwnedFd>> {
        self.with(|queue| queue.left.remove(&id))?
    }

    /// Forgets all that a predecessor kept and nobody took: no record names it. It is closed at once: it may be a
    /// connection, whose other end waits.
    pub(crate) fn forget_left(&self) {
        self.with(|queue| {
            for id in std::mem::take(&mut queue.left).into_keys() {
                queue.forgotten += usize::from(queue.live.remove(&id));
            }
            if queue.forgotten > 0 {
                queue.clear();
            }
        });
    }

    /// No successor comes: gives back all that is kept, once the service manager closes what it has of it. Nothing is kept from
    /// now on.
    pub(crate) fn close(&self) {
        if let Some(place) = &self.0 {
            drop(lock(place).take());
        }
    }

    fn with<T>(&self, does: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        lock(self.0.as_ref()?).as_mut().map(does)
    }
}

impl Queue {
    fn keep(&mut self, fds: &[BorrowedFd<'_>]) -> Result<FdId, LockerError> {
        let id = FdId::from_bits(self.next).ok_or(LockerError::Full)?;
        if self.live.len() + self.forgotten >= self.capacity {
            self.clear();
            if self.live.len() >= self.capacity {
                return Err(LockerError::Full);
            }
        }
        let packet = id.to_bits().to_le_bytes();
        if let Err(error) = self.send_packet(packet, fds) {
            if self.forgotten == 0 {
                return Err(error);
            }
            self.clear();
            self.send_packet(packet, fds)?;
        }
        self.next = self.next.saturating_add(1);
        self.live.insert(id);
        Ok(id)
    }

    fn send_packet(&self, bytes: [u8; 8], fds: &[BorrowedFd<'_>]) -> Result<(), LockerError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(LockerError::Full);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&self.outgoing, &[IoSlice::new(&bytes)], &mut control, flags) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    fn forget_one(&mut self, id: FdId, index: usize) -> Result<(), LockerError> {
        let nothing = eventfd(0, EventfdFlags::CLOEXEC)?;
        let live = self.live.clone();
        let one = Replacement {
            id,
            index,
            by: nothing.as_fd(),
        };
        self.go_round(|packet| live.contains(&packet), Some(one), |_, _| {})?;
        self.forgotten = 0;
        Ok(())
    }

    /// Drops the packet at once: it may be the last descriptor of memory that the VMM took away.
    fn forget(&mut self, id: FdId) {
        if self.live.remove(&id) {
            self.forgotten += 1;
            self.clear();
        }
    }

    /// Drops the packets that are forgotten.
    fn clear(&mut self) {
        let live = self.live.clone();
        match self.go_round(|id| live.contains(&id), None, |_, _| {}) {
            Ok(()) => self.forgotten = 0,
            Err(error) => self.log.warn(error),
        }
    }

    /// Reads what a predecessor left, which stays.
    fn read(&mut self) -> Result<(), LockerError> {
        let mut left = BTreeMap::new();
        self.go_round(|_| true, None, |id, fds| drop(left.insert(id, fds)))?;
        self.live = left.keys().copied().collect();
        let last = self.live.last().map_or(0, |id| id.to_bits());
        self.next = last.saturating_add(1);
        self.left = left;
        Ok(())
    }

    /// Goes round the queue once: sends each packet for which `stays` is true again, with a descriptor replaced, and
    /// consumes it.
    fn go_round(
        &mut self,
        stays: impl Fn(FdId) -> bool,
        replacement: Option<Replacement<'_>>,
        mut stayed: impl FnMut(FdId, Vec<OwnedFd>),
    ) -> Result<(), LockerError> {
        // A packet without descriptors marks the end. One of a predecessor that died here is another one.
        let mut end = [0; 8];
        rustix::rand::getrandom(end.as_mut_slice(), GetRandomFlags::empty())?;
        self.send_packet(end, &[])?;
        let mut seen = HashSet::new();
        while let Some((bytes, fds)) = self.receive(RecvFlags::PEEK)? {
            let is_end = fds.is_empty() && bytes == end;
            let id = FdId::from_bits(u64::from_le_bytes(bytes)).filter(|_| !fds.is_empty());
            // A packet that a predecessor had sent again when it died comes twice.
            if let Some(id) = id.filter(|id| seen.insert(*id) && stays(*id)) {
                let mut packet: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                let replacement = replacement.as_ref().filter(|one| one.id == id);
                if let Some(one) = replacement {
                    let fd = packet.get_mut(one.index);
                    fd.into_iter().for_each(|fd| *fd = one.by);
                }
                self.send_packet(bytes, &packet)?;
                stayed(id, fds);
            }
            self.receive(RecvFlags::DONTWAIT)?;
            if is_end {
                break;
            }
        }
        Ok(())
    }

    /// The first packet, if there is one.
    ///
    /// # Errors
    /// If this process may open too few descriptors to look at it, which then stays.
    fn receive(&self, flags: RecvFlags) -> Result<Option<Packet>, LockerError> {
        let mut bytes = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.incoming, buffers, &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                received => break received?,
            }
        };
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if flags.contains(RecvFlags::PEEK) && received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(LockerError::Full);
        }
        Ok((received.bytes > 0).then_some((bytes, fds)))
    }
}
