// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A new render server in place of one that ended: the library is closed and initialised again with a new connection. None of
//! this is waited for, except by a context that is created meanwhile, for a short time.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connector::Connector;
use super::fences::RetiredFences;
use super::library::Library;
use super::library_thread::{CallError, LibraryEnd, LibraryThread, PATIENCE, StartingLibrary};
use super::render_server::RenderServer;
use crate::gpu::renderer::virglrenderer::Refused;

/// Initialises the library with a connection to a render server.
pub(super) type OpenLibrary =
    dyn Fn(OwnedFd, Arc<RetiredFences>) -> Result<Library, Refused> + Send + Sync;

/// For how long a context that is created waits for a new server.
pub(super) const CONTEXT_PATIENCE: Duration = Duration::from_secs(2);
/// A context that no guest has: by it, a new server shows that it answers.
const PROBE: u32 = u32::MAX;

/// When the next server may be started: later after each one, unless one ran for long.
#[derive(Debug)]
struct Backoff {
    not_before: Instant,
    delay: Duration,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(64);
    /// A server that ran so long is not one that ends at each start.
    const STEADY: Duration = Duration::from_secs(60);

    fn new(now: Instant) -> Self {
        Self {
            not_before: now,
            delay: Duration::ZERO,
        }
    }

    /// Whether a server may be started now. It counts as started then.
    fn begin(&mut self, now: Instant) -> bool {
        if now < self.not_before {
            return false;
        }
        self.delay = (2 * self.delay).clamp(Self::SHORTEST, Self::LONGEST);
        self.not_before = now + self.delay;
        true
    }

    /// A server ends that has answered since `since`.
    fn lost(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= Self::STEADY {
            *self = Self::new(now);
        }
    }
}

/// How far it is.
#[derive(Debug)]
enum Progress {
    /// Nothing is under way.
    None,
    /// The connector has its order.
    Connecting,
    /// The library is being initialised, with this server.
    Starting(StartingLibrary, RenderServer, Instant),
}

/// A new library, and the server at its other end.
pub(super) struct Renewed {
    pub(super) library: LibraryThread,
    pub(super) server: RenderServer,
}

/// Renews the render server.
pub(super) struct Renewal {
    /// `None` once it has ended.
    connector: Option<Connector>,
    open: Arc<OpenLibrary>,
    retired: Arc<RetiredFences>,
    progress: Progress,
    backoff: Backoff,
    /// Since when the last server has answered.
    since: Instant,
    /// The library before, which has to clean up first.
    last: Option<LibraryEnd>,
    /// Whether a context has waited for what is under way.
    has_waited: bool,
}

impl Renewal {
    /// For a server that answers now.
    pub(super) fn new(
        connector: Connector,
        open: Arc<OpenLibrary>,
        retired: Arc<RetiredFences>,
    ) -> Self {
        let now = Instant::now();
        Self {
            connector: Some(connector),
            open,
            retired,
            progress: Progress::None,
            backoff: Backoff::new(now),
            since: now,
            last: None,
            has_waited: false,
        }
    }

    /// For what no other process does.
    pub(super) fn impossible(retired: Arc<RetiredFences>) -> Self {
        let now = Instant::now();
        Self {
            connector: None,
            open: Arc::new(|_, _| Err(Refused::INVALID)),
            retired,
            progress: Progress::None,
            backoff: Backoff::new(now),
            since: now,
            last: None,
            has_waited: false,
        }
    }

