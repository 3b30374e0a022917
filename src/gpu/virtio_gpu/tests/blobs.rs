// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blob resources: RESOURCE_CREATE_BLOB, SET_SCANOUT_BLOB, and what other commands do with them.

use super::*;
use crate::gpu::renderer::{ENTRY_COST, MAX_STEP_WORK};
use crate::gpu::resource::PIXEL_LEN;

const GUEST: u32 = 1;
const FRAMEBUFFER: u32 = WIDTH * HEIGHT * 4;

/// The words of RESOURCE_CREATE_BLOB, and its entries.
fn create(id: u32, len: u32, entries: &[(u32, u32)]) -> Vec<u32> {
    let mut words = vec![id, GUEST, 2, entries.len() as u32, 0, 0, len, 0];
    words.extend(entries.iter().flat_map(|(at, len)| [*at, 0, *len, 0]));
    words
}

/// The words of SET_SCANOUT_BLOB of a framebuffer of 64 by 64 pixels at the beginning of resource 1.
fn set(scanout: u32, rect: [u32; 4]) -> Vec<u32> {
    let [x, y, width, height] = rect;
    let stride = [WIDTH * 4, 0, 0, 0];
    let words = [x, y, width, height, scanout, 1, WIDTH, HEIGHT, BGRX, 0];
    [&words[..], &stride, &[0; 4]].concat()
}

impl Guest {
    /// With blob 1, a framebuffer of 64 by 64 pixels at address 0.
    fn with_blob() -> Self {
        let mut guest = Self::new();
        let words = create(1, FRAMEBUFFER, &[(0, FRAMEBUFFER)]);
        guest.ok(command::RESOURCE_CREATE_BLOB, &words);
        guest
    }

    fn draw(&self, x: u32, y: u32, pixel: [u8; 4]) {
        let at = (y * WIDTH + x) as usize * PIXEL_LEN;
        let at = GuestAddress(at as u64);
        self.memory.write_slice(&pixel, at).unwrap();
    }

    /// What is sent of pixels: the scanout, where in it, and the pixels.
    fn sent(&mut self) -> Vec<(u32, Rect, Vec<u8>)> {
        let updates = self.updates().into_iter();
        let pixels = updates.filter_map(|update| match update {
            Update::Pixels {
                id,
                rect,
                pixels,
                source_rect,
            } => Some((id, rect, pixels.read(&source_rect))),
            _ => None,
        });
        pixels.collect()
    }
}

#[test]
fn flushes_show_what_the_guest_wrote() {
    let mut guest = Guest::with_blob();
    guest.ok(command::SET_SCANOUT_BLOB, &set(0, [0, 0, 32, 64]));
    guest.ok(command::SET_SCANOUT_BLOB, &set(3, [32, 0, 32, 64]));
    assert!(guest.sent().is_empty());
    guest.draw(33, 1, [1, 2, 3, 4]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    let sent = guest.sent();
    assert_eq!(sent.len(), 2);
    for (id, rect, pixels) in sent {
        assert_eq!(rect, Rect::sized(32, 64));
        let at = (WIDTH / 2 + 1) as usize * PIXEL_LEN;
        let expected = if id == 3 { [1, 2, 3, 4] } else { [0; 4] };
        assert_eq!(pixels[at..][..4], expected);
        assert!(pixels[at + 4..].iter().all(|byte| *byte == 0));
    }
    // No command says what was written: all that is flushed is sent, of those who show it, and no more.
    guest.draw(34, 2, [5, 6, 7, 8]);
    guest.draw(40, 40, [9; 4]);
    guest.ok(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    assert!(guest.sent().is_empty());
    guest.ok(command::RESOURCE_FLUSH, &[34, 2, 1, 1, 1, 0]);
    let rect = Rect {
        x: 2,
        y: 2,
        width: 1,
        height: 1,
    };
    assert_eq!(guest.sent(), [(3, rect, vec![5, 6, 7, 8])]);
    guest.ok(command::RESOURCE_FLUSH, &[40, 40, u32::MAX, u32::MAX, 1, 0]);
    let sent = guest.sent();
    let [(3, rect, pixels)] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((rect.x, rect.y, rect.width, rect.height), (8, 40, 24, 24));
    assert_eq!(pixels[..4], [9; 4]);
}

/// As a driver with two buffers in one blob.
#[test]
fn scanouts_change_to_another_framebuffer_of_the_same_blob() {
    let mut guest = Guest::new();
    let words = create(1, 2 * FRAMEBUFFER, &[(0, 2 * FRAMEBUFFER)]);
    guest.ok(command::RESOURCE_CREATE_BLOB, &words);
    let at = GuestAddress(FRAMEBUFFER.into());
    guest.memory.write_slice(&[7; 4], at).unwrap();
    let whole = [0, 0, WIDTH, HEIGHT];
    let mut second = set(0, whole);
    second[14] = FRAMEBUFFER;
    for (words, pixel) in [(set(0, whole), [0; 4]), (second, [7; 4])] {
        guest.ok(command::SET_SCANOUT_BLOB, &words);
        // The second one is no change.
        guest.ok(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]);
        let sent = guest.sent();
        assert_eq!((sent.len(), sent[0].1), (1, Rect::sized(WIDTH, HEIGHT)));
        assert_eq!(sent[0].2[..4], pixel);
        guest.ok(command::SET_SCANOUT_BLOB, &words);
        guest.ok(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]);
        assert_eq!(guest.sent()[0].1, Rect::sized(1, 1));
    }
    let disable = [0; 18];
    guest.ok(command::SET_SCANOUT_BLOB, &disable);
    assert_eq!(guest.state.scanouts().active_scanouts().count(), 0);
}

