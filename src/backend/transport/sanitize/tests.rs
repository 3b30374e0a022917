// SPDX-License-Identifier: Apache-2.0 OR MIT

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

fn table(regions: &[[u64; 3]]) -> Vec<u8> {
    let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
    for [guest, size, user] in regions {
        payload.extend([*guest, *size, *user, 0].map(u64::to_ne_bytes).concat());
    }
    payload
}

fn placed(sanitizer: &mut RequestSanitizer, [descriptors, used, available]: [u64; 3]) -> [u64; 3] {
    let mut payload = [0, descriptors, used, available, 0]
        .map(u64::to_ne_bytes)
        .concat();
    sanitizer
        .request(SET_VRING_ADDR, &mut payload, &mut [])
        .unwrap();
    RING_PARTS.map(|(at, _)| word(&payload, at).unwrap())
}

#[test]
fn sanitizer_redirects_only_impossible_virtqueues() {
    let mut sanitizer = RequestSanitizer::default();
    let mut memory = table(&[[1 << 32, 0x2000, 0x7000_0000], [0, 0x1000, 0x6000_0000]]);
    sanitizer
        .request(SET_MEM_TABLE, &mut memory, &mut [])
        .unwrap();
    let sound = [0x6000_0010, 0x6000_0204, 0x7000_0402];
    assert_eq!(placed(&mut sanitizer, sound), sound);
    // Of the region with the highest addresses of the guest, so that none follows.
    let nowhere = [0x7000_1ff0, 0x7000_1ffc, 0x7000_1ffc];
    for wrong in [
        [0x6000_0018, sound[1], sound[2]],
        [sound[0], 0x6000_0206, sound[2]],
        [sound[0], sound[1], 0x7000_0403],
        [0x6000_1000, sound[1], sound[2]],
        [sound[0], 0x5fff_fffc, sound[2]],
        [sound[0], sound[1], u64::MAX - 1],
    ] {
        assert_eq!(placed(&mut sanitizer, wrong), nowhere, "{wrong:x?}");
    }
}

#[test]
fn sanitizer_ignores_truncated_requests() {
    let mut sanitizer = RequestSanitizer::default();
    // Without memory there is nowhere to place it.
    assert_eq!(placed(&mut sanitizer, [1, 2, 3]), [1, 2, 3]);
    for cut in [0, 7, 8, 39, 40] {
        let mut memory = table(&[[0, 2, u64::MAX]]);
        memory.truncate(cut);
        sanitizer
            .request(SET_MEM_TABLE, &mut memory, &mut [])
            .unwrap();
        sanitizer
            .request(SET_VRING_ADDR, &mut [0xff; 12], &mut [])
            .unwrap();
        assert_eq!(placed(&mut sanitizer, [1, 2, 3]), [1, 2, 3]);
    }
    sanitizer.request(SET_VRING_KICK, &mut [], &mut []).unwrap();
}

#[test]
fn starting_virtqueue_is_kicked_once_without_blocking() {
    let mut sanitizer = RequestSanitizer::default();
    let read = |kick: &OwnedFd| {
        let mut count = [0; 8];
        rustix::io::read(kick, &mut count).unwrap();
        u64::from_ne_bytes(count)
    };
    let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let mut fds = [kick];
    sanitizer
        .request(SET_VRING_KICK, &mut [0; 8], &mut fds)
        .unwrap();
    assert_eq!(read(&fds[0]), 1);
    // One that blocks, and has no room.
    let full = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let mut fds = [full];
    sanitizer
        .request(SET_VRING_KICK, &mut [0; 8], &mut fds)
        .unwrap();
    assert_eq!(read(&fds[0]), u64::MAX - 1);
}

/// A memfd of three pages.
fn memfd() -> OwnedFd {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, 0x3000).unwrap();
    memory
}

/// The payload of `ADD_MEM_REG` and `REM_MEM_REG`.
fn region(guest: u64, size: u64, user: u64) -> Vec<u8> {
    [0, guest, size, user, 0].map(u64::to_ne_bytes).concat()
}

