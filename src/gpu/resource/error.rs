// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of commands on resources.

use std::io;
use std::sync::Arc;

use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{ResourceCreate3d, Transfer3d};

use super::{BackingError, BlobError, ImageError};

/// Why a command on a resource fails.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(feature = "virgl"),
    expect(dead_code, reason = "3D alone uses some")
)]
pub(crate) enum ResourceError {
    #[error("0 is not a valid resource id")]
    Zero,
    #[error("resource {0} exists already")]
    Exists(u32),
    #[error("there is no resource {0}")]
    Unknown(u32),
    #[error("there are {0} resources already, the maximum")]
    TooMany(usize),
    #[error("resource {id}: {bytes} bytes exceed what is left of the VM's host memory budget")]
    Budget { id: u32, bytes: u64 },
    #[error("resource {id}: {source}")]
    Image { id: u32, source: ImageError },
    #[error("blob resource {id}: {source}")]
    Blob { id: u32, source: BlobError },
    #[error("resource {0} is a blob, which the command is not for")]
    IsBlob(u32),
    #[error("resource {0} is not a blob")]
    IsNoBlob(u32),
    #[error("resource {0} lies in no memory of the host that a guest can map")]
    NoHostMemory(u32),
    #[error("blob resource {id} cannot be mapped: {source}")]
    Unmappable { id: u32, source: Arc<BlobError> },
    #[error("blob resource {id}: there is no context {context}")]
    NoContext { id: u32, context: u32 },
    #[error("blob resource {0}: the render server has ended or does not answer")]
    ServerEnded(u32),
    #[error("resource {0}: the command is of OpenGL, and this GPU has Vulkan only")]
    No3d(u32),
    #[error("resource {0} has a backing already")]
    HasBacking(u32),
    #[error("resource {0} has no backing")]
    NoBacking(u32),
    #[error("resource {id}: {source}")]
    Backing { id: u32, source: BackingError },
    #[error("resource {id} gets no UUID, the host has no random numbers: {source}")]
    Uuid { id: u32, source: io::Error },
    #[error("{rect:?} is not within resource {id} of {size} pixels")]
    Outside { id: u32, rect: Rect, size: Size },
    #[error("resource {id} has {size} pixels, a cursor has 64x64")]
    NoCursor { id: u32, size: Size },
    #[error("resource {id} is out of bounds: {new:?}")]
    OutOfBounds { id: u32, new: ResourceCreate3d },
    #[error("resource {id} cannot be shown on a display: {new:?}")]
    NoPicture { id: u32, new: ResourceCreate3d },
    #[error("{transfer:?} is not within its resource")]
    Transfer { transfer: Transfer3d },
    #[error("resource {0}: the renderer refuses the command")]
    Refused(u32),
    /// The limit is the VM's host memory budget and room for OpenGL; only 3D needs it.
    #[error("resource {id}: the program's memory exceeds its limit by {excess} bytes")]
    Excess { id: u32, excess: u64 },
}