#[test]
fn blobs_are_the_guests_memory_and_new() {
    let mut guest = Guest::with_blob();
    let used = guest.error.take();
    assert!(used.is_none());
    let change = |words: &mut Vec<u32>, at: usize, to: u32| {
        words[at] = to;
        words.clone()
    };
    let valid = || create(2, 4096, &[(0, 4096)]);
    for (words, expected) in [
        (create(1, 4096, &[]), response::ERR_INVALID_RESOURCE_ID),
        (create(0, 4096, &[]), response::ERR_INVALID_RESOURCE_ID),
        (create(2, 0, &[]), response::ERR_INVALID_PARAMETER),
        (
            create(2, 9, &[(MEMORY as u32, 1)]),
            response::ERR_INVALID_PARAMETER,
        ),
        (change(&mut valid(), 1, 0), response::ERR_INVALID_PARAMETER),
        (change(&mut valid(), 1, 2), response::ERR_INVALID_PARAMETER),
        (change(&mut valid(), 1, 3), response::ERR_INVALID_PARAMETER),
        (change(&mut valid(), 1, 4), response::ERR_INVALID_PARAMETER),
        (change(&mut valid(), 2, 8), response::ERR_INVALID_PARAMETER),
        // An entry less than it says.
        (change(&mut valid(), 3, 2), response::ERR_INVALID_PARAMETER),
    ] {
        let seen = guest.control(command::RESOURCE_CREATE_BLOB, &words);
        assert_eq!(seen, expected, "{words:?}");
    }
    guest.ok(command::RESOURCE_CREATE_BLOB, &valid());
    let exists = [2, BGRX, 1, 1];
    let seen = guest.control(command::RESOURCE_CREATE_2D, &exists);
    assert_eq!(seen, response::ERR_INVALID_RESOURCE_ID);
    guest.ok(command::RESOURCE_UNREF, &[2, 0]);
    guest.ok(command::RESOURCE_CREATE_2D, &exists);
}

#[test]
fn scanouts_lie_within_the_framebuffer_and_that_within_the_blob() {
    let mut guest = Guest::with_blob();
    let whole = || set(0, [0, 0, 64, 64]);
    let wrong = [
        (4, 16, response::ERR_INVALID_SCANOUT_ID),
        (5, 2, response::ERR_INVALID_RESOURCE_ID),
        (0, 1, response::ERR_INVALID_PARAMETER),
        (2, 65, response::ERR_INVALID_PARAMETER),
        (2, 0, response::ERR_INVALID_PARAMETER),
        (3, 0, response::ERR_INVALID_PARAMETER),
        (6, 63, response::ERR_INVALID_PARAMETER),
        (6, 65, response::ERR_INVALID_PARAMETER),
        (7, 63, response::ERR_INVALID_PARAMETER),
        (8, 5, response::ERR_INVALID_PARAMETER),
        (10, 255, response::ERR_INVALID_PARAMETER),
        (10, 257, response::ERR_INVALID_PARAMETER),
        (14, 1, response::ERR_INVALID_PARAMETER),
        (14, u32::MAX, response::ERR_INVALID_PARAMETER),
    ];
    for (at, to, expected) in wrong {
        let mut words = whole();
        words[at] = to;
        let seen = guest.control(command::SET_SCANOUT_BLOB, &words);
        assert_eq!(seen, expected, "{at} {to}");
    }
    assert_eq!(guest.state.scanouts().active_scanouts().count(), 0);
    // The other planes, which no format has, and a framebuffer that is higher than what is shown of it.
    let mut words = whole();
    for (at, to) in [(11, 7), (13, u32::MAX), (15, 7), (17, u32::MAX), (7, 16384)] {
        words[at] = to;
    }
    guest.ok(command::SET_SCANOUT_BLOB, &words);
}

