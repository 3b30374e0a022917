//! How the other threads reach the main one: events, and the newest status.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};

use crate::backend::lock::lock;

/// Why a device cannot be built, whatever it is.
pub(crate) type BuildError = Box<dyn Error + Send + Sync>;

/// What the other threads tell the main one.
#[derive(Debug)]
pub(crate) enum MainThreadEvent {
    /// The device is built, or cannot be.
    DeviceBuilt(Result<(), BuildError>),
    /// The program cannot go on, and why.
    Failed(String),
    /// The hardware behind the device is gone, and what it was.
    HardwareLost(String),
    /// The device has given back what would outlast the program.
    DeviceEnded,
}

/// How the other threads reach the main one, which waits by poll.
#[derive(Clone)]
pub(crate) struct MainThreadHandle {
    events: mpsc::Sender<MainThreadEvent>,
    status: StatusSlot,
    wake: Arc<UnixStream>,
}

/// The newest `STATUS=` that the service manager has not been told.
type StatusSlot = Arc<Mutex<Option<String>>>;

/// The main thread's end: readable once there is news.
pub(crate) struct MainThreadReceiver {
    events: mpsc::Receiver<MainThreadEvent>,
    status: StatusSlot,
    woken: UnixStream,
}

impl MainThreadHandle {
    pub(crate) fn new() -> io::Result<(Self, MainThreadReceiver)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, receiver) = mpsc::channel();
        let status = StatusSlot::default();
        let main_thread = Self {
            events: sender,
            status: status.clone(),
            wake: Arc::new(wake),
        };
        let receiver = MainThreadReceiver {
            events: receiver,
            status,
            woken,
        };
        Ok((main_thread, receiver))
    }

    /// Has a panic in any thread end the program: what it left half done must not be served.
    pub(crate) fn report_panics(&self) {
        let main_thread = self.clone();
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            default(panic);
            let message = format!("internal error, please report it: {panic}");
            main_thread.tell(MainThreadEvent::Failed(message));
        }));
    }

    pub(crate) fn tell(&self, news: MainThreadEvent) {
        // Without a receiver the program is ending already.
        if self.events.send(news).is_ok() {
            self.wake();
        }
    }

    pub(crate) fn status(&self, text: impl Display) {
        let before = lock(&self.status).replace(text.to_string());
        // One that still waits has woken it already.
        if before.is_none() {
            self.wake();
        }
    }

    fn wake(&self) {
        // A full socket has woken it already.
        let _ = (&*self.wake).write(&[1]);
    }
}

impl MainThreadReceiver {
    pub(crate) fn take(&self) -> Option<MainThreadEvent> {
        // A byte for each piece of news, and for a status: what is left keeps the socket readable.
        let _ = (&self.woken).read(&mut [0]);
        self.events.try_recv().ok()
    }

    /// The newest status, once.
    pub(crate) fn take_status(&self) -> Option<String> {
        lock(&self.status).take()
    }
}

impl AsFd for MainThreadReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
