// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The events of the input device: those that a program sends by a socket.

use std::collections::VecDeque;
use std::io::{Read as _, Result};
use std::os::fd::BorrowedFd;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

/// An event as virtio has it: type, code, value.
pub(crate) type Event = [u8; 8];

/// Events that have come, of one program at a time.
#[derive(Clone)]
pub(crate) struct Source {
    come: Arc<Mutex<VecDeque<Event>>>,
    bell: Arc<OwnedFd>,
}

impl Source {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let source = Self {
            come: Arc::default(),
            bell: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?),
        };
        let kept = source.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut event = [0; 8];
                while stream.read_exact(&mut event).is_ok() {
                    kept.come.lock().unwrap().push_back(event);
                    let _ = rustix::io::write(&*kept.bell, &1_u64.to_ne_bytes());
                }
            }
        });
        Ok(source)
    }

    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The events that have come since.
    pub(crate) fn take(&self) -> VecDeque<Event> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        std::mem::take(&mut *self.come.lock().unwrap())
    }
}
