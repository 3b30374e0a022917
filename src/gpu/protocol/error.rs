// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a request cannot be decoded.

/// Why the fields of a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the request is too short")]
    TooShort,
    #[error("the host has no memory for the request's data")]
    OutOfMemory,
}

/// Why a request cannot be decoded into a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the queue has no such command")]
    UnknownCommand,
    #[error("the driver did not accept {0}")]
    NotNegotiated(&'static str),
    #[error("no such scanout: {0}")]
    ScanoutId(u32),
    #[error("not a format of 2D resources: {0}")]
    Format(u32),
    #[error("the context's name is too long: {0} bytes")]
    ContextName(u32),
    #[error("a blob resource has no such memory: {0}")]
    BlobMemory(u32),
    #[error("a blob resource has no such flags: {0:#x}")]
    BlobFlags(u32),
}
