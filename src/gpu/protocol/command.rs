// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests (virtio 1.2, 5.7.6.8 to 5.7.6.10): their types, and their decoding into commands.

use std::fmt;

use virtio_bindings::virtio_gpu as spec;

use super::commands_blob::SetScanoutBlobFields;
use super::scanout_id::scanout_id;
use super::{
    CtxCreate, DecodeError, Format, Header, ReadError, RequestBytes, RequestReader,
    ResourceCreate3d, ResourceCreateBlob, ResourceMapBlob, SetScanoutBlob, Submit3d, Transfer3d,
};
use crate::geometry::{Rect, Size};

macro_rules! commands {
    ($($name:ident = $number:ident;)*) => {
        $(
            #[doc = concat!("`VIRTIO_GPU_CMD_", stringify!($name), "`.")]
            pub const $name: u32 = spec::$number;
        )*

        /// Prints a command's type as in the specification, without `VIRTIO_GPU_CMD_`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct CommandName(pub(crate) u32);

        impl fmt::Display for CommandName {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($name => f.write_str(stringify!($name)),)*
                    unknown => write!(f, "command {unknown:#06x}"),
                }
            }
        }
    };
}

commands! {
    GET_DISPLAY_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
    RESOURCE_CREATE_2D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    RESOURCE_UNREF = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
    SET_SCANOUT = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT;
    RESOURCE_FLUSH = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    TRANSFER_TO_HOST_2D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
    RESOURCE_ATTACH_BACKING = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
    RESOURCE_DETACH_BACKING = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING;
    GET_CAPSET_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET_INFO;
    GET_CAPSET = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET;
    GET_EDID = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
    RESOURCE_ASSIGN_UUID = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID;
    RESOURCE_CREATE_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB;
    SET_SCANOUT_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT_BLOB;
    RESOURCE_MAP_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB;
    RESOURCE_UNMAP_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB;
    CTX_CREATE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
    CTX_DESTROY = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY;
    CTX_ATTACH_RESOURCE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE;
    CTX_DETACH_RESOURCE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE;
    RESOURCE_CREATE_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D;
    TRANSFER_TO_HOST_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D;
    TRANSFER_FROM_HOST_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D;
    SUBMIT_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D;
    UPDATE_CURSOR = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_UPDATE_CURSOR;
    MOVE_CURSOR = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_MOVE_CURSOR;
}

/// The features, offered by the device and accepted by the driver, on which the set of commands depends.
///
/// `VIRTIO_GPU_F_EDID` and `VIRTIO_GPU_F_RESOURCE_UUID` are not among them: Windows' driver sends
/// GET_EDID if the device offers the feature, and never accepts it. QEMU answers it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NegotiatedFeatures {
    /// `VIRTIO_GPU_F_VIRGL`: the 3D commands. Without it the driver may use none of them, even if
    /// the device offers the feature and the front-end hides it.
    pub(crate) virgl: bool,
    /// `VIRTIO_GPU_F_RESOURCE_BLOB`: the commands on blob resources.
    pub(crate) blob: bool,
    /// `VIRTIO_GPU_F_CONTEXT_INIT`: contexts of several kinds.
    pub(crate) context_init: bool,
}

/// A request: its header, and its command or the reason why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<C> {
    /// The header; zeroes if the request is too short for one.
    pub(crate) header: Header,
    /// A [`Command`] or [`CursorCommand`].
    pub(crate) command: Result<C, DecodeError>,
}

/// A command of the control queue (5.7.6.8, 5.7.6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    GetDisplayInfo,
    GetEdid { scanout: u32 },
    ResourceCreate2d(ResourceCreate2d),
    ResourceUnref { resource: u32 },
    SetScanout(SetScanout),
    ResourceFlush(ResourceFlush),
    TransferToHost2d(Transfer2d),
    ResourceAttachBacking(ResourceAttachBacking),
    ResourceDetachBacking { resource: u32 },
    ResourceAssignUuid { resource: u32 },
    ResourceCreateBlob(ResourceCreateBlob),
    SetScanoutBlob(SetScanoutBlob),
    ResourceMapBlob(ResourceMapBlob),
    ResourceUnmapBlob { resource: u32 },
    GetCapsetInfo { index: u32 },
    GetCapset { id: u32, version: u32 },
    CtxCreate(CtxCreate),
    CtxDestroy { context: u32 },
    CtxAttachResource { context: u32, resource: u32 },
    CtxDetachResource { context: u32, resource: u32 },
    ResourceCreate3d(ResourceCreate3d),
    TransferToHost3d { context: u32, transfer: Transfer3d },
    TransferFromHost3d { context: u32, transfer: Transfer3d },
    Submit3d(Submit3d),
}

/// A command of the cursor queue (5.7.6.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CursorCommand {
    /// UPDATE_CURSOR: changes the shape or hides the cursor, and moves it.
    Update(UpdateCursor),
    /// MOVE_CURSOR: moves, shows or hides the cursor. The hot spot is ignored.
    Move(UpdateCursor),
}

