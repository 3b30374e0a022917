// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use super::*;
use crate::vnc::damage::Merging;

const SIZE: Size = Size::new(8, 4);

fn message(request: u32, flags: u32, fields: &[u32], pixels: &[u8]) -> Vec<u8> {
    let size = 4 * fields.len() + pixels.len();
    let mut bytes = Vec::new();
    for word in [request, flags, size as u32].iter().chain(fields) {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(pixels);
    bytes
}

fn scanout(id: u32, size: Size) -> Vec<u8> {
    message(7, 0, &[id, size.width, size.height], &[])
}

fn update(id: u32, rect: Rect, pixels: &[u8]) -> Vec<u8> {
    message(8, 0, &[id, rect.x, rect.y, rect.width, rect.height], pixels)
}

fn rects(mut damage: DamageMap) -> Vec<Rect> {
    let all = damage.size().into();
    damage.take_rects(&all, Merging::FINE)
}

fn head() -> Head {
    Head::new("vm1".to_owned())
}

/// Reads `bytes`, which come in pieces of `piece`, until something else than their end stops it.
fn read(bytes: &[u8], piece: usize, heads: &mut [Head]) -> Result<Vec<Request>, DisplayError> {
    let (mut gpu, console) = UnixStream::pair().unwrap();
    console.set_nonblocking(true).unwrap();
    let mut decoder = Decoder::new();
    let mut requests = Vec::new();
    for piece in bytes.chunks(piece) {
        gpu.write_all(piece).unwrap();
        loop {
            match decoder.read(&console, heads, &mut { 1 << 20 })? {
                Progress::Drained => break,
                Progress::More => {}
                Progress::Request(request) => requests.push(request),
            }
        }
    }
    Ok(requests)
}

fn error(bytes: &[u8]) -> DisplayError {
    read(bytes, 4096, &mut [head()]).unwrap_err()
}

#[test]
fn messages_are_the_same_in_any_pieces() {
    let rect = Rect::from_edges(2, 1, 5, 4);
    let pixels: Vec<u8> = (1..=36).collect();
    let whole_rows: Vec<u8> = (100..132).collect();
    let mut cursor = vec![0; SENT_CURSOR_LEN];
    cursor[..4].copy_from_slice(&[1, 2, 3, 255]);
    let features = Features(7 | 1 << 32);
    let bytes = [
        message(1, 0, &[], &[]),
        message(2, 0, &[], &features.encode()),
        scanout(0, SIZE),
        update(0, rect, &pixels),
        message(6, 0, &[0, 3, 2, 0, 0], &cursor),
        message(0x1000, 4, &[1], &[]),
        update(0, Rect::from_edges(0, 0, 8, 1), &whole_rows),
        message(5, 0, &[0, 4, 3], &[]),
        message(4, 0, &[0, 4, 3], &[]),
    ]
    .concat();
    for piece in [1, 3, 11, 31, 32, 33, 4096, bytes.len()] {
        let mut heads = [head()];
        let requests = read(&bytes, piece, &mut heads).unwrap();
        let expected = [
            Request::Features,
            Request::SetFeatures(features),
            Request::ResizeReply(ResizeResult::Refused),
        ];
        assert_eq!(requests, expected, "{piece}");
        let [head] = &mut heads;
        assert_eq!((head.state(), head.size()), (HeadState::On, SIZE));
        {
            let picture = head.picture().borrow();
            let drawn: Vec<u8> = picture.rows(rect, 0).flatten().copied().collect();
            assert_eq!(drawn, pixels, "{piece}");
            assert_eq!(&picture.bytes()[..32], whole_rows);
            let others = picture.bytes().iter().filter(|byte| **byte != 0).count();
            assert_eq!(others, 36 + 32);
        }
        assert_eq!(head.cursor().covers(), Rect::from_edges(4, 3, 5, 4));
        let changes = head.take_changes();
        assert!(changes.picture && changes.cursor_shape);
        // The first pixels brought the picture, the second ones changed it.
        assert_eq!(
            rects(changes.damage),
            [Rect::from_edges(0, 0, 8, 1)],
            "{piece}"
        );
    }
}

#[test]
fn damage_is_reported_when_all_pixels_are_there() {
    let (mut gpu, console) = UnixStream::pair().unwrap();
    console.set_nonblocking(true).unwrap();
    let mut decoder = Decoder::new();
    let mut heads = [head()];
    gpu.write_all(&scanout(0, SIZE)).unwrap();
    assert_eq!(
        decoder
            .read(&console, &mut heads, &mut { 1 << 20 })
            .unwrap(),
        Progress::Drained
    );
    for (rect, shown) in [
        (Rect::from_edges(0, 0, 1, 1), false),
        (Rect::from_edges(0, 0, 4, 2), true),
    ] {
        heads[0].take_changes();
        let bytes = update(0, rect, &vec![9; rect.area() as usize * PIXEL_LEN]);
        let (first, last) = bytes.split_at(bytes.len() - 1);
        let mut gpu_sends = |bytes: &[u8]| {
            gpu.write_all(bytes).unwrap();
            let progress = decoder.read(&console, &mut heads, &mut { 1 << 20 });
            assert_eq!(progress.unwrap(), Progress::Drained);
            heads[0].take_changes()
        };
        assert!(gpu_sends(first).is_empty());
        let changes = gpu_sends(last);
        // The first pixels bring the picture.
        assert_eq!(changes.picture, !shown);
        let damage = rects(changes.damage);
        assert_eq!(damage, [rect].repeat(usize::from(shown)));
    }
}

/// A GPU that shows a picture, and a console that has read it.
struct Shown {
    gpu: UnixStream,
    console: UnixStream,
    decoder: Decoder,
    heads: [Head; 1],
    pixels: Vec<u8>,
    size: Size,
}

impl Shown {
    fn new(size: Size) -> Self {
        let (gpu, console) = UnixStream::pair().unwrap();
        console.set_nonblocking(true).unwrap();
        let pixels: Vec<u8> = (0..size.area() * 4).map(|n| (n % 251) as u8).collect();
        let mut shown = Self {
            gpu,
            console,
            decoder: Decoder::new(),
            heads: [head()],
            pixels: pixels.clone(),
            size,
        };
        shown.send(&scanout(0, size), usize::MAX);
        shown.send(&update(0, size.into(), &pixels), usize::MAX);
        shown.heads[0].take_changes();
        shown
    }

    /// Sends bytes in pieces of some length. Returns what changed.
    fn send(&mut self, bytes: &[u8], piece: usize) -> Vec<Rect> {
        for piece in bytes.chunks(piece.min(64 << 10)) {
            self.gpu.write_all(piece).unwrap();
            let read = self
                .decoder
                .read(&self.console, &mut self.heads, &mut { 1 << 20 });
            assert_eq!(read.unwrap(), Progress::Drained);
        }
        rects(self.heads[0].take_changes().damage)
    }

    /// Sends a part of `pixels`.
    fn send_part(&mut self, rect: Rect, piece: usize) -> Vec<Rect> {
        let stride = self.size.width as usize * 4;
        let rows = self.pixels.chunks_exact(stride);
        let rows = rows.skip(rect.y as usize).take(rect.height as usize);
        let columns = rect.x as usize * 4..rect.right() as usize * 4;
        let sent: Vec<u8> = rows.flat_map(|row| row[columns.clone()].to_vec()).collect();
        let damage = self.send(&update(0, rect, &sent), piece);
        assert!(self.heads[0].picture().borrow().bytes() == self.pixels);
        damage
    }
}

#[test]
fn each_byte_counts_in_its_piece_and_in_no_other() {
    // More than a word of pieces, and a last one that is no whole piece.
    let size = Size::new(1030, 3);
    let mut shown = Shown::new(size);
    let stride = size.width as usize * 4;
    let whole = Rect::from(size);
    let part = Rect::from_edges(3, 1, 1029, 2);
    for (rect, piece) in [(whole, 1 << 16), (whole, 1001), (part, 1 << 16), (part, 7)] {
        assert_eq!(shown.send_part(rect, piece), [], "nothing changed");
        let all = rect.x as usize * 4..rect.right() as usize * 4;
        // Each byte at the edges of pieces, words and rows; some in between.
        let near_edge = |at: &usize| matches!((at + 1) % 16, 0..2) || at % 61 == 0;
        for at in all
            .filter(near_edge)
            .step_by(if piece < 16 { 29 } else { 1 })
        {
            shown.pixels[stride + at] ^= 1;
            let left = at as u32 / 16 * 4;
            let expected = Rect::from_edges(left, 1, size.width.min(left + 4), 2);
            assert_eq!(shown.send_part(rect, piece), [expected], "byte {at}");
        }
    }
}

#[test]
fn picture_is_what_was_sent_and_changes_are_what_differs() {
    let size = Size::new(700, 60);
    let mut shown = Shown::new(size);
    let mut seed = 5_u32;
    let mut below = |limit: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 12) % limit
    };
    for _ in 0..60 {
        let (x, y) = (below(size.width), below(size.height));
        let (right, bottom) = (x + below(size.width - x), y + below(size.height - y));
        let rect = Rect::from_edges(x, y, right + 1, bottom + 1);
        let before = shown.pixels.clone();
        for _ in 0..below(20) {
            let (x, y) = (x + below(rect.width), y + below(rect.height));
            let at = (y * size.width + x) as usize * 4 + below(4) as usize;
            shown.pixels[at] = shown.pixels[at].wrapping_add(below(3) as u8);
        }
        let piece = [1 << 16, 5000, 333][below(3) as usize];
        let damage = shown.send_part(rect, piece);
        let pixels = before.chunks(4).zip(shown.pixels.chunks(4)).zip(0..);
        for ((before, now), n) in pixels {
            let pixel = Rect {
                x: n % size.width,
                y: n / size.width,
                width: 1,
                height: 1,
            };
            let is_damaged = damage.iter().any(|rect| rect.contains(&pixel));
            assert!(is_damaged || before == now, "{pixel:?}");
        }
        // No more than the pieces, with gaps between them.
        let changed = before.chunks(16).zip(shown.pixels.chunks(16));
        let changed = changed.filter(|(before, now)| before != now).count();
        let area: u64 = damage.iter().map(Rect::area).sum();
        assert!(area as usize <= changed * 4 * 6, "{area}, {changed}");
    }
}

