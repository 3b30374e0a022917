// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands on resources (virtio 1.2, 5.7.6.8).

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
    if let Some(image) = renderer.existing_image(resource)? {
        scanouts.disable_showing(&image);
    }
    if let Some(blob) = renderer.blob(resource) {
        scanouts.disable_showing(&blob.handle());
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

/// RESOURCE_ASSIGN_UUID.
pub(super) fn assign_uuid(
    renderer: &mut dyn Renderer,
    resource: u32,
) -> Result<Response, CommandError> {
    let uuid = renderer.assign_uuid(resource)?;
    Ok(Response::ResourceUuid(uuid))
}
