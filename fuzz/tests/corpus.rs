// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every input of the corpora keeps the promises, without libFuzzer too.

use std::fs;
use std::path::Path;
use std::{panic, process};

fn replay(name: &str) {
    // In another thread than the test's, a panic would go unseen.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::abort();
    }));
    let (_, target) = fuzz::TARGETS
        .into_iter()
        .find(|(target, _)| *target == name)
        .expect("a target with that name");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let inputs = folder.read_dir().expect("a corpus");
    let mut count = 0;
    for input in inputs {
        let path = input.expect("a readable corpus").path();
        println!("{}", path.display());
        target(&fs::read(&path).expect("a readable input"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

macro_rules! corpora {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(fuzz::TARGETS.iter().all(|(name, _)| replayed.contains(name)));
        }
    };
}

corpora!(
    console,
    console_input,
    control_2d,
    control_3d,
    control_venus,
    cursor,
    descriptors,
    display_consoles,
    display_replies,
    input_hostile,
    input_reports,
    kept_records,
    kept_state,
    resumed_2d,
    rfb_server,
    rfb_viewer,
    vhost_user,
    virtual_input
);