#[test]
fn commands_of_2d_resources_are_not_for_blobs() {
    let mut guest = Guest::with_blob();
    let whole = [0, 0, 64, 64];
    let seen = guest.control(command::SET_SCANOUT, &[&whole[..], &[0, 1]].concat());
    assert_eq!(seen, response::ERR_INVALID_PARAMETER);
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, WIDTH, HEIGHT]);
    let mut words = set(0, whole);
    words[5] = 2;
    let seen = guest.control(command::SET_SCANOUT_BLOB, &words);
    assert_eq!(seen, response::ERR_INVALID_PARAMETER);
    // As Linux, which sends transfers for its blobs too.
    let transfer = [0, 0, u32::MAX, u32::MAX, 5, 5, 1, 0];
    guest.ok(command::TRANSFER_TO_HOST_2D, &transfer);
    let uuid = request(command::RESOURCE_ASSIGN_UUID, &[1, 0]);
    let uuid = guest.done(QueueKind::Control, &uuid);
    assert_eq!(kind(&uuid), response::OK_RESOURCE_UUID);
}

#[test]
fn backing_is_attached_and_detached_later() {
    let mut guest = Guest::new();
    guest.ok(command::RESOURCE_CREATE_BLOB, &create(1, FRAMEBUFFER, &[]));
    let whole = [0, 0, 64, 64];
    let (attach, detach) = (
        command::RESOURCE_ATTACH_BACKING,
        command::RESOURCE_DETACH_BACKING,
    );
    let flush = [0, 0, 64, 64, 1, 0];
    let set = set(0, whole);
    // Nothing to show yet.
    let seen = guest.control(command::SET_SCANOUT_BLOB, &set);
    assert_eq!(seen, response::ERR_UNSPEC);
    assert_eq!(guest.control(detach, &[1, 0]), response::ERR_UNSPEC);
    guest.ok(attach, &[1, 1, 0, 0, FRAMEBUFFER - 1, 0]);
    let seen = guest.control(attach, &[1, 1, 0, 0, FRAMEBUFFER, 0]);
    assert_eq!(seen, response::ERR_UNSPEC);
    let seen = guest.control(command::SET_SCANOUT_BLOB, &set);
    assert_eq!(seen, response::ERR_INVALID_PARAMETER);
    guest.ok(detach, &[1, 0]);
    guest.ok(attach, &[1, 1, 0, 0, FRAMEBUFFER, 0]);
    guest.ok(command::SET_SCANOUT_BLOB, &set);
    guest.draw(0, 0, [1; 4]);
    guest.ok(command::RESOURCE_FLUSH, &flush);
    assert_eq!(guest.sent()[0].2[..4], [1; 4]);
    // Meanwhile the scanout shows what was sent.
    guest.ok(detach, &[1, 0]);
    assert_eq!(
        guest.control(command::RESOURCE_FLUSH, &flush),
        response::ERR_UNSPEC
    );
    assert!(guest.updates().is_empty());
    guest
        .memory
        .write_slice(&[2; 4], GuestAddress(4096))
        .unwrap();
    guest.ok(attach, &[1, 1, 4096, 0, FRAMEBUFFER, 0]);
    guest.ok(command::RESOURCE_FLUSH, &flush);
    assert_eq!(guest.sent()[0].2[..4], [2; 4]);
}

