// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A request that is sent in two parts, so that the front-end gets it only while it runs the device.
//!
//! QEMU 11.1 crashes if it reads a request after it stopped the device, and nobody can take back what is in its socket
//! (tried). It reads a request at once and to its end, though, and stops no device meanwhile. So it is sent the first byte.
//! Once that is read, and no message came that stops the device, it runs the device until it has read the rest. If such a
//! message comes first, the rest makes a request of it that QEMU does not know and ignores.

use std::ffi::c_int;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::{Errno, retry_on_intr};
use rustix::ioctl::{Getter, ioctl};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::Timespec;

use super::message::{Request, VERSION};

/// The bytes that the front-end has not read yet (`SIOCOUTQ`).
const SIOCOUTQ: rustix::ioctl::Opcode = libc::TIOCOUTQ as _;

/// The channel's socket, and news of what the front-end read from it.
pub(super) struct OfferSocket {
    socket: Arc<OwnedFd>,
    /// Readable when the front-end has read since [`OfferSocket::offer`], whether there was room before or not.
    read: OwnedFd,
}

/// A request of which the front-end was sent the first byte.
pub(super) struct Offer {
    pub(super) request: Request,
    rest: Vec<u8>,
}

impl OfferSocket {
    /// # Errors
    /// If the host has no descriptors left.
    pub(super) fn new(socket: Arc<OwnedFd>) -> Result<Self, Errno> {
        let read = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&read, &socket, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { socket, read })
    }

    /// Sends the first byte of a request, with its file.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub(super) fn offer(&self, request: Request, flags: u32) -> Result<Offer, Errno> {
        let mut first = request.bytes(flags);
        let rest = first.split_off(1);
        // From here on it is readable only for what is read.
        let mut events = Vec::with_capacity(1);
        epoll::wait(
            &self.read,
            spare_capacity(&mut events),
            Some(&Timespec::try_from(Duration::ZERO).unwrap_or_default()),
        )?;
        send(&self.socket, &first, request.file().map(AsFd::as_fd))?;
        Ok(Offer { request, rest })
    }

    /// Whether the front-end has read all that it was sent.
    pub(super) fn is_read(&self) -> bool {
        // SAFETY: `SIOCOUTQ` writes an int, and changes nothing.
        let unread = unsafe { ioctl(&self.socket, Getter::<SIOCOUTQ, c_int>::new()) };
        unread == Ok(0)
    }

    /// Sends the rest of a request.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub(super) fn finish(&self, offer: Offer) -> Result<Request, Errno> {
        send(&self.socket, &offer.rest, None)?;
        Ok(offer.request)
    }

    /// Sends another rest, so that the front-end does nothing.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub(super) fn take_back(&self, offer: Offer) -> Result<Request, Errno> {
        let unknown = offer.request.number() | 1 << 8;
        let header = [unknown, VERSION, 0].map(u32::to_le_bytes);
        let rest = header.as_flattened().get(1..).unwrap_or_default();
        send(&self.socket, rest, None)?;
        Ok(offer.request)
    }
}

/// What to poll for news of [`OfferSocket::is_read`].
impl AsFd for OfferSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Sends bytes, and a descriptor with the first.
fn send(socket: &OwnedFd, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = retry_on_intr(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = file.as_slice();
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
    });
    match sent? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}
