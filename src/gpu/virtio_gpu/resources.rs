//! Commands on resources (virtio 1.2, 5.7.6.8).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::CommandError;
use crate::gpu::protocol::{ResourceCreate2d, Response};
use crate::gpu::renderer::Renderer;
use crate::gpu::scanout::Scanouts;

/// RESOURCE_CREATE_2D.
pub(super) fn create_2d(
    renderer: &mut dyn Renderer,
    new: &ResourceCreate2d,
) -> Result<Response, CommandError> {
    renderer.create_2d(new.id, new.format, new.size)?;
    Ok(Response::OkNoData)
}

/// RESOURCE_UNREF. Disables the scanouts that show the resource.
pub(super) fn unref(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    resource: u32,
) -> Result<Response, CommandError> {
    if let Some(image) = renderer.scanout_image(resource)? {
        scanouts.forget_image(&image);
    }
    renderer.unref(resource)?;
    Ok(Response::OkNoData)
}

/// RESOURCE_DETACH_BACKING.
pub(super) fn detach_backing(
    renderer: &mut dyn Renderer,
    resource: u32,
) -> Result<Response, CommandError> {
    renderer.detach_backing(resource)?;
    Ok(Response::OkNoData)
}

/// RESOURCE_ASSIGN_UUID. A resource keeps its UUID.
pub(super) fn assign_uuid(
    renderer: &mut dyn Renderer,
    resource: u32,
) -> Result<Response, CommandError> {
    let assigned = renderer.uuid(resource)?;
    let uuid = match *assigned {
        Some(uuid) => uuid,
        None => *assigned.insert(random_uuid().map_err(CommandError::Random)?),
    };
    Ok(Response::ResourceUuid(uuid))
}

/// A version 4 UUID (RFC 9562).
fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    if getrandom(&mut uuid, GetRandomFlags::NONBLOCK)? != uuid.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
