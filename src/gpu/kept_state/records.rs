// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The records, as values.

use super::encoding::{ReadFields as _, WriteFields as _};
use super::{Record, RecordError};
use crate::backend::continuity::{ValueReader, ValueWriter};
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{DisplayInfo, DisplayMode, Format, FramebufferLayout, MAX_SCANOUTS};

/// Whose the virtqueues are, and what the configuration space says. There is one, with the id 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DriverRecord {
    /// `events_read` of the configuration space.
    pub(crate) events: u32,
    /// Whether the control queue is stopped.
    pub(crate) control_stopped: bool,
    /// Where it was stopped.
    pub(crate) position: u16,
    /// Whether the cursor queue runs.
    pub(crate) cursor_runs: bool,
    /// Whether the configuration was read since a queue was stopped.
    pub(crate) config_was_read: bool,
    /// Whether the front-end has asked for a reset which is not done yet.
    pub(crate) reset_pending: bool,
}

impl DriverRecord {
    /// All of it, as one number.
    pub(crate) fn number(&self) -> u64 {
        let flags = [
            self.control_stopped,
            self.cursor_runs,
            self.config_was_read,
            self.reset_pending,
        ];
        let flags = flags
            .into_iter()
            .fold(0, |flags, flag| flags << 1 | u64::from(flag));
        u64::from(self.events) << 32 | u64::from(self.position) << 16 | flags
    }
}

impl Record for DriverRecord {
    const TABLE: u16 = 16;
    const NAME: &'static str = "state of the driver";

    fn encode(&self, writer: &mut ValueWriter) {
        let Self {
            events,
            control_stopped,
            position,
            cursor_runs,
            config_was_read,
            reset_pending,
        } = *self;
        writer.u32(events);
        writer.u16(position);
        for flag in [control_stopped, cursor_runs, config_was_read, reset_pending] {
            writer.bool(flag);
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            events: reader.u32()?,
            position: reader.u16()?,
            control_stopped: reader.bool()?,
            cursor_runs: reader.bool()?,
            config_was_read: reader.bool()?,
            reset_pending: reader.bool()?,
        })
    }
}

/// The modes of the displays. There is one, with the id 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizesRecord {
    /// Those that the device tells.
    pub(crate) modes: DisplayInfo,
    /// Those that the driver has read.
    pub(crate) read: Option<DisplayInfo>,
}

impl Record for SizesRecord {
    const TABLE: u16 = 17;
    const NAME: &'static str = "display information";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.bool(self.read.is_some());
        for modes in [Some(&self.modes), self.read.as_ref()]
            .into_iter()
            .flatten()
        {
            for mode in &modes.0 {
                writer.rect(mode.rect);
                writer.bool(mode.enabled);
                writer.u32(mode.flags);
            }
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let is_read = reader.bool()?;
        let modes = decode_modes(reader)?;
        let read = is_read.then(|| decode_modes(reader)).transpose()?;
        Ok(Self { modes, read })
    }
}

fn decode_modes(reader: &mut ValueReader<'_>) -> Result<DisplayInfo, RecordError> {
    let mut modes = [DisplayMode::default(); MAX_SCANOUTS];
    for mode in &mut modes {
        *mode = DisplayMode {
            rect: reader.rect()?,
            enabled: reader.bool()?,
            flags: reader.u32()?,
        };
    }
    Ok(DisplayInfo(modes))
}

/// A resource, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceRecord {
    pub(crate) format: Format,
    pub(crate) size: Size,
    /// Where its pixels lie in the arena, in bytes.
    pub(crate) offset: u64,
    pub(crate) uuid: Option<[u8; 16]>,
}

impl Record for ResourceRecord {
    const TABLE: u16 = 18;
    const NAME: &'static str = "resource";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(self.format.number());
        writer.size(self.size);
        writer.u64(self.offset);
        writer.bool(self.uuid.is_some());
        writer.bytes(self.uuid.as_ref().map_or(&[], |uuid| &uuid[..]));
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let format = Format::from_number(reader.u32()?);
        Ok(Self {
            format: format.ok_or(RecordError::Field("format"))?,
            size: reader.size()?,
            offset: reader.u64()?,
            uuid: match reader.bool()? {
                true => Some(reader.array()?),
                false => None,
            },
        })
    }
}

/// The backing of a resource, by the resource's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackingRecord {
    /// Where the list of its runs lies in the arena, in bytes.
    pub(crate) place: u64,
    /// How many runs it has.
    pub(crate) runs: u32,
    /// Length of the backing, in bytes.
    pub(crate) len: u64,
}

impl Record for BackingRecord {
    const TABLE: u16 = 19;
    const NAME: &'static str = "backing of resource";
    /// Of a few resources, as a screen's buffers.
    const PUT_OFTEN: Option<usize> = Some(6);

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u64(self.place).u32(self.runs).u64(self.len);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            place: reader.u64()?,
            runs: reader.u32()?,
            len: reader.u64()?,
        })
    }
}

