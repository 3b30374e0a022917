// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that calls virglrenderer. The library waits for the render server without end; the device does not wait for
//! the library longer than a time. Then the connection of the context that the call is for is shut down, which ends the
//! library's wait for it; if that does not help, Vulkan is lost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::fences::RetiredFences;
use super::library::{Exported, Library};
use crate::gpu::protocol::{CapsetInfo, ResourceCreateBlob, RingId};
use crate::gpu::renderer::virglrenderer::Refused;

/// Within which a call returns. The server may be busy for seconds with what a context had begun before. It is less than
/// `WatchdogSec=` of the unit.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// After a call that did not return in time, others have a part of that only, for as long as the watchdog waits: several programs
/// that hang at once must not keep the worker from it.
const HURRY: Duration = Duration::from_secs(20);
/// The part.
const HURRY_PART: u32 = 5;
/// Within which a call returns once its connection is shut down.
const GRACE: Duration = Duration::from_secs(2);

type Call = Box<dyn FnOnce(&mut Library) + Send>;

/// Why a call of the library fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It has not returned, or an earlier call has not. No later one will.
    #[error("virglrenderer waits for the render server without end")]
    Stuck,
}

/// The end of a thread, once its library has cleaned up.
#[derive(Clone, Debug)]
pub(super) struct LibraryEnd(Arc<Mutex<Receiver<Infallible>>>);

impl LibraryEnd {
    /// Whether it comes within this time.
    pub(super) fn wait(&self, within: Duration) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent.
        ended.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }
}

/// A library that is being initialised, on a thread of its own.
#[derive(Debug)]
pub(super) struct StartingLibrary {
    calls: SyncSender<Call>,
    opened: Mutex<Receiver<Option<Refused>>>,
    end: LibraryEnd,
    retired: Arc<RetiredFences>,
}

impl StartingLibrary {
    /// The library, or why there is none.
    ///
    /// # Errors
    /// If neither comes within this time: it is still being initialised.
    pub(super) fn wait(
        mut self,
        within: Duration,
    ) -> Result<Result<LibraryThread, CallError>, Self> {
        let opened = self.opened.get_mut();
        let opened = opened.unwrap_or_else(PoisonError::into_inner);
        match opened.recv_timeout(within) {
            Ok(None) => Ok(Ok(LibraryThread {
                calls: Some(self.calls),
                end: self.end,
                retired: self.retired,
                connections: HashMap::new(),
                patience: PATIENCE,
                hurries_until: None,
            })),
            Ok(Some(refused)) => Ok(Err(refused.into())),
            Err(RecvTimeoutError::Timeout) => Err(self),
            Err(RecvTimeoutError::Disconnected) => Ok(Err(CallError::Stuck)),
        }
    }

    /// The end of its thread, which comes if it does not get to work.
    pub(super) fn end(&self) -> LibraryEnd {
        self.end.clone()
    }
}

/// The library, on a thread of its own.
#[derive(Debug)]
pub(super) struct LibraryThread {
    /// `None` once a call has not returned, or the library is closed.
    calls: Option<SyncSender<Call>>,
    end: LibraryEnd,
    retired: Arc<RetiredFences>,
    /// Of each context, to its process of the render server, where it is known.
    connections: HashMap<u32, OwnedFd>,
    patience: Duration,
    hurries_until: Option<Instant>,
}

