// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Transfers that are counted by the kernel, in memory that outlives the process.
//!
//! `sendmmsg(2)` and `recvmmsg(2)` write how many bytes they transferred into the message's header in the caller's memory,
//! before they return. Here that header is in shared memory: a process cannot die between a transfer and its record.

use std::io::{IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::crash;
use super::layout;
use super::shared_memory::SharedMemory;

/// Most descriptors that are sent with a message.
const MAX_FDS: usize = 32;

/// What a slot counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Requests of the front-end.
    FrontEndIn,
    /// Replies to the front-end.
    FrontEndOut,
    /// Replies of the VMM's display.
    DisplayIn,
    /// Messages to the VMM's display.
    DisplayOut,
    /// Messages to the front-end by the channel of its own (`VHOST_USER_SET_BACKEND_REQ_FD`).
    ChannelOut,
    /// Answers to these.
    ChannelIn,
    /// Events of a client of a virtual input device, below [`Slot::EVENTS_CLIENTS`].
    EventsClient(u8),
}

impl Slot {
    /// How many clients have a slot.
    pub(crate) const EVENTS_CLIENTS: u8 = 16;

    fn index(self) -> u64 {
        match self {
            Self::FrontEndIn => 0,
            Self::FrontEndOut => 1,
            Self::DisplayIn => 2,
            Self::DisplayOut => 3,
            Self::ChannelOut => 4,
            Self::ChannelIn => 5,
            Self::EventsClient(client) => 8 + u64::from(client % Self::EVENTS_CLIENTS),
        }
    }
}

const _: () = assert!(8 + Slot::EVENTS_CLIENTS as u64 <= layout::SLOTS);

/// A transfer: how many bytes were transferred before it, and the header into which the kernel writes how many it
/// transferred.
#[repr(C)]
struct Transfer {
    before: AtomicU64,
    message: libc::mmsghdr,
}

/// A slot. The half that `selected` names is the last transfer; the next one is prepared in the other half.
#[repr(C)]
struct Halves {
    selected: AtomicU32,
    halves: [Transfer; 2],
}

const _: () = assert!(size_of::<Halves>() as u64 <= layout::SLOT_LEN);

/// A stream's transfers in one direction, counted over all processes that made them.
#[derive(Debug)]
pub(crate) struct IoSlot {
    memory: Arc<SharedMemory>,
    at: u64,
    /// The shared buffer.
    buffer: u64,
}

impl IoSlot {
    pub(super) fn new(memory: Arc<SharedMemory>, slot: Slot) -> Self {
        let index = slot.index();
        Self {
            memory,
            at: layout::AT_SLOTS + index * layout::SLOT_LEN,
            buffer: layout::AT_BUFFERS + index * layout::BUFFER_LEN,
        }
    }

    fn selected(&self) -> u32 {
        let at = self.at + offset_of!(Halves, selected) as u64;
        let selected = self.memory.u32(at);
        selected.map_or(0, |selected| selected.load(Ordering::Acquire) & 1)
    }

    fn half(&self, index: u32) -> u64 {
        self.at
            + offset_of!(Halves, halves) as u64
            + u64::from(index) * size_of::<Transfer>() as u64
    }

    fn before(&self, index: u32) -> Option<&AtomicU64> {
        let at = self.half(index) + offset_of!(Transfer, before) as u64;
        self.memory.u64(at)
    }

    /// The kernel's count of the transfer.
    fn count(&self, index: u32) -> Option<&AtomicU32> {
        let message = self.half(index) + offset_of!(Transfer, message) as u64;
        let at = message + offset_of!(libc::mmsghdr, msg_len) as u64;
        self.memory.u32(at)
    }

    /// Bytes of all transfers ever. It is never reset: a stream remembers with which number it began.
    pub(crate) fn transferred(&self) -> u64 {
        let selected = self.selected();
        let before = self.before(selected);
        let before = before.map_or(0, |before| before.load(Ordering::Acquire));
        before.saturating_add(self.last_count().into())
    }

