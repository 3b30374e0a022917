// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A 2D GPU: set-up, resources, pictures larger than the display socket has room for, cursor, questions to the
//! display, a resize, a reset, a new display socket.

use frontend::gpu::{
    DisplayOptions, DisplayThread, EdidAnswer, Format, Framebuffer, Gpu, GpuOptions, Rect, Response,
};
use frontend::manager::ServiceOptions;
use frontend::{Error, Memory, Result};
use virtio_bindings::virtio_gpu as v;

use super::scenario::{Paths, Scenario, Seen};
use crate::common::gpu_program;

const XRGB: Format = Format::B8G8R8X8;
const ARGB: Format = Format::B8G8R8A8;

pub(super) const DRAWING: Scenario = Scenario {
    name: "drawing",
    options,
    play,
};

pub(super) fn options() -> ServiceOptions {
    ServiceOptions::new(gpu_program())
}

/// A picture that is the same for the same number only.
fn pixels((width, height): (u32, u32), number: u32) -> Vec<u8> {
    let pixel = |n: u32| {
        let color = n.wrapping_mul(0x9e37_79b1) ^ number.wrapping_mul(0x85eb_ca6b);
        (color | 0xff00_0000).to_le_bytes()
    };
    (0..width * height).flat_map(pixel).collect()
}

/// A resource of the guest, its memory, and what it holds.
struct Picture {
    id: u32,
    size: (u32, u32),
    address: u64,
    /// What the guest's memory holds.
    guest: Vec<u8>,
    /// What the device has, as far as the guest knows.
    host: Vec<u8>,
}

struct Guest<'a> {
    gpu: Gpu,
    display: DisplayThread,
    seen: &'a mut Seen,
}

