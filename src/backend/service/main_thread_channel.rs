// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How other threads reach the main thread: events, and the newest status.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::backend::lock::lock;

/// Why a device cannot be built.
pub(crate) type BuildError = Box<dyn Error + Send + Sync>;

/// What other threads report to the main thread.
#[derive(Debug)]
pub(crate) enum MainThreadEvent {
    /// The worker built the device, or failed to.
    DeviceBuilt(Result<(), BuildError>),
    /// The program cannot go on, for this reason.
    Failed(String),
    /// This process cannot go on, because of a fault in it.
    Crashed(String),
    /// The hardware is gone.
    HardwareLost {
        /// Which, and why.
        message: String,
        /// Whether the device waits for it.
        is_awaited: bool,
    },
    /// [`Device::end`](crate::backend::Device::end) returned.
    DeviceEnded,
    /// The last client of the further listening sockets left; see [`MainThreadReceiver::has_clients`].
    ClientsLeft,
    /// The device has a request for the front-end.
    RequestMade,
    /// No other process can go on with the front-end any more, for this reason.
    StateLost(String),
}

/// The sending end, for any thread.
#[derive(Clone)]
pub(crate) struct MainThreadHandle {
    events: mpsc::Sender<MainThreadEvent>,
    status: StatusSlot,
    clients: Arc<AtomicUsize>,
    wake: Arc<UnixStream>,
}

/// The newest text for `STATUS=`, until it is taken.
type StatusSlot = Arc<Mutex<Option<String>>>;

/// The main thread's end: its descriptor is readable while events or a status wait.
pub(crate) struct MainThreadReceiver {
    events: mpsc::Receiver<MainThreadEvent>,
    status: StatusSlot,
    clients: Arc<AtomicUsize>,
    woken: UnixStream,
}

impl MainThreadHandle {
    pub(crate) fn new() -> io::Result<(Self, MainThreadReceiver)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (sender, receiver) = mpsc::channel();
        let status = StatusSlot::default();
        let clients = Arc::new(AtomicUsize::new(0));
        let main_thread = Self {
            events: sender,
            status: status.clone(),
            clients: Arc::clone(&clients),
            wake: Arc::new(wake),
        };
        let receiver = MainThreadReceiver {
            events: receiver,
            status,
            clients,
            woken,
        };
        Ok((main_thread, receiver))
    }

    /// From now on a panic in any thread ends the program: the state it left must not be served. `first` gets the message,
    /// while the thread holds all that it held.
    pub(crate) fn report_panics(&self, first: impl Fn(&str) + Send + Sync + 'static) {
        let main_thread = self.clone();
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            default(panic);
            let message = format!("internal error, please report it: {panic}");
            first(&message);
            main_thread.tell(MainThreadEvent::Crashed(message));
        }));
    }

    pub(crate) fn tell(&self, news: MainThreadEvent) {
        // Without a receiver the program is ending.
        if self.events.send(news).is_ok() {
            self.wake();
        }
    }

    pub(crate) fn status(&self, text: impl Display) {
        let before = lock(&self.status).replace(text.to_string());
        // A status that was not taken has woken the main thread.
        if before.is_none() {
            self.wake();
        }
    }

    /// A client of a further listening socket came.
    pub(crate) fn client_came(&self) {
        self.clients.fetch_add(1, Ordering::AcqRel);
    }

    /// A client of a further listening socket left.
    pub(crate) fn client_left(&self) {
        if self.clients.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell(MainThreadEvent::ClientsLeft);
        }
    }

    fn wake(&self) {
        // A full socket has woken the main thread.
        let _ = (&*self.wake).write(&[1]);
    }
}

impl MainThreadReceiver {
    pub(crate) fn take(&self) -> Option<MainThreadEvent> {
        // One byte per event and status: the rest keeps the socket readable.
        let _ = (&self.woken).read(&mut [0]);
        self.events.try_recv().ok()
    }

    /// Whether further listening sockets have clients.
    pub(crate) fn has_clients(&self) -> bool {
        self.clients.load(Ordering::Acquire) > 0
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
