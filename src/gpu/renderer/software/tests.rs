// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Transfers to resources in the host's memory.

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::backend::continuity::value::testing::assert_version;
use crate::gpu::protocol::MemEntry;
use crate::gpu::renderer::testing::WholeRequests as _;

use super::*;

const WIDTH: u32 = 8;
const HEIGHT: u32 = 64;
const LEN: u32 = WIDTH * HEIGHT * 4;

fn memory() -> MemoryGuard {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    let memory = GuestMemoryAtomic::new(memory).memory();
    for i in 0..LEN {
        let byte = (i % 255) as u8 + 1;
        memory.write_obj(byte, GuestAddress(i.into())).unwrap();
    }
    memory
}

fn renderer(format: Format, memory: &MemoryGuard) -> SoftwareRenderer {
    let mut renderer = SoftwareRenderer::without_memory(Budget::new(1 << 20));
    renderer
        .create_2d(1, format, Size::new(WIDTH, HEIGHT))
        .unwrap();
    renderer.attach(1, &[(0, LEN)], memory).unwrap();
    renderer
}

fn pixel(renderer: &SoftwareRenderer, x: u32, y: u32) -> Vec<u8> {
    let image = renderer.existing_image(1).unwrap().unwrap();
    image.lock().bytes(x, y, 4).to_vec()
}

fn guest(x: u32, y: u32) -> [u8; 4] {
    let at = (y * WIDTH + x) * 4;
    [0, 1, 2, 3].map(|i| ((at + i) % 255) as u8 + 1)
}

#[test]
fn transfers_copy_exactly_the_rectangle() {
    let memory = memory();
    let mut renderer = renderer(Format::B8G8R8X8, &memory);
    let rect = Rect {
        x: 2,
        y: 3,
        width: 3,
        height: 2,
    };
    let offset = u64::from((3 * WIDTH + 2) * 4);
    let mut changed = Region::default();
    renderer
        .transfer(1, rect, offset, &memory, &mut changed)
        .unwrap();
    assert_eq!(changed.rects(), [rect]);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let inside = (2..5).contains(&x) && (3..5).contains(&y);
            let expected = if inside { guest(x, y) } else { [0; 4] };
            assert_eq!(pixel(&renderer, x, y), expected, "{x},{y}");
        }
    }
}

#[test]
fn the_offset_is_that_of_the_first_pixel() {
    let memory = memory();
    let mut renderer = renderer(Format::B8G8R8A8, &memory);
    let rect = Rect {
        x: 5,
        y: 7,
        width: 1,
        height: 2,
    };
    renderer
        .transfer(1, rect, 4, &memory, &mut Region::default())
        .unwrap();
    assert_eq!(pixel(&renderer, 5, 7), guest(1, 0));
    assert_eq!(pixel(&renderer, 5, 8), guest(1, 1));
}

#[test]
fn all_formats_are_converted_to_the_displays_order() {
    let memory = memory();
    // Positions of blue, green and red in the guest's pixel.
    let order = |format| match format {
        Format::B8G8R8A8 | Format::B8G8R8X8 => [0, 1, 2],
        Format::A8R8G8B8 | Format::X8R8G8B8 => [3, 2, 1],
        Format::R8G8B8A8 | Format::R8G8B8X8 => [2, 1, 0],
        Format::A8B8G8R8 | Format::X8B8G8R8 => [1, 2, 3],
    };
    for format in Format::ALL {
        let mut renderer = renderer(format, &memory);
        let all = Rect::sized(WIDTH, HEIGHT);
        renderer
            .transfer(1, all, 0, &memory, &mut Region::default())
            .unwrap();
        let expected = order(format).map(|i: usize| guest(3, 2)[i]);
        assert_eq!(pixel(&renderer, 3, 2)[..3], expected, "{format:?}");
    }
}

