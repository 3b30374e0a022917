// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an encoder and a decoder keep, and that they allocate nothing for a rectangle once they have seen some.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rfb::server_message::read_rect_header;
use rfb::{Decoder, Encoder, Encoding, Frame};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all calls go to the system's allocator as they come. The counters are plain cells without a destructor, so
// counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.set(IN_USE.get() + signed(layout.size()));
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the allocator's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get() - signed(layout.size()));
        // SAFETY: the caller keeps the allocator's promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn signed(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WIDTH: u16 = 3 * 256;
const HEIGHT: u16 = 256;

/// A frame with tiles of ZRLE of all kinds, and with what each stream of Tight is for: two colours, some, and many.
fn picture() -> Frame {
    let mut frame = Frame::new(WIDTH, HEIGHT).expect("a frame");
    let mut noise = 1u32;
    for (at, pixel) in frame.bytes_mut().chunks_exact_mut(4).enumerate() {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let colour = match at % usize::from(WIDTH) / 64 {
            0 => 7,
            1..4 => noise >> 31,
            4..6 => (noise >> 28) * 1000,
            6..8 => (noise >> 26) * 1000,
            8 => (at / 20) as u32 * 7919,
            9 => at as u32,
            _ => noise >> 8,
        };
        pixel.copy_from_slice(&colour.to_le_bytes());
    }
    frame
}

fn allocations() -> usize {
    ALLOCATIONS.get()
}

#[test]
fn a_steady_viewer_allocates_nothing() {
    let frame = picture();
    let mut seen = Frame::new(WIDTH, HEIGHT).expect("a frame");
    for (encoding, encoder_max, decoder_max) in [
        (Encoding::RAW, 64 << 10, 200 << 10),
        (Encoding::ZRLE, 600 << 10, 200 << 10),
        (Encoding::TIGHT, 2 << 20, 400 << 10),
    ] {
        let mut out = Vec::with_capacity(4 << 20);
        let before = IN_USE.get();
        let mut encoder = Encoder::new();
        let mut encode = |out: &mut Vec<u8>| {
            out.clear();
            encoder.encode(encoding, frame.rect(), &frame.view(), out)
        };
        for _ in 0..3 {
            assert!(encode(&mut out) > 0);
        }
        let kept = IN_USE.get() - before;
        println!("{encoding:?}: an encoder keeps {kept} bytes");
        assert!(kept < encoder_max, "{encoding:?}: {kept}");
        let allocated = allocations();
        for _ in 0..2 {
            assert!(encode(&mut out) > 0);
        }
        assert_eq!(allocations(), allocated, "{encoding:?}: encoding");

        let before = IN_USE.get();
        let mut decoder = Decoder::default();
        // A stream from its beginning.
        let mut encoder = Encoder::new();
        let mut steady = 0;
        let mut kept = 0;
        for round in 0..5 {
            out.clear();
            let rects = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
            let allocated = allocations();
            let mut reader = &out[..];
            for _ in 0..rects {
                let (rect, encoding) = read_rect_header(&mut reader).expect("a header");
                let done = decoder.rect(&mut reader, rect, encoding, &mut seen);
                done.expect("a rectangle");
            }
            if round >= 3 {
                steady += allocations() - allocated;
            }
            kept = IN_USE.get() - before;
        }
        drop(encoder);
        let kept = kept.min(IN_USE.get() - before);
        println!("{encoding:?}: a decoder keeps {kept} bytes");
        assert!(kept < decoder_max, "{encoding:?}: {kept}");
        // Palettes of Tight are read into memory of their own.
        assert!(
            encoding == Encoding::TIGHT || steady == 0,
            "{encoding:?}: decoding"
        );
    }
}
