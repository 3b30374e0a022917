//! A message to the front-end, from its header to the rows of its pixels
//! (QEMU, docs/interop/vhost-user-gpu.rst).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use display_protocol::{Features, Header, REPLY, ResizeResult, request};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::gpu_message::{
    GpuBackendReq, VhostUserGpuCursorPos, VhostUserGpuCursorUpdate, VhostUserGpuDMABUFScanout,
    VhostUserGpuDMABUFScanout2, VhostUserGpuEdidRequest, VhostUserGpuScanout, VhostUserGpuUpdate,
};
use vm_memory::ByteValued;

use crate::geometry::Rect;
use crate::gpu::resource::Dmabuf;
use crate::gpu::resource::{CURSOR_LEN, CursorPixels};
use crate::gpu::resource::{Image, PIXEL_LEN, SharedImage};
use crate::gpu::scanout::{Position, Update};

/// Most bytes of a message before its pixels.
const MAX_HEAD_LEN: usize = Header::LEN + size_of::<VhostUserGpuDMABUFScanout2>();
/// Most pieces of one `sendmsg(2)` (`IOV_MAX`).
const MAX_PIECES: usize = 1024;

/// A message other than a picture update: negotiation, a query, or an answer to a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrontEndRequest {
    Features,
    SetFeatures(Features),
    DisplayInfo,
    Edid(u32),
    /// The answer to `RESIZE`.
    Resized(ResizeResult),
}

impl FrontEndRequest {
    pub(super) fn has_reply(&self) -> bool {
        !matches!(self, Self::SetFeatures(_) | Self::Resized(_))
    }
}

enum Body {
    Empty,
    Cursor(CursorPixels),
    /// The pixels at the time they are sent: what a command changes meanwhile is sent again after its
    /// flush.
    Pixels {
        image: SharedImage,
        source_rect: Rect,
    },
}

/// A message, and how much of it is sent.
pub(super) struct OutgoingMessage {
    head: [u8; MAX_HEAD_LEN],
    head_len: usize,
    body: Body,
    body_len: usize,
    /// Its descriptor goes with the first byte.
    dmabuf: Option<Arc<Dmabuf>>,
    is_dmabuf_update: bool,
    sent: usize,
}

impl OutgoingMessage {
    fn new(kind: GpuBackendReq, payload: &[u8], body: Body) -> Self {
        Self::with_flags(kind.into(), 0, payload, body)
    }

    fn with_flags(request: u32, flags: u32, payload: &[u8], body: Body) -> Self {
        let body_len = match &body {
            Body::Empty => 0,
            Body::Cursor(_) => CURSOR_LEN,
            Body::Pixels { source_rect, .. } => source_rect.area() as usize * PIXEL_LEN,
        };
        let size = (payload.len() + body_len) as u32;
        let mut head = [0; MAX_HEAD_LEN];
        let header = Header {
            request,
            flags,
            size,
        };
        let header = header.encode();
        let bytes = header.iter().chain(payload);
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self {
            head,
            head_len: Header::LEN + payload.len(),
            body,
            body_len,
            dmabuf: None,
            is_dmabuf_update: false,
            sent: 0,
        }
    }

    pub(super) fn request(message: FrontEndRequest) -> Self {
        let new = |kind, payload: &[u8]| Self::new(kind, payload, Body::Empty);
        match message {
            FrontEndRequest::Features => new(GpuBackendReq::GET_PROTOCOL_FEATURES, &[]),
            FrontEndRequest::SetFeatures(accepted) => {
                new(GpuBackendReq::SET_PROTOCOL_FEATURES, &accepted.encode())
            }
            FrontEndRequest::DisplayInfo => new(GpuBackendReq::GET_DISPLAY_INFO, &[]),
            FrontEndRequest::Edid(scanout_id) => {
                let payload = VhostUserGpuEdidRequest { scanout_id };
                new(GpuBackendReq::GET_EDID, payload.as_slice())
            }
            FrontEndRequest::Resized(result) => {
                Self::with_flags(request::RESIZE, REPLY, &result.encode(), Body::Empty)
            }
        }
    }

    pub(super) fn update(update: Update) -> Self {
        match update {
            Update::Scanout { id, size } => {
                let payload = VhostUserGpuScanout {
                    scanout_id: id,
                    width: size.width,
                    height: size.height,
                };
                Self::new(GpuBackendReq::SCANOUT, payload.as_slice(), Body::Empty)
            }
            Update::Pixels {
                id,
                rect,
                image,
                source_rect,
            } => {
                let payload = update_rect(id, rect);
                let body = Body::Pixels { image, source_rect };
                Self::new(GpuBackendReq::UPDATE, payload.as_slice(), body)
            }
            Update::Dmabuf {
                id,
                dmabuf,
                modifier,
            } => Self::dmabuf(id, dmabuf, modifier),
            Update::DmabufDamage { id, rect } => {
                let payload = update_rect(id, rect);
                let kind = GpuBackendReq::DMABUF_UPDATE;
                Self {
                    is_dmabuf_update: true,
                    ..Self::new(kind, payload.as_slice(), Body::Empty)
                }
            }
            Update::Cursor {
                id,
                position,
                shape,
            } => {
                let payload = VhostUserGpuCursorUpdate {
                    pos: cursor_pos(id, position),
                    hot_x: shape.hot_x,
                    hot_y: shape.hot_y,
                };
                let body = Body::Cursor(shape.pixels);
                Self::new(GpuBackendReq::CURSOR_UPDATE, payload.as_slice(), body)
            }
            Update::CursorPosition { id, position } => {
                let kind = if position.visible {
                    GpuBackendReq::CURSOR_POS
                } else {
                    GpuBackendReq::CURSOR_POS_HIDE
                };
                let payload = cursor_pos(id, position);
                Self::new(kind, payload.as_slice(), Body::Empty)
            }
        }
    }