impl Guest<'_> {
    fn say(&mut self, what: &str, response: Response) {
        let Response {
            kind,
            flags,
            fence_id,
            written,
            ..
        } = response;
        self.seen
            .add(format!("{what}: {kind:?} {flags} {fence_id} {written}"));
    }

    fn create(&mut self, id: u32, format: Format, size: (u32, u32)) -> Result<Picture> {
        let (width, height) = size;
        let created = self.gpu.create_2d(id, format, width, height)?;
        self.say("create", created);
        let bytes = width * height * 4;
        let address = self.gpu.memory().alloc(bytes.into(), 4096)?;
        // In two pieces.
        let half = bytes / 8 * 4;
        let entries = [(address, half), (address + u64::from(half), bytes - half)];
        let attached = self.gpu.attach_backing(id, &entries)?;
        self.say("attach", attached);
        let nothing = vec![0; bytes as usize];
        Ok(Picture {
            id,
            size,
            address,
            guest: nothing.clone(),
            host: nothing,
        })
    }

    /// A picture in a blob, which scanout 0 shows.
    fn show_blob(&mut self, id: u32, size: (u32, u32)) -> Result<Picture> {
        let bytes = size.0 * size.1 * 4;
        let address = self.gpu.memory().alloc(bytes.into(), 4096)?;
        let half = bytes / 8 * 4;
        let entries = [(address, half), (address + u64::from(half), bytes - half)];
        let created = self.gpu.create_blob(id, bytes.into(), &entries)?;
        self.say("create a blob", created);
        let framebuffer = Framebuffer {
            format: XRGB,
            size,
            stride: size.0 * 4,
            offset: 0,
        };
        let whole = Rect::sized(size.0, size.1);
        let shown = self.gpu.set_scanout_blob(0, id, whole, &framebuffer)?;
        self.say("scanout of a blob", shown);
        let nothing = vec![0; bytes as usize];
        Ok(Picture {
            id,
            size,
            address,
            guest: nothing.clone(),
            host: nothing,
        })
    }

    /// The guest draws picture `number` in a blob.
    fn paint_blob(&mut self, picture: &mut Picture, number: u32) -> Result<()> {
        picture.guest = pixels(picture.size, number);
        picture.host.clone_from(&picture.guest);
        self.gpu.memory().write(picture.address, &picture.guest)
    }

    /// The guest draws picture `number`, and passes on this part of it.
    fn paint(&mut self, picture: &mut Picture, number: u32, rect: Rect) -> Result<()> {
        picture.guest = pixels(picture.size, number);
        self.gpu.memory().write(picture.address, &picture.guest)?;
        let stride = picture.size.0 * 4;
        let offset = rect.y * stride + rect.x * 4;
        let done = self
            .gpu
            .transfer_to_host_2d(picture.id, rect, offset.into())?;
        self.say("transfer", done);
        for y in rect.y..rect.y + rect.height {
            let start = (y * stride + rect.x * 4) as usize;
            let end = start + rect.width as usize * 4;
            picture.host[start..end].copy_from_slice(&picture.guest[start..end]);
        }
        Ok(())
    }

    fn show(&mut self, picture: &Picture, rect: Rect) -> Result<()> {
        let done = self.gpu.set_scanout(0, picture.id, rect)?;
        self.say("scanout", done);
        Ok(())
    }

    fn flush(&mut self, picture: &Picture, rect: Rect) -> Result<()> {
        let done = self.gpu.flush(picture.id, rect)?;
        self.say("flush", done);
        Ok(())
    }

    /// The display shows the whole picture, soon.
    fn shown(&mut self, what: &'static str, picture: &Picture) -> Result<()> {
        let (width, height) = picture.size;
        let is_shown = |pixels: &[u8]| {
            let pairs = pixels.chunks_exact(4).zip(picture.host.chunks_exact(4));
            pixels.len() == picture.host.len() && pairs.into_iter().all(|(a, b)| a[..3] == b[..3])
        };
        let shown = self.display.wait(what, |display| {
            let surface = display.surface(0).ok()?;
            let same = (surface.width, surface.height) == (width, height);
            (same && is_shown(&surface.pixels)).then_some(())
        });
        if let Err(e) = shown {
            let display = self.display.lock();
            let found = display.surface(0).map(|surface| {
                let pairs = surface.pixels.chunks(4).zip(picture.host.chunks(4));
                let wrong = pairs.filter(|(a, b)| a.get(..3) != b.get(..3)).count();
                format!("{}x{}, {wrong} wrong", surface.width, surface.height)
            });
            let messages: Vec<_> = display.received.iter().map(|r| r.request).collect();
            return Err(Error::Protocol(format!("{e}: {found:?}, {messages:?}")));
        }
        self.seen.add(format!("{what}: shown"));
        Ok(())
    }

    fn cursor_is(&mut self, picture: &Picture, position: (u32, u32)) -> Result<()> {
        self.display.wait("the cursor", |display| {
            let cursor = &display.cursor;
            let right = cursor.visible
                && cursor.position == position
                && cursor.hot_spot == (3, 4)
                && cursor.pixels == picture.host;
            right.then_some(())
        })?;
        self.seen.add(format!("the cursor is at {position:?}"));
        Ok(())
    }
}

fn display_options() -> DisplayOptions {
    DisplayOptions {
        edid: EdidAnswer::Blocks(vec![vec![7; 128]]),
        // Messages are cut everywhere.
        buffer: Some(8192),
        ..DisplayOptions::with_modes(&[(640, 480)])
    }
}

