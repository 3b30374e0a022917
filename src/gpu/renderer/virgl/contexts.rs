// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rendering contexts and their command streams.

use std::collections::HashMap;

use crate::gpu::renderer::ContextError;

use super::holdings::{CONTEXT_COST, ChargeSet, Holdings};
use super::library::Library;
use super::limits::MAX_CONTEXTS;
use super::process_memory::ProcessMemory;
use super::resources::Resources;
use super::stream_check::StreamChecks;

/// All contexts of a driver.
#[derive(Default)]
pub(super) struct Contexts {
    holdings: HashMap<u32, Holdings>,
    /// Charges for memory that the library leaked.
    leaked: ChargeSet,
}

impl Contexts {
    /// Creates a context.
    ///
    /// # Errors
    /// If the id is 0 or in use, there are too many contexts, or memory is short.
    pub(super) fn create(
        &mut self,
        library: &mut Library,
        resources: &Resources,
        process_memory: &ProcessMemory,
        id: u32,
        name: &[u8],
    ) -> Result<(), ContextError> {
        if id == 0 {
            return Err(ContextError::Zero);
        }
        if self.holdings.contains_key(&id) {
            return Err(ContextError::Exists(id));
        }
        if self.holdings.len() >= MAX_CONTEXTS {
            return Err(ContextError::TooMany(MAX_CONTEXTS));
        }
        process_memory.check()?;
        let holdings = Holdings::new(resources.budget());
        let holdings = holdings.ok_or(ContextError::Budget(CONTEXT_COST))?;
        library
            .create_context(id, name)
            .map_err(|_| ContextError::Refused(id))?;
        self.holdings.insert(id, holdings);
        Ok(())
    }

    /// Destroys a context.
    pub(super) fn destroy(&mut self, library: &mut Library, id: u32) -> Result<(), ContextError> {
        let holdings = self.holdings.remove(&id);
        let holdings = holdings.ok_or(ContextError::Unknown(id))?;
        // The charges return to the budget once the library has freed what they are for.
        library.destroy_context(id);
        drop(holdings);
        Ok(())
    }

    /// Destroys all contexts.
    pub(super) fn clear(&mut self, library: &mut Library) {
        for (id, holdings) in std::mem::take(&mut self.holdings) {
            library.destroy_context(id);
            drop(holdings);
        }
    }

    /// Checks that a context exists.
    pub(super) fn check(&self, id: u32) -> Result<(), ContextError> {
        match self.holdings.contains_key(&id) {
            true => Ok(()),
            false => Err(ContextError::Unknown(id)),
        }
    }

    /// Checks and executes a command stream in a context.
    ///
    /// # Errors
    /// If [`StreamChecks::check`] refuses the stream, or a command in it fails.
    pub(super) fn submit(
        &mut self,
        library: &mut Library,
        resources: &Resources,
        process_memory: &mut ProcessMemory,
        context: u32,
        stream: &mut [u32],
    ) -> Result<(), ContextError> {
        let checks = StreamChecks {
            library,
            resources,
            process_memory,
            leaked: &mut self.leaked,
        };
        let holdings = checks.check(&mut self.holdings, context, stream)?;
        match library.submit(context, stream) {
            Ok(()) => {
                holdings.stream_succeeded();
                Ok(())
            }
            Err(_) => {
                holdings.stream_failed(&mut self.leaked);
                Err(ContextError::Refused(context))
            }
        }
    }

    /// Bytes of the budget that never return.
    #[cfg(feature = "fuzzing")]
    pub(super) fn leaked(&self) -> u64 {
        self.leaked.bytes()
    }
}