fn done(result: Result<ExtraMessages, RequestError>) -> Result<(), MemoryError> {
    match result {
        Ok(around) => {
            assert_eq!(around, ExtraMessages::default());
            Ok(())
        }
        Err(RequestError::Memory(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn memory_beyond_the_end_of_its_file_is_refused() {
    let request = |kind, regions: &[[u64; 2]]| {
        let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
        for (n, [size, offset]) in (0..).zip(regions) {
            let region = [n << 20, *size, 0, *offset];
            payload.extend(region.map(u64::to_ne_bytes).concat());
        }
        let mut fds: Vec<_> = regions.iter().map(|_| memfd()).collect();
        done(RequestSanitizer::default().request(kind, &mut payload, &mut fds))
    };
    let short = |size, offset| {
        Err(MemoryError::RegionBeyondFile {
            size,
            offset,
            file: 0x3000,
        })
    };
    for kind in [SET_MEM_TABLE, ADD_MEM_REG] {
        assert_eq!(request(kind, &[[0x3000, 0]]), Ok(()));
        assert_eq!(request(kind, &[[0x1000, 0x2000]]), Ok(()));
        assert_eq!(request(kind, &[[0x3001, 0]]), short(0x3001, 0));
        assert_eq!(request(kind, &[[0x1000, 0x2001]]), short(0x1000, 0x2001));
        assert_eq!(request(kind, &[[2, u64::MAX]]), short(2, u64::MAX));
    }
    let second = [[0x1000, 0], [0x1000, 0x3000]];
    assert_eq!(request(SET_MEM_TABLE, &second), short(0x1000, 0x3000));
    // A device has no size that could be looked at.
    let device: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
    let mut payload = table(&[[0, 0x1000, 0]]);
    let taken = RequestSanitizer::default().request(SET_MEM_TABLE, &mut payload, &mut [device]);
    assert_eq!(done(taken), Ok(()));
}

#[test]
fn added_and_removed_regions_are_tracked() {
    let mut sanitizer = RequestSanitizer::default();
    let change = |sanitizer: &mut RequestSanitizer, kind, mut payload: Vec<u8>| {
        let mut fds = Vec::from_iter((kind == ADD_MEM_REG).then(memfd));
        done(sanitizer.request(kind, &mut payload, &mut fds))
    };
    let low = region(0, 0x3000, 0x6000_0000);
    let high = region(1 << 32, 0x3000, 0x7000_0000);
    assert_eq!(change(&mut sanitizer, ADD_MEM_REG, high.clone()), Ok(()));
    assert_eq!(change(&mut sanitizer, ADD_MEM_REG, low.clone()), Ok(()));
    let ring = [0x6000_0010, 0x6000_0204, 0x7000_0402];
    assert_eq!(placed(&mut sanitizer, ring), ring);
    assert_eq!(change(&mut sanitizer, REM_MEM_REG, high.clone()), Ok(()));
    let nowhere = [0x6000_2ff0, 0x6000_2ffc, 0x6000_2ffc];
    assert_eq!(placed(&mut sanitizer, ring), nowhere);
    assert_eq!(change(&mut sanitizer, ADD_MEM_REG, high), Ok(()));
    assert_eq!(placed(&mut sanitizer, ring), ring);

    let overlap = |guest, other| {
        let size = 0x3000;
        Err(MemoryError::Overlap { guest, size, other })
    };
    let add = |guest| region(guest, 0x3000, 0x5000_0000);
    assert_eq!(change(&mut sanitizer, ADD_MEM_REG, low), overlap(0, 0));
    assert_eq!(
        change(&mut sanitizer, ADD_MEM_REG, add(0x2fff)),
        overlap(0x2fff, 0)
    );
    let below = (1 << 32) - 0x2fff;
    assert_eq!(
        change(&mut sanitizer, ADD_MEM_REG, add(below)),
        overlap(below, 1 << 32)
    );
    for (guest, size) in [(0x1000, 0x3000), (0, 0x1000), (0x3000, 0)] {
        let unknown = Err(MemoryError::NotShared { guest, size });
        assert_eq!(
            change(&mut sanitizer, REM_MEM_REG, region(guest, size, 0)),
            unknown
        );
    }
    for (guest, user) in [(u64::MAX - 1, 0), (1 << 40, u64::MAX - 1)] {
        let size = 0x3000;
        let beyond = Err(MemoryError::RegionBeyondAddresses { guest, size });
        assert_eq!(
            change(&mut sanitizer, ADD_MEM_REG, region(guest, size, user)),
            beyond
        );
    }
    // A table replaces all of it.
    let mut payload = table(&[[0x1000, 0x3000, 0x6000_0000]]);
    let taken = sanitizer.request(SET_MEM_TABLE, &mut payload, &mut [memfd()]);
    assert_eq!(done(taken), Ok(()));
    assert_eq!(placed(&mut sanitizer, ring), nowhere);
}

#[test]
fn regions_are_limited_to_the_memory_slots() {
    let mut sanitizer = RequestSanitizer::default();
    let mut add = |n: u64| {
        let mut payload = region(n << 20, 0x1000, n << 20);
        done(sanitizer.request(ADD_MEM_REG, &mut payload, &mut [memfd()]))
    };
    for n in 0..memory::MAX_REGIONS as u64 {
        assert_eq!(add(n), Ok(()));
    }
    assert_eq!(add(1000), Err(MemoryError::TooManyRegions));
}

#[test]
fn memory_table_is_sorted_by_guest_address() {
    let mut sanitizer = RequestSanitizer::default();
    let sizes = [0x3000_u64, 0x2000, 0x1000];
    let unsorted = [
        [3 << 20, sizes[0], 0x7000_0000],
        [2 << 20, sizes[1], 0x6000_0000],
        [1 << 20, sizes[2], 0x5000_0000],
    ];
    let mut fds = sizes.map(|size| {
        let file = memfd();
        ftruncate(&file, size).unwrap();
        file
    });
    let mut payload = table(&unsorted);
    let taken = sanitizer.request(SET_MEM_TABLE, &mut payload, &mut fds);
    assert_eq!(done(taken), Ok(()));
    let [a, b, c] = unsorted;
    assert_eq!(payload, table(&[c, b, a]));
    let found = fds
        .each_ref()
        .map(|file| rustix::fs::fstat(file).unwrap().st_size as u64);
    assert_eq!(found, [sizes[2], sizes[1], sizes[0]]);
}

#[test]
fn features_not_offered_are_refused_by_name() {
    let mut sanitizer = RequestSanitizer::default();
    let set = |sanitizer: &mut RequestSanitizer, features: u64| {
        sanitizer.request(SET_FEATURES, &mut features.to_ne_bytes(), &mut [])
    };
    // Without an offer there is nothing to compare with.
    assert!(set(&mut sanitizer, 1 << 34).is_ok());
    sanitizer.reply(GET_FEATURES, &(1_u64 << 32 | 1 << 30).to_ne_bytes());
    assert!(set(&mut sanitizer, 1 << 32 | 1 << 30).is_ok());
    let refused = set(
        &mut sanitizer,
        1 << 32 | 1 << 33 | 1 << 34 | 1 << 35 | 1 << 3,
    )
    .unwrap_err();
    let message = refused.to_string();
    for word in [
        "virtio feature 3",
        "VIRTIO_F_ACCESS_PLATFORM",
        "iommu_platform=on",
        "VIRTIO_F_RING_PACKED",
        "packed=on",
        "VIRTIO_F_IN_ORDER",
        "in_order=on",
    ] {
        assert!(message.contains(word), "{message}");
    }
    assert!(!message.contains("VERSION_1"), "{message}");
}

#[test]
fn polled_virtqueue_is_refused() {
    let mut payload = (NO_EVENTFD | 1).to_ne_bytes();
    let refused = RequestSanitizer::default().request(SET_VRING_KICK, &mut payload, &mut []);
    assert_eq!(refused, Err(RequestError::Polled(1)));
}

#[test]
fn second_set_owner_resets_the_first() {
    let features = (1_u64 << 32 | 1 << 30).to_ne_bytes();
    let mut sanitizer = RequestSanitizer::default();
    let mut ask = |request, payload: &[u8]| {
        let mut payload = payload.to_vec();
        sanitizer.request(request, &mut payload, &mut []).unwrap()
    };
    assert_eq!(ask(SET_OWNER, &[]), ExtraMessages::default());
    assert_eq!(ask(SET_FEATURES, &features), ExtraMessages::default());
    let second = ask(SET_OWNER, &[]);
    assert_eq!(second.before, message(RESET_OWNER, &[]));
    assert_eq!(second.after, message(SET_FEATURES, &features));
    assert_eq!(ask(RESET_OWNER, &[]), ExtraMessages::default());
    assert_eq!(ask(SET_OWNER, &[]), ExtraMessages::default());
    // The state of the device is not that of the protocol.
    let after_reset = ask(RESET_DEVICE, &[]);
    assert!(after_reset.before.is_empty());
    assert_eq!(after_reset.after, message(SET_FEATURES, &features));
    assert_eq!(
        ask(SET_FEATURES, &(1_u64 << 32).to_ne_bytes()),
        ExtraMessages::default()
    );
    assert_eq!(ask(RESET_DEVICE, &[]), ExtraMessages::default());
}
