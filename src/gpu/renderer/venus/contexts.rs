// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts of Venus. Their command streams are validated and executed by the render server.

use std::collections::HashMap;

use super::library_thread::{CallError, LibraryThread};
use super::limits::{CONTEXT_COST, MAX_CONTEXTS};
use crate::gpu::protocol::CapsetInfo;
use crate::gpu::renderer::ContextError;
use crate::gpu::resource::{Budget, Charge};

/// All contexts of a driver.
#[derive(Debug)]
pub(super) struct Contexts {
    charges: HashMap<u32, Charge>,
    budget: Budget,
}

impl Contexts {
    /// None; those that are created are charged to `budget`.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            charges: HashMap::new(),
            budget,
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
        if self.has(id) {
            return Err(ContextError::Exists(id));
        }
        if capset != CapsetInfo::VENUS {
            return Err(ContextError::Capset {
                context: id,
                capset,
            });
        }
        if self.charges.len() >= MAX_CONTEXTS {
            return Err(ContextError::TooMany(MAX_CONTEXTS));
        }
        let charge = self.budget.charge(CONTEXT_COST);
        let charge = charge.ok_or(ContextError::Budget(CONTEXT_COST))?;
        library
            .create_context(id, name)
            .map_err(|error| context_error(id, error))?;
        self.charges.insert(id, charge);
        Ok(())
    }

    /// Destroys a context.
    pub(super) fn destroy(
        &mut self,
        library: &mut LibraryThread,
        id: u32,
    ) -> Result<(), ContextError> {
        let charge = self.charges.remove(&id);
        let charge = charge.ok_or(ContextError::Unknown(id))?;
        // One that is stuck has lost all contexts.
        let _ = library.destroy_context(id);
        drop(charge);
        Ok(())
    }

    /// Destroys all contexts, and returns their ids.
    pub(super) fn clear(&mut self, library: &mut LibraryThread) -> Vec<u32> {
        let contexts = std::mem::take(&mut self.charges);
        for id in contexts.keys() {
            let _ = library.destroy_context(*id);
        }
        contexts.into_keys().collect()
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.charges.contains_key(&id)
    }

    /// Checks that a context exists.
    pub(super) fn check(&self, id: u32) -> Result<(), ContextError> {
        match self.has(id) {
            true => Ok(()),
            false => Err(ContextError::Unknown(id)),
        }
    }
}

/// Why a call for a context fails.
pub(super) fn context_error(context: u32, error: CallError) -> ContextError {
    match error {
        CallError::Refused(_) => ContextError::Refused(context),
        CallError::Stuck => ContextError::ServerEnded,
    }
}
