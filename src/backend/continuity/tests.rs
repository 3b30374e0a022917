// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use super::*;

const NAME: &str = "vhost-user-test";

fn duplicate(of: &Descriptors) -> Descriptors {
    Descriptors::from_kept(of.named().map(|(_, fd)| fd.try_clone().unwrap()))
}

/// A state, and what the service manager keeps of it.
fn begin() -> (Continuity, Descriptors) {
    let descriptors = Descriptors::create().unwrap();
    let kept = duplicate(&descriptors);
    (Continuity::begin(NAME, descriptors).unwrap(), kept)
}

fn resume(kept: &Descriptors) -> Result<Option<Continuity>, ContinuityError> {
    Continuity::resume(NAME, duplicate(kept))
}

fn resumed(kept: &Descriptors) -> Continuity {
    let resumed = resume(kept).unwrap().unwrap();
    resumed.forget_deaths();
    resumed
}

#[test]
fn only_what_was_committed_is_resumed() {
    let (first, kept) = begin();
    assert!(first.is_kept() && !first.is_resumed());
    let ledger = first.ledger(Owner::Device);
    let (a, b, c) = (
        RecordKey::new(1, 1),
        RecordKey::new(1, 2),
        RecordKey::new(u16::MAX, u64::MAX),
    );
    ledger.put(a, b"one");
    ledger.put(c, b"");
    ledger.commit();
    first.ledger(Owner::Proxy).put(a, b"proxy");
    first.ledger(Owner::Proxy).commit();
    ledger.put(a, b"two");
    ledger.put(b, &[7; 1000]);
    ledger.remove(c);
    assert_eq!(ledger.get(a).unwrap(), b"two");
    let second = resumed(&kept);
    assert!(second.is_resumed());
    let left = second.ledger(Owner::Device);
    assert_eq!(left.table(1), [(1, b"one".to_vec())]);
    assert_eq!(left.table(u16::MAX), [(u64::MAX, Vec::new())]);
    assert_eq!(second.ledger(Owner::Proxy).get(a).unwrap(), b"proxy");
    left.put(b, b"three");
    left.remove_table(u16::MAX);
    left.commit();
    let third = resumed(&kept).ledger(Owner::Device);
    let all = [(1, b"one".to_vec()), (2, b"three".to_vec())];
    assert_eq!(third.table(1), all);
    assert!(third.table(u16::MAX).is_empty());
}

#[test]
fn log_stays_small_and_equals_a_model() {
    let (first, kept) = begin();
    let mut ledger = first.ledger(Owner::Device);
    let mut model: BTreeMap<RecordKey, Vec<u8>> = BTreeMap::new();
    let mut random = 12345_u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..20_000 {
        let mut changed = model.clone();
        for _ in 0..next(4) {
            let key = RecordKey::new(next(3) as u16, next(20));
            match next(10) {
                0 => {
                    ledger.remove(key);
                    changed.remove(&key);
                }
                1 => {
                    ledger.remove_table(key.table);
                    changed.retain(|other, _| other.table != key.table);
                }
                _ => {
                    let value = vec![round as u8; next(600) as usize];
                    ledger.put(key, &value);
                    changed.insert(key, value);
                }
            }
        }
        if next(10) > 0 {
            ledger.commit();
            model = changed;
        } else if next(20) == 0 {
            // The process dies before the commit.
            ledger = resumed(&kept).ledger(Owner::Device);
        } else {
            continue_with(&mut ledger, &mut model, changed);
        }
        if round % 500 == 0 {
            let left = resumed(&kept).ledger(Owner::Device);
            for table in 0..3 {
                let expected = model.iter().filter(|(key, _)| key.table == table);
                let expected: Vec<_> = expected.map(|(key, v)| (key.id, v.clone())).collect();
                assert_eq!(left.table(table), expected, "round {round}");
            }
            ledger = left;
        }
    }
    let taken = rustix::fs::fstat(&kept.state).unwrap().st_blocks * 512;
    assert!(taken < 1 << 20, "{taken} bytes");
}

fn continue_with(
    ledger: &mut Ledger,
    model: &mut BTreeMap<RecordKey, Vec<u8>>,
    changed: BTreeMap<RecordKey, Vec<u8>>,
) {
    ledger.commit();
    *model = changed;
}

