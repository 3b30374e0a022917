//! 3D commands of the control queue (virtio 1.2, 5.7.6.9).

use super::{CommandError, CommandResult, VirtioGpu};
use crate::gpu::protocol::{
    Create3d, CreateContext, RequestReader, Response, Source, Submit3d, Transfer3d,
};
use crate::gpu::renderer::{Direction, Renderer3d};

/// Most bytes of a command stream. Mesa sends at most a quarter of a megabyte at a time.
const MAX_STREAM_LEN: u32 = 4 << 20;
/// Work that a word of a command stream counts for.
const WORD_WORK: u64 = 64;

impl VirtioGpu {
    /// The renderer's 3D commands, if it has them.
    fn renderer_3d(&mut self) -> Result<&mut dyn Renderer3d, CommandError> {
        self.renderer.as_3d().ok_or(CommandError::No3d)
    }

    /// GET_CAPSET_INFO.
    pub(super) fn capset_info(&mut self, index: u32) -> Result<CommandResult, CommandError> {
        let sets = self.renderer.as_3d().map_or(&[][..], |r| r.capsets());
        let set = usize::try_from(index)
            .ok()
            .and_then(|index| sets.get(index));
        let set = set.ok_or(CommandError::Capset(index))?;
        Ok(Response::CapsetInfo(*set).into())
    }

    /// GET_CAPSET.
    pub(super) fn capset(&mut self, id: u32, version: u32) -> Result<CommandResult, CommandError> {
        let set = self.renderer.as_3d().and_then(|r| r.capset(id, version));
        Ok(Response::Capset(set.ok_or(CommandError::Capset(id))?).into())
    }

    /// CTX_CREATE.
    pub(super) fn create_context(
        &mut self,
        new: &CreateContext,
    ) -> Result<CommandResult, CommandError> {
        let renderer = self.renderer_3d()?;
        renderer.create_context(new.id, new.name.as_bytes())?;
        Ok(Response::OkNoData.into())
    }

    /// CTX_DESTROY.
    pub(super) fn destroy_context(&mut self, context: u32) -> Result<CommandResult, CommandError> {
        self.renderer_3d()?.destroy_context(context)?;
        Ok(Response::OkNoData.into())
    }

    /// CTX_ATTACH_RESOURCE.
    pub(super) fn attach_resource(
        &mut self,
        context: u32,
        resource: u32,
    ) -> Result<CommandResult, CommandError> {
        self.renderer_3d()?.attach_resource(context, resource)?;
        Ok(Response::OkNoData.into())
    }

    /// CTX_DETACH_RESOURCE.
    pub(super) fn detach_resource(
        &mut self,
        context: u32,
        resource: u32,
    ) -> Result<CommandResult, CommandError> {
        self.renderer_3d()?.detach_resource(context, resource)?;
        Ok(Response::OkNoData.into())
    }

    /// RESOURCE_CREATE_3D.
    pub(super) fn create_3d(&mut self, new: &Create3d) -> Result<CommandResult, CommandError> {
        self.renderer_3d()?.create_3d(new)?;
        Ok(Response::OkNoData.into())
    }

    /// TRANSFER_TO_HOST_3D and TRANSFER_FROM_HOST_3D.
    pub(super) fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
        work: &mut u64,
    ) -> Result<CommandResult, CommandError> {
        self.renderer_3d()?
            .transfer_3d(context, transfer, direction)?;
        *work = transfer.part.volume().saturating_mul(4);
        Ok(Response::OkNoData.into())
    }

    /// SUBMIT_3D. The command stream is read only if its length is within bounds.
    pub(super) fn submit_3d(
        &mut self,
        submit: &Submit3d,
        stream: &mut RequestReader<impl Source>,
        work: &mut u64,
    ) -> Result<CommandResult, CommandError> {
        let renderer = self.renderer_3d()?;
        let Submit3d { context, size } = *submit;
        if size > MAX_STREAM_LEN || !size.is_multiple_of(4) {
            return Err(CommandError::StreamLength(size));
        }
        let mut stream = stream.command_stream(size as usize / 4)?;
        if !is_whole(&stream) {
            return Err(CommandError::TruncatedStream);
        }
        *work = u64::from(size / 4).saturating_mul(WORD_WORK);
        renderer.submit(context, &mut stream)?;
        Ok(Response::OkNoData.into())
    }
}

/// Whether the last command of a stream ends where the stream does. Each begins with a word that
/// has the number of those behind it in its upper half.
fn is_whole(stream: &[u32]) -> bool {
    let mut rest = stream;
    while let Some((header, behind)) = rest.split_first() {
        match behind.get((header >> 16) as usize..) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_stream_ends_with_a_command() {
        for whole in [&[][..], &[7], &[1 << 16, 0], &[0, 2 << 16, 9, 9, 5]] {
            assert!(is_whole(whole), "{whole:?}");
        }
        for cut in [&[1 << 16][..], &[0, 2 << 16, 9], &[u32::MAX; 9]] {
            assert!(!is_whole(cut), "{cut:?}");
        }
    }
}