impl LibraryThread {
    /// Starts the thread, on which `open` initialises the library. If it `notifies`, the event of `retired` says when it has.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(
        retired: Arc<RetiredFences>,
        notifies: bool,
        open: impl FnOnce(Arc<RetiredFences>) -> Result<Library, Refused> + Send + 'static,
    ) -> io::Result<StartingLibrary> {
        // One call at a time.
        let (calls, next) = sync_channel::<Call>(1);
        let (result, opened) = sync_channel(1);
        let (ends, ended) = sync_channel(0);
        let shared = Arc::clone(&retired);
        let named = thread::Builder::new().name("virglrenderer".to_owned());
        named.spawn(move || {
            // Dropped last.
            let _ends: SyncSender<Infallible> = ends;
            let library = open(Arc::clone(&shared));
            let failed = library.as_ref().err().copied();
            // Whoever started this may have lost patience.
            if result.send(failed).is_err() {
                return;
            }
            if notifies {
                shared.notify();
            }
            let Ok(mut library) = library else {
                return;
            };
            while let Ok(call) = next.recv() {
                call(&mut library);
            }
        })?;
        Ok(StartingLibrary {
            calls,
            opened: Mutex::new(opened),
            end: LibraryEnd(Arc::new(Mutex::new(ended))),
            retired,
        })
    }

    /// Does not wait longer for calls than this.
    #[cfg(test)]
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether calls still return.
    pub(super) fn is_stuck(&self) -> bool {
        self.calls.is_none()
    }

    /// Calls nothing any more, and ends the connections of all contexts. Returns the end of the thread, which is not waited for.
    pub(super) fn close(&mut self) -> LibraryEnd {
        for (_, connection) in self.connections.drain() {
            // It fails only where the connection has ended.
            let _ = shutdown(connection, Shutdown::Both);
        }
        self.calls = None;
        self.end.clone()
    }

    /// The fences that were retired.
    pub(super) fn retired(&self) -> &Arc<RetiredFences> {
        &self.retired
    }

    /// A context's own connection to the render server, where it is known.
    pub(super) fn connection(&self, context: u32) -> Option<BorrowedFd<'_>> {
        self.connections.get(&context).map(OwnedFd::as_fd)
    }

    /// For how long the next call is waited for.
    fn patience_now(&self) -> Duration {
        let hurries = |until: Instant| Instant::now() < until;
        match self.hurries_until.is_some_and(hurries) {
            true => self.patience / HURRY_PART,
            false => self.patience,
        }
    }

    /// Calls the library, on its thread.
    fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Library) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.call_in(None, call)
    }

    /// Calls the library, on its thread, for a context: that ends if it keeps the call from returning.
    fn call_in<T: Send + 'static>(
        &mut self,
        context: Option<u32>,
        call: impl FnOnce(&mut Library) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (answer, result) = sync_channel(1);
        let call: Call = Box::new(move |library| {
            // Nobody may wait for it any more.
            let _ = answer.send(call(library));
        });
        let calls = self.calls.as_ref().ok_or(CallError::Stuck)?;
        let sent = calls.send(call).is_ok();
        let mut returned = match sent {
            true => result.recv_timeout(self.patience_now()),
            false => Err(RecvTimeoutError::Disconnected),
        };
        let connection = context.and_then(|context| self.connections.get(&context));
        if let (Err(RecvTimeoutError::Timeout), Some(connection)) = (&returned, connection) {
            log::warn!("a Vulkan program of the guest is ended: its requests are not answered");
            // It fails only where the connection has ended.
            let _ = shutdown(connection, Shutdown::Both);
            returned = result.recv_timeout(GRACE);
            self.hurries_until = Instant::now().checked_add(HURRY);
        }
        returned.map_err(|_| {
            self.calls = None;
            // Others have to know.
            self.retired.notify();
            CallError::Stuck
        })
    }

    /// As [`Library::capset`], with its data in the newest version.
    pub(super) fn capset(&mut self, id: u32) -> Result<Option<(CapsetInfo, Vec<u8>)>, CallError> {
        self.call(move |library| {
            let set = library.capset(id)?;
            let data = library.capset_data(&set, set.max_version);
            Some((set, data))
        })
    }

    /// As [`Library::create_context`]. Its connection is [`LibraryThread::connection`].
    pub(super) fn create_context(&mut self, id: u32, name: &[u8]) -> Result<(), CallError> {
        let name = name.to_vec();
        let connection = self.call(move |library| library.create_context(id, &name))??;
        self.connections.extend(connection.map(|it| (id, it)));
        Ok(())
    }

    /// As [`Library::destroy_context`].
    pub(super) fn destroy_context(&mut self, id: u32) -> Result<(), CallError> {
        let destroyed = self.call_in(Some(id), move |library| library.destroy_context(id));
        self.connections.remove(&id);
        destroyed
    }

    /// As [`Library::attach`].
    pub(super) fn attach(&mut self, context: u32, id: u32) -> Result<(), CallError> {
        self.call_in(Some(context), move |library| library.attach(context, id))
    }

    /// As [`Library::detach`].
    pub(super) fn detach(&mut self, context: u32, id: u32) -> Result<(), CallError> {
        self.call_in(Some(context), move |library| library.detach(context, id))
    }

    /// As [`Library::submit`].
    pub(super) fn submit(&mut self, context: u32, stream: &[u32]) -> Result<(), CallError> {
        let mut stream = stream.to_vec();
        let submit = move |library: &mut Library| library.submit(context, &mut stream);
        Ok(self.call_in(Some(context), submit)??)
    }

    /// As [`Library::create_fence`].
    pub(super) fn create_fence(&mut self, ring: RingId, fence: u64) -> Result<(), CallError> {
        let create = move |library: &mut Library| library.create_fence(ring, fence);
        Ok(self.call_in(Some(ring.context), create)??)
    }

    /// Creates a blob in the host's memory, and returns its file and how it is to be mapped, where that is told.
    pub(super) fn create_blob(
        &mut self,
        new: ResourceCreateBlob,
    ) -> Result<(Exported, Option<u32>), CallError> {
        Ok(self.call_in(Some(new.context), move |library| {
            library.create_blob(&new)?;
            let exported = library.export_blob(new.id);
            let exported = exported.inspect_err(|_| library.unref(new.id))?;
            Ok::<_, Refused>((exported, library.map_info(new.id).ok()))
        })??)
    }

    /// As [`Library::unref`]. The library tells the blob's context, if it has one.
    pub(super) fn unref(&mut self, context: Option<u32>, id: u32) -> Result<(), CallError> {
        self.call_in(context, move |library| library.unref(id))
    }
}

impl Drop for LibraryThread {
    /// Waits until the library has cleaned up, but not for one that is stuck or closed.
    fn drop(&mut self) {
        if let Some(calls) = self.calls.take() {
            drop(calls);
            self.end.wait(self.patience);
        }
    }
}
