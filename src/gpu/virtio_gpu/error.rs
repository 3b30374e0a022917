//! Why a request is refused, and with which of the errors that there are.

use std::io;

use super::super::protocol::response;
use super::super::region::Rect;
use super::super::renderer::ContextError;
use super::super::resource::BackingError;
use super::super::resource::ImageError;
use super::super::resource::ResourceError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the request is too short")]
    Short(io::Error),
    #[error("the host has no memory for what the request carries")]
    DeviceContext,
    #[error("not a command of this queue")]
    Unknown,
    #[error("the driver did not accept the feature it needs")]
    NotNegotiated,
    #[error("there is no scanout {0}")]
    Scanout(u32),
    #[error("there is no capability set {0}")]
    Capset(u32),
    #[error("{0} is no format of a 2D resource")]
    Format(u32),
    #[error("a scanout cannot show {0:?}")]
    EmptyScanout(Rect),
    #[error("no random number: {0}")]
    Random(io::Error),
    #[error("a context's name of {0} bytes is too long")]
    Name(u32),
    #[error("a command stream of {0} bytes is too long, or not of whole words")]
    Stream(u32),
    #[error("the command stream ends within a command")]
    CutStream,
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::DeviceContext,
            _ => Self::Short(error),
        }
    }
}

impl CommandError {
    /// `VIRTIO_GPU_RESP_ERR_*`.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Self::Unknown | Self::NotNegotiated | Self::Random(_) => response::ERR_UNSPEC,
            Self::DeviceContext => response::ERR_OUT_OF_MEMORY,
            Self::Scanout(_) => response::ERR_INVALID_SCANOUT_ID,
            Self::Short(_)
            | Self::Capset(_)
            | Self::Format(_)
            | Self::EmptyScanout(_)
            | Self::Name(_)
            | Self::Stream(_)
            | Self::CutStream => response::ERR_INVALID_PARAMETER,
            Self::Context(error) => Self::kind_of_context(error),
            Self::Resource(error) => Self::kind_of_resource(error),
        }
    }

    /// `VIRTIO_GPU_RESP_ERR_*` for a command on a context.
    fn kind_of_context(error: &ContextError) -> u32 {
        match error {
            ContextError::Zero | ContextError::Exists(_) | ContextError::Unknown(_) => {
                response::ERR_INVALID_CONTEXT_ID
            }
            ContextError::TooMany(_) | ContextError::Budget(_) | ContextError::Excess(_) => {
                response::ERR_OUT_OF_MEMORY
            }
            ContextError::Refused(_) | ContextError::Unaccounted { .. } => {
                response::ERR_INVALID_PARAMETER
            }
            ContextError::Resource(error) => Self::kind_of_resource(error),
        }
    }

    /// `VIRTIO_GPU_RESP_ERR_*` for a command on a resource.
    fn kind_of_resource(error: &ResourceError) -> u32 {
        use ResourceError as R;
        match error {
            R::Zero | R::Exists(_) | R::Unknown(_) => response::ERR_INVALID_RESOURCE_ID,
            R::HasBacking(_) | R::NoBacking(_) => response::ERR_UNSPEC,
            R::TooMany(_) | R::Excess { .. } => response::ERR_OUT_OF_MEMORY,
            R::Outside { .. }
            | R::NoCursor { .. }
            | R::OutOfBounds { .. }
            | R::NoPicture { .. }
            | R::Transfer { .. }
            | R::Refused(_) => response::ERR_INVALID_PARAMETER,
            R::Image { source, .. } => match source {
                ImageError::Size(..) => response::ERR_INVALID_PARAMETER,
                ImageError::Budget(_) | ImageError::HostMemory { .. } => {
                    response::ERR_OUT_OF_MEMORY
                }
            },
            R::Backing { source, .. } => match source {
                BackingError::Budget | BackingError::HostMemory => response::ERR_OUT_OF_MEMORY,
                BackingError::Unreadable(_) => response::ERR_UNSPEC,
                BackingError::Outside { .. } | BackingError::Short { .. } => {
                    response::ERR_INVALID_PARAMETER
                }
            },
        }
    }
}