#[test]
fn state_of_another_program_or_version_is_refused() {
    let (_first, kept) = begin();
    let other = Continuity::resume("other", duplicate(&kept)).unwrap_err();
    assert_eq!(other.to_string(), "it is of another program");
    let memory = SharedMemory::map(kept.state.as_fd(), layout::LEN).unwrap();
    assert!(memory.write(layout::AT_VERSION, &9_u32.to_ne_bytes()));
    let other = resume(&kept).unwrap_err();
    assert_eq!(other.to_string(), "its version is 9, this program knows 3");
    assert!(memory.write(layout::AT_MAGIC, b"whatever"));
    assert!(resume(&kept).is_err());
    let small = Descriptors {
        state: shared_memory::create("small").unwrap(),
        ..duplicate(&kept)
    };
    rustix::fs::ftruncate(&small.state, 4096).unwrap();
    assert!(Continuity::resume(NAME, small).is_err());
}

#[test]
fn ended_state_is_not_resumed() {
    let (first, kept) = begin();
    first.end(EndReason::Over);
    assert!(resume(&kept).unwrap().is_none());
    let never_begun = Descriptors::create().unwrap();
    assert!(Continuity::resume(NAME, never_begun).unwrap().is_none());
}

#[test]
fn twentieth_successor_that_does_not_take_over_gives_up() {
    let (first, kept) = begin();
    let ledger = first.ledger(Owner::Device);
    for _ in 0..10 {
        resumed(&kept);
    }
    for id in 0..19 {
        // What they record on the way to their death is no progress.
        let next = resume(&kept).unwrap().unwrap();
        let ledger = next.ledger(Owner::Device);
        ledger.put(RecordKey::new(1, id), b"screens are sent again");
        ledger.commit();
    }
    drop(ledger);
    // It does not even read what the others may have died of.
    let memory = SharedMemory::map(kept.state.as_fd(), layout::LEN).unwrap();
    assert!(memory.write(layout::AT_TAILS + 8, &[0xff; 8]));
    assert!(matches!(
        resume(&kept).unwrap_err(),
        ContinuityError::Header(HeaderError::Poisoned(19))
    ));
}

#[test]
fn broken_logs_are_errors() {
    let (first, kept) = begin();
    let ledger = first.ledger(Owner::Device);
    ledger.put(RecordKey::new(1, 1), b"value");
    ledger.commit();
    let memory = SharedMemory::map(kept.state.as_fd(), layout::LEN).unwrap();
    let tail = layout::AT_TAILS + 8;
    let good = memory.read(tail, 8).unwrap();
    for bad in [
        1_u64,
        8,
        16,
        32,
        layout::AREA_LEN,
        layout::AREA_LEN + 8,
        u64::MAX,
        1 << 63 | 24,
        1 << 62,
    ] {
        assert!(memory.write(tail, &bad.to_ne_bytes()));
        assert!(
            matches!(refused(&memory, &kept), ContinuityError::Log(_)),
            "{bad}"
        );
    }
    assert!(memory.write(tail, &good));
    resumed(&kept);
    for (at, bytes) in [(0, [0xff; 4]), (4, [0, 0, 9, 0])] {
        let at = layout::area(1, false) + at;
        let before = memory.read(at, 4).unwrap();
        assert!(memory.write(at, &bytes));
        assert!(matches!(refused(&memory, &kept), ContinuityError::Log(_)));
        assert!(memory.write(at, &before));
    }
}

/// Why a state is refused, however often that is tried.
fn refused(memory: &SharedMemory, kept: &Descriptors) -> ContinuityError {
    assert!(memory.write(layout::AT_WORKS, &[0; 4]));
    resume(kept).unwrap_err()
}

#[test]
fn locker_keeps_descriptors_over_processes() {
    let (first, kept) = begin();
    let locker = first.locker();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (other, gone) = UnixStream::pair().unwrap();
    let pair = locker
        .keep(&[ours.as_fd(), other.as_fd()])
        .unwrap()
        .unwrap();
    let single = locker.keep(&[other.as_fd()]).unwrap().unwrap();
    drop((ours, other));
    drop(first);
    for _ in 0..3 {
        let next = resumed(&kept);
        let locker = next.locker();
        let fds = locker.take(pair).unwrap();
        assert_eq!(fds.len(), 2);
        let again: UnixStream = fds.into_iter().next().unwrap().into();
        rustix::io::write(&again, b"x").unwrap();
        rustix::io::read(&theirs, &mut [0; 1]).unwrap();
        assert!(locker.take(pair).is_none());
        assert!(locker.take(single).is_some());
    }
    let last = resumed(&kept);
    assert!(last.locker().take(pair).is_some());
    last.locker().forget_left();
    assert!(resumed(&kept).locker().take(pair).is_some());
    // One of two is closed at once, and then the other one.
    last.locker().forget_one(pair, 0);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]), Ok(0));
    let fds = resumed(&kept).locker().take(pair).unwrap();
    let other: UnixStream = fds.into_iter().nth(1).unwrap().into();
    rustix::io::write(&other, b"x").unwrap();
    drop(other);
    assert_eq!(rustix::io::read(&gone, &mut [0; 1]), Ok(1));
    last.locker().forget(pair);
    assert_eq!(rustix::io::read(&gone, &mut [0; 1]), Ok(0));
}