/// `struct virtio_gpu_resource_create_2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceCreate2d {
    /// The driver's id for the new resource.
    pub(crate) id: u32,
    /// Format of the pixels.
    pub(crate) format: Format,
    /// Size in pixels.
    pub(crate) size: Size,
}

/// `struct virtio_gpu_set_scanout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetScanout {
    /// The part of the resource that is shown.
    pub(crate) rect: Rect,
    /// The scanout: less than [`MAX_SCANOUTS`](super::MAX_SCANOUTS).
    pub(crate) scanout: u32,
    /// The resource; 0 disables the scanout.
    pub(crate) resource: u32,
}

/// `struct virtio_gpu_resource_flush`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceFlush {
    /// The part of the resource to show.
    pub(crate) rect: Rect,
    /// The resource.
    pub(crate) resource: u32,
}

/// A copy from a backing (`struct virtio_gpu_transfer_to_host_2d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer2d {
    /// The resource.
    pub(crate) id: u32,
    /// The part of the resource.
    pub(crate) rect: Rect,
    /// Where the part begins in the backing, in bytes. The stride is the resource's width.
    pub(crate) offset: u64,
}

/// `struct virtio_gpu_resource_attach_backing`. The entries follow it in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceAttachBacking {
    /// The resource.
    pub(crate) resource: u32,
    /// Number of entries.
    pub(crate) count: u32,
}

/// `struct virtio_gpu_update_cursor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpdateCursor {
    /// The scanout: less than [`MAX_SCANOUTS`](super::MAX_SCANOUTS).
    pub(crate) scanout: u32,
    /// Column of the hot spot on the scanout.
    pub(crate) x: u32,
    /// Row of the hot spot on the scanout.
    pub(crate) y: u32,
    /// The resource with the shape; 0 hides the cursor.
    pub(crate) resource: u32,
    /// Column of the hot spot in the shape.
    pub(crate) hot_x: u32,
    /// Row of the hot spot in the shape.
    pub(crate) hot_y: u32,
}

impl<C> Request<C> {
    fn decode_with<S: RequestBytes>(
        reader: &mut RequestReader<S>,
        decode: impl FnOnce(&Header, &mut RequestReader<S>) -> Result<C, DecodeError>,
    ) -> Self {
        match reader.header() {
            Ok(header) => Self {
                header,
                command: decode(&header, reader),
            },
            Err(error) => Self {
                header: Header::default(),
                command: Err(error.into()),
            },
        }
    }
}

impl Command {
    /// Decodes a request of the control queue. Backing entries and command streams stay in `reader`:
    /// they are read once the command was checked.
    pub(crate) fn decode(
        reader: &mut RequestReader<impl RequestBytes>,
        features: NegotiatedFeatures,
    ) -> Request<Self> {
        Request::decode_with(reader, |header, reader| {
            Self::decode_fields(header, reader, features)
        })
    }

    fn decode_fields(
        header: &Header,
        reader: &mut RequestReader<impl RequestBytes>,
        features: NegotiatedFeatures,
    ) -> Result<Self, DecodeError> {
        Ok(match header.kind {
            GET_DISPLAY_INFO => Self::GetDisplayInfo,
            GET_EDID => Self::GetEdid {
                scanout: scanout_id(reader.u32()?)?,
            },
            RESOURCE_CREATE_2D => Self::ResourceCreate2d(ResourceCreate2d::decode(reader)?),
            RESOURCE_UNREF => Self::ResourceUnref {
                resource: reader.u32()?,
            },
            SET_SCANOUT => Self::SetScanout(SetScanout::decode(reader)?),
            RESOURCE_FLUSH => Self::ResourceFlush(ResourceFlush::decode(reader)?),
            TRANSFER_TO_HOST_2D => Self::TransferToHost2d(Transfer2d::decode(reader)?),
            RESOURCE_ATTACH_BACKING => {
                Self::ResourceAttachBacking(ResourceAttachBacking::decode(reader)?)
            }
            RESOURCE_DETACH_BACKING => Self::ResourceDetachBacking {
                resource: reader.u32()?,
            },
            RESOURCE_ASSIGN_UUID => Self::ResourceAssignUuid {
                resource: reader.u32()?,
            },
            RESOURCE_CREATE_BLOB | SET_SCANOUT_BLOB | RESOURCE_MAP_BLOB | RESOURCE_UNMAP_BLOB => {
                Self::decode_blob(header, reader, features)?
            }
            GET_CAPSET_INFO => Self::GetCapsetInfo {
                index: reader.u32()?,
            },
            GET_CAPSET => {
                let [id, version] = reader.words()?;
                Self::GetCapset { id, version }
            }
            _ => Self::decode_3d(header, reader, features)?,
        })
    }

