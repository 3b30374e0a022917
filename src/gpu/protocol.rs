//! The control and cursor queues' wire format (virtio 1.2, 5.7.6): little-endian structures, read
//! field by field from whatever the driver's buffers hold.

use std::io::{self, Read};

use virtio_bindings::virtio_gpu as spec;

use super::region::Rect;

mod commands_3d;
mod format;
mod reader;

#[cfg(feature = "virgl")]
pub use commands_3d::Box3;
pub use commands_3d::{CONTEXT_NAME_LEN, CapsetInfo, Create3d, Transfer3d};
pub use format::Format;
pub use reader::{Begun, ENTRY_LEN, RequestReader, Source};

/// Scanouts a device can have.
pub const MAX_SCANOUTS: usize = spec::VIRTIO_GPU_MAX_SCANOUTS as usize;
/// Bytes of the header that every request and every response begins with.
pub const HEADER_LEN: usize = 24;
/// Bytes of one mode in a display information.
const MODE_LEN: usize = 24;
/// Bytes of all the modes in a display information.
pub const MODES_LEN: usize = MODE_LEN * MAX_SCANOUTS;
/// Most bytes of EDID that a response holds.
pub const MAX_EDID_LEN: usize = 1024;

/// `VIRTIO_GPU_CMD_*`: the requests this device knows by name.
#[allow(missing_docs)]
pub mod command {
    use virtio_bindings::virtio_gpu as spec;

    pub const GET_DISPLAY_INFO: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
    pub const RESOURCE_CREATE_2D: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    pub const RESOURCE_UNREF: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
    pub const SET_SCANOUT: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT;
    pub const RESOURCE_FLUSH: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    pub const TRANSFER_TO_HOST_2D: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
    pub const RESOURCE_ATTACH_BACKING: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
    pub const RESOURCE_DETACH_BACKING: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING;
    pub const GET_CAPSET_INFO: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET_INFO;
    pub const GET_CAPSET: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET;
    pub const GET_EDID: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
    pub const RESOURCE_ASSIGN_UUID: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID;
    pub const CTX_CREATE: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
    pub const CTX_DESTROY: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY;
    pub const CTX_ATTACH_RESOURCE: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE;
    pub const CTX_DETACH_RESOURCE: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE;
    pub const RESOURCE_CREATE_3D: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D;
    pub const TRANSFER_TO_HOST_3D: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D;
    pub const TRANSFER_FROM_HOST_3D: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D;
    pub const SUBMIT_3D: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D;
    pub const UPDATE_CURSOR: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_UPDATE_CURSOR;
    pub const MOVE_CURSOR: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_MOVE_CURSOR;
}

/// `VIRTIO_GPU_RESP_*`.
#[allow(missing_docs)]
pub mod response {
    use virtio_bindings::virtio_gpu as spec;

    pub const OK_NODATA: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_NODATA;
    pub const OK_DISPLAY_INFO: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
    pub const OK_CAPSET_INFO: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET_INFO;
    pub const OK_CAPSET: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET;
    pub const OK_EDID: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_EDID;
    pub const OK_RESOURCE_UUID: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_RESOURCE_UUID;
    pub const ERR_UNSPEC: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_UNSPEC;
    pub const ERR_OUT_OF_MEMORY: u32 = spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
    pub const ERR_INVALID_SCANOUT_ID: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
    pub const ERR_INVALID_RESOURCE_ID: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    pub const ERR_INVALID_CONTEXT_ID: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
    pub const ERR_INVALID_PARAMETER: u32 =
        spec::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
}

/// `struct virtio_gpu_ctrl_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// A [`command`] or a [`response`].
    pub kind: u32,
    /// `VIRTIO_GPU_FLAG_*`.
    pub flags: u32,
    /// What the driver waits for with `VIRTIO_GPU_FLAG_FENCE`.
    pub fence_id: u64,
    /// The rendering context; 0 for none, as always in 2D.
    pub ctx_id: u32,
    /// Ring of the context, with `VIRTIO_GPU_FLAG_INFO_RING_IDX`.
    pub ring_idx: u8,
}