#[test]
fn only_different_pixels_count_as_changed() {
    let memory = memory();
    let mut renderer = renderer(Format::B8G8R8X8, &memory);
    let all = Rect::sized(WIDTH, HEIGHT);
    let mut transfer = |memory| {
        let mut changed = Region::default();
        renderer.transfer(1, all, 0, memory, &mut changed).unwrap();
        changed.rects().to_vec()
    };
    assert_eq!(transfer(&memory), [all]);
    assert_eq!(transfer(&memory), []);
    for (x, y) in [(1_u32, 2_u32), (4, 5), (7, 60)] {
        let at = GuestAddress(u64::from((y * WIDTH + x) * 4));
        memory.write_obj(0_u8, at).unwrap();
    }
    let near = Rect {
        x: 1,
        y: 2,
        width: 4,
        height: 4,
    };
    let far = Rect {
        x: 7,
        y: 60,
        width: 1,
        height: 1,
    };
    assert_eq!(transfer(&memory), [near, far]);
}

#[test]
fn rows_are_copied_whatever_the_previous_rows_were() {
    let memory = memory();
    let mut renderer = renderer(Format::R8G8B8X8, &memory);
    let all = Rect::sized(WIDTH, HEIGHT);
    let (right, first) = (WIDTH - 1, GuestAddress(0));
    // The columns that change in each row: at both ends, within, on one side, none.
    let columns = |y: u32, turn: u32| match (y * 7 + turn) % 5 {
        0 => vec![0, right],
        1 => (0..WIDTH).collect(),
        2 => vec![3],
        3 => vec![right],
        _ => vec![],
    };
    for turn in 0..20_u32 {
        let mut bytes = vec![0; LEN as usize];
        memory.read_slice(&mut bytes, first).unwrap();
        for y in 0..HEIGHT {
            for x in columns(y, turn) {
                bytes[((y * WIDTH + x) * 4) as usize] ^= 0x55;
            }
        }
        memory.write_slice(&bytes, first).unwrap();
        let mut changed = Region::default();
        renderer.transfer(1, all, 0, &memory, &mut changed).unwrap();
        for (n, guest) in (0..).zip(bytes.chunks(4)) {
            let (x, y) = (n % WIDTH, n / WIDTH);
            let expected = [guest[2], guest[1], guest[0], guest[3]];
            assert_eq!(pixel(&renderer, x, y), expected, "{x},{y} in turn {turn}");
            if columns(y, turn).contains(&x) {
                let (width, height) = (1, 1);
                let one = Rect {
                    x,
                    y,
                    width,
                    height,
                };
                let told = changed.rects().iter();
                assert!(told.map(|r| r.intersection(&one)).any(|r| r == Some(one)));
            }
        }
    }
}

/// Compares images after random transfers, from a backing of random pieces, with a copy pixel by pixel,
/// and the reported changes with the actual ones.
#[test]
fn any_sequence_of_transfers_copies_and_reports_changes() {
    const PIECES: u32 = 0x8000;
    let mut random = random();
    for format in Format::ALL {
        // Two adjacent regions of the guest's memory.
        let halves = [(GuestAddress(0), 0x9000), (GuestAddress(0x9000), 0x9000)];
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::from_ranges(&halves).unwrap());
        let memory = memory.memory();
        let (width, height) = (1 + random(2000), 1 + random(8));
        let len = width * height * 4;
        let mut pieces = Vec::new();
        let mut left = len;
        while left > 0 {
            let most = [7, 9000][random(2) as usize];
            let piece = (1 + random(most)).min(left);
            // Pieces may overlap, and cross the border of the regions.
            let at = match random(3) {
                0 => 0x9000 - random(piece + 1),
                _ => random(0x12000 - piece),
            };
            pieces.push((u64::from(at & !random(2).wrapping_mul(4095)), piece));
            left -= piece;
        }
        let mut renderer = SoftwareRenderer::without_memory(Budget::new(1 << 20));
        renderer
            .create_2d(1, format, Size::new(width, height))
            .unwrap();
        renderer.attach(1, &pieces, &memory).unwrap();
        let mut expected = vec![0_u8; len as usize];
        for turn in 0..30 {
            // All bytes, some, or none.
            let changes = [PIECES, random(20), 0][random(3) as usize];
            for _ in 0..changes {
                let at = GuestAddress(u64::from(random(0x12000)));
                memory.write_obj(random(256) as u8, at).unwrap();
            }
            let (x, y) = (random(width), random(height));
            let rect = match random(2) {
                0 => Rect::sized(width, height),
                _ => Rect {
                    x,
                    y,
                    width: 1 + random(width - x),
                    height: 1 + random(height - y),
                },
            };
            let mut changed = Region::default();
            let offset = u64::from((rect.y * width + rect.x) * 4);
            renderer
                .transfer(1, rect, offset, &memory, &mut changed)
                .unwrap();
            let mut backing = Vec::new();
            for (at, piece) in &pieces {
                let mut bytes = vec![0; *piece as usize];
                memory.read_slice(&mut bytes, GuestAddress(*at)).unwrap();
                backing.extend(bytes);
            }
            crate::gpu::resource::to_display_order(format, &mut backing);
            let image = renderer.existing_image(1).unwrap().unwrap();
            let image = image.lock();
            for (n, old) in (0..).zip(expected.chunks_mut(4)) {
                let (x, y) = (n % width, n / width);
                let one = Rect {
                    x,
                    y,
                    width: 1,
                    height: 1,
                };
                let new = &backing[n as usize * 4..][..4];
                if rect.intersection(&one).is_some() && old != new {
                    old.copy_from_slice(new);
                    let told = changed
                        .rects()
                        .iter()
                        .any(|r| r.intersection(&one).is_some());
                    assert!(told, "{x},{y} in turn {turn}, {format:?}");
                }
                assert_eq!(
                    image.bytes(x, y, 4),
                    old,
                    "{x},{y} in turn {turn}, {format:?}"
                );
            }
            if changes == 0 && rect == Rect::sized(width, height) && turn > 0 {
                let mut again = Region::default();
                drop(image);
                renderer
                    .transfer(1, rect, offset, &memory, &mut again)
                    .unwrap();
                assert!(again.is_empty());
            }
        }
    }
}

