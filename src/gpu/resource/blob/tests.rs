// SPDX-License-Identifier: Apache-2.0 OR MIT

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

use super::*;
use crate::gpu::protocol::{Format, MemEntry};
use crate::gpu::resource::Budget;

const LEN: usize = 0x4000;

/// Memory whose byte at address `n` is `n % 251`.
fn memory() -> GuestMemory {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LEN)]).unwrap();
    let bytes: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
    memory.write_slice(&bytes, GuestAddress(0)).unwrap();
    GuestMemoryAtomic::new(memory)
}

fn backing(memory: &GuestMemory, entries: &[(u64, u32)]) -> Backing {
    let mut backing = Backing::new(&Budget::new(1 << 20)).unwrap();
    let entries = entries.iter().map(|entry| MemEntry::from(*entry));
    backing.add(entries, &memory.memory()).unwrap();
    backing.finish();
    backing
}

fn layout(format: Format, width: u32, height: u32) -> FramebufferLayout {
    FramebufferLayout {
        format,
        size: Size::new(width, height),
        stride: 100,
        offset: 7,
    }
}

const RECT: Rect = Rect {
    x: 2,
    y: 1,
    width: 5,
    height: 3,
};

/// The bytes of [`RECT`] in a blob whose byte `n` is `byte(n)`.
fn expected(byte: impl Fn(usize) -> u8) -> Vec<u8> {
    let row = |y: usize| (0..20).map(move |x| 7 + y * 100 + 2 * 4 + x);
    (1..4).flat_map(row).map(byte).collect()
}

#[test]
fn pixels_are_where_offset_and_stride_say_whatever_pieces_the_memory_has() {
    let memory = memory();
    let mut blob = Blob::new(1000, memory.clone()).unwrap();
    for split in [1000, 500, 113, 7, 3, 1] {
        // Downwards from the end of the memory.
        let pieces = 1000_usize.div_ceil(split);
        let address = |n: usize| (LEN - 1024 - n * 1024 % (LEN - 1024)) as u64;
        let entries: Vec<_> = (0..pieces).map(|n| (address(n), split as u32)).collect();
        blob.set_backing(Some(backing(&memory, &entries)));
        let byte = |n: usize| ((address(n / split) as usize + n % split) % 251) as u8;
        let framebuffer = blob.framebuffer(layout(Format::B8G8R8X8, 8, 4), &RECT);
        let framebuffer = framebuffer.unwrap();
        for skip in (0..60).step_by(4) {
            for len in (0..=60 - skip).step_by(4) {
                let mut pixels = vec![1; len];
                framebuffer.read(&RECT, skip, &mut pixels);
                assert_eq!(
                    pixels,
                    expected(byte)[skip..][..len],
                    "{split} {skip} {len}"
                );
            }
        }
    }
}

#[test]
fn pixels_are_put_into_the_order_of_the_display() {
    let memory = memory();
    let mut blob = Blob::new(1000, memory.clone()).unwrap();
    blob.set_backing(Some(backing(&memory, &[(0, 1000)])));
    for format in Format::ALL {
        let framebuffer = blob.framebuffer(layout(format, 8, 4), &RECT).unwrap();
        let mut pixels = vec![0; 60];
        framebuffer.read(&RECT, 0, &mut pixels);
        let mut ordered = expected(|n| (n % 251) as u8);
        to_display_order(format, &mut ordered);
        assert_eq!(pixels, ordered, "{format:?}");
    }
}

#[test]
fn framebuffers_lie_within_their_blob() {
    // The last byte of the last row, and not its padding.
    let end = 7 + 3 * 100 + (2 + 5) * 4;
    let fits = |len: u64, layout, rect: &Rect| {
        let blob = Blob::new(len, memory()).unwrap();
        blob.framebuffer(layout, rect).map(drop)
    };
    let layout = layout(Format::B8G8R8X8, 7, 4);
    fits(end, layout, &RECT).unwrap();
    let short = fits(end - 1, layout, &RECT).unwrap_err();
    assert!(matches!(short, BlobError::TooShort { end: e, len } if e == end && len == end - 1));
    let with = |change: &dyn Fn(&mut FramebufferLayout)| {
        let mut layout = layout;
        change(&mut layout);
        fits(u64::MAX, layout, &RECT)
    };
    with(&|l| l.stride = 28).unwrap();
    with(&|l| l.stride = u32::MAX).unwrap();
    with(&|l| l.offset = u32::MAX).unwrap();
    for (expected, changed) in [
        ("its rows overlap", with(&|l| l.stride = 27)),
        ("its rows overlap", with(&|l| l.stride = 0)),
        ("its framebuffer of", with(&|l| l.size.width = 0)),
        ("its framebuffer of", with(&|l| l.size.height = 16385)),
        ("Rect", with(&|l| l.size.height = 3)),
        ("Rect", with(&|l| l.size.width = 6)),
    ] {
        let error = changed.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let far = Rect {
        x: u32::MAX,
        ..RECT
    };
    assert!(matches!(
        fits(u64::MAX, layout, &far),
        Err(BlobError::Outside { .. })
    ));
    assert!(matches!(Blob::new(0, memory()), Err(BlobError::Empty)));
}

/// What a message is about to show may be gone before its last byte: the memory may then be anything.
#[test]
fn pixels_that_the_guest_took_away_are_black() {
    let memory = memory();
    let mut blob = Blob::new(1000, memory.clone()).unwrap();
    let framebuffer = blob.framebuffer(layout(Format::B8G8R8X8, 8, 4), &RECT);
    let framebuffer = framebuffer.unwrap();
    let read = || {
        let mut pixels = vec![1; 60];
        framebuffer.read(&RECT, 0, &mut pixels);
        pixels
    };
    let all = expected(|n| (n % 251) as u8);
    assert_eq!(read(), [0; 60]);
    blob.set_backing(Some(backing(&memory, &[(0, 1000)])));
    assert_eq!(read(), all);
    // Up to the last pixel of the second of three rows.
    blob.set_backing(Some(backing(&memory, &[(0, 7 + 200 + 7 * 4)])));
    assert_eq!(read(), [&all[..40], &[0; 20]].concat());
    blob.set_backing(None);
    assert_eq!(read(), [0; 60]);
    blob.set_backing(Some(backing(&memory, &[(0, 1000)])));
    assert_eq!(read(), all);
    drop(blob);
    assert_eq!(read(), [0; 60]);
}

#[test]
fn pixels_are_those_of_the_memory_that_the_front_end_shares_now() {
    let memory = memory();
    let mut blob = Blob::new(1000, memory.clone()).unwrap();
    blob.set_backing(Some(backing(&memory, &[(0, 1000)])));
    let framebuffer = blob.framebuffer(layout(Format::B8G8R8X8, 8, 4), &RECT);
    let framebuffer = framebuffer.unwrap();
    let replace = |from: u64, byte: u8| {
        let other = GuestMemoryMmap::from_ranges(&[(GuestAddress(from), LEN)]).unwrap();
        other.write_slice(&[byte; LEN], GuestAddress(from)).unwrap();
        memory.lock().unwrap().replace(other);
    };
    let read = || {
        let mut pixels = vec![1; 60];
        framebuffer.read(&RECT, 0, &mut pixels);
        pixels
    };
    replace(0, 9);
    assert_eq!(read(), [9; 60]);
    // Only the last row is there still.
    replace(7 + 300, 8);
    assert_eq!(read(), [[0; 40].as_slice(), &[8; 20]].concat());
    replace(0x10_0000, 7);
    assert_eq!(read(), [0; 60]);
}