impl Header {
    /// Whether the driver waits for the end of what the request begins.
    pub fn is_fenced(&self) -> bool {
        self.flags & spec::VIRTIO_GPU_FLAG_FENCE != 0
    }

    /// The header of a response of the kind `kind` to the request that began with this one: its
    /// fence goes back with it (virtio 1.2, 5.7.6.7).
    fn answer(&self, kind: u32) -> Self {
        if !self.is_fenced() {
            return Self {
                kind,
                ..Self::default()
            };
        }
        let flags = spec::VIRTIO_GPU_FLAG_FENCE | spec::VIRTIO_GPU_FLAG_INFO_RING_IDX;
        Self {
            kind,
            flags: self.flags & flags,
            ..*self
        }
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.fence_id.to_le_bytes());
        bytes.extend(self.ctx_id.to_le_bytes());
        bytes.extend([self.ring_idx, 0, 0, 0]);
    }
}

/// A copy from a backing (`struct virtio_gpu_transfer_to_host_2d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer2d {
    /// The resource.
    pub id: u32,
    /// The part of it.
    pub rect: Rect,
    /// Where in the backing it begins, in bytes. Rows lie as far apart as the resource is wide.
    pub offset: u64,
}

impl Transfer2d {
    /// Reads the part after the header.
    ///
    /// # Errors
    /// Where the source ends first.
    pub fn read(fields: &mut RequestReader<impl Read>) -> io::Result<Self> {
        Ok(Self {
            rect: fields.rect()?,
            offset: fields.u64()?,
            id: fields.u32()?,
        })
    }
}

/// One entry of a display information (`struct virtio_gpu_display_one`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Where the scanout lies among the others, and its size in pixels.
    pub rect: Rect,
    /// Whether the user has this display switched on.
    pub enabled: bool,
    /// `flags`, passed on as they are.
    pub flags: u32,
}

/// The display information of all scanouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayInfo(pub [Mode; MAX_SCANOUTS]);

impl Default for DisplayInfo {
    /// One display, as large as QEMU's virtio-gpu makes it unless told otherwise.
    fn default() -> Self {
        let mut modes = [Mode::default(); MAX_SCANOUTS];
        modes[0] = Mode {
            rect: Rect::sized(1280, 800),
            enabled: true,
            flags: 0,
        };
        Self(modes)
    }
}

impl DisplayInfo {
    /// Reads the part after the header of a `struct virtio_gpu_resp_display_info`.
    ///
    /// # Errors
    /// Where `source` ends before the last mode does.
    pub fn read(source: impl Read) -> io::Result<Self> {
        let mut fields = RequestReader::new(source);
        let mut modes = [Mode::default(); MAX_SCANOUTS];
        for mode in &mut modes {
            *mode = Mode {
                rect: fields.rect()?,
                enabled: fields.u32()? != 0,
                flags: fields.u32()?,
            };
        }
        Ok(Self(modes))
    }

    /// The mode of scanout `id`, where the user has it switched on.
    pub fn enabled(&self, id: u32) -> Option<&Mode> {
        let mode = self.0.get(usize::try_from(id).ok()?)?;
        mode.enabled.then_some(mode)
    }
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Done, or refused with a `VIRTIO_GPU_RESP_ERR_*`.
    Plain(u32),
    /// `struct virtio_gpu_resp_display_info`.
    DisplayInfo(Box<DisplayInfo>),
    /// `struct virtio_gpu_resp_edid`: at most [`MAX_EDID_LEN`] bytes.
    Edid(Vec<u8>),
    /// `struct virtio_gpu_resp_resource_uuid`.
    Uuid([u8; 16]),
    /// `struct virtio_gpu_resp_capset_info`.
    CapsetInfo(CapsetInfo),
    /// `struct virtio_gpu_resp_capset`.
    Capset(Vec<u8>),
}

impl Response {
    /// Done, with nothing to say.
    pub const OK: Self = Self::Plain(response::OK_NODATA);