#[test]
fn full_locker_says_so_and_stays_usable() {
    let (first, kept) = begin();
    let locker = first.locker();
    let (end, _other) = UnixStream::pair().unwrap();
    let mut ids = Vec::new();
    while let Ok(id) = locker.keep(&[end.as_fd()]) {
        ids.push(id.unwrap());
    }
    assert!(ids.len() >= 100, "{}", ids.len());
    let successor = resumed(&kept).locker();
    for id in &ids {
        assert!(successor.take(*id).is_some());
    }
    locker.forget(ids[3]);
    locker.forget(ids[4]);
    locker.keep(&[end.as_fd()]).unwrap().unwrap();
    locker.keep(&[end.as_fd()]).unwrap().unwrap();
    assert!(matches!(
        locker.keep(&[end.as_fd()]).unwrap_err(),
        LockerError::Full
    ));
}

#[test]
fn closed_locker_gives_all_back_and_keeps_nothing() {
    let (first, kept) = begin();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let locker = first.locker();
    let id = locker.keep(&[ours.as_fd()]).unwrap().unwrap();
    locker.clone().close();
    assert!(locker.keep(&[ours.as_fd()]).unwrap().is_none());
    locker.forget_one(id, 0);
    locker.forget(id);
    locker.forget_left();
    assert!(locker.take(id).is_none());
    drop(ours);
    // The service manager closes its own.
    theirs.set_nonblocking(true).unwrap();
    let open = rustix::io::read(&theirs, &mut [0; 1]);
    assert_eq!(open, Err(rustix::io::Errno::AGAIN));
    drop(kept);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]), Ok(0));
}

#[test]
fn packet_that_comes_twice_is_one() {
    let (first, kept) = begin();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let id = first.locker().keep(&[ours.as_fd()]).unwrap().unwrap();
    drop(ours);
    // A process sent it again, and died before it consumed the old one.
    let twin = resumed(&kept);
    let packet = twin.locker().take(id).unwrap();
    let outgoing = &kept.locker[1];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [packet[0].as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let bytes = id.to_bits().to_le_bytes();
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(outgoing, &[io::IoSlice::new(&bytes)], &mut control, flags).unwrap();
    drop((packet, first, twin));
    let last = resumed(&kept).locker();
    assert!(last.take(id).is_some());
    last.forget(id);
    last.forget_left();
    let other = UnixStream::pair().unwrap().0;
    for _ in 0..40 {
        let id = last.keep(&[other.as_fd()]).unwrap().unwrap();
        last.forget(id);
    }
    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]), Ok(0));
}

#[test]
fn nothing_is_kept_without_a_service_manager() {
    let none = Continuity::default();
    assert!(!none.is_kept() && !none.is_resumed());
    let ledger = none.ledger(Owner::Device);
    ledger.put(RecordKey::new(1, 1), b"x");
    ledger.commit();
    assert!(!ledger.is_kept() && ledger.get(RecordKey::new(1, 1)).is_none());
    let end = UnixStream::pair().unwrap().0;
    assert!(none.locker().keep(&[end.as_fd()]).unwrap().is_none());
    assert!(none.arena(4096).unwrap().is_none() && none.inbox().is_none());
    none.end(EndReason::Over);
    assert!(!none.has_successor());
}

#[test]
fn what_nobody_takes_is_closed_at_once() {
    let (first, kept) = begin();
    let (ours, theirs) = UnixStream::pair().unwrap();
    first.locker().keep(&[ours.as_fd()]).unwrap().unwrap();
    drop((ours, first));
    theirs.set_nonblocking(true).unwrap();
    let next = resumed(&kept);
    assert_eq!(
        rustix::io::read(&theirs, &mut [0; 1]),
        Err(rustix::io::Errno::AGAIN)
    );
    next.locker().forget_left();
    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]), Ok(0));
}

#[test]
fn memory_that_a_predecessor_had_not_sealed_is_used() {
    let file = shared_memory::create("test").unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    SharedMemory::map(file.as_fd(), 4096).unwrap();
    assert!(rustix::fs::ftruncate(&file, 0).is_err(), "it may shrink");
    SharedMemory::map(file.as_fd(), 4096).unwrap();
    let error = SharedMemory::map(file.as_fd(), 8192).unwrap_err();
    assert_eq!(error.to_string(), "a file of 4096 bytes instead of 8192");
}