    fn dmabuf(scanout_id: u32, dmabuf: Option<Arc<Dmabuf>>, modifier: bool) -> Self {
        let Some(dmabuf) = dmabuf else {
            // All 0 but the scanout's number, and without a descriptor.
            let payload = VhostUserGpuDMABUFScanout {
                scanout_id,
                ..VhostUserGpuDMABUFScanout::default()
            };
            let kind = GpuBackendReq::DMABUF_SCANOUT;
            return Self::new(kind, payload.as_slice(), Body::Empty);
        };
        let dmabuf_scanout = VhostUserGpuDMABUFScanout {
            scanout_id,
            x: 0,
            y: 0,
            width: dmabuf.size.width,
            height: dmabuf.size.height,
            fd_width: dmabuf.size.width,
            fd_height: dmabuf.size.height,
            fd_stride: dmabuf.stride,
            fd_flags: u32::from(dmabuf.y_0_top),
            fd_drm_fourcc: dmabuf.fourcc,
        };
        let message = if modifier {
            let payload = VhostUserGpuDMABUFScanout2 {
                dmabuf_scanout,
                modifier: dmabuf.modifier,
            };
            let kind = GpuBackendReq::DMABUF_SCANOUT2;
            Self::new(kind, payload.as_slice(), Body::Empty)
        } else {
            let kind = GpuBackendReq::DMABUF_SCANOUT;
            Self::new(kind, dmabuf_scanout.as_slice(), Body::Empty)
        };
        Self {
            dmabuf: Some(dmabuf),
            ..message
        }
    }

    /// Whether it is a `DMABUF_UPDATE`, which the front-end answers.
    pub(super) fn is_dmabuf_update(&self) -> bool {
        self.is_dmabuf_update
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sent >= self.head_len + self.body_len
    }

    /// Sends the rest of the message, as far as one system call takes it.
    pub(super) fn send(&mut self, socket: &UnixStream) -> io::Result<usize> {
        let mut pieces = Vec::new();
        let head = self.head.get(self.sent..self.head_len).unwrap_or_default();
        if !head.is_empty() {
            pieces.push(IoSlice::new(head));
        }
        let skip = self.sent.saturating_sub(self.head_len);
        let image;
        match &self.body {
            Body::Empty => {}
            Body::Cursor(pixels) => {
                pieces.push(IoSlice::new(pixels.get(skip..).unwrap_or_default()));
            }
            Body::Pixels {
                image: shared,
                source_rect,
            } => {
                image = shared.lock();
                add_rows(&mut pieces, &image, source_rect, skip);
            }
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        let fds = self.dmabuf.as_ref().map(|dmabuf| [dmabuf.as_fd()]);
        if let Some(fds) = &fds
            && !with.push(SendAncillaryMessage::ScmRights(fds))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = sendmsg(socket, &pieces, &mut with, flags)?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.dmabuf = None;
        self.sent += sent;
        Ok(sent)
    }
}

/// Adds the rows of `source_rect` as they lie in `image`, but for the first `skip` bytes; whole rows of
/// the image in one piece.
fn add_rows<'a>(pieces: &mut Vec<IoSlice<'a>>, image: &'a Image, source_rect: &Rect, skip: usize) {
    let row_len = source_rect.width as usize * PIXEL_LEN;
    let total = row_len * source_rect.height as usize;
    if row_len == image.stride() {
        let all = image.bytes(source_rect.x, source_rect.y, total);
        pieces.push(IoSlice::new(all.get(skip..).unwrap_or_default()));
        return;
    }
    let Some(first) = skip.checked_div(row_len) else {
        return;
    };
    let mut skip = skip % row_len;
    for row in (first as u32..source_rect.height).take(MAX_PIECES - pieces.len()) {
        let bytes = image.bytes(source_rect.x, source_rect.y.saturating_add(row), row_len);
        pieces.push(IoSlice::new(bytes.get(skip..).unwrap_or_default()));
        skip = 0;
    }
}

fn update_rect(scanout_id: u32, rect: Rect) -> VhostUserGpuUpdate {
    VhostUserGpuUpdate {
        scanout_id,
        x: rect.x,
        y: rect.y,
        width: rect.width,
        height: rect.height,
    }
}

fn cursor_pos(scanout_id: u32, position: Position) -> VhostUserGpuCursorPos {
    VhostUserGpuCursorPos {
        scanout_id,
        x: position.x,
        y: position.y,
    }
}
