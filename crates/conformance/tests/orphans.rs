// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a backend leaves behind is found and ended, though it hides: the only test of its process, which adopts orphans.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use conformance::{Check, Outcome, Target};
use conventions::DeviceType;

/// The command lines of the processes that the stand-in's survivors run.
fn survivors() -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.starts_with("sleep\x001000."))
        .collect()
}

#[test]
fn survivor_without_an_environment_is_told_and_ended() {
    let earlier = survivors();
    conformance::adopt_orphans().unwrap();
    let test = env::current_exe().unwrap();
    let programs = test.parent().and_then(Path::parent).unwrap();
    let target = Target::program(programs.join("examples/stand-in"))
        .env("STAND_IN_TYPE", "block")
        .env("STAND_IN_FAULT", "conventions/sigterm-connected:survivor")
        .of_type(DeviceType::Block);
    let check = Check::new(target, Duration::from_secs(20));
    let point = conformance::point("conventions/sigterm-connected").unwrap();
    let outcome = check.run(point).outcome;
    let Outcome::Fails(seen) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(seen.contains("lives on"), "{seen}");
    let mut left = survivors();
    left.retain(|line| !earlier.contains(line));
    assert!(left.is_empty(), "{left:?}");
}