fn play(paths: &Paths, seen: &mut Seen) -> Result<()> {
    let session = seen.connect(&paths.vhost_user)?;
    let memory = Memory::new(&[(0x10_0000, 8 << 20), (1 << 32, 8 << 20)])?;
    let (display, socket) = DisplayThread::start(display_options())?;
    let gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::with_blobs())?;
    let mut guest = Guest { gpu, display, seen };
    let (scanouts, capsets) = guest.gpu.config()?;
    guest.seen.add(format!("{scanouts} scanouts, {capsets}"));
    let info = guest.gpu.get_display_info()?;
    guest.seen.add(format!("{:?}", info[0]));
    let edid = guest.gpu.get_edid(0)?;
    guest.seen.add(format!("EDID {edid:?}"));

    // A picture that the socket has no room for, whole and in parts.
    let size = (120, 90);
    let whole = Rect::sized(size.0, size.1);
    let mut one = guest.create(1, XRGB, size)?;
    guest.paint(&mut one, 1, whole)?;
    guest.show(&one, whole)?;
    guest.flush(&one, whole)?;
    guest.shown("first", &one)?;
    for n in 2..6 {
        let part = Rect::new(n * 7, n * 5, 40, 30 + n);
        guest.paint(&mut one, n, part)?;
        guest.gpu.fence_next(u64::from(n) << 33);
        guest.flush(&one, part)?;
    }
    guest.shown("parts", &one)?;

    // The cursor.
    let mut cursor = guest.create(2, ARGB, (64, 64))?;
    guest.paint(&mut cursor, 9, Rect::sized(64, 64))?;
    guest.gpu.update_cursor(0, (10, 20), 2, (3, 4))?;
    guest.cursor_is(&cursor, (10, 20))?;
    for n in 0..4 {
        guest.gpu.move_cursor(0, (30 + n, 40), 2)?;
    }
    guest.cursor_is(&cursor, (33, 40))?;

    // Many commands at once. Done twice, some of them would fail.
    let mut tickets = Vec::new();
    for n in 0..4 {
        let id = 10 + n;
        for (command, words) in [
            (
                v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D,
                vec![id, XRGB as u32, 16, 16],
            ),
            (
                v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH,
                vec![0, 0, size.0, size.1, 1, 0],
            ),
            (
                v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
                vec![id, 0],
            ),
            (
                v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
                vec![id, 0],
            ),
        ] {
            tickets.push(guest.gpu.push(command, &words)?);
        }
    }
    guest.gpu.control.queue.submit()?;
    for wanted in tickets {
        let (ticket, response) = guest.gpu.control.next_response()?;
        if ticket != wanted {
            return Err(Error::Protocol(format!("{ticket:?} before {wanted:?}")));
        }
        guest.say("many", response);
    }

    // Another size; the old picture goes.
    let size = (100, 110);
    let whole = Rect::sized(size.0, size.1);
    let mut two = guest.create(3, XRGB, size)?;
    guest.paint(&mut two, 20, whole)?;
    guest.show(&two, whole)?;
    let gone = guest.gpu.unref(1)?;
    guest.say("unref", gone);
    guest.flush(&two, whole)?;
    guest.shown("resized", &two)?;

    // What the display shows lies in the guest's memory alone.
    let mut blob = guest.show_blob(4, size)?;
    for n in 40..43 {
        guest.paint_blob(&mut blob, n)?;
        guest.flush(&blob, whole)?;
        guest.shown("blob", &blob)?;
    }
    guest.show(&two, whole)?;
    guest.flush(&two, whole)?;
    guest.shown("no blob", &two)?;
    let gone = guest.gpu.unref(4)?;
    guest.say("unref of a blob", gone);

    // The VMM gives another display socket, as QEMU does when its display changes.
    let (display, socket) = DisplayThread::start(display_options())?;
    guest.gpu.session.set_gpu_socket(socket)?;
    std::mem::replace(&mut guest.display, display).finish()?;
    guest.flush(&two, whole)?;
    guest.shown("on another display", &two)?;
    let info = guest.gpu.get_display_info()?;
    guest.seen.add(format!("{:?}", info[0]));

    // The guest boots again.
    for queue in 0..2 {
        let stopped = guest.gpu.session.stop_queue(queue)?;
        guest.seen.add(format!("stopped at {stopped}"));
    }
    let (display, socket) = DisplayThread::start(display_options())?;
    std::mem::replace(&mut guest.display, display).finish()?;
    guest.gpu.restart(Some(socket))?;
    let gone = guest.gpu.unref(3)?;
    guest.say("nothing is left", gone);
    let mut three = guest.create(3, XRGB, size)?;
    guest.paint(&mut three, 30, whole)?;
    guest.show(&three, whole)?;
    guest.flush(&three, whole)?;
    guest.shown("booted again", &three)?;
    let nothing = guest.gpu.set_scanout(0, 0, Rect::default())?;
    guest.say("off", nothing);
    guest.display.wait("a dark screen", |display| {
        display.surface(0).is_err().then_some(())
    })?;
    let Guest { gpu, display, seen } = guest;
    for queue in [&gpu.control.queue, &gpu.cursor.queue] {
        let (used, under_way) = (queue.used_index()?, queue.outstanding());
        seen.add(format!("used: {used}, on their way: {under_way}"));
    }
    seen.leave();
    drop(gpu);
    display.finish()
}
