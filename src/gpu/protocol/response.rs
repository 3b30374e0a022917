// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Responses (virtio 1.2, 5.7.6.7 to 5.7.6.9): their types and their encoding.

use virtio_bindings::virtio_gpu as spec;

use super::{CapsetInfo, DisplayInfo, HEADER_LEN, Header, ReadError, RequestReader};

/// Most bytes of EDID in a response.
pub(crate) const MAX_EDID_LEN: usize = 1024;
/// Bytes of an EDID response with its header.
pub(crate) const EDID_RESPONSE_LEN: usize = HEADER_LEN + 8 + MAX_EDID_LEN;

macro_rules! responses {
    ($($name:ident = $number:ident;)*) => {
        $(
            #[doc = concat!("`VIRTIO_GPU_RESP_", stringify!($name), "`.")]
            pub(crate) const $name: u32 = spec::$number;
        )*
    };
}

responses! {
    OK_NODATA = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_NODATA;
    OK_DISPLAY_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
    OK_CAPSET_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET_INFO;
    OK_CAPSET = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET;
    OK_EDID = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_EDID;
    OK_RESOURCE_UUID = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_RESOURCE_UUID;
    OK_MAP_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_MAP_INFO;
    ERR_UNSPEC = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_UNSPEC;
    ERR_OUT_OF_MEMORY = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
    ERR_INVALID_SCANOUT_ID = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
    ERR_INVALID_RESOURCE_ID = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    ERR_INVALID_CONTEXT_ID = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
    ERR_INVALID_PARAMETER = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
}

/// An error response (`VIRTIO_GPU_RESP_ERR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ErrorCode {
    Unspec = ERR_UNSPEC,
    OutOfMemory = ERR_OUT_OF_MEMORY,
    InvalidScanoutId = ERR_INVALID_SCANOUT_ID,
    InvalidResourceId = ERR_INVALID_RESOURCE_ID,
    InvalidContextId = ERR_INVALID_CONTEXT_ID,
    InvalidParameter = ERR_INVALID_PARAMETER,
}

/// The response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// Success without data.
    OkNoData,
    /// `struct virtio_gpu_resp_display_info`.
    DisplayInfo(Box<DisplayInfo>),
    /// `struct virtio_gpu_resp_edid`: at most [`MAX_EDID_LEN`] bytes.
    Edid(Vec<u8>),
    /// `struct virtio_gpu_resp_resource_uuid`.
    ResourceUuid([u8; 16]),
    /// `struct virtio_gpu_resp_map_info`: `VIRTIO_GPU_MAP_CACHE_*`.
    MapInfo(u32),
    /// `struct virtio_gpu_resp_capset_info`.
    CapsetInfo(CapsetInfo),
    /// `struct virtio_gpu_resp_capset`.
    Capset(Vec<u8>),
    /// The request failed.
    Error(ErrorCode),
}

impl Response {
    /// `VIRTIO_GPU_RESP_*`.
    fn kind(&self) -> u32 {
        match self {
            Self::OkNoData => OK_NODATA,
            Self::DisplayInfo(_) => OK_DISPLAY_INFO,
            Self::Edid(_) => OK_EDID,
            Self::ResourceUuid(_) => OK_RESOURCE_UUID,
            Self::MapInfo(_) => OK_MAP_INFO,
            Self::CapsetInfo(_) => OK_CAPSET_INFO,
            Self::Capset(_) => OK_CAPSET,
            Self::Error(code) => *code as u32,
        }
    }

    /// The bytes of the response to the request with this header.
    pub(crate) fn encode(&self, request: &Header) -> EncodedResponse {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        request.response(self.kind()).append_to(&mut bytes);
        match self {
            Self::OkNoData | Self::Error(_) => {}
            Self::DisplayInfo(info) => info.append_to(&mut bytes),
            Self::Edid(edid) => append_edid(&mut bytes, edid),
            Self::ResourceUuid(uuid) => bytes.extend(uuid),
            Self::MapInfo(info) => {
                for field in [*info, 0] {
                    bytes.extend(field.to_le_bytes());
                }
            }
            Self::CapsetInfo(set) => {
                for field in [set.id, set.max_version, set.max_size, 0] {
                    bytes.extend(field.to_le_bytes());
                }
            }
            Self::Capset(set) => bytes.extend(set),
        }
        EncodedResponse(bytes)
    }
}

fn append_edid(bytes: &mut Vec<u8>, edid: &[u8]) {
    let size = edid.len().min(MAX_EDID_LEN);
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend([0; 4]);
    let start = bytes.len();
    bytes.extend(edid.iter().take(size));
    bytes.resize(start + MAX_EDID_LEN, 0);
}

/// Reads the EDID of a `struct virtio_gpu_resp_edid` with its header, as vhost-user-gpu's front-end
/// sends it; `None` for an error response and an empty EDID.
///
/// # Errors
/// If `response` is too short.
pub(crate) fn decode_edid(response: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
    let mut reader = RequestReader::new(response);
    let header = reader.header()?;
    let [size, _padding] = reader.words()?;
    let edid = reader.bytes::<MAX_EDID_LEN>()?;
    let edid = usize::try_from(size).ok().and_then(|size| edid.get(..size));
    let edid = edid.filter(|edid| header.kind == OK_EDID && !edid.is_empty());
    Ok(edid.map(<[u8]>::to_vec))
}

/// The bytes of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodedResponse(Vec<u8>);

impl EncodedResponse {
    /// The bytes to write to buffers of `room` bytes: the response; if it does not fit, its header with
    /// `ERR_UNSPEC`; if not even that fits, nothing.
    pub(crate) fn fit(&mut self, room: usize) -> &[u8] {
        let Self(bytes) = self;
        if bytes.len() > room {
            bytes.truncate(if room < HEADER_LEN { 0 } else { HEADER_LEN });
            if let Some(kind) = bytes.first_chunk_mut() {
                *kind = ERR_UNSPEC.to_le_bytes();
            }
        }
        bytes
    }
}

#[cfg(test)]
impl std::ops::Deref for EncodedResponse {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