/// Pseudo-random numbers below a limit (xorshift64).
fn random() -> impl FnMut(u32) -> u32 {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % u64::from(below.max(1))) as u32
    }
}

#[test]
fn transfers_that_fail_half_way_report_their_changes() {
    let whole = memory();
    let mut renderer = SoftwareRenderer::without_memory(Budget::new(1 << 20));
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(WIDTH, HEIGHT))
        .unwrap();
    let pieces = [(0, WIDTH * 4), (0x8000, LEN)];
    renderer.attach(1, &pieces, &whole).unwrap();
    let less = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
    let less = GuestMemoryAtomic::new(less).memory();
    less.write_slice(&[9; 32], GuestAddress(0)).unwrap();
    let mut changed = Region::default();
    let all = Rect::sized(WIDTH, HEIGHT);
    let result = renderer.transfer(1, all, 0, &less, &mut changed);
    assert!(matches!(result, Err(ResourceError::Backing { .. })));
    assert_eq!(changed.rects(), [Rect::sized(WIDTH, 1)]);
}

#[test]
fn transfers_beyond_the_backing_change_nothing() {
    let memory = memory();
    let mut renderer = renderer(Format::B8G8R8X8, &memory);
    let all = Rect::sized(WIDTH, HEIGHT);
    for offset in [1, LEN.into(), u64::MAX] {
        let mut changed = Region::default();
        let result = renderer.transfer(1, all, offset, &memory, &mut changed);
        let Err(ResourceError::Backing { source: error, .. }) = result else {
            panic!("{result:?}");
        };
        assert!(matches!(error, BackingError::Short { .. }), "{error}");
        assert!(changed.is_empty(), "{changed:?}");
    }
    let mut changed = Region::default();
    let result = renderer.transfer(1, all, 0, &memory, &mut changed);
    assert!(result.is_ok());
}

#[test]
fn the_number_of_resources_is_bounded() {
    let mut renderer = SoftwareRenderer::without_memory(Budget::new(1 << 30));
    let count = MAX_RESOURCES as u32;
    for id in 1..=count {
        renderer
            .create_2d(id, Format::B8G8R8X8, Size::new(1, 1))
            .unwrap();
    }
    assert!(matches!(
        renderer.create_2d(count + 1, Format::B8G8R8X8, Size::new(1, 1)),
        Err(ResourceError::TooMany(_))
    ));
    renderer.unref(7).unwrap();
    renderer
        .create_2d(7, Format::B8G8R8X8, Size::new(1, 1))
        .unwrap();
}