#[test]
fn head_that_nobody_looks_at_is_skipped() {
    let size = Size::new(400, 300);
    let pixels = vec![7; size.area() as usize * PIXEL_LEN];
    let bytes = [
        scanout(0, SIZE),
        scanout(15, size),
        update(15, size.into(), &pixels),
        message(6, 0, &[15, 0, 0, 0, 0], &[1; SENT_CURSOR_LEN]),
        message(4, 0, &[15, 1, 1], &[]),
        update(0, Rect::from_edges(0, 0, 1, 1), &[5; 4]),
    ]
    .concat();
    let mut heads = [head()];
    read(&bytes, 1000, &mut heads).unwrap();
    assert_eq!(heads[0].picture().borrow().bytes()[..5], [5, 5, 5, 5, 0]);
}

#[test]
fn picture_that_is_too_large_is_skipped() {
    let size = Size::new(20_000, 2);
    let rect = Rect::from_edges(19_999, 0, 20_000, 2);
    let first = update(0, Rect::from_edges(0, 0, 1, 1), &[7; 4]);
    let skipped = update(0, rect, &[7; 8]);
    let bytes = [scanout(0, size), skipped, scanout(0, SIZE), first].concat();
    let mut heads = [head()];
    read(&bytes, 4096, &mut heads).unwrap();
    assert_eq!(heads[0].state(), HeadState::On);
    let outside = update(0, Rect::from_edges(0, 2, 1, 3), &[0; 4]);
    let bytes = [scanout(0, size), outside].concat();
    assert!(matches!(
        error(&bytes),
        DisplayError::Outside { scanout: 0, .. }
    ));
}

