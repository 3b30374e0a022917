// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of commands on rendering contexts.

use crate::gpu::resource::ResourceError;

/// Why a command on a rendering context fails.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(feature = "virgl"),
    expect(dead_code, reason = "3D alone uses most")
)]
pub(crate) enum ContextError {
    #[error("0 is not a valid context id")]
    Zero,
    #[error("context {0} exists already")]
    Exists(u32),
    #[error("there is no context {0}")]
    Unknown(u32),
    #[error("there are {0} contexts already, the maximum")]
    TooMany(usize),
    #[error("context {0}: the renderer refuses the command")]
    Refused(u32),
    #[error("context {context}: the renderer has no contexts for capability set {capset}")]
    Capset { context: u32, capset: u32 },
    #[error(
        "context {context}: the memory of blob resource {resource} can be used by its own context only"
    )]
    NotShareable { context: u32, resource: u32 },
    #[error(
        "context {0} has ended: the render server refused a command of it, or its process there crashed"
    )]
    Ended(u32),
    #[error("the render server has ended or does not answer, and the guest's Vulkan ended with it")]
    ServerEnded,
    #[error("context {0}: the command stream ends within a command")]
    TruncatedStream(u32),
    /// Bytes for the objects that a context creates.
    #[error("{0} bytes for a context exceed what is left of the VM's host memory budget")]
    Budget(u64),
    #[error("the program's memory exceeds its limit by {0} bytes")]
    Excess(u64),
    #[error("context {context}: virgl command {command} would allocate memory outside the budget")]
    Unaccounted { context: u32, command: u32 },
    #[error(transparent)]
    Resource(#[from] ResourceError),
}
