// SPDX-License-Identifier: Apache-2.0 OR MIT
//! 3D commands of the control queue (virtio 1.2, 5.7.6.9).

use super::CommandError;
use crate::gpu::protocol::{
    CtxCreate, RequestBytes, RequestReader, ResourceCreate3d, Response, Submit3d, Transfer3d,
};
use crate::gpu::renderer::{Direction, Renderer3d, STREAM_WORD_COST};

/// Most bytes of a command stream. Mesa sends at most a quarter of a megabyte at a time.
const MAX_STREAM_LEN: u32 = 4 << 20;

/// GET_CAPSET_INFO. Without 3D there are no capability sets.
pub(super) fn capset_info(
    renderer: Option<&mut dyn Renderer3d>,
    index: u32,
) -> Result<Response, CommandError> {
    let index_of = |sets: &[_]| {
        usize::try_from(index)
            .ok()
            .and_then(|i| sets.get(i).copied())
    };
    let set = renderer.and_then(|renderer| index_of(renderer.capsets()));
    Ok(Response::CapsetInfo(
        set.ok_or(CommandError::Capset(index))?,
    ))
}

/// GET_CAPSET. Without 3D there are no capability sets.
pub(super) fn capset(
    renderer: Option<&mut dyn Renderer3d>,
    id: u32,
    version: u32,
) -> Result<Response, CommandError> {
    let set = renderer.and_then(|renderer| renderer.capset(id, version));
    Ok(Response::Capset(set.ok_or(CommandError::Capset(id))?))
}

/// CTX_CREATE.
pub(super) fn create_context(
    renderer: &mut dyn Renderer3d,
    new: &CtxCreate,
) -> Result<Response, CommandError> {
    renderer.create_context(new.id, new.name.as_bytes(), new.capset)?;
    Ok(Response::OkNoData)
}

/// CTX_DESTROY.
pub(super) fn destroy_context(
    renderer: &mut dyn Renderer3d,
    context: u32,
) -> Result<Response, CommandError> {
    renderer.destroy_context(context)?;
    Ok(Response::OkNoData)
}

/// CTX_ATTACH_RESOURCE.
pub(super) fn attach_resource(
    renderer: &mut dyn Renderer3d,
    context: u32,
    resource: u32,
) -> Result<Response, CommandError> {
    renderer.attach_resource(context, resource)?;
    Ok(Response::OkNoData)
}

/// CTX_DETACH_RESOURCE.
pub(super) fn detach_resource(
    renderer: &mut dyn Renderer3d,
    context: u32,
    resource: u32,
) -> Result<Response, CommandError> {
    renderer.detach_resource(context, resource)?;
    Ok(Response::OkNoData)
}

/// RESOURCE_CREATE_3D.
pub(super) fn create_3d(
    renderer: &mut dyn Renderer3d,
    new: &ResourceCreate3d,
) -> Result<Response, CommandError> {
    renderer.create_3d(new)?;
    Ok(Response::OkNoData)
}

/// TRANSFER_TO_HOST_3D and TRANSFER_FROM_HOST_3D.
pub(super) fn transfer_3d(
    renderer: &mut dyn Renderer3d,
    context: u32,
    transfer: &Transfer3d,
    direction: Direction,
    work: &mut u64,
) -> Result<Response, CommandError> {
    *work = renderer.transfer_3d(context, transfer, direction)?;
    Ok(Response::OkNoData)
}

/// SUBMIT_3D. The command stream is read only if its length is within bounds; the renderer checks the
/// rest. A stream that is refused or fails half-way counts as work, too.
pub(super) fn submit_3d(
    renderer: &mut dyn Renderer3d,
    submit: &Submit3d,
    stream: &mut RequestReader<impl RequestBytes>,
    work: &mut u64,
) -> Result<Response, CommandError> {
    let Submit3d { context, size } = *submit;
    if size > MAX_STREAM_LEN || size % 4 != 0 {
        return Err(CommandError::StreamLength(size));
    }
    let mut stream = stream.command_stream(size as usize / 4)?;
    *work = u64::from(size / 4).saturating_mul(STREAM_WORD_COST);
    renderer.submit(context, &mut stream)?;
    Ok(Response::OkNoData)
}
