//! Commands on 2D resources, and UUIDs of resources (virtio 1.2, 5.7.6.8).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{CommandError, CommandResult, VirtioGpu};
use crate::gpu::protocol::{ResourceCreate2d, Response};

impl VirtioGpu {
    /// RESOURCE_CREATE_2D.
    pub(super) fn create_2d(
        &mut self,
        new: &ResourceCreate2d,
    ) -> Result<CommandResult, CommandError> {
        self.renderer.create_2d(new.id, new.format, new.size)?;
        Ok(Response::OkNoData.into())
    }

    /// RESOURCE_UNREF.
    pub(super) fn unref(&mut self, resource: u32) -> Result<CommandResult, CommandError> {
        if let Some(image) = self.renderer.scanout_image(resource)? {
            self.scanouts.forget_image(&image);
        }
        self.renderer.unref(resource)?;
        Ok(Response::OkNoData.into())
    }

    /// RESOURCE_DETACH_BACKING.
    pub(super) fn detach_backing(&mut self, resource: u32) -> Result<CommandResult, CommandError> {
        self.renderer.detach_backing(resource)?;
        Ok(Response::OkNoData.into())
    }

    /// RESOURCE_ASSIGN_UUID. A resource keeps its UUID.
    pub(super) fn assign_uuid(&mut self, resource: u32) -> Result<CommandResult, CommandError> {
        let assigned = self.renderer.uuid(resource)?;
        let uuid = match *assigned {
            Some(uuid) => uuid,
            None => *assigned.insert(random_uuid().map_err(CommandError::Random)?),
        };
        Ok(Response::ResourceUuid(uuid).into())
    }
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
