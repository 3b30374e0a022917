// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of the front-end, received so that a successor goes on at any byte.
//!
//! Bytes and descriptors are looked at first (`MSG_PEEK`), and recorded. Only then they are taken out of the socket, by a call
//! that counts them in memory that outlives the process.

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};

use super::under_way::UnderWay;
use crate::backend::continuity::{Continuity, EndReason, IoSlot, Ledger, Locker, Owner, Slot};
use crate::backend::transport::forwarder::{FDS_MAX, PAYLOAD_MAX, ProxyError};
use crate::backend::transport::journal::{KeptFd, RecordError};
use crate::backend::transport::message_header::HEADER;

/// Longest message that the daemon serves. A longer one ends the connection, and needs no record.
const MAX_SERVED: usize = HEADER + 4096;

/// What became of the message under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// The front-end closed the connection.
    Closed,
    /// It was received.
    Whole,
}

/// A message of the front-end.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) kept: Vec<KeptFd>,
    /// How many of the last descriptors may be the next message's. That is known once all bytes are taken.
    doubtful: usize,
}

/// The message that is being received.
pub(super) struct Incoming {
    continuity: Continuity,
    ledger: Ledger,
    locker: Locker,
    slot: IoSlot,
    /// The count of bytes where it begins.
    start: u64,
    /// What is recorded of it.
    message: Message,
}

impl Incoming {
    pub(super) fn new(continuity: &Continuity) -> std::io::Result<Self> {
        let slot = continuity.slot(Slot::FrontEndIn)?;
        Ok(Self {
            continuity: continuity.clone(),
            ledger: continuity.ledger(Owner::Proxy),
            locker: continuity.locker(),
            start: slot.transferred(),
            slot,
            message: Message::default(),
        })
    }

    /// Goes on with a message that a predecessor recorded.
    ///
    /// # Errors
    /// If the record is damaged.
    pub(super) fn resume(
        &mut self,
        start: u64,
        kept: Vec<KeptFd>,
        bytes: Vec<u8>,
        doubtful: usize,
    ) -> Result<(), RecordError> {
        let consumed = self.slot.transferred().checked_sub(start);
        if consumed.is_none_or(|consumed| consumed > bytes.len() as u64) {
            return Err(RecordError::UnderWay);
        }
        let mut fds = Vec::new();
        let mut packets = kept.iter().map(|fd| fd.packet).collect::<Vec<_>>();
        packets.dedup();
        for packet in packets {
            fds.extend(self.locker.take(packet).ok_or(RecordError::Descriptor)?);
        }
        if fds.len() != kept.len() {
            return Err(RecordError::Descriptor);
        }
        self.start = start;
        self.message = Message {
            bytes,
            fds,
            kept,
            doubtful,
        };
        Ok(())
    }

    /// Whether nothing of a message was received.
    pub(super) fn is_empty(&self) -> bool {
        self.message.bytes.is_empty()
    }

    /// Length of the message, as far as known.
    fn length(&self) -> usize {
        HEADER + payload_size(&self.message.bytes).map_or(0, |size| size as usize)
    }

    /// Receives more of the message, and nothing of the next one.
    pub(super) fn receive(&mut self, front_end: &UnixStream) -> Result<Progress, ProxyError> {
        loop {
            match self.consume(front_end)? {
                Progress::Whole => self.settle_descriptors()?,
                other => return Ok(other),
            }
            let is_known = payload_size(&self.message.bytes).is_some();
            if is_known && self.message.bytes.len() >= self.length() {
                return Ok(Progress::Whole);
            }
            match self.look(front_end)? {
                Progress::Whole => self.record(),
                other => return Ok(other),
            }
        }
    }

    /// The message, which was received.
    pub(super) fn take(&mut self) -> Message {
        self.start = self.slot.transferred();
        std::mem::take(&mut self.message)
    }

