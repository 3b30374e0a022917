// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Command errors and their `VIRTIO_GPU_RESP_ERR_*` codes (virtio 1.2, 5.7.6.7).

use super::mapping_error::MappingError;
use crate::geometry::Rect;
use crate::gpu::protocol::{DecodeError, ErrorCode, ReadError};
use crate::gpu::renderer::ContextError;
use crate::gpu::resource::{BackingError, BlobError, ImageError, ResourceError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the renderer has no 3D commands")]
    No3d,
    #[error("no such capability set: {0}")]
    Capset(u32),
    #[error("a scanout cannot show an empty rectangle: {0:?}")]
    EmptyScanout(Rect),
    #[error("the command stream has {0} bytes: too many, or not whole words")]
    StreamLength(u32),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

impl CommandError {
    /// The error response to the request.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Decode(error) => Self::code_of_decode(*error),
            Self::Read(error) => Self::code_of_read(*error),
            Self::No3d => ErrorCode::Unspec,
            Self::Capset(_) | Self::EmptyScanout(_) | Self::StreamLength(_) => {
                ErrorCode::InvalidParameter
            }
            Self::Context(error) => Self::code_of_context(error),
            Self::Resource(error) => Self::code_of_resource(error),
            Self::Mapping(error) => Self::code_of_mapping(*error),
        }
    }

    fn code_of_mapping(error: MappingError) -> ErrorCode {
        use MappingError as M;
        match error {
            M::Unavailable | M::File { .. } | M::Refused(_) => ErrorCode::Unspec,
            M::TooMany(_) => ErrorCode::OutOfMemory,
            M::IsMapped(_)
            | M::Destroyed(_)
            | M::NotMapped(_)
            | M::Unaligned { .. }
            | M::OutsideRegion { .. }
            | M::Overlap { .. } => ErrorCode::InvalidParameter,
        }
    }

    fn code_of_decode(error: DecodeError) -> ErrorCode {
        match error {
            DecodeError::Read(error) => Self::code_of_read(error),
            DecodeError::UnknownCommand | DecodeError::NotNegotiated(_) => ErrorCode::Unspec,
            DecodeError::ScanoutId(_) => ErrorCode::InvalidScanoutId,
            DecodeError::Format(_)
            | DecodeError::ContextName(_)
            | DecodeError::BlobMemory(_)
            | DecodeError::BlobFlags(_) => ErrorCode::InvalidParameter,
        }
    }

    fn code_of_read(error: ReadError) -> ErrorCode {
        match error {
            ReadError::TooShort => ErrorCode::InvalidParameter,
            ReadError::OutOfMemory => ErrorCode::OutOfMemory,
        }
    }

    fn code_of_context(error: &ContextError) -> ErrorCode {
        match error {
            ContextError::Zero | ContextError::Exists(_) | ContextError::Unknown(_) => {
                ErrorCode::InvalidContextId
            }
            ContextError::TooMany(_) | ContextError::Budget(_) | ContextError::Excess(_) => {
                ErrorCode::OutOfMemory
            }
            ContextError::Ended(_) | ContextError::ServerEnded => ErrorCode::Unspec,
            ContextError::Refused(_)
            | ContextError::Capset { .. }
            | ContextError::NotShareable { .. }
            | ContextError::TruncatedStream(_)
            | ContextError::Unaccounted { .. } => ErrorCode::InvalidParameter,
            ContextError::Resource(error) => Self::code_of_resource(error),
        }
    }

    fn code_of_resource(error: &ResourceError) -> ErrorCode {
        use ResourceError as R;
        match error {
            R::Zero | R::Exists(_) | R::Unknown(_) => ErrorCode::InvalidResourceId,
            R::HasBacking(_) | R::NoBacking(_) | R::Uuid { .. } => ErrorCode::Unspec,
            R::TooMany(_) | R::Budget { .. } | R::Excess { .. } => ErrorCode::OutOfMemory,
            R::Outside { .. }
            | R::NoCursor { .. }
            | R::OutOfBounds { .. }
            | R::NoPicture { .. }
            | R::Transfer { .. }
            | R::Refused(_)
            | R::No3d(_)
            | R::IsBlob(_)
            | R::IsNoBlob(_) => ErrorCode::InvalidParameter,
            // What a driver may ask for, and this host does not have.
            R::NoHostMemory(_) | R::Unmappable { .. } | R::ServerEnded(_) => ErrorCode::Unspec,
            R::NoContext { .. } => ErrorCode::InvalidContextId,
            R::Blob { source, .. } => match source {
                BlobError::TooLarge(_) => ErrorCode::OutOfMemory,
                BlobError::Empty
                | BlobError::HostMemory
                | BlobError::GuestCopy
                | BlobError::Entries
                | BlobError::Opaque
                | BlobError::ShortFile { .. }
                | BlobError::File(_)
                | BlobError::Size(_)
                | BlobError::Stride { .. }
                | BlobError::Outside { .. }
                | BlobError::TooShort { .. } => ErrorCode::InvalidParameter,
            },
            R::Image { source, .. } => match source {
                ImageError::Size(..) => ErrorCode::InvalidParameter,
                ImageError::Budget(_)
                | ImageError::HostMemory { .. }
                | ImageError::Place { .. } => ErrorCode::OutOfMemory,
            },
            R::Backing { source, .. } => match source {
                BackingError::Budget
                | BackingError::HostMemory
                | BackingError::Place { .. }
                | BackingError::Scattered { .. } => ErrorCode::OutOfMemory,
                BackingError::Unreadable(_) => ErrorCode::Unspec,
                BackingError::Outside { .. }
                | BackingError::Run { .. }
                | BackingError::Short { .. } => ErrorCode::InvalidParameter,
            },
        }
    }
}
