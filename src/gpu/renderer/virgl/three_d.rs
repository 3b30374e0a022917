//! What only 3D does: contexts, their resources and command streams, fences.

use std::os::fd::BorrowedFd;

use super::super::super::protocol::{CapsetInfo, Create3d, Transfer3d};
use super::super::{ContextError, Direction, Fence, Renderer3d};
use super::holdings::{CONTEXT_COST, CommandError, Holdings};
use super::resident::Resident;
use super::transfers::MAX_STEPS;
use super::{MAX_CONTEXTS, VirglRenderer, command_stream, limits};
use crate::gpu::resource::ResourceError;

/// Streams after which it is looked at how large the process is: that takes longer than a small one.
const LOOK_AFTER: u32 = 64;

impl Renderer3d for VirglRenderer {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capsets
    }

    fn capset(&mut self, id: u32, version: u32) -> Option<Vec<u8>> {
        let set = self.capsets.iter().find(|set| set.id == id)?;
        (version <= set.max_version).then(|| self.library.capset_data(set, version))
    }

    fn create_context(&mut self, id: u32, name: &[u8]) -> Result<(), ContextError> {
        if id == 0 {
            return Err(ContextError::Zero);
        }
        if self.contexts.contains_key(&id) {
            return Err(ContextError::Exists(id));
        }
        if self.contexts.len() >= MAX_CONTEXTS {
            return Err(ContextError::TooMany(MAX_CONTEXTS));
        }
        self.check_resident()?;
        let holdings = Holdings::new(self.resources.budget());
        let holdings = holdings.ok_or(ContextError::Budget(CONTEXT_COST))?;
        self.library
            .create_context(id, name)
            .map_err(|_| ContextError::Refused(id))?;
        self.contexts.insert(id, holdings);
        Ok(())
    }

    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError> {
        let holdings = self.contexts.remove(&id);
        let holdings = holdings.ok_or(ContextError::Unknown(id))?;
        self.library.destroy_context(id);
        drop(holdings);
        Ok(())
    }

    fn attach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.context(context)?;
        self.resources.get(id)?;
        self.library.context_attach(context, id);
        Ok(())
    }

    fn detach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.context(context)?;
        self.resources.get(id)?;
        self.library.context_detach(context, id);
        Ok(())
    }

    fn create_3d(&mut self, new: &Create3d) -> Result<(), ResourceError> {
        self.create(*new, new.format)
    }

    fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<(), ContextError> {
        // Never in the library's own context: an error there would last, for the screen too.
        self.context(context)?;
        self.check_transfer(transfer)?;
        let mut rows: u32 = 0;
        while rows < transfer.part.height {
            let copied = self.transfer_from(context, transfer, direction, rows)?;
            rows = rows.saturating_add(copied.rows.max(1));
        }
        Ok(())
    }

    fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), ContextError> {
        self.context(context)?;
        self.streams = self.streams.wrapping_add(1);
        if self.streams.is_multiple_of(LOOK_AFTER) {
            self.check_resident()?;
        }
        let mut steps: u64 = 0;
        for (transfer, source) in command_stream::transfers(stream) {
            let vectors = source.and_then(|id| self.library.pages(id));
            let vectors = vectors.map_or(0, |pages| pages.vectors().len());
            steps = steps.saturating_add(limits::steps(&transfer, vectors));
            // Those of resources that do not exist the library refuses.
            let resource = self.resources.get(transfer.id);
            let is_computable =
                resource.map_or(true, |known| limits::is_computable(&known.new, &transfer));
            if !is_computable || steps > MAX_STEPS {
                return Err(ResourceError::Transfer { transfer }.into());
            }
        }
        let Some(holdings) = self.contexts.get_mut(&context) else {
            return Err(ContextError::Unknown(context));
        };
        let noted = holdings.submit(stream, |id| self.resources.share_charge(id), &mut self.lost);
        noted.map_err(|refusal| match refusal {
            CommandError::Budget(bytes) => ContextError::Budget(bytes),
            CommandError::Command(command) => ContextError::Unaccounted { context, command },
        })?;
        match self.library.submit(context, stream) {
            Ok(()) => {
                holdings.succeeded();
                Ok(())
            }
            Err(_) => {
                holdings.failed(&mut self.lost);
                Err(ContextError::Refused(context))
            }
        }
    }

    fn fence(&mut self) -> Option<Fence> {
        let fence = self.last_fence.wrapping_add(1);
        // A fence that cannot be made is one that cannot be waited for.
        self.library.create_fence(fence).ok()?;
        self.last_fence = fence;
        Some(Fence(fence))
    }

    fn poll_fences(&mut self) {
        self.library.poll();
    }

    fn is_retired(&self, fence: Fence) -> bool {
        // The numbers wrap around; those in flight are near each other.
        self.library.retired().wrapping_sub(fence.0).cast_signed() >= 0
    }

    fn fence_event(&self) -> BorrowedFd<'_> {
        self.library.fence_event()
    }
}

impl VirglRenderer {
    /// Whether the process is no larger than it may be.
    fn check_resident(&self) -> Result<(), ContextError> {
        match self.resident.as_ref().and_then(Resident::excess) {
            Some(excess) => Err(ContextError::Excess(excess)),
            None => Ok(()),
        }
    }
}