    /// Takes what is recorded out of the socket.
    fn consume(&mut self, front_end: &UnixStream) -> Result<Progress, ProxyError> {
        loop {
            let consumed = self.slot.transferred().saturating_sub(self.start);
            let recorded = self.message.bytes.len() as u64;
            let left = recorded.saturating_sub(consumed) as usize;
            if left == 0 {
                return Ok(Progress::Whole);
            }
            let mut bytes = vec![0; left];
            let into = &mut [IoSliceMut::new(&mut bytes)];
            match self.slot.receive(front_end, into, RecvFlags::DONTWAIT) {
                Ok(0) | Err(Errno::CONNRESET) => return Ok(Progress::Closed),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Progress::Waiting),
                Err(error) => return Err(ProxyError::Receive(error.into())),
            }
        }
    }

    /// All that is recorded was taken, so the kernel has said whether descriptors came with it. Those that did not are of the
    /// next message, which brings them again.
    fn settle_descriptors(&mut self) -> Result<(), ProxyError> {
        let doubtful = std::mem::take(&mut self.message.doubtful);
        if doubtful > 0 && !self.slot.brought_descriptors() {
            let Message { fds, kept, .. } = &mut self.message;
            fds.truncate(fds.len().saturating_sub(doubtful));
            let theirs = kept.split_off(kept.len().saturating_sub(doubtful));
            self.record();
            let packets: BTreeSet<_> = theirs.iter().map(|fd| fd.packet).collect();
            packets.into_iter().for_each(|id| self.locker.forget(id));
        }
        match self.message.fds.len() > FDS_MAX {
            true => Err(ProxyError::TooManyFds),
            false => Ok(()),
        }
    }

    /// Looks at more of the message, which stays in the socket.
    fn look(&mut self, front_end: &UnixStream) -> Result<Progress, ProxyError> {
        let have = self.message.bytes.len();
        if have == 0 {
            // The header, and then the message as far as it is there.
            self.start = self.slot.transferred();
            let (header, _) = match peek(front_end, HEADER)? {
                Peeked::Some { bytes, fds, .. } => (bytes, fds),
                Peeked::Nothing => return Ok(Progress::Waiting),
                Peeked::Closed => return Ok(Progress::Closed),
            };
            if let Some(size) = payload_size(&header) {
                check_size(size)?;
                return self.look_at(front_end, HEADER + size as usize);
            }
        }
        self.look_at(front_end, self.length().saturating_sub(have))
    }

    fn look_at(&mut self, front_end: &UnixStream, len: usize) -> Result<Progress, ProxyError> {
        let (bytes, fds, is_followed) = match peek(front_end, len)? {
            Peeked::Some {
                bytes,
                fds,
                is_followed,
            } => (bytes, fds, is_followed),
            Peeked::Nothing => return Ok(Progress::Waiting),
            Peeked::Closed => return Ok(Progress::Closed),
        };
        self.message.bytes.extend(bytes);
        self.keep(&fds);
        self.message.doubtful = if is_followed { fds.len() } else { 0 };
        self.message.fds.extend(fds);
        if let Some(size) = payload_size(&self.message.bytes) {
            check_size(size)?;
        }
        Ok(Progress::Whole)
    }

    fn keep(&mut self, fds: &[OwnedFd]) {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        match self.locker.keep(&borrowed) {
            Ok(Some(packet)) => {
                let indices = (0_u8..).take(fds.len());
                let kept = indices.map(|index| KeptFd { packet, index });
                self.message.kept.extend(kept);
            }
            Ok(None) => {}
            Err(error) => self.continuity.end(error.end_reason()),
        }
    }

    fn record(&self) {
        if self.length() > MAX_SERVED {
            self.continuity.end(EndReason::Over);
            return;
        }
        let under_way = UnderWay::Received {
            start: self.start,
            fds: self.message.kept.clone(),
            bytes: self.message.bytes.clone(),
            doubtful: self.message.doubtful,
        };
        under_way.put(&self.ledger);
        self.ledger.commit();
    }
}

