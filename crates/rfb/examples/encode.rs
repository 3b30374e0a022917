// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How quick the encoders are: `cargo run --release -p rfb --example encode [FOLDER]`. With a folder it leaves there
//! what each encoder wrote.
//!
//! It prints milliseconds (the least of several runs) and bytes for a 1920x1080 frame of text, of a desktop, like a
//! photo, and of one colour, on streams that have seen another frame before.

use std::time::{Duration, Instant};
use std::{env, fs};

use rfb::{Channel, Encoder, Encoding, Frame, PixelFormat, Rect};

const WIDTH: u16 = 1920;
const HEIGHT: u16 = 1080;

/// A small generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}

fn frame(mut colour: impl FnMut(usize, usize) -> u32) -> Frame {
    let mut frame = Frame::new(WIDTH, HEIGHT).expect("a frame");
    let pixels = frame.bytes_mut().chunks_exact_mut(4);
    for (at, pixel) in pixels.enumerate() {
        let (x, y) = (at % usize::from(WIDTH), at / usize::from(WIDTH));
        pixel.copy_from_slice(&colour(x, y).to_le_bytes());
    }
    frame
}

/// 96 glyphs of 8x16, strokes rather than noise.
fn glyphs(random: &mut Random) -> Vec<[[bool; 8]; 16]> {
    (0..96)
        .map(|_| {
            let mut glyph = [[false; 8]; 16];
            for _ in 0..4 {
                let (x, y) = (
                    random.next() as usize % 6 + 1,
                    random.next() as usize % 9 + 3,
                );
                let vertical = random.next() & 1 == 0;
                for step in 0..random.next() as usize % 6 + 2 {
                    let (x, y) = if vertical {
                        (x, y + step)
                    } else {
                        (x + step, y)
                    };
                    if x < 7 && y < 13 {
                        glyph[y][x] = true;
                    }
                }
            }
            glyph
        })
        .collect()
}

/// A console full of words, in a few colours.
fn text(seed: u64) -> Frame {
    let mut random = Random(seed);
    let glyphs = glyphs(&mut random);
    let (columns, rows) = (usize::from(WIDTH) / 8, usize::from(HEIGHT) / 16 + 1);
    let mut cells = Vec::new();
    for _ in 0..rows {
        let end = random.next() as usize % columns;
        let colour =
            [0x00aa_aaaa, 0x00aa_aaaa, 0x0055_ff55, 0x0055_55ff][random.next() as usize & 3];
        for column in 0..columns {
            let is_space = column > end || random.next() % 6 < 1;
            cells.push((
                if is_space {
                    None
                } else {
                    Some(random.next() as usize % 96)
                },
                colour,
            ));
        }
    }
    frame(|x, y| match cells[y / 16 * columns + x / 8] {
        (Some(glyph), colour) if glyphs[glyph][y % 16][x % 8] => colour,
        _ => 0,
    })
}

/// Windows with smoothed text on white, borders, and a gradient.
fn desktop(seed: u64) -> Frame {
    let mut random = Random(seed);
    let glyphs = glyphs(&mut random);
    let cells: Vec<_> = (0..240 * 68).map(|_| random.next()).collect();
    frame(|x, y| {
        if !(40..1040).contains(&y) || !(60..1700).contains(&x) {
            let shade = (x * 120 / 1920 + y * 80 / 1080) as u32;
            return 0x0020_3050 + shade * 0x0001_0101 / 2;
        }
        if y < 70 {
            return 0x0030_60a0 + ((y as u32 - 40) << 1);
        }
        let cell = cells[y / 16 * 240 + x / 8];
        if cell % 5 == 0 || cell / 5 % 3 == 0 {
            return 0x00ff_ffff;
        }
        let glyph = &glyphs[cell as usize % 96];
        let near = |dx: usize, dy: usize| glyph[(y % 16 + dy) % 16][(x % 8 + dx) % 8];
        let ink =
            u32::from(near(0, 0)) * 160 + u32::from(near(1, 0)) * 50 + u32::from(near(0, 1)) * 40;
        (255 - ink.min(255)) * 0x0001_0101
    })
}

