// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-gpu: the guest's driver ([`Gpu`]) and QEMU's part of the vhost-user-gpu protocol
//! ([`Display`], [`DisplayThread`]).

mod commands;
mod display;
mod dmabuf;
mod driver;
mod edid;
mod format;
mod thread;
mod virgl;

pub use commands::{
    CommandQueue, EDID_RESPONSE_SIZE, HEADER_SIZE, Layout, Response, ResponseKind, Ticket,
};
pub use display::{Cursor, Display, DisplayOptions, EdidAnswer, Mode, Received, Request, Surface};
pub use dmabuf::DmabufScanout;
pub use driver::{DisplayInfo, Framebuffer, Gpu, GpuOptions, Rect};
pub use edid::{Edid, EdidError};
pub use format::Format;
pub use thread::DisplayThread;
pub use virgl::{Corner, Create3d, Stream, Transfer3d};

/// How many scanouts a virtio-gpu device can have (VIRTIO_GPU_MAX_SCANOUTS).
pub const MAX_SCANOUTS: usize = 16;