    fn last_count(&self) -> u32 {
        let count = self.count(self.selected());
        count.map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Makes `header` the next transfer, with a count of 0, and returns its address.
    fn prepare(&mut self, header: libc::msghdr) -> Option<*mut libc::mmsghdr> {
        crash::point();
        let total = self.transferred();
        let next = 1 - self.selected();
        let message = self.half(next) + offset_of!(Transfer, message) as u64;
        let address = self.memory.address(message, size_of::<libc::mmsghdr>())?;
        let address = address.cast::<libc::mmsghdr>();
        self.before(next)?.store(total, Ordering::Release);
        // SAFETY: the structure is within the mapping and aligned (its offset and the mapping are), and the kernel uses it
        // only during the calls below.
        unsafe {
            ptr::addr_of_mut!((*address).msg_hdr).write_volatile(header);
        }
        self.count(next)?.store(0, Ordering::Release);
        let at = self.at + offset_of!(Halves, selected) as u64;
        self.memory.u32(at)?.store(next, Ordering::Release);
        Some(address)
    }

    /// Sends what can be sent of `bytes`, with descriptors.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub(crate) fn send(
        &mut self,
        socket: impl AsFd,
        bytes: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<usize, Errno> {
        let mut control = RightsBuffer::new();
        let mut header = header();
        // The kernel only reads these.
        header.msg_iov = bytes.as_ptr().cast_mut().cast();
        header.msg_iovlen = bytes.len().min(libc::UIO_MAXIOV as usize) as _;
        control.attach(fds, &mut header)?;
        let socket = socket.as_fd().as_raw_fd();
        let message = self.prepare(header).ok_or(Errno::FAULT)?;
        let flags = flags.bits() as i32;
        loop {
            // SAFETY: the header's pointers are to `bytes` and `control`, which live until the call returns.
            let sent = unsafe { libc::sendmmsg(socket, message, 1, flags) };
            match sent {
                1.. => return Ok(self.last_count() as usize),
                _ => match last_errno() {
                    Errno::INTR => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Receives into `buffers`; 0 at the end of the stream. Descriptors that come with the bytes are closed.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
        buffers: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> Result<usize, Errno> {
        let mut header = header();
        header.msg_iov = buffers.as_mut_ptr().cast();
        header.msg_iovlen = buffers.len().min(libc::UIO_MAXIOV as usize) as _;
        let message = self.prepare(header).ok_or(Errno::FAULT)?;
        self.call_receive(socket.as_fd(), message, flags)
    }

    /// Receives up to `max` bytes (4096 at most) into the slot's shared buffer, see [`IoSlot::shared_bytes`]; 0 at the end
    /// of the stream. Descriptors that come with the bytes are closed.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub(crate) fn receive_shared(
        &mut self,
        socket: impl AsFd,
        max: usize,
        flags: RecvFlags,
    ) -> Result<usize, Errno> {
        let len = max.min(layout::BUFFER_LEN as usize);
        let buffer = self.memory.address(self.buffer, len).ok_or(Errno::FAULT)?;
        let mut into = libc::iovec {
            iov_base: buffer.cast(),
            iov_len: len,
        };
        let mut header = header();
        header.msg_iov = &raw mut into;
        header.msg_iovlen = 1;
        let message = self.prepare(header).ok_or(Errno::FAULT)?;
        let received = self.call_receive(socket.as_fd(), message, flags);
        crash::point();
        received
    }

    fn call_receive(
        &mut self,
        socket: BorrowedFd<'_>,
        message: *mut libc::mmsghdr,
        flags: RecvFlags,
    ) -> Result<usize, Errno> {
        let flags = flags.bits() as i32;
        loop {
            // SAFETY: the header's pointers are to what the callers receive into, which live until the call returns.
            let received =
                unsafe { libc::recvmmsg(socket.as_raw_fd(), message, 1, flags, ptr::null_mut()) };
            match received {
                1.. => return Ok(self.last_count() as usize),
                // A TCP or Unix stream at its end is one message of 0 bytes; other kinds may give none.
                0 => return Ok(0),
                _ => match last_errno() {
                    Errno::INTR => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Whether descriptors came with the bytes that were received last, also by a predecessor. The kernel says so in the
    /// message's flags (`MSG_CTRUNC`, since there is no room for them), which it writes before the count.
    ///
    /// Meaningless on a socket that passes something else, too, such as `SO_PASSCRED`.
    pub(crate) fn brought_descriptors(&self) -> bool {
        let message = self.half(self.selected()) + offset_of!(Transfer, message) as u64;
        let at = message
            + offset_of!(libc::mmsghdr, msg_hdr) as u64
            + offset_of!(libc::msghdr, msg_flags) as u64;
        let flags = self.memory.u32(at);
        let flags = flags.map_or(0, |flags| flags.load(Ordering::Acquire));
        self.last_count() > 0 && flags as libc::c_int & libc::MSG_CTRUNC != 0
    }

    /// What [`IoSlot::receive_shared`] received last, also if a predecessor called it: the last bytes before
    /// [`IoSlot::transferred`].
    pub(crate) fn shared_bytes(&self) -> Vec<u8> {
        let len = (self.last_count() as usize).min(layout::BUFFER_LEN as usize);
        self.memory.read(self.buffer, len).unwrap_or_default()
    }
}

fn header() -> libc::msghdr {
    // SAFETY: all fields are numbers and pointers, for which zeros are valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn last_errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// A control message with descriptors.
struct RightsBuffer {
    /// Aligned as a control message.
    space: [u64; 8 + MAX_FDS],
}

impl RightsBuffer {
    fn new() -> Self {
        Self {
            space: [0; 8 + MAX_FDS],
        }
    }

    fn attach(&mut self, fds: &[BorrowedFd<'_>], header: &mut libc::msghdr) -> Result<(), Errno> {
        if fds.is_empty() {
            return Ok(());
        }
        if fds.len() > MAX_FDS {
            return Err(Errno::TOOMANYREFS);
        }
        let len = size_of_val(fds) as u32;
        header.msg_control = self.space.as_mut_ptr().cast();
        // SAFETY: these only compute.
        let (space, cmsg_len) = unsafe { (libc::CMSG_SPACE(len), libc::CMSG_LEN(len)) };
        header.msg_controllen = space as _;
        // SAFETY: the buffer has room for `space` bytes: 32 descriptors and a header.
        unsafe {
            let cmsg = libc::CMSG_FIRSTHDR(header);
            (*cmsg).cmsg_level = libc::SOL_SOCKET;
            (*cmsg).cmsg_type = libc::SCM_RIGHTS;
            (*cmsg).cmsg_len = cmsg_len as _;
            // A `BorrowedFd` is a `c_int` in memory.
            let data = libc::CMSG_DATA(cmsg);
            ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, len as usize);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
