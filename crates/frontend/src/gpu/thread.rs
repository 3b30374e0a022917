// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A display in a thread of its own.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::PollFlags;

use super::{Display, DisplayOptions, Request};
use crate::{DEFAULT_LIMIT, Deadline, Error, Result};

/// How soon the thread sees that it is to stop or to pause.
const TICK: Duration = Duration::from_millis(5);

/// A [`Display`] on a thread of its own. What it finds wrong is kept and told by
/// [`DisplayThread::wait`], [`DisplayThread::check`] and [`DisplayThread::finish`]; dropped, the
/// thread ends and the socket is closed.
#[derive(Debug)]
pub struct DisplayThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    pause: AtomicBool,
}

#[derive(Debug)]
struct State {
    display: Display,
    error: Option<Error>,
}

impl DisplayThread {
    /// A display that begins to serve at once, and the end of its socket that the backend gets.
    ///
    /// # Errors
    /// As [`Display::new`], or as `dup(2)` and `pthread_create(3)`.
    pub fn start(options: DisplayOptions) -> Result<(Self, UnixStream)> {
        let (display, theirs) = Display::new(options)?;
        Ok((Self::run(display, false)?, theirs))
    }

    /// A display on a connected socket that begins to serve at once, such as a console's.
    ///
    /// # Errors
    /// As `dup(2)` and `pthread_create(3)`.
    pub fn on(socket: UnixStream, options: DisplayOptions) -> Result<Self> {
        Self::run(Display::on(socket, options), false)
    }

    /// A display that does not read: stuck until [`DisplayThread::resume`].
    ///
    /// # Errors
    /// As [`DisplayThread::start`].
    pub fn start_stuck(options: DisplayOptions) -> Result<(Self, UnixStream)> {
        let (display, theirs) = Display::new(options)?;
        Ok((Self::run(display, true)?, theirs))
    }

    fn run(display: Display, pause: bool) -> Result<Self> {
        // Waited on without the lock, so that a test can look while nothing comes.
        let watched = display.socket().map(UnixStream::try_clone).transpose();
        let mut watched = watched.map_err(Error::io("dup of the display socket"))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                display,
                error: None,
            }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            pause: AtomicBool::new(pause),
        });
        let theirs = shared.clone();
        let serve = move || {
            while let Some(socket) = &watched {
                if theirs.stop.load(Ordering::Acquire) {
                    break;
                }
                if theirs.pause.load(Ordering::Acquire) {
                    std::thread::sleep(TICK);
                    continue;
                }
                let ready = Deadline::after(TICK).ready(socket, PollFlags::IN);
                if let Ok(false) = ready {
                    if theirs.lock().display.closed {
                        watched = None;
                    }
                    continue;
                }
                let mut state = theirs.lock();
                let served = ready.and_then(|_| state.display.serve(Duration::ZERO));
                if let Err(e) = served {
                    state.error = Some(e);
                    state.display.close();
                }
                if state.display.closed {
                    // The duplicate would keep the socket open.
                    watched = None;
                }
                drop(state);
                theirs.changed.notify_all();
            }
        };
        let thread = std::thread::Builder::new()
            .name("display".into())
            .spawn(serve);
        let thread = thread.map_err(Error::io("starting the display's thread"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The display, for as long as the guard lives not served.
    pub fn lock(&self) -> impl std::ops::DerefMut<Target = Display> {
        Guard(self.shared.lock())
    }

    /// Reads no more: a display that is stuck.
    pub fn pause(&self) {
        self.shared.pause.store(true, Ordering::Release);
    }

    /// Reads again.
    pub fn resume(&self) {
        self.shared.pause.store(false, Ordering::Release);
    }

    /// Waits until `done`, and gives what `look` sees then.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`], with what the display was told last; what the
    /// display found wrong.
    pub fn wait<T>(
        &self,
        what: &'static str,
        look: impl FnMut(&Display) -> Option<T>,
    ) -> Result<T> {
        self.wait_within(DEFAULT_LIMIT, what, look)
    }

    /// As [`DisplayThread::wait`], for at most `limit`.
    ///
    /// # Errors
    /// As [`DisplayThread::wait`].
    pub fn wait_within<T>(
        &self,
        limit: Duration,
        what: &'static str,
        mut look: impl FnMut(&Display) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(limit);
        let mut state = self.shared.lock();
        loop {
            if let Some(e) = state.error.take() {
                return Err(e);
            }
            if let Some(found) = look(&state.display) {
                return Ok(found);
            }
            if deadline.passed() {
                let last = state.display.received.last();
                return Err(deadline.missed(format!("{what}; the last message was {last:?}")));
            }
            let waited = self.shared.changed.wait_timeout(state, deadline.left());
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Waits until `count` messages of this kind have come in all.
    ///
    /// # Errors
    /// As [`DisplayThread::wait`].
    pub fn wait_count(&self, request: Request, count: usize) -> Result<()> {
        self.wait("messages to the display", |d| {
            (d.of(request).count() >= count).then_some(())
        })
    }

    /// Whether all was right so far.
    ///
    /// # Errors
    /// What the display found wrong.
    pub fn check(&self) -> Result<()> {
        match self.shared.lock().error.take() {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// Ends the thread and closes the socket. Whether all was right.
    ///
    /// # Errors
    /// What the display found wrong; [`Error::Protocol`] if its thread panicked.
    pub fn finish(mut self) -> Result<()> {
        self.end()?;
        self.check()
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        self.shared.lock().display.close();
        joined.map_err(|_| Error::Protocol("the display's thread panicked".into()))
    }
}

impl Drop for DisplayThread {
    fn drop(&mut self) {
        // Told by the panic's own message if the thread panicked.
        let _ = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

struct Guard<'a>(MutexGuard<'a, State>);

impl std::ops::Deref for Guard<'_> {
    type Target = Display;

    fn deref(&self) -> &Display {
        &self.0.display
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Display {
        &mut self.0.display
    }
}
