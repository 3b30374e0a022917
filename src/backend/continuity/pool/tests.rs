// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn pool(granule: u64, warm: u64) -> Pool {
    let memory = Arc::new(SharedMemory::private(1 << 20).unwrap());
    let extents = Extents {
        base: 8192,
        len: 256 << 10,
        granule,
        has_huge_pages: false,
        warm,
    };
    Pool::new(memory, extents)
}

/// No two places overlap, and all is free again in the end, against a plain model.
#[test]
fn places_equal_a_model() {
    let pool = pool(64, 0);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
    let mut freed = Vec::new();
    for _ in 0..20_000 {
        match next(8) {
            0..4 => {
                let len = next(9000) + 1;
                let Some(at) = pool.take(len as usize) else {
                    continue;
                };
                let end = at + len.next_multiple_of(64);
                assert!(at % 64 == 0 && end <= 256 << 10);
                let before = taken.range(..end).next_back();
                assert!(before.is_none_or(|(start, len)| start + len <= at));
                taken.insert(at, end - at);
            }
            4 => {
                let all: Vec<u64> = taken.keys().copied().collect();
                let live: Vec<_> = all.iter().filter(|at| !freed.contains(*at)).collect();
                if let Some(at) = live.get(next(live.len() as u64 + 1) as usize) {
                    let len = taken[*at];
                    let less = next(len) + 1;
                    pool.shrink(**at, less as usize);
                    taken.insert(**at, less.next_multiple_of(64));
                }
            }
            5 | 6 => {
                let all: Vec<u64> = taken.keys().copied().collect();
                let at = all.get(next(all.len() as u64 + 1) as usize);
                if let Some(at) = at.filter(|at| !freed.contains(*at)) {
                    pool.give_back(*at);
                    freed.push(*at);
                }
            }
            _ => {
                pool.committed();
                for at in freed.drain(..) {
                    taken.remove(&at);
                }
            }
        }
    }
    for at in taken.keys().filter(|at| !freed.contains(*at)) {
        pool.give_back(*at);
    }
    pool.committed();
    assert_eq!(pool.take(256 << 10), Some(0));
    assert_eq!(pool.take(1), None);
}

#[test]
fn whole_pages_are_free_once_all_places_in_them_are() {
    let mut places = Places::default();
    for at in (0..16384).step_by(1024) {
        places.take(at, 1024);
    }
    places.take(16384, 10000);
    for at in [1024, 2048, 3072] {
        assert!(places.free(at).is_empty());
    }
    assert_eq!(places.free(0), 0..4096);
    // Its end shares a page with nothing.
    assert_eq!(places.free(16384), 16384..28672);
    places.take(26624, 64);
    places.take(16384, 10000);
    assert_eq!(places.free(16384), 16384..24576);
    assert!(places.free(5).is_empty(), "there is none");
}

#[test]
fn place_of_the_same_length_is_taken_again() {
    let pool = pool(64, 4096);
    let replace = |len| {
        let at = pool.take(len).unwrap();
        pool.give_back(at);
        pool.committed();
        at
    };
    // Before the place that is free in front of it.
    let [first, second] = [640, 1280].map(|len| pool.take(len).unwrap());
    pool.give_back(second);
    pool.committed();
    pool.give_back(first);
    assert_eq!(pool.take(1280), Some(second));
    assert_eq!(pool.take(1280), Some(1920), "it is not given twice");
    pool.committed();
    assert_eq!([replace(600), replace(640), replace(64)], [0, 0, 3200]);
    // Each but the last is free for others, too.
    assert_eq!(pool.take(640), Some(0));
    // Memory that is not kept is not spare.
    let far = pool.take(4096).unwrap();
    assert!(far > 0);
    pool.give_back(far);
    pool.committed();
    assert_eq!(pool.take(4032), Some(far));
}

/// A guest attaches lists for which it announces more than it has, and keeps them.
#[test]
fn places_that_shrink_leave_room_for_large_ones() {
    let memory = Arc::new(SharedMemory::private(16 << 20).unwrap());
    let extents = Extents {
        base: 0,
        len: 16 << 20,
        granule: 64,
        has_huge_pages: false,
        warm: 0,
    };
    let pool = Pool::new(memory, extents);
    for n in 0..1000 {
        let at = pool.take(HUGE_PAGE).unwrap_or_else(|| panic!("{n}"));
        pool.shrink(at, 1);
    }
}