#[test]
fn turn_ends_at_its_limit() {
    let (mut gpu, console) = UnixStream::pair().unwrap();
    console.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        gpu.write_all(&message(4, 0, &[0, 1, 1], &[])).unwrap();
    }
    let mut decoder = Decoder::new();
    let mut heads = [head()];
    let mut turns = 1;
    while decoder
        .read(&console, &mut heads, &mut { 16 << 10 })
        .unwrap()
        == Progress::More
    {
        turns += 1;
    }
    assert!(turns > 10, "{turns}");
}

#[test]
fn broken_messages_are_errors() {
    let shown = |message: &[u8]| [&scanout(0, SIZE), message].concat();
    let pixel = Rect::from_edges(0, 0, 1, 1);
    for (request, flags) in [
        (0, 0),
        (3, 0),
        (9, 0),
        (13, 0),
        (8, 4),
        (0x1000, 0),
        (u32::MAX, 0),
    ] {
        let broken = message(request, flags, &[0; 5], &[0; 4]);
        assert!(
            matches!(error(&broken), DisplayError::Unknown { .. }),
            "{request}"
        );
    }
    // Neither too long nor too short, also where the product overflows 32 and 64 bits.
    for rect in [
        pixel,
        Rect { width: 2, ..pixel },
        Rect {
            width: 0x8000_0000,
            height: 0x8000_0000,
            ..pixel
        },
        Rect {
            width: u32::MAX,
            height: u32::MAX,
            ..pixel
        },
        Rect {
            width: 0x4000_0001,
            ..pixel
        },
    ] {
        let broken = shown(&update(0, rect, &[0; 5]));
        assert!(
            matches!(error(&broken), DisplayError::Size { request: 8, .. }),
            "{rect:?}"
        );
    }
    let short_cursor = message(6, 0, &[0; 5], &[0; SENT_CURSOR_LEN - 1]);
    assert!(matches!(
        error(&short_cursor),
        DisplayError::Size { request: 6, .. }
    ));
    assert!(matches!(
        error(&scanout(16, SIZE)),
        DisplayError::Scanout(16)
    ));
    let off = update(0, pixel, &[0; 4]);
    assert!(matches!(error(&off), DisplayError::NoPicture(0)));
    let switched_off = [scanout(0, SIZE), scanout(0, Size::default()), off].concat();
    assert!(matches!(error(&switched_off), DisplayError::NoPicture(0)));
    for rect in [
        Rect { x: 8, ..pixel },
        Rect {
            y: u32::MAX,
            ..pixel
        },
        Rect {
            x: u32::MAX,
            ..pixel
        },
    ] {
        let outside = shown(&update(0, rect, &[0; 4]));
        assert!(
            matches!(error(&outside), DisplayError::Outside { .. }),
            "{rect:?}"
        );
    }
}

#[test]
fn closed_connection_is_an_error() {
    let (gpu, console) = UnixStream::pair().unwrap();
    drop(gpu);
    let result = Decoder::new().read(&console, &mut [], &mut { 4096 });
    assert!(matches!(result, Err(DisplayError::Closed)));
}

#[test]
fn requests_do_not_refill_the_budget() {
    let (mut gpu, console) = UnixStream::pair().unwrap();
    console.set_nonblocking(true).unwrap();
    gpu.write_all(&message(1, 0, &[], &[]).repeat(100)).unwrap();
    let (mut decoder, mut budget) = (Decoder::new(), 2 * LEAST_COST);
    let mut requests = 0;
    let end = loop {
        match decoder.read(&console, &mut [], &mut budget).unwrap() {
            Progress::Request(Request::Features) => requests += 1,
            end => break end,
        }
    };
    assert_eq!(end, Progress::More);
    assert!((2..100).contains(&requests), "{requests}");
}
