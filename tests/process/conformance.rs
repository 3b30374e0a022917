// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All points of the crate `conformance`, run against the programs and the example.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use conformance::{Check, DescriptorFile, Outcome, Report, Target, points};
use conventions::DeviceType;

use crate::common::{gpu_program, input_program, rng_program};

/// For a point on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 4;
/// Of what no program here offers: requests are done in order, in split virtqueues.
const NOT_OFFERED: [&str; 3] = [
    "protocol/inflight",
    "protocol/packed",
    "protocol/packed-resume",
];

/// All points, several at a time.
fn run(target: Target) -> Vec<Report> {
    let check = Check::new(target, LIMIT);
    let all: Vec<_> = points().collect();
    let mut reports = Vec::new();
    for some in all.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let tried = some.iter().map(|point| scope.spawn(|| check.run(point)));
            for tried in tried.collect::<Vec<_>>() {
                reports.push(tried.join().unwrap());
            }
        });
    }
    reports
}

/// Asserts that none fails, and that those that could not be tried are these: a point that is skipped proves nothing.
fn assert_all_hold(reports: &[Report], untried: &[&str]) {
    let mut problems = Vec::new();
    for Report { point, outcome, .. } in reports {
        let is_untried = untried.contains(&point.name);
        let others = point.types;
        match outcome {
            Outcome::Holds(_) if !is_untried => {}
            Outcome::NotTried(_) if is_untried => {}
            Outcome::NotTried(why) if !others.is_empty() && why.contains("other devices") => {}
            other => problems.push(format!("{}: {other:?}", point.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The installed descriptor, with the program of this build.
fn descriptor(folder: &Path, name: &str, program: &Path) -> DescriptorFile {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("json")
        .join(name);
    let text = fs::read_to_string(&installed).unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&text).unwrap();
    content["binary"] = program.to_str().unwrap().into();
    let path = folder.join(name);
    fs::write(&path, content.to_string()).unwrap();
    DescriptorFile {
        path,
        folders: vec![folder.to_owned()],
    }
}

fn has_render_node() -> bool {
    let nodes = fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    nodes
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with("renderD"))
}

#[test]
fn every_point_holds_for_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = gpu_program();
    let descriptor = descriptor(folder.path(), "40-vhost-user-gpu.json", &program);
    let reports = run(Target::program(program).descriptor(descriptor));
    let mut untried = NOT_OFFERED.to_vec();
    // An option that is offered only where the host has such a node.
    untried.extend((!has_render_node()).then_some("conventions/unusable-device"));
    assert_all_hold(&reports, &untried);
}

#[test]
fn every_point_holds_for_a_virtual_input_device() {
    for device in ["keyboard", "tablet"] {
        let folder = tempfile::tempdir().unwrap();
        let program: PathBuf = input_program();
        let descriptor = descriptor(folder.path(), "40-vhost-user-input.json", &program);
        let args = [
            format!("--virtual={device}"),
            "--events-socket={events}".into(),
        ];
        let reports = run(Target::program(program).args(args).descriptor(descriptor));
        let mut untried = NOT_OFFERED.to_vec();
        untried.extend((device == "keyboard").then_some("device/input-axes"));
        assert_all_hold(&reports, &untried);
    }
}

#[test]
fn every_point_holds_for_the_example() {
    let reports = run(Target::program(rng_program()).of_type(DeviceType::Rng));
    let mut untried = NOT_OFFERED.to_vec();
    untried.extend([
        "conventions/descriptor-schema",
        "conventions/descriptor-place",
        "conventions/descriptor-binary",
        "conventions/descriptor-type",
    ]);
    assert_all_hold(&reports, &untried);
}
