// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderer with a fake library, which asserts what the renderer has to ensure.

use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::backend::MemoryGuard;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{Format, Transfer3d};
use crate::gpu::region::Region;
use crate::gpu::renderer::testing::WholeRequests as _;
use crate::gpu::renderer::{ContextError, Direction, PIECE_COST, Renderer as _, Renderer3d as _};
use crate::gpu::resource::{Budget, ResourceError};

use super::pixel_reader::flat_box;
use super::testing::fake_virglrenderer;

const SIDE: u32 = 8;
const LEN: u32 = SIDE * SIDE * 4;
const MEMORY: u32 = 1 << 20;

fn memory() -> MemoryGuard {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
    GuestMemoryAtomic::new(memory).memory()
}

/// Transfers a whole 2D resource with the backing `pieces`, from `offset` on.
fn transfer(pieces: Vec<(u64, u32)>, offset: u64) -> Result<(), ResourceError> {
    let memory = memory();
    let mut renderer = fake_virglrenderer::renderer(Budget::new(1 << 20));
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(SIDE, SIDE))
        .unwrap();
    renderer.attach(1, &pieces, &memory).unwrap();
    let all = Rect::sized(SIDE, SIDE);
    renderer.transfer(1, all, offset, &memory, &mut Region::default())
}

#[test]
fn transfers_beyond_the_backing_are_refused() {
    assert!(transfer(vec![(0, LEN)], 0).is_ok());
    assert!(transfer(vec![(0, LEN + 1)], 1).is_ok());
    for (len, offset) in [(LEN - 1, 0), (LEN, 1), (1, 0)] {
        let result = transfer(vec![(0, len)], offset);
        assert!(matches!(result, Err(ResourceError::Refused(1))));
    }
    for offset in [LEN.into(), u64::from(u32::MAX - LEN)] {
        let result = transfer(vec![(0, LEN)], offset);
        let error = result.unwrap_err().to_string();
        assert!(
            error.starts_with("resource 1: the backing has 256 bytes, "),
            "{error}"
        );
    }
}

/// A driver may list the same page several times.
#[test]
fn transfers_beyond_32_bits_are_refused() {
    let four_gigabytes_and_more = vec![(0, MEMORY); 4097];
    let end = (1_u64 << 32) - u64::from(LEN);
    assert!(transfer(four_gigabytes_and_more.clone(), end - 1).is_ok());
    for offset in [end, 1 << 32, u64::MAX] {
        let result = transfer(four_gigabytes_and_more.clone(), offset);
        assert!(matches!(result, Err(ResourceError::Transfer { .. })));
    }
}

/// The fake library asserts that it need not search all iovecs for all rows.
#[test]
fn rows_are_transferred_with_their_own_iovecs_only() {
    const SIDE: u32 = 512;
    let memory = memory();
    let mut renderer = fake_virglrenderer::renderer(Budget::new(64 << 20));
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(SIDE, SIDE))
        .unwrap();
    // Single bytes, no two adjacent.
    let pieces: Vec<_> = (0..SIDE * SIDE * 4)
        .map(|n| (u64::from(n ^ 3), 1))
        .collect();
    renderer.attach(1, &pieces, &memory).unwrap();
    let rects = [
        Rect::sized(SIDE, SIDE),
        Rect::sized(3, SIDE),
        Rect::sized(SIDE, 1),
    ];
    for rect in rects {
        let mut changed = Region::default();
        renderer
            .transfer(1, rect, 0, &memory, &mut changed)
            .unwrap();
        let beyond = u64::from(SIDE) * 4;
        let result = renderer.transfer(1, rect, beyond, &memory, &mut changed);
        assert_eq!(result.is_ok(), rect.height == 1, "{rect:?}");
    }
}

#[test]
fn transfers_in_3d_return_their_work() {
    let memory = memory();
    let mut renderer = fake_virglrenderer::renderer(Budget::new(8 << 20));
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(SIDE, SIDE))
        .unwrap();
    let pieces: Vec<_> = (0..LEN).map(|n| (u64::from(n ^ 3), 1)).collect();
    renderer.attach(1, &pieces, &memory).unwrap();
    renderer.create_context(1, b"test", 0).unwrap();
    let transfer = Transfer3d {
        part: flat_box(Rect::sized(SIDE, SIDE)),
        offset: 0,
        id: 1,
        level: 0,
        stride: 0,
        layer_stride: 0,
    };
    let work = renderer.transfer_3d(1, &transfer, Direction::ToHost);
    let len = u64::from(LEN);
    assert_eq!(work.unwrap(), len + len * PIECE_COST);
}

#[test]
fn streams_are_checked_in_order() {
    let mut renderer = fake_virglrenderer::renderer(Budget::new(8 << 20));
    let cut = renderer.submit(1, &mut [1 << 16]);
    assert!(matches!(cut, Err(ContextError::TruncatedStream(1))));
    let whole = renderer.submit(1, &mut [7]);
    assert!(matches!(whole, Err(ContextError::Unknown(1))));
    renderer.create_context(1, b"test", 0).unwrap();
    renderer.submit(1, &mut [7]).unwrap();
    // PIPE_RESOURCE_CREATE.
    let unaccounted = renderer.submit(1, &mut [48]);
    assert!(matches!(
        unaccounted,
        Err(ContextError::Unaccounted {
            context: 1,
            command: 48
        })
    ));
}