/// Smooth shades with noise.
fn photo(seed: u64) -> Frame {
    let mut random = Random(seed);
    frame(|x, y| {
        let noise = random.next();
        let (x, y) = (x as f32 / 97.0, y as f32 / 71.0);
        let shade = |phase: f32| ((x + phase).sin() * (y - phase).cos() * 100.0 + 128.0) as u32;
        let channel = |phase: f32, bits: u32| (shade(phase) + (noise >> bits & 7)).min(255);
        channel(0.0, 0) << 16 | channel(0.7, 3) << 8 | channel(1.9, 6)
    })
}

/// What other pixel formats cost.
fn formats(frame: &Frame) {
    let bytes = [0, 8, 16].map(|shift| Channel { max: 255, shift });
    let bytes = PixelFormat::true_colour(32, 24, false, bytes).expect("a format");
    for (name, format) in [
        ("XRGB", PixelFormat::XRGB8888),
        ("XBGR", bytes),
        ("RGB565", PixelFormat::RGB565),
        ("BGR233", PixelFormat::BGR233),
    ] {
        for encoding in [Encoding::RAW, Encoding::ZRLE] {
            let (mut best, mut out) = (Duration::MAX, Vec::new());
            for _ in 0..5 {
                let mut encoder = Encoder::new();
                encoder.set_format(format);
                out.clear();
                let start = Instant::now();
                let _ = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
                best = best.min(start.elapsed());
            }
            let best = best.as_secs_f64() * 1e3;
            println!(
                "desktop  {encoding:?} in {name}: {best:.2} ms, {} bytes",
                out.len()
            );
        }
    }
}

fn main() {
    let folder = env::args().nth(1);
    let pictures = [
        ("text", text(11), text(12)),
        ("desktop", desktop(13), desktop(14)),
        ("photo", photo(15), photo(16)),
        (
            "solid",
            frame(|_, _| 0x0012_3456),
            frame(|_, _| 0x0065_4321),
        ),
    ];
    let encodings = [
        ("raw", Encoding::RAW),
        ("zrle", Encoding::ZRLE),
        ("tight", Encoding::TIGHT),
    ];
    formats(&pictures[1].2);
    for (picture, before, frame) in &pictures {
        for (encoding, number) in encodings {
            let levels: &[Option<u8>] = if encoding == "raw" {
                &[None]
            } else {
                &[
                    None,
                    Some(1),
                    Some(2),
                    Some(3),
                    Some(4),
                    Some(5),
                    Some(6),
                    Some(7),
                    Some(9),
                ]
            };
            for level in levels {
                let (mut best, mut out) = (Duration::MAX, Vec::new());
                let mut small = Duration::MAX;
                for _ in 0..5 {
                    let mut encoder = Encoder::new();
                    encoder.set_compress_level(*level);
                    out.clear();
                    let _ = encoder.encode(number, before.rect(), &before.view(), &mut out);
                    let before_len = out.len();
                    let start = Instant::now();
                    let _ = encoder.encode(number, frame.rect(), &frame.view(), &mut out);
                    best = best.min(start.elapsed());
                    let start = Instant::now();
                    let end = out.len();
                    let _ = encoder.encode(
                        number,
                        Rect::new(100, 100, 64, 64),
                        &frame.view(),
                        &mut out,
                    );
                    small = small.min(start.elapsed());
                    out.truncate(end);
                    if folder.is_none() {
                        out.drain(..before_len);
                    }
                }
                let name = match level {
                    None => "default".to_owned(),
                    Some(level) => format!("{level}"),
                };
                println!(
                    "{picture:8} {encoding:6} {name:8} {:8.2} ms {:9} bytes; 64x64: {:6.1} us",
                    best.as_secs_f64() * 1e3,
                    out.len(),
                    small.as_secs_f64() * 1e6
                );
                if let Some(folder) = &folder {
                    let path = format!("{folder}/{picture}.{encoding}.{name}");
                    fs::write(path, &out).expect("a writable folder");
                }
            }
        }
    }
}