    /// Decodes the commands that need `VIRTIO_GPU_F_RESOURCE_BLOB`.
    fn decode_blob(
        header: &Header,
        reader: &mut RequestReader<impl RequestBytes>,
        features: NegotiatedFeatures,
    ) -> Result<Self, DecodeError> {
        if !features.blob {
            return Err(DecodeError::NotNegotiated("VIRTIO_GPU_F_RESOURCE_BLOB"));
        }
        Ok(match header.kind {
            RESOURCE_CREATE_BLOB => {
                Self::ResourceCreateBlob(ResourceCreateBlob::decode(header.ctx_id, reader)?)
            }
            SET_SCANOUT_BLOB => Self::set_scanout_blob(SetScanoutBlobFields::decode(reader)?)?,
            RESOURCE_MAP_BLOB => Self::ResourceMapBlob(ResourceMapBlob::decode(reader)?),
            RESOURCE_UNMAP_BLOB => Self::ResourceUnmapBlob {
                resource: reader.u32()?,
            },
            _ => return Err(DecodeError::UnknownCommand),
        })
    }

    /// Without a resource it disables the scanout, as SET_SCANOUT does.
    fn set_scanout_blob(fields: SetScanoutBlobFields) -> Result<Self, DecodeError> {
        Ok(match fields.resource {
            0 => Self::SetScanout(SetScanout {
                rect: fields.rect,
                scanout: fields.scanout,
                resource: 0,
            }),
            _ => Self::SetScanoutBlob(fields.set_scanout()?),
        })
    }

    /// Decodes the commands that need `VIRTIO_GPU_F_VIRGL`.
    fn decode_3d(
        header: &Header,
        reader: &mut RequestReader<impl RequestBytes>,
        features: NegotiatedFeatures,
    ) -> Result<Self, DecodeError> {
        let context = header.ctx_id;
        match header.kind {
            CTX_CREATE..=SUBMIT_3D if !features.virgl => {
                Err(DecodeError::NotNegotiated("VIRTIO_GPU_F_VIRGL"))
            }
            CTX_CREATE => Ok(Self::CtxCreate(CtxCreate::decode(
                context,
                features.context_init,
                reader,
            )?)),
            CTX_DESTROY => Ok(Self::CtxDestroy { context }),
            CTX_ATTACH_RESOURCE => Ok(Self::CtxAttachResource {
                context,
                resource: reader.u32()?,
            }),
            CTX_DETACH_RESOURCE => Ok(Self::CtxDetachResource {
                context,
                resource: reader.u32()?,
            }),
            RESOURCE_CREATE_3D => Ok(Self::ResourceCreate3d(ResourceCreate3d::decode(reader)?)),
            TRANSFER_TO_HOST_3D => Ok(Self::TransferToHost3d {
                context,
                transfer: Transfer3d::decode(reader)?,
            }),
            TRANSFER_FROM_HOST_3D => Ok(Self::TransferFromHost3d {
                context,
                transfer: Transfer3d::decode(reader)?,
            }),
            SUBMIT_3D => Ok(Self::Submit3d(Submit3d::decode(context, reader)?)),
            _ => Err(DecodeError::UnknownCommand),
        }
    }
}

impl CursorCommand {
    /// Decodes a request of the cursor queue.
    pub(crate) fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Request<Self> {
        Request::decode_with(reader, |header, reader| match header.kind {
            UPDATE_CURSOR => Ok(Self::Update(UpdateCursor::decode(reader)?)),
            MOVE_CURSOR => Ok(Self::Move(UpdateCursor::decode(reader)?)),
            _ => Err(DecodeError::UnknownCommand),
        })
    }

    /// Whether the command reads the pixels of a resource.
    pub(crate) fn reads_pixels(&self) -> bool {
        matches!(self, Self::Update(update) if update.resource != 0)
    }
}

impl ResourceCreate2d {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, DecodeError> {
        let [id, format, width, height] = reader.words()?;
        Ok(Self {
            id,
            format: Format::from_number(format).ok_or(DecodeError::Format(format))?,
            size: Size::new(width, height),
        })
    }
}

impl SetScanout {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, DecodeError> {
        let rect = reader.rect()?;
        let [scanout, resource] = reader.words()?;
        Ok(Self {
            rect,
            scanout: scanout_id(scanout)?,
            resource,
        })
    }
}

impl ResourceFlush {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, ReadError> {
        Ok(Self {
            rect: reader.rect()?,
            resource: reader.u32()?,
        })
    }
}

impl Transfer2d {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, ReadError> {
        Ok(Self {
            rect: reader.rect()?,
            offset: reader.u64()?,
            id: reader.u32()?,
        })
    }
}

impl ResourceAttachBacking {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, ReadError> {
        let [resource, count] = reader.words()?;
        Ok(Self { resource, count })
    }
}

impl UpdateCursor {
    fn decode(reader: &mut RequestReader<impl RequestBytes>) -> Result<Self, DecodeError> {
        let [scanout, x, y, _padding] = reader.words()?;
        let [resource, hot_x, hot_y] = reader.words()?;
        Ok(Self {
            scanout: scanout_id(scanout)?,
            x,
            y,
            resource,
            hot_x,
            hot_y,
        })
    }
}
