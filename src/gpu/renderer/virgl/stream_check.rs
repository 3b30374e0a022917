// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks a command stream (SUBMIT_3D; virtio 1.2, 5.7.6.9) before virglrenderer executes it. Before
//! this, `virtio_gpu` has checked the stream's length and read it.

use std::collections::HashMap;

use crate::gpu::renderer::ContextError;
use crate::gpu::resource::ResourceError;

use super::command_stream::{self, StreamTransfer};
use super::holdings::{ChargeSet, Holdings, StreamError};
use super::library::Library;
use super::limits::MAX_STEPS;
use super::process_memory::ProcessMemory;
use super::resources::Resources;
use super::transfers::{end_fits_32_bits, iovec_steps};

/// The state that the checks of a stream need.
pub(super) struct StreamChecks<'a> {
    pub(super) library: &'a Library,
    pub(super) resources: &'a Resources,
    pub(super) process_memory: &'a mut ProcessMemory,
    /// Charges for memory that the library leaked.
    pub(super) leaked: &'a mut ChargeSet,
}

impl StreamChecks<'_> {
    /// Checks a stream in this order, and returns the holdings of its context:
    ///
    /// 1. The stream consists of whole commands.
    /// 2. The context exists.
    /// 3. The process is within its memory limit.
    /// 4. The library computes the transfers in the stream without overflow and in bounded time.
    /// 5. The budget has room for all memory that the commands allocate. This charges the context for
    ///    what the stream creates and references.
    ///
    /// # Errors
    /// The first check that fails. Nothing is charged then.
    pub(super) fn check<'h>(
        self,
        holdings: &'h mut HashMap<u32, Holdings>,
        context: u32,
        stream: &[u32],
    ) -> Result<&'h mut Holdings, ContextError> {
        if !command_stream::is_whole(stream) {
            return Err(ContextError::TruncatedStream(context));
        }
        let holdings = holdings.get_mut(&context);
        let holdings = holdings.ok_or(ContextError::Unknown(context))?;
        self.process_memory.check_stream()?;
        check_transfers(self.library, self.resources, stream)?;
        let share_charge = |id| self.resources.share_charge(id);
        holdings
            .charge_stream(stream, share_charge, self.leaked)
            .map_err(|error| match error {
                StreamError::Budget(bytes) => ContextError::Budget(bytes),
                StreamError::Unaccounted(command) => ContextError::Unaccounted { context, command },
            })?;
        Ok(holdings)
    }
}

/// Checks the transfers in a stream. The library checks that they lie within their resources.
fn check_transfers(
    library: &Library,
    resources: &Resources,
    stream: &[u32],
) -> Result<(), ResourceError> {
    let mut steps: u64 = 0;
    for StreamTransfer { transfer, backing } in command_stream::transfers(stream) {
        let iovecs = backing.and_then(|id| library.iovecs(id));
        let iovecs = iovecs.map_or(0, |iovecs| iovecs.as_slice().len());
        steps = steps.saturating_add(iovec_steps(&transfer, iovecs));
        // The library refuses transfers of unknown resources.
        let resource = resources.get(transfer.id);
        let fits = resource.map_or(true, |resource| {
            end_fits_32_bits(resource.args(), &transfer)
        });
        if !fits || steps > MAX_STEPS {
            return Err(ResourceError::Transfer { transfer });
        }
    }
    Ok(())
}