#[test]
fn all_memory_returns_to_the_budget() {
    let memory = memory();
    let mut renderer = renderer(Format::B8G8R8X8, &memory);
    let budget = renderer.resources.budget().clone();
    assert!(budget.used() > u64::from(LEN));
    renderer.unref(1).unwrap();
    assert_eq!(budget.used(), 0);
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(128, 128))
        .unwrap();
    let shown = renderer.image_or_create(1).unwrap();
    renderer.reset();
    assert_eq!(budget.used(), 128 * 128 * 4);
    drop(shown);
    assert_eq!(budget.used(), 0);
}

/// A successor reads the list of runs where it was written.
#[test]
fn lists_of_runs_have_the_bytes_of_this_version() {
    let memory = memory();
    let mut processes = crate::backend::testing::kept_state::KeptState::new().unwrap();
    let mut next = || {
        let continuity = processes.next_process().unwrap();
        let arena = continuity.arena(64 << 20).unwrap().unwrap();
        let ledger = continuity.ledger(crate::backend::continuity::Owner::Device);
        (KeptState::new(ledger, None), arena)
    };
    let (state, arena) = next();
    let budget = Budget::new(64 << 20);
    let shared = GuestMemoryAtomic::new(GuestMemoryMmap::default());
    let mut renderer = SoftwareRenderer::resume(budget, shared, state.clone(), arena).unwrap();
    let size = Size::new(4, 4);
    renderer.create_2d(1, Format::B8G8R8A8, size).unwrap();
    renderer
        .attach(1, &[(64, 16), (0, 32), (32, 4), (128, 12)], &memory)
        .unwrap();
    state.commit();
    let (state, arena) = next();
    let record: BackingRecord = state.get(1).unwrap().unwrap();
    assert_eq!((record.runs, record.len), (3, 64));
    let list = arena.adopt_list::<u64>(record.place, 2 * 3).unwrap();
    assert_eq!(*list, [0, 64, 16, 0, 52, 128]);
    let bytes: Vec<u8> = list
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    assert_version(&bytes, (3, 0xc0ed_a809_2ef2_5a01));
}

/// Otherwise a restart would end the guest's connection.
#[test]
fn more_pieces_than_can_be_kept_are_refused() {
    let memory = memory();
    let mut processes = crate::backend::testing::kept_state::KeptState::new().unwrap();
    let mut next = || {
        let continuity = processes.next_process().unwrap();
        let arena = continuity.arena(64 << 20).unwrap().unwrap();
        let ledger = continuity.ledger(crate::backend::continuity::Owner::Device);
        let renderer = SoftwareRenderer::resume(
            Budget::new(64 << 20),
            GuestMemoryAtomic::new(GuestMemoryMmap::default()),
            KeptState::new(ledger.clone(), None),
            arena,
        );
        (renderer.unwrap(), ledger)
    };
    let (mut renderer, ledger) = next();
    let most = *KEPT_RUNS.start();
    assert_eq!(most_kept_runs(&Budget::new(64 << 20)), most);
    assert_eq!(most_kept_runs(&Budget::new(u64::MAX)), *KEPT_RUNS.end());
    let attach = |renderer: &mut SoftwareRenderer, id, count: usize| {
        let mut backing = renderer.new_backing(id, count as u32).unwrap();
        let pieces = (0..count).map(|n| MemEntry {
            addr: n as u64 % 2 * 2,
            length: 1,
        });
        let failed = |source| ResourceError::Backing { id, source };
        backing.add(pieces, &memory).map_err(failed)?;
        backing.finish();
        renderer.attach_backing(id, backing, &memory)
    };
    for id in [1, 2] {
        renderer
            .create_2d(id, Format::B8G8R8A8, Size::new(4, 4))
            .unwrap();
    }
    let refused = attach(&mut renderer, 1, most + 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "resource 1: more pieces of memory than can be kept for a restart, 524288 are left"
    );
    attach(&mut renderer, 1, most).unwrap();
    assert!(attach(&mut renderer, 2, 1).is_err());
    renderer.detach_backing(1).unwrap();
    attach(&mut renderer, 1, most).unwrap();
    ledger.commit();
    let (renderer, _) = next();
    assert_eq!(renderer.kept_runs, most);
}