    /// `VIRTIO_GPU_RESP_*`.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Plain(kind) => *kind,
            Self::DisplayInfo(_) => response::OK_DISPLAY_INFO,
            Self::Edid(_) => response::OK_EDID,
            Self::Uuid(_) => response::OK_RESOURCE_UUID,
            Self::CapsetInfo(_) => response::OK_CAPSET_INFO,
            Self::Capset(_) => response::OK_CAPSET,
        }
    }

    /// Whether it is one of `VIRTIO_GPU_RESP_ERR_*`.
    pub fn is_error(&self) -> bool {
        self.kind() >= response::ERR_UNSPEC
    }

    /// The bytes that answer the request with the header `request`.
    pub fn to_bytes(&self, request: &Header) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        request.answer(self.kind()).append_to(&mut bytes);
        match self {
            Self::Plain(_) => {}
            Self::DisplayInfo(modes) => {
                for mode in &modes.0 {
                    let Rect {
                        x,
                        y,
                        width,
                        height,
                    } = mode.rect;
                    for field in [x, y, width, height, mode.enabled.into(), mode.flags] {
                        bytes.extend(field.to_le_bytes());
                    }
                }
            }
            Self::Edid(edid) => {
                let size = edid.len().min(MAX_EDID_LEN);
                bytes.extend((size as u32).to_le_bytes());
                bytes.extend([0; 4]);
                let start = bytes.len();
                bytes.extend(edid.iter().take(size));
                bytes.resize(start + MAX_EDID_LEN, 0);
            }
            Self::Uuid(uuid) => bytes.extend(uuid),
            Self::CapsetInfo(set) => {
                for field in [set.id, set.max_version, set.max_size, 0] {
                    bytes.extend(field.to_le_bytes());
                }
            }
            Self::Capset(set) => bytes.extend(set),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Header = Header {
        kind: command::RESOURCE_FLUSH,
        flags: 1,
        fence_id: 0x0102_0304_0506_0708,
        ctx_id: 9,
        ring_idx: 3,
    };

    #[test]
    fn a_header_survives_the_wire() {
        let mut bytes = Vec::new();
        REQUEST.append_to(&mut bytes);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(RequestReader::new(&bytes[..]).header().unwrap(), REQUEST);
    }

    #[test]
    fn a_fence_goes_back_and_its_absence_too() {
        let fenced = Response::OK.to_bytes(&REQUEST);
        let header = RequestReader::new(&fenced[..]).header().unwrap();
        assert_eq!(
            header,
            Header {
                kind: response::OK_NODATA,
                ..REQUEST
            }
        );
        let unfenced = Response::OK.to_bytes(&Header {
            flags: 0,
            ..REQUEST
        });
        let header = RequestReader::new(&unfenced[..]).header().unwrap();
        assert_eq!((header.flags, header.fence_id, header.ctx_id), (0, 0, 0));
    }

    #[test]
    fn unknown_flags_do_not_come_back() {
        let request = Header {
            flags: u32::MAX,
            ..REQUEST
        };
        let bytes = Response::OK.to_bytes(&request);
        assert_eq!(RequestReader::new(&bytes[..]).header().unwrap().flags, 3);
    }

    #[test]
    fn modes_survive_the_wire() {
        let mut modes = DisplayInfo::default();
        modes.0[15] = Mode {
            rect: Rect {
                x: 1,
                y: 2,
                width: 3,
                height: 4,
            },
            enabled: true,
            flags: 5,
        };
        let bytes = Response::DisplayInfo(Box::new(modes)).to_bytes(&REQUEST);
        assert_eq!(bytes.len(), HEADER_LEN + MODES_LEN);
        assert_eq!(DisplayInfo::read(&bytes[HEADER_LEN..]).unwrap(), modes);
        assert!(DisplayInfo::read(&bytes[HEADER_LEN + 1..]).is_err());
    }

    #[test]
    fn an_edid_response_has_its_full_length() {
        let bytes = Response::Edid(vec![7; 128]).to_bytes(&REQUEST);
        assert_eq!(bytes.len(), HEADER_LEN + 8 + MAX_EDID_LEN);
        assert_eq!(bytes[HEADER_LEN..HEADER_LEN + 4], 128_u32.to_le_bytes());
        assert_eq!(bytes[HEADER_LEN + 8 + 127], 7);
        assert_eq!(bytes[HEADER_LEN + 8 + 128], 0);
        let long = Response::Edid(vec![7; 5000]).to_bytes(&REQUEST);
        assert_eq!(long.len(), bytes.len());
    }
}
