// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a device's events come from.

use std::io;
use std::os::fd::BorrowedFd;

use crate::backend::{DeviceContext, SandboxPolicy};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::{Bitmap, Event};

mod boxed;
pub(crate) mod evdev_source;
pub(crate) mod virtual_source;

/// The source of an input device's events: an evdev device, or a program that makes up events, such as
/// a console.
///
/// A source without hardware has no state of its own on the host: it needs neither
/// [`host_access`](Self::host_access) nor grab and ungrab, and its reads never fail. It hears of the
/// guest's LEDs by [`send`](Self::send).
///
/// All methods are called with the device locked, so none may block.
pub trait EventSource: Send + Sync + 'static {
    /// The device as its driver sees it, which never changes.
    fn info(&self) -> &DeviceInfo;

    /// How log messages name the source.
    fn label(&self) -> String;

    /// The file descriptor that is readable while there are events, the same one as long as the source
    /// is not gone; `None` while it is. Of a source with several descriptors, such as connections that
    /// come and go, an epoll descriptor that contains them.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Begins to listen for programs that send events, if there are to be any: the device calls
    /// [`accept`](Self::accept) after each event `token` of `context`. Called once, before all else.
    ///
    /// # Errors
    /// Those of [`DeviceContext::listen`].
    fn listen(&mut self, context: &DeviceContext, token: u16) -> io::Result<()> {
        let _ = (context, token);
        Ok(())
    }

    /// Accepts a program that waits, if one does.
    fn accept(&mut self) {}

    /// Whether events wait in the source, and its programs with them, until they are read: the device then
    /// reads no faster than the guest, and loses none.
    fn keeps_events(&self) -> bool {
        false
    }

    /// Appends the next events to `events`: whole reports in the end, each closed by `SYN_REPORT`.
    /// `SYN_DROPPED` says that events were lost, and that [`state`](Self::state) is to be read.
    ///
    /// # Errors
    /// `WouldBlock` if there are no events now, `Interrupted` to be called again. Any other kind means
    /// that the source is gone: the hardware was unplugged.
    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome>;

    /// What was recorded so far is valid (`Ledger::commit`), so that what
    /// it replaced is needed no longer. Between two [reads](Self::read) it is called once.
    fn committed(&mut self) {}

    /// What is pressed, switched and touched now, including events that are still to be read.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    fn state(&self) -> io::Result<DeviceState>;

    /// The LEDs that are on, before a guest gets the device. They are restored after it.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    fn leds(&self) -> io::Result<Bitmap> {
        Ok(Bitmap::default())
    }

    /// Sends `events` to the source: LEDs and sounds that the guest set, closed by `SYN_REPORT`.
    ///
    /// # Errors
    /// Those of `write(2)`.
    fn send(&mut self, events: &[Event]) -> io::Result<()>;

    /// What other programs of the host see of the events, which never changes.
    fn host_access(&self) -> HostAccess {
        HostAccess::None
    }

    /// Keeps the events from other programs of the host, for [`HostAccess::UntilGrab`]. Does nothing if it was called
    /// and not ended, also by a predecessor of this process.
    ///
    /// # Errors
    /// `ResourceBusy` if another process has grabbed the device.
    fn grab(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ends [`grab`](Self::grab), if it was called, also by a predecessor of this process.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    fn ungrab(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The descriptor that is readable when [`take_return`](Self::take_return) has an answer, the same
    /// one as long as the source exists; `None` if a source that is gone never comes back.
    fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Begins to wait for the hardware of a source that is gone. [`fd`](Self::fd) is no longer watched.
    fn await_return(&mut self) {}

    /// Whether the hardware is back. If it is, the source is as it was when it was new, but for
    /// [`fd`](Self::fd). If it `is_wanted` for a guest at once, hardware that
    /// another process has grabbed cannot be used.
    fn take_return(&mut self, is_wanted: bool) -> SourceReturn {
        let _ = is_wanted;
        SourceReturn::NotYet
    }

    /// What the source needs from the system once it is open.
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }
}

/// Whether a read has emptied the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// There are no more events now.
    Drained,
    /// There may be more events.
    MaybeMore,
}

/// Whether the hardware of a source that is gone is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceReturn {
    /// Nothing new is known.
    NotYet,
    /// It is.
    Back,
    /// Something came that cannot be used, for this reason. The wait goes on.
    Refused(String),
    /// It will not be noticed, for this reason.
    Never(String),
}

/// What other programs of the host see of a source's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAccess {
    /// Nothing: the events are made for the guest.
    None,
    /// All events, except while the device is grabbed for a guest.
    UntilGrab,
    /// All events, also while a guest has the device.
    Shared,
}
