// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a program ends.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::*;
use crate::backend::continuity::LockerError;
use crate::backend::testing::kept_state::KeptState;

/// Whoever sends it: only the service manager knows whether the service is to stop.
#[test]
fn signal_leaves_a_front_end_to_a_successor() {
    let mut progress = Progress {
        continuity: KeptState::new().unwrap().next_process().unwrap(),
        ..Progress::default()
    };
    assert_eq!(progress.exit_status(&ExitReason::Signal), 0);
    progress.accepted.store(true, Ordering::Release);
    progress.end_state(&ExitReason::Signal);
    assert_eq!(progress.exit_status(&ExitReason::Signal), SIGNALLED);
    // Nothing is left that it could go on with.
    progress.continuity.end(LockerError::Full.end_reason());
    assert_eq!(progress.exit_status(&ExitReason::Signal), 0);
    progress.continuity = Continuity::default();
    assert_eq!(progress.exit_status(&ExitReason::Signal), 0);
}

#[test]
fn panic_of_the_main_thread_is_a_fault_of_the_process() {
    let progress = Progress::default();
    let panics: [fn() -> Result<ExitReason, ExitReason>; 2] =
        [|| panic!("why"), || std::panic::panic_any(7)];
    for (panics, text) in panics.into_iter().zip(["why", "without a message"]) {
        let reason = guard(panics);
        assert!(reason.to_string().ends_with(text), "{reason}");
        assert_eq!(progress.exit_status(&reason), 1);
    }
    // What is no panic is as it was.
    assert!(matches!(guard(|| Ok(ExitReason::Idle)), ExitReason::Idle));
    let failed = guard(|| Err(ExitReason::failed("why")));
    assert!(matches!(failed, ExitReason::Failed(_)));
}

/// How a process is that panics.
const SITUATION: &str = "VHOST_USER_TEST_PANIC";
/// The status of one in which another thread saw what the panic left.
const SEEN: i32 = 3;

/// The process of the tests below.
#[test]
#[ignore = "it is a part of another test"]
fn process_that_panics() {
    let Ok(situation) = std::env::var(SITUATION) else {
        return;
    };
    let accepted = Arc::new(AtomicBool::new(situation != "waiting"));
    let progress = Progress {
        accepted,
        continuity: match situation.as_str() {
            "unkept" => Continuity::default(),
            _ => KeptState::new().unwrap().next_process().unwrap(),
        },
        ..Progress::default()
    };
    if situation == "ended" {
        progress.continuity.end(LockerError::Full.end_reason());
    }
    let (main_thread, _receiver) = MainThreadHandle::new().unwrap();
    main_thread.report_panics(progress.crash());
    let device = std::sync::Mutex::new(());
    thread::scope(|scope| {
        scope.spawn(|| {
            let _device = device.lock();
            panic!("the device is broken");
        });
        while !device.is_poisoned() {
            thread::sleep(Duration::from_millis(1));
        }
        std::process::exit(SEEN);
    });
}

fn status_after_a_panic(situation: &str) -> Option<i32> {
    let name = "backend::program::tests::process_that_panics";
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(SITUATION, situation)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    process.wait().unwrap().code()
}

#[test]
fn panic_ends_a_process_with_a_successor_before_anybody_sees_what_it_left() {
    assert_eq!(status_after_a_panic("kept"), Some(TAKE_OVER));
    // Others end in their order, with a status that is no handover.
    for situation in ["unkept", "waiting", "ended"] {
        assert_eq!(status_after_a_panic(situation), Some(SEEN), "{situation}");
    }
}

#[test]
fn process_whose_state_ended_hands_nothing_over() {
    let mut state = KeptState::new().unwrap();
    let progress = Progress {
        continuity: state.next_process().unwrap(),
        ..Progress::default()
    };
    assert!(progress.continuity.has_successor());
    progress.end_state(&ExitReason::Crashed("why".to_owned()));
    progress.end_state(&ExitReason::Signal);
    assert!(progress.continuity.has_successor());
    progress.end_state(&ExitReason::Disconnected);
    assert!(!progress.continuity.has_successor());
    assert!(state.next_process().is_err());
}