#[test]
fn scanouts_are_disabled_with_the_blob() {
    let mut guest = Guest::with_blob();
    for scanout in [0, 15] {
        guest.ok(command::SET_SCANOUT_BLOB, &set(scanout, [0, 0, 64, 64]));
    }
    guest.draw(0, 0, [1; 4]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    let mut waiting: Vec<_> = guest.updates();
    assert_eq!(guest.state.scanouts().active_scanouts().count(), 2);
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(guest.state.scanouts().active_scanouts().count(), 0);
    // The memory may be used for anything else by now.
    waiting.retain(|update| {
        let Update::Pixels {
            pixels,
            source_rect,
            ..
        } = update
        else {
            return false;
        };
        assert!(pixels.read(source_rect).iter().all(|byte| *byte == 0));
        true
    });
    assert_eq!(waiting.len(), 2);
    let flush = guest.control(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    assert_eq!(flush, response::ERR_INVALID_RESOURCE_ID);
}

/// Linux has cursors in blobs where it has blobs.
#[test]
fn blobs_have_the_picture_of_a_cursor() {
    let mut guest = Guest::with_blob();
    guest.draw(0, 0, [1; 4]);
    let update = [0, 1, 2, 0, 1, 3, 4, 0];
    let seen = guest.cursor(command::UPDATE_CURSOR, &update);
    assert_eq!(seen, response::OK_NODATA);
    let cursor = guest.state.scanouts().cursor_pixels(0).unwrap();
    assert_eq!((cursor[..4].to_vec(), cursor[4]), (vec![1; 4], 0));
    guest.ok(
        command::RESOURCE_CREATE_BLOB,
        &create(2, 16384, &[(0, 16383)]),
    );
    let seen = guest.cursor(command::UPDATE_CURSOR, &[0, 1, 2, 0, 2, 3, 4, 0]);
    assert_eq!(seen, response::ERR_INVALID_PARAMETER);
}

#[test]
fn blobs_are_charged_for_their_entries_alone() {
    let mut guest = Guest::with_budget(FRAMEBUFFER.into());
    let everything = [(0, MEMORY as u32)];
    let words = create(1, MEMORY as u32, &everything);
    guest.ok(command::RESOURCE_CREATE_BLOB, &words);
    guest.ok(command::SET_SCANOUT_BLOB, &set(0, [0, 0, 64, 64]));
    // A display would need more than all resources may have.
    let mut words = set(0, [0, 0, 64, 65]);
    words[7] = 65;
    let seen = guest.control(command::SET_SCANOUT_BLOB, &words);
    assert_eq!(seen, response::ERR_OUT_OF_MEMORY);
    // 16 bytes each.
    let scattered: Vec<_> = (0..2000).map(|n| (n * 8, 4)).collect();
    let words = create(2, 8000, &scattered);
    let seen = guest.control(command::RESOURCE_CREATE_BLOB, &words);
    assert_eq!(seen, response::ERR_OUT_OF_MEMORY);
    guest.ok(
        command::RESOURCE_CREATE_BLOB,
        &create(2, 400, &scattered[..100]),
    );
}

#[test]
fn blobs_of_many_entries_are_created_in_parts() {
    let mut guest = Guest::with_budget(64 << 20);
    let count = 2 * MAX_STEP_WORK / ENTRY_COST + 10;
    let entries: Vec<_> = (0..count as u32).map(|n| (n % 1024 * 8, 4)).collect();
    let bytes = request(
        command::RESOURCE_CREATE_BLOB,
        &create(1, 4 * count as u32, &entries),
    );
    for _ in 0..2 {
        let result = guest.execute(QueueKind::Control, &bytes);
        assert_eq!(result, CommandResult::Incomplete);
        assert!(guest.state.renderer().blob(1).is_none());
        assert!(guest.work >= MAX_STEP_WORK);
    }
    let result = guest.execute(QueueKind::Control, &bytes);
    assert_eq!(result, CommandResult::Complete(Response::OkNoData));
    let blob = guest.state.renderer().blob(1).unwrap();
    assert_eq!(
        blob.with_backing(|b| (b.len(), b.count())),
        Some((4 * count, count as usize))
    );
}

#[test]
fn pixels_are_read_from_the_memory_that_is_shared_now() {
    let mut guest = Guest::with_blob();
    guest.ok(command::SET_SCANOUT_BLOB, &set(0, [0, 0, 64, 64]));
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    let other = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
    other.write_slice(&[6; 4], GuestAddress(0)).unwrap();
    guest.shared.lock().unwrap().replace(other);
    assert_eq!(guest.sent()[0].2[..4], [6; 4]);
    // The front-end took it away.
    let none = GuestMemoryMmap::default();
    guest.shared.lock().unwrap().replace(none);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]);
    assert_eq!(guest.sent()[0].2, [0; 4]);
}
