// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A message to the front-end, from its header to the rows of its pixels
//! (QEMU, docs/interop/vhost-user-gpu.rst).

use std::cmp::Ordering;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;

use display_protocol::{CursorUpdate, Features, Header, REPLY, ResizeResult, request};
use vhost::vhost_user::gpu_message::{
    GpuBackendReq, VhostUserGpuCursorPos, VhostUserGpuCursorUpdate, VhostUserGpuDMABUFScanout,
    VhostUserGpuDMABUFScanout2, VhostUserGpuEdidRequest, VhostUserGpuScanout, VhostUserGpuUpdate,
};
use vm_memory::ByteValued;

use super::stream::Stream;
use crate::geometry::Rect;
use crate::gpu::kept_state::KeptRequest;
use crate::gpu::resource::{
    BlobFramebuffer, CURSOR_LEN, CursorPixels, Dmabuf, Image, PIXEL_LEN, PixelSource,
};
use crate::gpu::scanout::{Position, Scanouts, Update};

/// Most bytes of a message before its pixels.
const MAX_HEAD_LEN: usize = Header::LEN + size_of::<VhostUserGpuDMABUFScanout2>();
/// Pixels of what is gone.
static BLACK: [u8; 64 << 10] = [0; 64 << 10];
/// Most pieces of one `sendmsg(2)` (`IOV_MAX`).
const MAX_PIECES: usize = 1024;
/// Bytes of a blob that are read at a time: what fits the L2 cache.
const BLOB_BATCH: usize = 64 << 10;

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

impl From<KeptRequest> for FrontEndRequest {
    fn from(kept: KeptRequest) -> Self {
        match kept {
            KeptRequest::Features => Self::Features,
            KeptRequest::SetFeatures(features) => Self::SetFeatures(Features(features)),
            KeptRequest::DisplayInfo => Self::DisplayInfo,
            KeptRequest::Edid(scanout) => Self::Edid(scanout),
        }
    }
}

impl TryFrom<FrontEndRequest> for KeptRequest {
    /// It is none to a VMM.
    type Error = ();

    fn try_from(request: FrontEndRequest) -> Result<Self, ()> {
        match request {
            FrontEndRequest::Features => Ok(Self::Features),
            FrontEndRequest::SetFeatures(features) => Ok(Self::SetFeatures(features.0)),
            FrontEndRequest::DisplayInfo => Ok(Self::DisplayInfo),
            FrontEndRequest::Edid(scanout) => Ok(Self::Edid(scanout)),
            FrontEndRequest::Resized(_) => Err(()),
        }
    }
}

enum Body {
    Empty,
    /// Pixels that are gone. The display is sent all that it shows after them.
    Black,
    Cursor(CursorPixels),
    /// The pixels at the time they are sent: what a command changes meanwhile is sent again after its
    /// flush.
    Pixels {
        pixels: PixelSource,
        source_rect: Rect,
    },
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Empty | Self::Black => 0,
            Self::Cursor(_) => CURSOR_LEN,
            Self::Pixels { source_rect, .. } => source_rect.area() as usize * PIXEL_LEN,
        }
    }
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
    /// A successor sends the same or what is newer in any case.
    is_sent_again: bool,
    sent: usize,
    /// Scratch space for the pixels of a blob.
    batch: Vec<u8>,
    /// Pieces of the guest's memory that were looked up since the last time.
    pieces: u64,
}

impl OutgoingMessage {
    fn new(kind: GpuBackendReq, payload: &[u8], body: Body) -> Self {
        Self::with_flags(kind.into(), 0, payload, body)
    }

