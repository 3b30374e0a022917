//! The 3D commands of the control queue.

use std::io::Read;

use super::super::protocol::{
    CONTEXT_NAME_LEN, Create3d, Header, RequestReader, Response, Transfer3d, command,
};
use super::super::renderer::{Direction, Renderer3d};
use super::{CommandError, Done, VirtioGpu};

/// Most bytes of a command stream. Mesa sends at most a quarter of a megabyte at a time.
const MAX_STREAM_LEN: u32 = 4 << 20;
/// What a word of a command stream counts for in a pass, in bytes copied.
const WORD_COST: u64 = 64;

impl VirtioGpu {
    /// The renderer's 3D commands, where it has them and the driver accepted the feature.
    fn renderer_3d(&mut self) -> Result<&mut dyn Renderer3d, CommandError> {
        if !self.features.virgl {
            return Err(CommandError::NotNegotiated);
        }
        self.renderer.as_3d().ok_or(CommandError::Unknown)
    }

    pub(super) fn capset_info(
        &mut self,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let index = fields.u32()?;
        let sets = self.renderer.as_3d().map_or(&[][..], |r| r.capsets());
        let set = usize::try_from(index)
            .ok()
            .and_then(|index| sets.get(index));
        let set = set.ok_or(CommandError::Capset(index))?;
        Ok(Response::CapsetInfo(*set).into())
    }

    pub(super) fn capset(
        &mut self,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let [id, version] = fields.words()?;
        let set = self.renderer.as_3d().and_then(|r| r.capset(id, version));
        Ok(Response::Capset(set.ok_or(CommandError::Capset(id))?).into())
    }

    pub(super) fn context(
        &mut self,
        header: &Header,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let renderer = self.renderer_3d()?;
        let id = header.ctx_id;
        if header.kind == command::CTX_DESTROY {
            renderer.destroy_context(id)?;
        } else {
            let [len, _context_init] = fields.words()?;
            let name = fields.bytes::<CONTEXT_NAME_LEN>()?;
            let name = usize::try_from(len).ok().and_then(|len| name.get(..len));
            renderer.create_context(id, name.ok_or(CommandError::Name(len))?)?;
        }
        Ok(Response::OK.into())
    }

    pub(super) fn context_resource(
        &mut self,
        header: &Header,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let renderer = self.renderer_3d()?;
        let id = fields.u32()?;
        if header.kind == command::CTX_ATTACH_RESOURCE {
            renderer.attach_resource(header.ctx_id, id)?;
        } else {
            renderer.detach_resource(header.ctx_id, id)?;
        }
        Ok(Response::OK.into())
    }

    pub(super) fn create_3d(
        &mut self,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let renderer = self.renderer_3d()?;
        let new = Create3d::read(fields)?;
        renderer.create_3d(&new)?;
        Ok(Response::OK.into())
    }

    pub(super) fn transfer_3d(
        &mut self,
        header: &Header,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let renderer = self.renderer_3d()?;
        let transfer = Transfer3d::read(fields)?;
        let direction = if header.kind == command::TRANSFER_TO_HOST_3D {
            Direction::ToHost
        } else {
            Direction::FromHost
        };
        renderer.transfer_3d(header.ctx_id, &transfer, direction)?;
        let bytes = transfer.part.volume().saturating_mul(4);
        self.moved = self.moved.saturating_add(bytes);
        Ok(Response::OK.into())
    }

    pub(super) fn submit(
        &mut self,
        header: &Header,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        self.renderer_3d()?;
        let [len, _padding] = fields.words()?;
        if len > MAX_STREAM_LEN || !len.is_multiple_of(4) {
            return Err(CommandError::Stream(len));
        }
        let mut stream = fields.stream(len as usize / 4)?;
        if !is_whole(&stream) {
            return Err(CommandError::CutStream);
        }
        let cost = u64::from(len / 4).saturating_mul(WORD_COST);
        self.moved = self.moved.saturating_add(cost);
        self.renderer_3d()?.submit(header.ctx_id, &mut stream)?;
        Ok(Response::OK.into())
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
