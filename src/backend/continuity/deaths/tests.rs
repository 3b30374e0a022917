// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs;

use super::*;

/// What a process does before it dies.
type Life<'a> = &'a dyn Fn(&Deaths);

/// How many successors of a process take over, if each lives like this; at most 100.
fn successors(life: Life<'_>) -> usize {
    successors_in_turn(&[life])
}

/// The same, if they live like these in turn.
fn successors_in_turn(lives: &[Life<'_>]) -> usize {
    let memory = SharedMemory::private(layout::PAGE as usize).unwrap();
    let memory = Arc::new(memory);
    let mut lives = lives.iter().cycle();
    let mut live = || {
        if let Some(life) = lives.next() {
            life(&Deaths::new(memory.clone()));
        }
    };
    live();
    let next = |_: &usize| {
        let next = Deaths::new(memory.clone()).count().is_ok();
        if next {
            live();
        }
        next
    };
    (0..100).take_while(next).count()
}

fn takes_over(deaths: &Deaths) {
    deaths.done(Work::Start);
}

#[test]
fn work_that_kills_each_process_is_given_up() {
    assert_eq!(successors(&|deaths| deaths.begin(Work::Start)), 18);
    for work in [
        Work::Message,
        Work::Event(0),
        Work::Event(1),
        Work::Event(0x100),
        Work::Event(u16::MAX),
    ] {
        let dies = |deaths: &Deaths| {
            takes_over(deaths);
            deaths.begin(work);
        };
        assert_eq!(successors(&dies), 18, "{work:?}");
    }
}

/// A guest has several virtqueues, and a hand on the mouse.
#[test]
fn work_that_others_get_done_does_not_help_what_kills() {
    let dies = |deaths: &Deaths| {
        takes_over(deaths);
        for done in [Work::Event(1), Work::Event(0x100), Work::Message] {
            deaths.begin(done);
            deaths.advance();
            deaths.done(done);
        }
        deaths.begin(Work::Event(0));
    };
    assert_eq!(successors(&dies), 18);
}

#[test]
fn processes_that_die_while_they_wait_do_not_count() {
    let waits = |deaths: &Deaths| {
        takes_over(deaths);
        deaths.begin(Work::Event(0));
        deaths.done(Work::Event(0));
    };
    assert_eq!(successors(&waits), 100);
}

#[test]
fn processes_that_advance_may_die_in_the_same_work() {
    let advances = |deaths: &Deaths| {
        takes_over(deaths);
        deaths.begin(Work::Event(0));
        deaths.advance();
    };
    assert_eq!(successors(&advances), 100);
    // One of 18 is enough.
    let dies = |deaths: &Deaths| {
        takes_over(deaths);
        deaths.begin(Work::Event(0));
    };
    let mut lives: Vec<Life<'_>> = vec![&dies; 17];
    lives.push(&advances);
    assert_eq!(successors_in_turn(&lives), 100);
}

/// The thread of the virtqueues reports keys while the main thread still sets up what follows, and the process is killed
/// then each time.
#[test]
fn processes_that_advance_may_die_before_they_have_taken_over() {
    let advances = |deaths: &Deaths| {
        deaths.begin(Work::Event(0x100));
        deaths.advance();
    };
    assert_eq!(successors(&advances), 100);
}

#[test]
fn planned_restarts_do_not_count() {
    let ends = |deaths: &Deaths| {
        deaths.begin(Work::Event(0));
        deaths.forget();
    };
    assert_eq!(successors(&ends), 100);
}

#[test]
fn kinds_of_work_have_cells_in_the_header() {
    let tokens = (0..=u16::MAX).map(Work::Event);
    let works = [Work::Start, Work::Message].into_iter().chain(tokens);
    let cells: Vec<_> = works.map(Work::cell).collect();
    assert!(cells.iter().all(|cell| *cell < usize::from(layout::WORKS)));
    let own = &cells[..2 + usize::from(Work::OWN_CELLS)];
    assert!(own.is_sorted_by(|a, b| a < b));
}

/// The limit that is reached first would decide what becomes of the VM: systemd's fails the service, this one serves anew.
#[test]
fn last_start_that_a_unit_allows_gives_the_state_up() {
    for unit in ["vhost-user-gpu@.service", "vhost-user-input@.service"] {
        let path = format!("{}/systemd/{unit}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let limit = text
            .lines()
            .find_map(|line| line.strip_prefix("StartLimitBurst="));
        let starts: u32 = limit.unwrap().parse().unwrap();
        // The last successor that is started is the one that gives up, also where taking over kills them.
        assert_eq!(starts, TOO_MANY + 1, "{unit}");
    }
}