/// Has the kernel pass nothing with the bytes of `socket` but descriptors, whatever its listener was set to: else it would not
/// say whether these came ([`IoSlot::brought_descriptors`]).
///
/// # Errors
/// As `setsockopt(2)`, but not if the kernel does not know an option.
pub(super) fn pass_descriptors_only(socket: &UnixStream) -> std::io::Result<()> {
    let off: libc::c_int = 0;
    for option in [libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_PASSPIDFD] {
        // SAFETY: the value is an integer, which lives until the call returns.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const off).cast(),
                size_of_val(&off) as libc::socklen_t,
            )
        };
        if set != 0 {
            match std::io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
                error => return Err(error),
            }
        }
    }
    Ok(())
}

fn payload_size(bytes: &[u8]) -> Option<u32> {
    let header = bytes.first_chunk::<HEADER>()?;
    let (_, size) = header.split_last_chunk::<4>()?;
    Some(u32::from_ne_bytes(*size))
}

fn check_size(size: u32) -> Result<(), ProxyError> {
    match size > PAYLOAD_MAX {
        true => Err(ProxyError::TooLarge(size)),
        false => Ok(()),
    }
}

enum Peeked {
    Some {
        bytes: Vec<u8>,
        fds: Vec<OwnedFd>,
        /// Further bytes are there. The descriptors may be theirs.
        is_followed: bool,
    },
    Nothing,
    Closed,
}

/// Looks at up to `len` bytes, and at the descriptors that come with them. It stops behind bytes with descriptors.
fn peek(socket: &UnixStream, len: usize) -> Result<Peeked, ProxyError> {
    // The kernel looks on for descriptors where it has no room for bytes any more, and gives those of later bytes. Where it leaves
    // the room for one byte, there are none. Where it does not, bytes and descriptors may also have been sent by one call.
    let mut bytes = vec![0; len.saturating_add(1)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let message = match net::recvmsg(socket, into, &mut control, flags) {
        Ok(message) if message.bytes == 0 => return Ok(Peeked::Closed),
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Peeked::Nothing),
        Err(Errno::CONNRESET) => return Ok(Peeked::Closed),
        Err(e) => return Err(ProxyError::Receive(e.into())),
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(ProxyError::TooManyFds);
    }
    bytes.truncate(message.bytes.min(len));
    Ok(Peeked::Some {
        bytes,
        fds,
        is_followed: message.bytes > len,
    })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    fn send(socket: &UnixStream, bytes: &[u8], fd: Option<&UnixStream>) {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let sent = net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        );
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// Bytes, descriptors, and whether these are in doubt.
    fn seen(socket: &UnixStream, len: usize) -> (Vec<u8>, usize, bool) {
        match peek(socket, len) {
            Ok(Peeked::Some {
                bytes,
                fds,
                is_followed,
            }) => (bytes, fds.len(), is_followed && !fds.is_empty()),
            _ => (Vec::new(), 0, false),
        }
    }

    #[test]
    fn descriptors_are_in_doubt_only_where_more_bytes_follow() {
        let (front_end, socket) = UnixStream::pair().unwrap();
        // As QEMU sends SET_FEATURES and SET_MEM_TABLE, which it does not wait between.
        send(&front_end, b"features", None);
        send(&front_end, b"memory", Some(&front_end));
        for len in [3, 7, 8] {
            let begin = b"features"[..len].to_vec();
            assert_eq!(seen(&socket, len), (begin, 1, true));
        }
        let mut features = [0; 8];
        std::io::Read::read_exact(&mut &socket, &mut features).unwrap();
        assert_eq!(seen(&socket, 6), (b"memory".to_vec(), 1, false));
        // A header with descriptors, before its payload.
        send(&front_end, b"more", None);
        assert_eq!(seen(&socket, 10), (b"memory".to_vec(), 1, false));
        // Two messages that were sent by one call.
        assert_eq!(seen(&socket, 3), (b"mem".to_vec(), 1, true));
    }
}