/// What a scanout shows, by its number. There is none for one that is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanoutRecord {
    pub(crate) resource: u32,
    /// The part of the resource.
    pub(crate) rect: Rect,
    /// How the pixels lie in the resource, if that is a blob.
    pub(crate) framebuffer: Option<FramebufferLayout>,
    /// Whether it was flushed: else displays show what was there before.
    pub(crate) is_flushed: bool,
}

impl Record for ScanoutRecord {
    const TABLE: u16 = 20;
    const NAME: &'static str = "scanout";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(self.resource);
        writer.rect(self.rect);
        writer.bool(self.is_flushed);
        writer.bool(self.framebuffer.is_some());
        if let Some(layout) = &self.framebuffer {
            writer.u32(layout.format.number());
            writer.size(layout.size);
            writer.u32(layout.stride).u32(layout.offset);
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            resource: reader.u32()?,
            rect: reader.rect()?,
            is_flushed: reader.bool()?,
            framebuffer: match reader.bool()? {
                true => Some(decode_framebuffer(reader)?),
                false => None,
            },
        })
    }
}

fn decode_framebuffer(reader: &mut ValueReader<'_>) -> Result<FramebufferLayout, RecordError> {
    let format = Format::from_number(reader.u32()?);
    Ok(FramebufferLayout {
        format: format.ok_or(RecordError::Field("format"))?,
        size: reader.size()?,
        stride: reader.u32()?,
        offset: reader.u32()?,
    })
}

/// A blob resource, by its id. Its pixels are the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobRecord {
    /// Length in bytes.
    pub(crate) len: u64,
    pub(crate) uuid: Option<[u8; 16]>,
}

impl Record for BlobRecord {
    const TABLE: u16 = 24;
    const NAME: &'static str = "blob";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u64(self.len);
        writer.bool(self.uuid.is_some());
        writer.bytes(self.uuid.as_ref().map_or(&[], |uuid| &uuid[..]));
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            len: reader.u64()?,
            uuid: match reader.bool()? {
                true => Some(reader.array()?),
                false => None,
            },
        })
    }
}

/// Where the cursor of a scanout is, by the scanout's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CursorPositionRecord {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) visible: bool,
}

impl Record for CursorPositionRecord {
    const TABLE: u16 = 21;
    const NAME: &'static str = "position of cursor";
    const PUT_OFTEN: Option<usize> = Some(0);

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(self.x);
        writer.u32(self.y);
        writer.bool(self.visible);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            x: reader.u32()?,
            y: reader.u32()?,
            visible: reader.bool()?,
        })
    }
}

/// What the cursor of a scanout looks like, by the scanout's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CursorShapeRecord {
    pub(crate) hot_x: u32,
    pub(crate) hot_y: u32,
    /// Where its pixels lie in the arena, in bytes.
    pub(crate) offset: u64,
}

impl Record for CursorShapeRecord {
    const TABLE: u16 = 22;
    const NAME: &'static str = "shape of cursor";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u32(self.hot_x);
        writer.u32(self.hot_y);
        writer.u64(self.offset);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            hot_x: reader.u32()?,
            hot_y: reader.u32()?,
            offset: reader.u64()?,
        })
    }
}

/// What a display was told of a scanout last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SentScanout {
    /// That it is disabled, which is what it starts from.
    #[default]
    Disabled,
    /// Its size; pixels follow.
    Pixels(Size),
}

/// What a display was told of the scanouts and cursors. There is one, of the VMM's display, with the id 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DisplayRecord {
    pub(crate) scanouts: [SentScanout; MAX_SCANOUTS],
    /// Which cursors it was told of.
    pub(crate) cursors: [bool; MAX_SCANOUTS],
}

impl Record for DisplayRecord {
    const TABLE: u16 = 23;
    const NAME: &'static str = "state of display";

    fn encode(&self, writer: &mut ValueWriter) {
        for (scanout, cursor) in self.scanouts.iter().zip(self.cursors) {
            let size = match *scanout {
                SentScanout::Disabled => None,
                SentScanout::Pixels(size) => Some(size),
            };
            writer.u8(u8::from(size.is_some()) | u8::from(cursor) << 1);
            writer.size(size.unwrap_or_default());
        }
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let mut record = Self::default();
        for (scanout, cursor) in record.scanouts.iter_mut().zip(&mut record.cursors) {
            let flags = reader.u8()?;
            let size = reader.size()?;
            *cursor = flags & 2 != 0;
            *scanout = match flags & !2 {
                0 if size == Size::default() => SentScanout::Disabled,
                1 => SentScanout::Pixels(size),
                _ => return Err(RecordError::Field("flags")),
            };
        }
        Ok(record)
    }
}
