// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts of one capability set. Their command streams are validated and executed by the render server or, those of native
//! contexts, by virglrenderer here.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{Timespec, epoll};

use super::library_thread::{CallError, LibraryThread};
use super::limits::{CONTEXT_COST, MAX_CONTEXTS};
use crate::gpu::renderer::ContextError;
use crate::gpu::resource::{Budget, Charge};

/// A context.
#[derive(Debug)]
enum Context {
    Runs {
        _charge: Charge,
    },
    /// The library has none any more, but the driver has not destroyed it yet.
    Ended,
}

/// All contexts of a driver.
#[derive(Debug)]
pub(super) struct Contexts {
    contexts: HashMap<u32, Context>,
    /// By whose protocol all of them are used.
    capset: u32,
    budget: Budget,
    /// Gets an event when a connection ends.
    events: Arc<OwnedFd>,
}

impl Contexts {
    /// None; those that are created are charged to `budget`, and their ends are events of `events` (epoll(7)).
    pub(super) fn new(capset: u32, budget: Budget, events: Arc<OwnedFd>) -> Self {
        Self {
            contexts: HashMap::new(),
            capset,
            budget,
            events,
        }
    }

    /// Creates a context.
    ///
    /// # Errors
    /// If the id is 0 or in use, it is to be for another capability set, there are too many, or the render server refuses
    /// it.
    pub(super) fn create(
        &mut self,
        library: &mut LibraryThread,
        id: u32,
        name: &[u8],
        capset: u32,
    ) -> Result<(), ContextError> {
        if id == 0 {
            return Err(ContextError::Zero);
        }
        if self.contexts.contains_key(&id) {
            return Err(ContextError::Exists(id));
        }
        if capset != self.capset {
            return Err(ContextError::Capset {
                context: id,
                capset,
            });
        }
        if self.contexts.len() >= MAX_CONTEXTS {
            return Err(ContextError::TooMany(MAX_CONTEXTS));
        }
        let charge = self.budget.charge(CONTEXT_COST);
        let charge = charge.ok_or(ContextError::Budget(CONTEXT_COST))?;
        library
            .create_context(id, name)
            .map_err(|error| context_error(id, error))?;
        if let Some(connection) = library.connection(id) {
            let data = epoll::EventData::new_u64(event_data(id));
            let watched = epoll::add(&*self.events, connection, data, epoll::EventFlags::RDHUP);
            if let Err(e) = watched {
                log::debug!("the end of context {id} will not be noticed: {e}");
            }
        }
        self.contexts.insert(id, Context::Runs { _charge: charge });
        Ok(())
    }

    /// Ends a context as far as the library is concerned: nothing more can be done in it.
    pub(super) fn end(&mut self, library: &mut LibraryThread, id: u32) {
        if let Some(context) = self.contexts.get_mut(&id) {
            let context = std::mem::replace(context, Context::Ended);
            self.destroy_in(library, id, context);
        }
    }

    fn destroy_in(&self, library: &mut LibraryThread, id: u32, context: Context) {
        if let Context::Runs { .. } = context {
            self.unwatch(library, id);
            // One that is stuck has lost all contexts.
            let _ = library.destroy_context(id);
        }
    }

    fn unwatch(&self, library: &LibraryThread, id: u32) {
        if let Some(connection) = library.connection(id) {
            // The library has a duplicate, so that to close this one does not take it out of the events.
            let _ = epoll::delete(&*self.events, connection);
        }
    }

    /// What has happened. There may be more, while the events are ready.
    pub(super) fn happened(&self) -> Happened {
        const MOST: usize = 16;
        let mut room = [const { MaybeUninit::uninit() }; MOST];
        let now = Timespec::default();
        let Ok((events, _)) = epoll::wait(&*self.events, &mut room[..], Some(&now)) else {
            return Happened::default();
        };
        let mut happened = Happened::default();
        for event in events.iter().map(|event| event.data.u64()) {
            happened.is_answered |= event == CONNECTOR_EVENT;
            happened.ended.extend(ended_context(event));
        }
        happened
    }

    /// Ends all contexts, without a word to the library, which is to be closed. Returns those that ran.
    pub(super) fn lose(&mut self, library: &LibraryThread) -> Vec<u32> {
        let running = self.contexts.iter_mut().filter_map(|(id, context)| {
            let old = std::mem::replace(context, Context::Ended);
            matches!(old, Context::Runs { .. }).then_some(*id)
        });
        let running: Vec<u32> = running.collect();
        running.iter().for_each(|id| self.unwatch(library, *id));
        running
    }

    /// Destroys a context.
    pub(super) fn destroy(
        &mut self,
        library: &mut LibraryThread,
        id: u32,
    ) -> Result<(), ContextError> {
        let context = self.contexts.remove(&id);
        let context = context.ok_or(ContextError::Unknown(id))?;
        self.destroy_in(library, id, context);
        Ok(())
    }

    /// Destroys all contexts, and returns their ids.
    pub(super) fn clear(&mut self, library: &mut LibraryThread) -> Vec<u32> {
        let contexts = std::mem::take(&mut self.contexts);
        let ids = contexts.keys().copied().collect();
        for (id, context) in contexts {
            self.destroy_in(library, id, context);
        }
        ids
    }

    /// Whether there is such a context, and it has not ended.
    pub(super) fn has(&self, id: u32) -> bool {
        self.check(id).is_ok()
    }

    /// Checks that a context exists and has not ended.
    pub(super) fn check(&self, id: u32) -> Result<(), ContextError> {
        match self.contexts.get(&id) {
            Some(Context::Runs { .. }) => Ok(()),
            Some(Context::Ended) => Err(ContextError::Ended(id)),
            None => Err(ContextError::Unknown(id)),
        }
    }
}

/// The data of the event that a context ends, which has its id in the lower half.
fn event_data(id: u32) -> u64 {
    1 << 32 | u64::from(id)
}

/// The event of the connector.
pub(super) const CONNECTOR_EVENT: u64 = 1;

/// What the events tell.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Contexts whose connections have ended.
    pub(super) ended: Vec<u32>,
    /// The connector has answered, or ended.
    pub(super) is_answered: bool,
}

/// The context that has ended, if it is an event of one.
fn ended_context(event: u64) -> Option<u32> {
    (event >> 32 != 0).then_some(event as u32)
}

/// Why a call for a context fails.
pub(super) fn context_error(context: u32, error: CallError) -> ContextError {
    match error {
        CallError::Refused(_) => ContextError::Refused(context),
        CallError::Stuck => ContextError::ServerEnded,
    }
}
