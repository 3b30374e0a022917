// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Notifications to the service manager by sd_notify(3). Without `NOTIFY_SOCKET` they do nothing.

use std::fmt::{Display, Write as _};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use conventions::is_unprintable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use sd_notify::NotifyState;

/// Connected early: the sandbox allows no connect(2).
static MANAGER: OnceLock<Option<UnixDatagram>> = OnceLock::new();

/// Connects to the service manager, if there is one.
pub(crate) fn init() {
    let socket = connect().unwrap_or_else(|e| {
        log::debug!("cannot reach the service manager: {e}");
        None
    });
    // Only a second call could fail, and there is none.
    let _ = MANAGER.set(socket);
}

fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(None);
    };
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(Some(socket))
}

/// Whether a service manager is connected.
pub(crate) fn is_heard() -> bool {
    MANAGER.get().is_some_and(Option::is_some)
}

/// `READY=1`, with the first `STATUS=`.
pub(crate) fn ready(text: impl Display) {
    // The only notification that waits for a busy manager: without it the start fails.
    let text = line(text);
    let states = [NotifyState::Ready, NotifyState::Status(&text)];
    tell(&states, SendFlags::empty());
}

/// `STATUS=`. Returns `false` if it has to be sent again, see [`tell`].
#[must_use]
pub(crate) fn status(text: impl Display) -> bool {
    tell(&[NotifyState::Status(&line(text))], SendFlags::DONTWAIT)
}

/// `STOPPING=1`, with the last `STATUS=`. If it is lost, the manager still sees the process exit.
pub(crate) fn stopping(text: impl Display) {
    let text = line(text);
    let states = [NotifyState::Stopping, NotifyState::Status(&text)];
    tell(&states, SendFlags::DONTWAIT);
}

/// The name of the connection of a front-end that waits (`FDNAME=`, see [`keep`]).
pub(crate) const FRONT_END: &str = "front-end";

/// Whether the manager keeps file descriptors for the next start of the program (`FDSTORE`, from
/// `FileDescriptorStoreMax=`).
pub(crate) fn keeps_descriptors() -> bool {
    kept_descriptors() > 0
}

/// How many file descriptors the manager keeps.
pub(crate) fn kept_descriptors() -> usize {
    let limit = std::env::var("FDSTORE").ok();
    let limit = limit.and_then(|limit| limit.parse().ok());
    limit.filter(|_| is_heard()).unwrap_or(0)
}

/// Gives the manager a descriptor to keep for the next start (`FDSTORE=1`), named `name`. Waits for a busy manager.
///
/// # Errors
/// As `sendmsg(2)`; `NotConnected` without a manager.
pub(crate) fn keep(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    send_with(&format!("FDSTORE=1\nFDNAME={name}\n"), fd)
}

/// Tells the manager to drop the descriptors of this name (`FDSTOREREMOVE=1`). Waits for a busy manager.
pub(crate) fn forget_kept(name: &str) {
    tell(
        &[
            NotifyState::Custom("FDSTOREREMOVE=1"),
            NotifyState::Custom(&format!("FDNAME={name}")),
        ],
        SendFlags::empty(),
    );
}

/// Waits until the manager has read all notifications so far (`BARRIER=1`).
///
/// # Errors
/// If that takes longer than `limit`; as `pipe2(2)`, `sendmsg(2)` and `poll(2)`.
pub(crate) fn barrier(limit: Duration) -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    send_with("BARRIER=1\n", theirs.as_fd())?;
    drop(theirs);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        // The manager closes its end.
        let mut fds = [PollFd::new(&ours, PollFlags::empty())];
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Sends `text` with a descriptor. Waits for a busy manager.
fn send_with(text: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    let manager = MANAGER.get().and_then(Option::as_ref);
    let manager = manager.ok_or(io::ErrorKind::NotConnected)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let text = [IoSlice::new(text.as_bytes())];
    retry_on_intr(|| sendmsg(manager, &text, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// `WATCHDOG=1`. Returns `false` if it has to be sent again, see [`tell`].
#[must_use]
pub(crate) fn watchdog() -> bool {
    tell(&[NotifyState::Watchdog], SendFlags::DONTWAIT)
}

/// Interval of `WATCHDOG=1`: half of the unit's `WatchdogSec=`. None without a watchdog.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

/// When to send `WATCHDOG=1` again after the manager had no room for it: several times within the rest of
/// `WatchdogSec=`, which is twice `interval`.
pub(crate) fn watchdog_retry(interval: Duration) -> Duration {
    (interval / 5).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// `text` in one line. Each line of a notification is an assignment; a text may hold the name of an input device,
/// which must not assign anything.
fn line(text: impl Display) -> String {
    text.to_string().replace(is_unprintable, " ")
}

/// Sends `states`. Returns `false` if the manager had no room for them: it does not read at the moment, and another
/// try may succeed. Without a manager, or after it is gone, there is nothing to do.
fn tell(states: &[NotifyState<'_>], flags: SendFlags) -> bool {
    let Some(manager) = MANAGER.get().and_then(Option::as_ref) else {
        return true;
    };
    let mut message = String::new();
    for state in states {
        // Writing to a string does not fail.
        let _ = writeln!(message, "{state}");
    }
    match send(manager, message.as_bytes(), flags | SendFlags::NOSIGNAL) {
        Ok(_) => true,
        Err(e) => {
            log::debug!("cannot notify the service manager: {e}");
            !matches!(e, Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{line, watchdog_retry};

    #[test]
    fn status_text_is_one_line() {
        let name = "Keyboard\nMAINPID=1\r\u{85}\0";
        assert_eq!(line(name), "Keyboard MAINPID=1   ");
        assert_eq!(line("1920x1080 µ"), "1920x1080 µ");
    }

    #[test]
    fn lost_watchdog_message_is_sent_again_soon() {
        let soon = |interval| watchdog_retry(Duration::from_millis(interval)).as_millis();
        assert_eq!(soon(15_000), 1000);
        assert_eq!(soon(1000), 200);
        // A timer of 0 would be one that never expires.
        assert_eq!(soon(1), 1);
    }
}
