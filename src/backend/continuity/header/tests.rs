// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::Mutex;

use super::*;
use crate::backend::lock::lock;

const PROGRAM: &str = "vhost-user-test";

fn memory() -> Arc<SharedMemory> {
    Arc::new(SharedMemory::private(layout::PAGE as usize).unwrap())
}

/// What the successor of a process finds that ended its state.
fn after(reason: EndReason) -> Result<bool, HeaderError> {
    let memory = memory();
    let header = Header::create(memory.clone(), PROGRAM).unwrap();
    header.end(reason);
    // The first reason stays.
    header.end(EndReason::Over);
    assert_eq!(header.ended(), Some(reason));
    Header::open(memory, PROGRAM).map(|left| left.is_some())
}

#[test]
fn successor_is_told_why_a_state_ended() {
    assert_eq!(after(EndReason::Over), Ok(false));
    for reason in EndReason::ALL.into_iter().skip(1) {
        assert_eq!(after(reason), Err(HeaderError::Ended(reason)));
    }
    // Of a newer program.
    let unknown = memory();
    Header::create(unknown.clone(), PROGRAM).unwrap();
    let ended = unknown.u32(layout::AT_ENDED).unwrap();
    ended.store(u32::MAX, Ordering::Release);
    assert!(Header::open(unknown, PROGRAM).unwrap().is_none());
}

#[test]
fn listener_is_told_once() {
    let header = Header::create(memory(), PROGRAM).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listening = told.clone();
    header.on_end(move |reason| lock(&listening).push(reason));
    for reason in [EndReason::LockerFull, EndReason::Over] {
        // Each owner has a clone.
        header.clone().end(reason);
    }
    assert_eq!(*lock(&told), [EndReason::LockerFull]);
}
