// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the host asks for a source that a guest has, and gives it again: a chord on the keyboard, signals, and a group of
//! devices that change hands together. [`Ownership`](super::ownership::Ownership) does what is asked.

mod chord;
mod group;
mod requests;
#[cfg(test)]
mod tests;

pub(super) use chord::ChordWatch;
pub use chord::GrabToggle;
pub(super) use requests::{AskedBy, HostRequests};

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use signal_hook::consts::{SIGURG, SIGWINCH};

use crate::backend::continuity::{Continuity, Ledger};
use crate::backend::{DeviceContext, EventSet, SandboxMode};
use crate::input::records::RecordError;

use super::watched_fds::{GRAB, GROUP, RELEASE};
use group::GrabGroup;
pub use group::GroupError;

/// The signal that asks for the source. Like the other one it does no harm to a program that does not know it, such as
/// one of an older version: by default it is ignored.
const RELEASE_SIGNAL: i32 = SIGURG;
/// The signal that gives the source to the guest again.
const GRAB_SIGNAL: i32 = SIGWINCH;

/// How the host may ask for a device that a guest has.
#[derive(Clone, Debug, Default)]
pub struct GrabOptions {
    /// The chord that toggles who has the device, if it is a keyboard.
    pub toggle: Option<GrabToggle>,
    /// The file that exists while the devices of a group are released; those that name the same file change hands together.
    pub group: Option<PathBuf>,
    /// The sandbox of the process that watches the file.
    pub sandbox: SandboxMode,
}

/// What the host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrabRequest {
    /// The guest is to have the source.
    Grab,
    /// The host is to have it.
    Release(ReleasedBy),
}

/// Who released a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleasedBy {
    /// The chord, which also gives it again.
    Chord,
    /// A command: the chord does not give it again, so that of several guests that use a device by turns only the
    /// last one gets it.
    Command,
}

/// Where requests of the host come from, beside the source itself. The default: from nowhere.
#[derive(Debug, Default)]
pub struct GrabControl {
    toggle: Option<GrabToggle>,
    signals: Option<Signals>,
    group: Option<GrabGroup>,
}

/// Why requests of the host cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum GrabControlError {
    /// The host has no descriptors left.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] io::Error),
    /// The group does not work.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Each is readable after a signal.
#[derive(Debug)]
struct Signals {
    release: UnixStream,
    grab: UnixStream,
}

impl GrabControl {
    /// Hears the signals from now on, unless a terminal sends one of them, and the group.
    ///
    /// Only for [`Program::open`](crate::backend::Program::open), after all other helpers were started: they would
    /// inherit what happens at the signals.
    ///
    /// # Errors
    /// If the folder of the group's file cannot be watched, or the host has no descriptors left.
    pub fn new(options: &GrabOptions, continuity: &Continuity) -> Result<Self, GrabControlError> {
        let group = options.group.as_deref();
        let group = group.map(|file| {
            let is_resumed = continuity.is_resumed();
            GrabGroup::join(file, options.sandbox, is_resumed)
        });
        let group = group.transpose()?;
        let signals = (!has_terminal()).then(Signals::hear).transpose()?;
        Ok(Self {
            toggle: options.toggle,
            signals,
            group,
        })
    }

    /// Hears only the group of `file`, as the process that goes on where another died.
    #[cfg(test)]
    pub(super) fn of_resumed_group(file: &std::path::Path) -> Result<Self, GroupError> {
        Ok(Self {
            group: Some(GrabGroup::join(file, SandboxMode::Off, true)?),
            ..Self::default()
        })
    }

    /// Hears only the chord.
    #[cfg(test)]
    pub(super) fn of_chord(toggle: GrabToggle) -> Self {
        Self {
            toggle: Some(toggle),
            ..Self::default()
        }
    }

    /// Watches for the chord, as a predecessor did.
    pub(super) fn chord_watch(&self, ledger: &Ledger) -> Result<ChordWatch, RecordError> {
        ChordWatch::load(self.toggle, ledger)
    }

    /// What the group says at first.
    pub(super) fn first_request(&self) -> Option<GrabRequest> {
        self.group.as_ref().and_then(GrabGroup::first)
    }

    /// The worker watches for requests from now on.
    pub(super) fn watch(&self, context: &DeviceContext) -> io::Result<()> {
        if let Some(signals) = &self.signals {
            context.watch(signals.release.as_fd(), EventSet::IN, RELEASE)?;
            context.watch(signals.grab.as_fd(), EventSet::IN, GRAB)?;
        }
        if let Some(group) = &self.group {
            context.watch(group.as_fd(), EventSet::IN, GROUP)?;
        }
        Ok(())
    }

    /// The request that raised `token`.
    pub(super) fn take(&mut self, token: u16, context: &DeviceContext) -> Option<GrabRequest> {
        let signals = self.signals.as_ref();
        match token {
            RELEASE => signals
                .is_some_and(|signals| is_signalled(&signals.release))
                .then_some(GrabRequest::Release(ReleasedBy::Command)),
            GRAB => signals
                .is_some_and(|signals| is_signalled(&signals.grab))
                .then_some(GrabRequest::Grab),
            GROUP => self.next_of_group(context),
            _ => None,
        }
    }

    fn next_of_group(&mut self, context: &DeviceContext) -> Option<GrabRequest> {
        let group = self.group.as_ref()?;
        let error = match group.next() {
            Ok(request) => return request,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => error,
        };
        log::error!("from now on this device does not change hands with its group: {error}");
        let unwatched = context.unwatch(group.as_fd());
        unwatched.unwrap_or_else(|error| log::debug!("cannot stop watching: {error}"));
        self.group = None;
        None
    }

    /// Passes a request on to the group.
    pub(super) fn tell_group(&self, request: GrabRequest) {
        if let Some(group) = &self.group {
            group.tell(request);
        }
    }
}

impl Signals {
    fn hear() -> io::Result<Self> {
        Ok(Self {
            release: pipe(RELEASE_SIGNAL)?,
            grab: pipe(GRAB_SIGNAL)?,
        })
    }
}

/// Whether this process has a controlling terminal, as one that was started in a shell: the kernel sends it
/// [`GRAB_SIGNAL`] whenever the terminal's size changes. A service has none.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// A stream that is readable after `signal`.
fn pipe(signal: i32) -> io::Result<UnixStream> {
    let (signals, signalled) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, signalled)?;
    Ok(signals)
}

fn is_signalled(mut signals: &UnixStream) -> bool {
    let mut signalled = false;
    while matches!(signals.read(&mut [0; 64]), Ok(1..)) {
        signalled = true;
    }
    signalled
}
