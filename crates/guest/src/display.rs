// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's screen, through the DRM ioctls that every driver has.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail, ensure};
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::{
    ClipRect, Device as _, Mode, connector, crtc, dumbbuffer::DumbBuffer, framebuffer,
};
use guest::animation::Animation;
use guest::testcard;

const CARD: &str = "/dev/dri/card0";
/// The only size of a virtio-gpu cursor.
const CURSOR_SIZE: u32 = 64;

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// What is shown: one buffer, of which each output has a part.
struct Picture {
    buffer: DumbBuffer,
    framebuffer: framebuffer::Handle,
}

/// An open DRM device. Closing it gives the screen up.
pub(crate) struct Display {
    card: Card,
    picture: Option<Picture>,
    cursor: Option<DumbBuffer>,
    animation: Animation,
    /// The animation's next frame.
    frame: u64,
}

impl Display {
    /// Opens the card and becomes its master.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let card = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CARD)
            .with_context(|| format!("cannot open {CARD}"))?;
        Ok(Self {
            card: Card(card),
            picture: None,
            cursor: None,
            animation: Animation::default(),
            frame: 0,
        })
    }

    /// The first `count` connected outputs and the CRTCs that drive them.
    fn outputs(&self, count: usize) -> anyhow::Result<Vec<(crtc::Handle, connector::Info)>> {
        let resources = self
            .card
            .resource_handles()
            .context("cannot list the card's parts")?;
        let mut outputs = Vec::new();
        for handle in resources.connectors() {
            let connector = self
                .card
                .get_connector(*handle, true)
                .context("cannot probe")?;
            if connector.state() != connector::State::Connected {
                continue;
            }
            let encoder = connector
                .encoders()
                .first()
                .context("a connector without encoder")?;
            let possible = self.card.get_encoder(*encoder)?.possible_crtcs();
            let crtc = resources
                .filter_crtcs(possible)
                .into_iter()
                .find(|crtc| outputs.iter().all(|(taken, _)| taken != crtc))
                .context("more outputs than CRTCs")?;
            outputs.push((crtc, connector));
        }
        if outputs.len() < count || count == 0 {
            bail!("{count} outputs wanted, {} connected", outputs.len());
        }
        outputs.truncate(count);
        Ok(outputs)
    }

    /// Draws a test card over `count` outputs of `size` each, side by side in one
    /// buffer, and shows it. Returns the checksum of the buffer.
    pub(crate) fn test_card(&mut self, size: (u16, u16), count: usize) -> anyhow::Result<u64> {
        let outputs = self.outputs(count)?;
        let (width, height) = (u32::from(size.0), u32::from(size.1));
        let whole = u32::try_from(count)
            .ok()
            .and_then(|count| width.checked_mul(count))
            .context("too many outputs")?;
        let mut picture = self.new_picture((whole, height))?;
        let sum = self.paint(&mut picture.buffer, |x, y, _| {
            testcard::pixel(x, y, whole, height)
        })?;
        let mut left = 0;
        for (crtc, connector) in &outputs {
            self.card
                .set_crtc(
                    *crtc,
                    Some(picture.framebuffer),
                    (left, 0),
                    &[connector.handle()],
                    Some(mode_for(connector, size)),
                )
                .with_context(|| format!("cannot set {}x{} on {connector}", size.0, size.1))?;
            left += width;
        }
        if let Some(old) = self.picture.replace(picture) {
            self.card
                .destroy_framebuffer(old.framebuffer)
                .context("cannot drop a framebuffer")?;
            self.card
                .destroy_dumb_buffer(old.buffer)
                .context("cannot drop a buffer")?;
        }
        // A driver may upload at the mode-set already; the flush is what it must honour.
        self.flush([0, 0, u16::try_from(whole)?, size.1])?;
        Ok(sum)
    }

    /// Fills `[x, y, width, height]` of the picture with one colour and flushes just
    /// that. Returns the checksum of the whole buffer.
    pub(crate) fn patch(&mut self, area: [u16; 4], colour: u32) -> anyhow::Result<u64> {
        let [x, y, width, height] = area.map(u32::from);
        let mut picture = self
            .picture
            .take()
            .context("nothing is drawn yet: testcard first")?;
        let (whole_width, whole_height) = picture.buffer.size();
        let inside = x + width <= whole_width && y + height <= whole_height;
        let sum = self.paint(&mut picture.buffer, |column, row, old| {
            let hit = (x..x + width).contains(&column) && (y..y + height).contains(&row);
            if hit { colour } else { old }
        });
        self.picture = Some(picture);
        ensure!(
            inside,
            "the rectangle leaves the picture of {whole_width}x{whole_height}"
        );
        self.flush(area)?;
        sum
    }

    /// Shows a picture of this size and a cursor, unless they are shown already.
    pub(crate) fn prepare_animation(&mut self, size: (u16, u16)) -> anyhow::Result<()> {
        let wanted = (u32::from(size.0), u32::from(size.1));
        let shown = self.picture.as_ref().map(|picture| picture.buffer.size());
        if shown != Some(wanted) {
            self.test_card(size, 1)?;
        }
        if self.cursor.is_none() {
            self.show_cursor((0, 0), 0x00_ff_00)?;
        }
        Ok(())
    }

    /// Draws frame after frame over the whole picture, beginning with a whole one, and moves the cursor with each, until
    /// `stop`. Returns the number of the last frame.
    pub(crate) fn animate(&mut self, size: (u16, u16), stop: &AtomicBool) -> anyhow::Result<u64> {
        let (width, height) = (u32::from(size.0), u32::from(size.1));
        self.frame = self.frame.next_multiple_of(Animation::WHOLE);
        loop {
            let frame = self.frame;
            self.frame += 1;
            let area = Animation::area(frame, width, height);
            let mut picture = self.picture.take().context("no picture")?;
            let drawn = self.draw_frame(&mut picture.buffer, frame, area);
            self.picture = Some(picture);
            drawn?;
            let [x, y, w, h] = area.map(u16::try_from);
            self.flush([x?, y?, w?, h?])?;
            let place = i32::try_from(frame % 500)?;
            self.move_cursor((place, place / 2))?;
            if stop.load(Ordering::Relaxed) {
                return Ok(frame);
            }
        }
    }

    fn draw_frame(
        &self,
        buffer: &mut DumbBuffer,
        frame: u64,
        [x, y, width, height]: [u32; 4],
    ) -> anyhow::Result<()> {
        let pitch = usize::try_from(buffer.pitch())?;
        let mut mapping = self
            .card
            .map_dumb_buffer(buffer)
            .context("cannot map the buffer")?;
        let rows = mapping.as_mut().chunks_exact_mut(pitch).zip(0..);
        for (row, y) in rows.skip(y as usize).take(height as usize) {
            let drawn = self.animation.row(frame, y, width);
            let from = x as usize * 4;
            row.get_mut(from..from + drawn.len())
                .context("the area leaves the picture")?
                .copy_from_slice(drawn);
        }
        Ok(())
    }

    /// Tells the driver that a rectangle of the picture has changed.
    fn flush(&self, [x, y, width, height]: [u16; 4]) -> anyhow::Result<()> {
        let picture = self.picture.as_ref().context("no picture")?;
        let clip = ClipRect::new(x, y, x.saturating_add(width), y.saturating_add(height));
        self.card
            .dirty_framebuffer(picture.framebuffer, &[clip])
            .context("cannot flush")
    }

    /// Shows a cursor filled with `colour`, opaque but for a transparent last row.
    #[expect(
        deprecated,
        reason = "the legacy ioctl is what old X servers use, and enough"
    )]
    pub(crate) fn show_cursor(&mut self, position: (i32, i32), colour: u32) -> anyhow::Result<()> {
        let mut cursor = self
            .card
            .create_dumb_buffer((CURSOR_SIZE, CURSOR_SIZE), DrmFourcc::Argb8888, 32)
            .context("cannot make a cursor buffer")?;
        self.paint(&mut cursor, |_, y, _| {
            if y == CURSOR_SIZE - 1 {
                0
            } else {
                0xff00_0000 | colour
            }
        })?;
        let crtc = self.first_crtc()?;
        self.card
            .set_cursor(crtc, Some(&cursor))
            .context("cannot set the cursor")?;
        self.card
            .move_cursor(crtc, position)
            .context("cannot move the cursor")?;
        if let Some(old) = self.cursor.replace(cursor) {
            self.card
                .destroy_dumb_buffer(old)
                .context("cannot drop a cursor")?;
        }
        Ok(())
    }

    /// Moves the cursor.
    #[expect(deprecated, reason = "as for show_cursor")]
    pub(crate) fn move_cursor(&mut self, position: (i32, i32)) -> anyhow::Result<()> {
        self.card
            .move_cursor(self.first_crtc()?, position)
            .context("cannot move the cursor")
    }

    /// Hides the cursor.
    #[expect(deprecated, reason = "as for show_cursor")]
    pub(crate) fn hide_cursor(&mut self) -> anyhow::Result<()> {
        let crtc = self.first_crtc()?;
        self.card
            .set_cursor(crtc, None::<&DumbBuffer>)
            .context("cannot hide the cursor")
    }

    /// Describes connectors, modes and EDIDs.
    pub(crate) fn describe(&mut self, output: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        let resources = self
            .card
            .resource_handles()
            .context("cannot list the card's parts")?;
        for handle in resources.connectors() {
            let connector = self
                .card
                .get_connector(*handle, true)
                .context("cannot probe")?;
            let state = format!("{:?}", connector.state()).to_lowercase();
            output(&format!("connector {connector} {state}"));
            for mode in connector.modes() {
                let (width, height) = mode.size();
                let preferred = mode
                    .mode_type()
                    .contains(drm::control::ModeTypeFlags::PREFERRED);
                let note = if preferred { " preferred" } else { "" };
                output(&format!("mode {width}x{height} {}{note}", mode.vrefresh()));
            }
            if let Some(edid) = self.edid(*handle)? {
                let hex: String = edid.iter().map(|byte| format!("{byte:02x}")).collect();
                output(&format!("edid {hex}"));
            }
        }
        Ok(())
    }

    /// The EDID of a connector, or `None` if it has none.
    ///
    /// The kernel replaces the property's blob at each configuration change of the device, also between the read of
    /// the property and that of the blob: then the property is read again.
    fn edid(&self, connector: connector::Handle) -> anyhow::Result<Option<Vec<u8>>> {
        let mut tries = 10;
        loop {
            tries -= 1;
            match self.try_edid(connector) {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::NotFound => {}
                edid => return edid.context("cannot read the EDID"),
            }
        }
    }

    fn try_edid(&self, connector: connector::Handle) -> io::Result<Option<Vec<u8>>> {
        let properties = self.card.get_properties(connector)?;
        for (property, value) in &properties {
            let info = self.card.get_property(*property)?;
            if info.name() == c"EDID" && *value != 0 {
                return Ok(Some(self.card.get_property_blob(*value)?));
            }
        }
        Ok(None)
    }

    fn first_crtc(&self) -> anyhow::Result<crtc::Handle> {
        let (crtc, _) = self.outputs(1)?.pop().context("no output")?;
        Ok(crtc)
    }

    fn new_picture(&self, size: (u32, u32)) -> anyhow::Result<Picture> {
        let buffer = self
            .card
            .create_dumb_buffer(size, DrmFourcc::Xrgb8888, 32)
            .context("cannot make a buffer")?;
        let framebuffer = self
            .card
            .add_framebuffer(&buffer, 24, 32)
            .context("cannot make a framebuffer")?;
        Ok(Picture {
            buffer,
            framebuffer,
        })
    }

    /// Sets each pixel to `colour(x, y, old)` and returns the checksum of the result.
    fn paint(
        &self,
        buffer: &mut DumbBuffer,
        colour: impl Fn(u32, u32, u32) -> u32,
    ) -> anyhow::Result<u64> {
        let (width, _) = buffer.size();
        let pitch = usize::try_from(buffer.pitch())?;
        let mut mapping = self
            .card
            .map_dumb_buffer(buffer)
            .context("cannot map the buffer")?;
        let mut pixels = Vec::new();
        for (row, y) in mapping.as_mut().chunks_exact_mut(pitch).zip(0..) {
            let row = row.chunks_exact_mut(4).filter_map(<[u8]>::first_chunk_mut);
            for (pixel, x) in row.zip(0..width) {
                *pixel = colour(x, y, u32::from_le_bytes(*pixel)).to_le_bytes();
                pixels.push(u32::from_le_bytes(*pixel));
            }
        }
        Ok(testcard::checksum(pixels))
    }
}

/// The connector's own mode of that size, or one made up: a virtual display does not
/// care about timings.
fn mode_for(connector: &connector::Info, size: (u16, u16)) -> Mode {
    let listed = connector.modes().iter().find(|mode| mode.size() == size);
    listed.copied().unwrap_or_else(|| {
        let (hdisplay, vdisplay) = size;
        let mut mode = drm_ffi::drm_mode_modeinfo {
            hdisplay,
            hsync_start: hdisplay.saturating_add(16),
            hsync_end: hdisplay.saturating_add(48),
            htotal: hdisplay.saturating_add(160),
            vdisplay,
            vsync_start: vdisplay.saturating_add(3),
            vsync_end: vdisplay.saturating_add(9),
            vtotal: vdisplay.saturating_add(30),
            vrefresh: 60,
            ..Default::default()
        };
        // In kHz: 60 frames a second.
        mode.clock = u32::from(mode.htotal) * u32::from(mode.vtotal) * 60 / 1000;
        for (to, from) in mode.name.iter_mut().zip(b"test") {
            *to = *from as std::ffi::c_char;
        }
        mode.into()
    })
}
