// SPDX-License-Identifier: Apache-2.0 OR MIT
//! States that need care.

use super::machine::{MAX_HOSTMEM, MortalMachine};
use super::*;
use crate::backend::continuity::RecordKey;
use crate::gpu::kept_state::{
    BackingRecord, BlobRecord, CursorPositionRecord, CursorShapeRecord, DriverRecord, Record,
    ResourceRecord, ScanoutRecord, SizesRecord,
};
use crate::gpu::protocol::FramebufferLayout;

impl MortalMachine {
    #[track_caller]
    fn control(&mut self, command: u32, words: &[u32]) -> Vec<u8> {
        let slot = self.machine.drivers[0].next_available % (QUEUE_SIZE / 2);
        self.machine
            .submit(CONTROL_QUEUE, &request(command, words), 408);
        self.serve();
        let at = self.machine.heap(CONTROL_QUEUE, slot);
        self.machine.read(at + 0x200, 408)
    }

    #[track_caller]
    fn done(&mut self, command: u32, words: &[u32]) {
        let response = self.control(command, words);
        assert_eq!(response[..4], response::OK_NODATA.to_le_bytes());
    }

    /// Resource 1, of 64x64 pixels, on scanout 0, flushed, and a cursor.
    fn draw(&mut self) {
        self.machine.write(0x8000, &[0x11; 0x4000]);
        self.done(command::RESOURCE_CREATE_2D, &[1, 1, 64, 64]);
        let attach = [1, 2, 0x8000, 0, 0x2000, 0, 0xa000, 0, 0x2000, 0];
        self.done(command::RESOURCE_ATTACH_BACKING, &attach);
        let transfer = [0, 0, 64, 64, 0, 0, 1, 0];
        self.done(command::TRANSFER_TO_HOST_2D, &transfer);
        self.done(command::SET_SCANOUT, &[0, 0, 64, 64, 0, 1]);
        self.done(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
        let cursor = [0, 5, 6, 0, 1, 7, 8, 0];
        let update = request(command::UPDATE_CURSOR, &cursor);
        self.machine.submit(CURSOR_QUEUE, &update, 0);
        self.serve();
        self.show();
    }

    fn change<R: Record>(&self, id: u32, record: &R) {
        KeptState::new(self.ledger.clone(), None).put(id, record);
        self.ledger.commit();
    }
}

/// Its pixels are in the guest's memory, which a successor shares too.
#[test]
fn blobs_are_shown_as_before() {
    let mut mortal = MortalMachine::new();
    mortal.machine.write(0x8000, &[0x11; 0x4000]);
    let create = [1, 1, 2, 2, 0, 0, 0x4000, 0];
    let entries = [0x8000, 0, 0x2000, 0, 0xa000, 0, 0x2000, 0];
    let create = [create, entries].concat();
    mortal.done(command::RESOURCE_CREATE_BLOB, &create);
    let uuid = mortal.control(command::RESOURCE_ASSIGN_UUID, &[1, 0]);
    let rect = [0, 1, 64, 63];
    let layout = [0, 1, 64, 64, 1, 0, 256, 0, 0, 0, 0, 0, 0, 0];
    let set = [&rect[..], &layout].concat();
    mortal.done(command::SET_SCANOUT_BLOB, &set);
    mortal.done(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    mortal.show();
    let shown = mortal.display.scanouts[0].clone();
    assert_eq!(shown.size, Size::new(64, 63));
    assert_eq!(shown.pixels, [0x1111_1111; 64 * 63]);
    mortal.ledger.commit();

    mortal.resume();
    mortal.display.scanouts[0].pixels.fill(0);
    mortal.show();
    assert!(mortal.display.scanouts[0] == shown, "all is sent again");
    assert_eq!(mortal.control(command::RESOURCE_ASSIGN_UUID, &[1, 0]), uuid);
    mortal.machine.write(0x8000 + 256 + 8, &[0x22; 4]);
    mortal.done(command::RESOURCE_FLUSH, &[0, 0, 3, 2, 1, 0]);
    mortal.show();
    let row = &mortal.display.scanouts[0].pixels[..4];
    assert_eq!(row, [0x1111_1111, 0x1111_1111, 0x2222_2222, 0x1111_1111]);

    mortal.done(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(mortal.budget.used(), 0);
    mortal.ledger.commit();
    mortal.resume();
    assert!(mortal.machine.gpu.virtio_gpu.renderer().blob(1).is_none());
    mortal.done(command::RESOURCE_CREATE_BLOB, &create);
}

/// Each command writes what it changed: a virtqueue's position takes 24 bytes with its key.
#[test]
fn records_of_a_command_are_small() {
    let mut mortal = MortalMachine::new();
    mortal.draw();
    let mut written = |queue, command, words: &[u32]| {
        let before = mortal.ledger.written();
        mortal.machine.submit(queue, &request(command, words), 24);
        mortal.serve();
        mortal.ledger.written() - before
    };
    let transfer = [0, 0, 64, 64, 0, 0, 1, 0];
    let transfers = written(CONTROL_QUEUE, command::TRANSFER_TO_HOST_2D, &transfer);
    let flush = [0, 0, 64, 64, 1, 0];
    let flushes = written(CONTROL_QUEUE, command::RESOURCE_FLUSH, &flush);
    let moves = written(
        CURSOR_QUEUE,
        command::MOVE_CURSOR,
        &[0, 9, 9, 0, 0, 0, 0, 0],
    );
    let cursor = [0, 9, 9, 0, 1, 7, 8, 0];
    let shapes = written(CURSOR_QUEUE, command::UPDATE_CURSOR, &cursor);
    assert_eq!([transfers, flushes, moves, shapes], [24, 24, 56, 88]);
}

#[test]
fn uuid_of_a_resource_stays() {
    let mut mortal = MortalMachine::new();
    mortal.draw();
    let uuid = mortal.control(command::RESOURCE_ASSIGN_UUID, &[1, 0]);
    assert_ne!(uuid[24..40], [0; 16]);
    mortal.resume();
    let again = mortal.control(command::RESOURCE_ASSIGN_UUID, &[1, 0]);
    assert_eq!(uuid, again);
}

#[test]
fn display_is_sent_everything_again_and_its_size_once() {
    let mut mortal = MortalMachine::new();
    mortal.draw();
    // Written and not flushed: it may be shown early.
    mortal.machine.write(0x8000, &[0x22; 16]);
    mortal.done(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    let before = mortal.display.clone();
    mortal.ledger.commit();
    mortal.resume();
    mortal.display.scanouts[0].pixels.fill(0);
    mortal.display.cursors[0] = Default::default();
    mortal.display.updates = 0;
    mortal.show();
    // All pixels in one piece, and the cursor, but not SCANOUT, which would make the screen black for a moment.
    assert_eq!(mortal.display.updates, 2);
    assert_eq!(mortal.display.cursors, before.cursors);
    let pixels = &mortal.display.scanouts[0].pixels;
    assert_eq!(pixels[..4], [0x2222_2222; 4]);
    assert_eq!(pixels[4..], before.scanouts[0].pixels[4..]);
}

#[test]
fn cursor_that_is_gone_is_hidden() {
    let mut mortal = MortalMachine::new();
    mortal.draw();
    mortal.show_some(0);
    assert!(mortal.display.cursors[0].position.visible);
    mortal.survive(|machine| machine.gpu.reset_device());
    mortal.serve();
    // Before it is sent to the display.
    mortal.resume();
    mortal.show();
    assert!(!mortal.display.cursors[0].position.visible);
    assert!(mortal.display.scanouts[0].pixels.is_empty());
}

#[test]
fn reset_that_is_not_done_is_done_by_the_successor() {
    let mut mortal = MortalMachine::new();
    mortal.draw();
    let used = mortal.budget.used();
    mortal.survive(|machine| machine.gpu.reset_device());
    mortal.resume();
    assert_eq!(mortal.budget.used(), used);
    mortal.machine.run();
    assert_eq!(mortal.budget.used(), 0);
}

#[test]
fn pixels_and_budget_are_given_back_once() {
    let mut mortal = MortalMachine::new();
    for _ in 0..3 {
        mortal.draw();
        let used = mortal.budget.used();
        assert!(used > 0x4000);
        mortal.resume();
        assert_eq!(mortal.budget.used(), used);
        mortal.done(command::RESOURCE_UNREF, &[1, 0]);
        mortal.show();
        assert_eq!(mortal.budget.used(), 0);
    }
    // A new one is black, where the last one lay.
    mortal.resume();
    mortal.done(command::RESOURCE_CREATE_2D, &[1, 1, 64, 64]);
    let renderer = mortal.machine.gpu.virtio_gpu.renderer();
    let image = renderer.existing_image(1).unwrap().unwrap();
    assert_eq!(image.lock().bytes(0, 0, 0x4000), [0; 0x4000]);
}

#[test]
fn driver_that_does_not_know_a_size_is_told_again() {
    let mut mortal = MortalMachine::new();
    mortal.control(command::GET_DISPLAY_INFO, &[]);
    let gpu = &mut mortal.machine.gpu;
    assert!(gpu.virtio_gpu.does_driver_know_sizes());
    gpu.virtio_gpu.resize(0, Size::new(640, 480));
    gpu.config.set_display_event();
    gpu.keep_driver();
    mortal.ledger.commit();
    mortal.resume();
    let gpu = &mut mortal.machine.gpu;
    assert!(gpu.virtio_gpu.has_driver_read_sizes());
    assert!(!gpu.virtio_gpu.does_driver_know_sizes());
    assert_eq!(gpu.get_config(0, 4), [1, 0, 0, 0]);
    let info = mortal.control(command::GET_DISPLAY_INFO, &[]);
    assert_eq!(info[32..40], [640_u32, 480].map(u32::to_le_bytes).concat());
}

#[test]
fn what_a_guest_would_be_refused_is_refused() {
    let size = Size::new(64, 64);
    let resource = move |offset| ResourceRecord {
        format: crate::gpu::protocol::Format::B8G8R8A8,
        size,
        offset,
        uuid: None,
    };
    let side = (MAX_HOSTMEM / 1024) as u32;
    let list = |place, runs, len| BackingRecord { place, runs, len };
    let scanout = |resource, rect| ScanoutRecord {
        resource,
        rect,
        framebuffer: None,
        is_flushed: true,
    };
    let rect = crate::geometry::Rect::sized;
    let framebuffer = move |resource, rows| ScanoutRecord {
        framebuffer: Some(FramebufferLayout {
            format: crate::gpu::protocol::Format::B8G8R8A8,
            size: Size::new(128, rows),
            stride: 512,
            offset: 0,
        }),
        ..scanout(resource, rect(128, rows))
    };
    let blob = |len| BlobRecord { len, uuid: None };
    type Break = Box<dyn Fn(&MortalMachine)>;
    let breaks: Vec<(&str, Break)> = vec![
        (
            "0 is not a valid resource id",
            Box::new(move |m| m.change(0, &resource(0x40_0000))),
        ),
        ("no place for", Box::new(move |m| m.change(2, &resource(0)))),
        (
            "no place for",
            Box::new(move |m| m.change(2, &resource(u64::MAX - 4095))),
        ),
        (
            "no place for",
            Box::new(move |m| m.change(2, &resource(0x40_0001))),
        ),
        (
            "host memory budget",
            Box::new(move |m| {
                let size = Size::new(side, 1024);
                m.change(
                    2,
                    &ResourceRecord {
                        size,
                        ..resource(0x40_0000)
                    },
                );
            }),
        ),
        (
            "each side must be",
            Box::new(move |m| {
                let size = Size::new(0, 1024);
                m.change(
                    2,
                    &ResourceRecord {
                        size,
                        ..resource(0x40_0000)
                    },
                );
            }),
        ),
        (
            "there is no resource 9",
            Box::new(move |m| {
                // It has the list.
                KeptState::new(m.ledger.clone(), None).remove::<BackingRecord>(1);
                m.change(9, &list(0, 1, 1));
            }),
        ),
        (
            "no guest memory",
            Box::new(move |m| m.change(1, &list(0, 1, u64::MAX - 0x7fff))),
        ),
        (
            "no guest memory",
            Box::new(move |m| m.change(1, &list(0, 1, 0))),
        ),
        (
            // What follows the list was never written: a run from the first byte on, again.
            "no guest memory",
            Box::new(move |m| m.change(1, &list(0, 2, 0x4000))),
        ),
        (
            "the backing has 0 bytes, 1 are needed",
            Box::new(move |m| m.change(1, &list(0, 0, 1))),
        ),
        (
            "there is no place for 1 pieces",
            Box::new(move |m| m.change(1, &list(1, 1, 0x4000))),
        ),
        (
            "there is no place for 1 pieces",
            Box::new(move |m| m.change(2, &list(0, 1, 0x4000))),
        ),
        (
            "there is no place for 1 pieces",
            Box::new(move |m| m.change(1, &list(u64::MAX - 63, 1, 0x4000))),
        ),
        (
            "exceeds what is left of the VM's host memory budget",
            Box::new(move |m| m.change(1, &list(0, u32::MAX, 0x4000))),
        ),
        (
            "is not within resource 1",
            Box::new(move |m| m.change(0, &scanout(1, rect(65, 1)))),
        ),
        (
            "rectangle is out of bounds",
            Box::new(move |m| m.change(0, &scanout(1, rect(0, 1)))),
        ),
        (
            "there is no resource 7",
            Box::new(move |m| m.change(0, &scanout(7, rect(1, 1)))),
        ),
        (
            "its id is out of bounds",
            Box::new(move |m| m.change(16, &scanout(1, rect(1, 1)))),
        ),
        (
            "resource 1 is not a blob",
            Box::new(move |m| m.change(0, &framebuffer(1, 64))),
        ),
        (
            "there is no resource 7",
            Box::new(move |m| m.change(0, &framebuffer(7, 64))),
        ),
        (
            "its framebuffer ends at byte 32768, of 32767",
            Box::new(move |m| {
                m.change(2, &blob(0x7fff));
                m.change(0, &framebuffer(2, 64));
            }),
        ),
        (
            "more than the VM's host memory budget",
            Box::new(move |m| {
                m.change(2, &blob(u64::MAX));
                m.change(0, &framebuffer(2, 0x4000));
            }),
        ),
        (
            "resource 1 exists already",
            Box::new(move |m| m.change(1, &blob(1))),
        ),
        (
            "blob resource 2: it has 0 bytes",
            Box::new(move |m| m.change(2, &blob(0))),
        ),
        (
            "its id is out of bounds",
            Box::new(move |m| {
                m.change(
                    16,
                    &CursorPositionRecord {
                        x: 0,
                        y: 0,
                        visible: true,
                    },
                );
            }),
        ),
        (
            "its offset is out of bounds",
            Box::new(move |m| {
                m.change(
                    0,
                    &CursorShapeRecord {
                        hot_x: 0,
                        hot_y: 0,
                        offset: 1,
                    },
                );
            }),
        ),
    ];
    for (message, break_it) in breaks {
        let mut mortal = MortalMachine::new();
        mortal.draw();
        break_it(&mortal);
        let error = mortal.try_resume().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{message}");
        assert!(error.to_string().contains(message), "{error} != {message}");
    }
    // Bytes of something else.
    for table in [
        DriverRecord::TABLE,
        SizesRecord::TABLE,
        ResourceRecord::TABLE,
        BackingRecord::TABLE,
        BlobRecord::TABLE,
        ScanoutRecord::TABLE,
        CursorPositionRecord::TABLE,
    ] {
        let mut mortal = MortalMachine::new();
        mortal.draw();
        let id = u64::from([18, 19, 24].contains(&table));
        mortal.ledger.put(RecordKey::new(table, id), &[0xff; 100]);
        mortal.ledger.commit();
        let error = mortal.try_resume().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}