    /// Readable when [`Renewal::advance`] should be called, beside the event of retired fences.
    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd as _;
        self.connector.as_ref().map(Connector::as_fd)
    }

    /// Whether there can be a new server, now or later.
    pub(super) fn is_possible(&self) -> bool {
        self.connector.is_some()
    }

    /// The server has ended, whose library ends too.
    pub(super) fn lost(&mut self, library: LibraryEnd) {
        self.last = Some(library);
        self.backoff.lost(self.since, Instant::now());
        self.begin();
    }

    /// Begins, if it is time and nothing is under way.
    pub(super) fn begin(&mut self) {
        let Progress::None = self.progress else {
            return;
        };
        let Some(connector) = &self.connector else {
            return;
        };
        if !self.backoff.begin(Instant::now()) {
            return;
        }
        self.has_waited = false;
        match connector.order() {
            Ok(()) => self.progress = Progress::Connecting,
            Err(error) => self.connector_ended(&error),
        }
    }

    /// Goes on with what is under way, without waiting. Returns a server that answers.
    pub(super) fn advance(&mut self) -> Option<Renewed> {
        self.receive();
        self.started(Duration::ZERO)
    }

    /// As [`Renewal::advance`], and waits for a time, once for each server.
    pub(super) fn wait(&mut self) -> Option<Renewed> {
        let renewed = self.advance();
        let nothing = matches!(self.progress, Progress::None);
        if renewed.is_some() || nothing || std::mem::replace(&mut self.has_waited, true) {
            return renewed;
        }
        let deadline = Instant::now() + CONTEXT_PATIENCE;
        if let (Progress::Connecting, Some(connector)) = (&self.progress, &self.connector) {
            let mut fds = [PollFd::new(connector, PollFlags::IN)];
            let within = Timespec::try_from(CONTEXT_PATIENCE).unwrap_or_default();
            // Nothing ready is nothing to receive.
            let _ = poll(&mut fds, Some(&within));
            self.receive();
        }
        self.started(deadline.saturating_duration_since(Instant::now()))
    }

    /// Takes the connector's answer.
    fn receive(&mut self) {
        let Some(connector) = &self.connector else {
            return;
        };
        let connected = match connector.answer() {
            Ok(None) => return,
            Ok(Some(connected)) => connected,
            Err(error) => return self.connector_ended(&error),
        };
        // Nothing is under way if it was given up.
        if !matches!(self.progress, Progress::Connecting) {
            return;
        }
        self.progress = Progress::None;
        let started = connected.and_then(|connection| self.start(connection));
        match started {
            Ok(starting) => self.progress = starting,
            Err(error) => log::warn!("there is no new render server: {error}"),
        }
    }

    fn connector_ended(&mut self, error: &io::Error) {
        log::error!(
            "no new render server can be had until the VM is started again: the connector has ended: {error}"
        );
        self.connector = None;
        if let Progress::Connecting = self.progress {
            self.progress = Progress::None;
        }
    }

    /// Initialises the library, which also finds out whether the server answers.
    fn start(&mut self, connection: OwnedFd) -> io::Result<Progress> {
        let server = RenderServer::new(connection.try_clone()?);
        let open = Arc::clone(&self.open);
        let last = self.last.clone();
        let opened = move |retired: Arc<RetiredFences>| {
            if !last.is_none_or(|last| last.wait(PATIENCE)) {
                return Err(Refused::BUSY);
            }
            let mut library = open(connection, retired)?;
            library.create_context(PROBE, b"")?;
            library.destroy_context(PROBE);
            Ok(library)
        };
        let starting = LibraryThread::start(Arc::clone(&self.retired), true, opened)?;
        self.last = Some(starting.end());
        Ok(Progress::Starting(starting, server, Instant::now()))
    }

    /// The server, if it answers within this time.
    fn started(&mut self, within: Duration) -> Option<Renewed> {
        let progress = std::mem::replace(&mut self.progress, Progress::None);
        let Progress::Starting(starting, server, began) = progress else {
            self.progress = progress;
            return None;
        };
        let why = match starting.wait(within) {
            Ok(Ok(library)) => {
                self.since = Instant::now();
                return Some(Renewed { library, server });
            }
            Ok(Err(CallError::Refused(Refused::BUSY))) => {
                "cannot be used: virglrenderer still waits for the last one"
            }
            Ok(Err(CallError::Refused(_))) => "ends, or refuses a context",
            Ok(Err(CallError::Stuck)) => "does not start",
            Err(starting) if began.elapsed() < PATIENCE => {
                self.progress = Progress::Starting(starting, server, began);
                return None;
            }
            Err(_) => {
                // The thread ends with this, and the next attempt can be made.
                server.shut_down();
                "does not answer"
            }
        };
        log::warn!("the new render server {why}; the next one is tried when a program needs it");
        None
    }
}

impl Drop for Renewal {
    /// Ends what is under way, but does not wait long for it.
    fn drop(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(100);
        let progress = std::mem::replace(&mut self.progress, Progress::None);
        if let Progress::Starting(starting, server, _) = progress {
            server.shut_down();
            let end = starting.end();
            drop(starting);
            end.wait(PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_end_soon_are_started_ever_less_often() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start);
        let mut begun = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            if backoff.begin(now) {
                begun.push(second);
            }
            backoff.lost(now, now + Duration::from_millis(500));
        }
        assert_eq!(begun, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
    }

    #[test]
    fn server_that_ran_for_long_is_followed_at_once() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start);
        assert!(backoff.begin(start));
        assert!(!backoff.begin(start));
        let end = start + Backoff::STEADY;
        backoff.lost(start, end);
        assert!(backoff.begin(end));
    }
}