    fn with_flags(request: u32, flags: u32, payload: &[u8], body: Body) -> Self {
        let body_len = body.len();
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
            is_sent_again: false,
            sent: 0,
            batch: Vec::new(),
            pieces: 0,
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
                pixels,
                source_rect,
            } => {
                let payload = update_rect(id, rect);
                let body = Body::Pixels {
                    pixels,
                    source_rect,
                };
                Self::new(GpuBackendReq::UPDATE, payload.as_slice(), body).sent_again()
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
                Self::new(GpuBackendReq::CURSOR_UPDATE, payload.as_slice(), body).sent_again()
            }
            Update::CursorPosition { id, position } => {
                let kind = if position.visible {
                    GpuBackendReq::CURSOR_POS
                } else {
                    GpuBackendReq::CURSOR_POS_HIDE
                };
                let payload = cursor_pos(id, position);
                Self::new(kind, payload.as_slice(), Body::Empty).sent_again()
            }
        }
    }

    fn sent_again(self) -> Self {
        Self {
            is_sent_again: true,
            ..self
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
        self.sent >= self.len()
    }

    /// All of its bytes.
    pub(super) fn len(&self) -> usize {
        self.head_len + self.body_len
    }

    /// How many of its bytes are sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Whether a process that goes on after this one sends what it says once more, or what is newer: pixels and cursors.
    pub(super) fn is_sent_again(&self) -> bool {
        self.is_sent_again
    }

    /// Whether one system call takes all of it, if the socket does.
    pub(super) fn fits_one_call(&self) -> bool {
        match &self.body {
            // Each row may be a piece.
            Body::Pixels {
                pixels: PixelSource::Image(_),
                source_rect,
            } => (source_rect.height as usize) < MAX_PIECES,
            Body::Pixels {
                pixels: PixelSource::Blob(_),
                ..
            } => self.body_len <= BLOB_BATCH,
            Body::Empty | Body::Black | Body::Cursor(_) => true,
        }
    }

    /// All of it but its pixels.
    pub(super) fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default()
    }

    /// Whether a message that begins with `head`, which is all but its pixels, needs no more bytes after the first `sent`
    /// ones; `None` if there is no such message.
    pub(super) fn is_over(head: &[u8], sent: usize) -> Option<bool> {
        let body_len = body_len(head)?;
        let len = head.len().checked_add(body_len)?;
        match sent.cmp(&len) {
            Ordering::Greater => None,
            Ordering::Equal => Some(true),
            // What it was to show is sent after it.
            Ordering::Less => Some(sent == 0 && body_len > 0),
        }
    }

    /// The message of a predecessor that begins with `head`, of which it had sent the first `sent` bytes. The rest of its
    /// pixels is that of `scanouts`.
    pub(super) fn resume(head: &[u8], sent: usize, scanouts: &Scanouts) -> Option<Self> {
        let body_len = body_len(head)?;
        let mut copy = [0; MAX_HEAD_LEN];
        copy.get_mut(..head.len())?.copy_from_slice(head);
        Some(Self {
            head: copy,
            head_len: head.len(),
            body: pixels_now(head, scanouts).unwrap_or(match body_len {
                0 => Body::Empty,
                _ => Body::Black,
            }),
            body_len,
            dmabuf: None,
            is_dmabuf_update: false,
            is_sent_again: false,
            sent,
            batch: Vec::new(),
            pieces: 0,
        })
    }

    /// How many pieces of the guest's memory were looked up since the last time.
    pub(super) fn take_pieces(&mut self) -> u64 {
        std::mem::take(&mut self.pieces)
    }

    /// Sends the rest of the message, as far as one system call takes it.
    pub(super) fn send(&mut self, stream: &mut Stream) -> io::Result<usize> {
        let mut pieces = Vec::new();
        let head = self.head.get(self.sent..self.head_len).unwrap_or_default();
        if !head.is_empty() {
            pieces.push(IoSlice::new(head));
        }
        let skip = self.sent.saturating_sub(self.head_len);
        let image;
        match &self.body {
            Body::Empty => {}
            Body::Black => {
                let mut left = self.body_len.saturating_sub(skip);
                while left > 0 && pieces.len() < MAX_PIECES {
                    let piece = BLACK.get(..left.min(BLACK.len())).unwrap_or_default();
                    pieces.push(IoSlice::new(piece));
                    left = left.saturating_sub(piece.len());
                }
            }
            Body::Cursor(pixels) => {
                pieces.push(IoSlice::new(pixels.get(skip..).unwrap_or_default()));
            }
            Body::Pixels {
                pixels: PixelSource::Image(shared),
                source_rect,
            } => {
                image = shared.lock();
                add_rows(&mut pieces, &image, source_rect, skip);
            }
            Body::Pixels {
                pixels: PixelSource::Blob(framebuffer),
                source_rect,
            } => {
                let left = self.body_len.saturating_sub(skip);
                let batch = &mut self.batch;
                let (bytes, looked_up) = read_blob(framebuffer, source_rect, skip, left, batch);
                self.pieces = self.pieces.saturating_add(looked_up);
                pieces.push(IoSlice::new(bytes));
            }
        }
        let dmabuf = self.dmabuf.as_ref().map(|dmabuf| dmabuf.as_fd());
        let sent = stream.send(&pieces, dmabuf)?;
        self.dmabuf = None;
        self.sent += sent;
        Ok(sent)
    }
}

/// The next pixels of `source_rect` in `framebuffer`, but for the first `skip` bytes: as many as `batch` is to hold, of the
/// `left` ones, and of how many pieces of memory.
fn read_blob<'a>(
    framebuffer: &BlobFramebuffer,
    source_rect: &Rect,
    skip: usize,
    left: usize,
    batch: &'a mut Vec<u8>,
) -> (&'a [u8], u64) {
    // The socket may have taken a part of a pixel.
    let part = skip % PIXEL_LEN;
    let len = left.saturating_add(part).min(BLOB_BATCH);
    batch.resize(len, 0);
    let pieces = framebuffer.read(source_rect, skip.saturating_sub(part), batch);
    (batch.get(part..).unwrap_or_default(), pieces)
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

/// Bytes of the pixels of the message that begins with `head`.
fn body_len(head: &[u8]) -> Option<usize> {
    let header = head.first_chunk().map(Header::decode)?;
    let len = Header::LEN.checked_add(header.size as usize)?;
    len.checked_sub(head.len())
}

/// What the message that begins with `head` is to show, as it is now, if that is still there.
fn pixels_now(head: &[u8], scanouts: &Scanouts) -> Option<Body> {
    let (header, payload) = head.split_first_chunk()?;
    let header = Header::decode(header);
    let body = match header.request {
        request::UPDATE => {
            let update = display_protocol::Update::decode(payload)?;
            let rect = Rect {
                x: update.x,
                y: update.y,
                width: update.width,
                height: update.height,
            };
            let (pixels, source_rect) = scanouts.pixels(update.scanout, &rect)?;
            Body::Pixels {
                pixels,
                source_rect,
            }
        }
        request::CURSOR_UPDATE => {
            let update = CursorUpdate::decode(payload)?;
            Body::Cursor(scanouts.cursor_pixels(update.scanout)?.clone())
        }
        _ => return None,
    };
    (body.len() == body_len(head)?).then_some(body)
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
