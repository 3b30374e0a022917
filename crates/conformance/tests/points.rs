// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each point holds for a backend without a fault, and fails for one with the fault of its name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use conformance::{Check, DescriptorFile, Outcome, Point, Target, points};
use conventions::DeviceType;

/// For a point on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// For a point that is to fail, by waiting for what does not come.
const FAULTY_LIMIT: Duration = Duration::from_secs(4);
const AT_ONCE: usize = 8;

/// The stand-in: Cargo builds it with all targets.
fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    let programs = test.parent().and_then(Path::parent).unwrap();
    let program = programs.join("examples/stand-in");
    assert!(program.exists(), "{} is missing", program.display());
    program
}

/// The stand-in with a fault or none, for the type of device that the point is about.
fn stand_in(point: &Point, fault: &str) -> Target {
    let device_type = point.types.first().copied().unwrap_or(DeviceType::Block);
    // The type is not told by the capabilities where these are at fault.
    let mut target = Target::program(program())
        .env("STAND_IN_TYPE", device_type.name())
        .env("STAND_IN_FAULT", fault);
    if point.name.starts_with("device/input-events") {
        target = target.args(["--events={events}"]);
    }
    target.of_type(device_type)
}

/// A descriptor in a folder, which is searched after another one.
struct Descriptors {
    folder: tempfile::TempDir,
}

impl Descriptors {
    fn new(fault: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [specific, general] = ["specific", "general"].map(|name| folder.path().join(name));
        for path in [&specific, &general] {
            fs::create_dir(path).unwrap();
        }
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        let binary = match fault {
            "conventions/descriptor-binary" => plain,
            _ => program(),
        };
        let device_type = match fault {
            "conventions/descriptor-type" => "gpu",
            "conventions/descriptor-schema" => "toaster",
            _ => "block",
        };
        let text = format!(
            r#"{{"comment": "members of others are ignored", "description": "Stand-in", "type": "{device_type}", "binary": "{}"}}"#,
            binary.display()
        );
        fs::write(general.join("50-stand-in.json"), text).unwrap();
        if fault == "conventions/descriptor-place" {
            fs::write(specific.join("50-stand-in.json"), "").unwrap();
        }
        Self { folder }
    }

    fn file(&self) -> DescriptorFile {
        let [specific, general] = ["specific", "general"].map(|name| self.folder.path().join(name));
        DescriptorFile {
            path: general.join("50-stand-in.json"),
            folders: vec![specific, general],
        }
    }
}

fn outcome(point: &'static Point, fault: &str) -> Outcome {
    let mut target = stand_in(point, fault);
    let descriptors = Descriptors::new(fault);
    if point.name.starts_with("conventions/descriptor-") {
        target = target.descriptor(descriptors.file());
    }
    // The point's own limit is to be seen, not that of all points.
    let limit = match fault {
        "" | "conventions/sigterm-connected:slow" => LIMIT,
        _ => FAULTY_LIMIT,
    };
    Check::new(target, limit).run(point).outcome
}

/// Tries all points, several at a time, and gives what is wrong.
fn problems(try_point: impl Fn(&'static Point) -> Option<String> + Sync) -> Vec<String> {
    let all: Vec<_> = points().map(|point| (point, point.name)).collect();
    problems_of(&all, |(point, _)| try_point(point))
}

/// As [`problems`], of points and their faults.
fn problems_of(
    all: &[(&'static Point, &'static str)],
    try_point: impl Fn((&'static Point, &'static str)) -> Option<String> + Sync,
) -> Vec<String> {
    let only = env::var("ONLY").unwrap_or_default();
    let all: Vec<_> = all
        .iter()
        .filter(|(_, fault)| fault.contains(&only))
        .collect();
    let try_point = &try_point;
    let mut found = Vec::new();
    for some in all.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let tried = some
                .iter()
                .map(|tried| scope.spawn(move || try_point(**tried)));
            for tried in tried.collect::<Vec<_>>() {
                found.extend(tried.join().unwrap());
            }
        });
    }
    found
}

#[test]
fn every_point_holds_for_a_backend_without_fault() {
    let problems = problems(|point| match outcome(point, "") {
        Outcome::Holds(_) => None,
        other => Some(format!("{}: {other:?}", point.name)),
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_point_fails_for_a_backend_with_its_fault() {
    let problems = problems(|point| match outcome(point, point.name) {
        Outcome::Fails(seen) => {
            eprintln!("{}: {seen}", point.name);
            None
        }
        other => Some(format!("{}: {other:?}", point.name)),
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Other faults that a point finds, named after it.
const MORE_FAULTS: &[&str] = &[
    "conventions/foreground:wrapper",
    "conventions/sigterm-waiting:wrapper",
    "conventions/sigterm-connected:wrapper",
    "conventions/sigterm-connected:slow",
    "conventions/sigterm-running:wrapper",
    "protocol/leak-connections:wrapper",
    "protocol/malformed-request:exception",
    "protocol/malformed-request:go",
    "protocol/malformed-index:exception",
    "protocol/memory-replaced:ignored",
    "protocol/memory-replaced:same-address",
    "protocol/memory-slots:not-removed",
    "protocol/memory-slots:still-mapped",
    "protocol/reply-ack-error:garbage",
    "protocol/reply-ack-error:wrong-request",
    "protocol/base:high-bits",
    "protocol/base:wrong-index",
    "protocol/stopped:late-write",
    "protocol/reset-device:nothing",
    "protocol/malformed-queue-size:endless-replies",
    "protocol/malformed-addresses:flood-of-replies",
];

#[test]
fn points_find_their_other_faults() {
    let all: Vec<_> = MORE_FAULTS
        .iter()
        .map(|&fault| {
            let (name, _) = fault.split_once(':').expect(fault);
            (conformance::point(name).expect(name), fault)
        })
        .collect();
    let problems = problems_of(&all, |(point, fault)| match outcome(point, fault) {
        Outcome::Fails(seen) => {
            eprintln!("{fault}: {seen}");
            None
        }
        other => Some(format!("{fault}: {other:?}")),
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn end_with_another_status_is_named() {
    let point = conformance::point("protocol/malformed-request").unwrap();
    let outcome = outcome(point, "protocol/malformed-request:status");
    let Outcome::Holds(seen) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(seen.contains("with status 3"), "{seen}");
}

#[test]
fn virtqueues_are_counted_as_qemu_counts_them() {
    let point = conformance::point("protocol/queue-num").unwrap();
    for (device_type, told, is_enough) in [
        (DeviceType::Vsock, "2", true),
        (DeviceType::Vsock, "1", false),
        // A pair.
        (DeviceType::Net, "1", true),
        (DeviceType::Net, "0", false),
        (DeviceType::Fs, "1", false),
    ] {
        let target = Target::program(program())
            .env("STAND_IN_TYPE", device_type.name())
            .env("STAND_IN_QUEUES", told)
            .of_type(device_type);
        let outcome = Check::new(target, LIMIT).run(point).outcome;
        let holds = matches!(outcome, Outcome::Holds(_));
        assert_eq!(holds, is_enough, "{device_type} {told}: {outcome:?}");
    }
}

/// Of a type whose requests the check does not know.
#[test]
fn points_without_a_request_are_tried_for_every_type() {
    for name in ["protocol/reply-ack-own", "protocol/reply-ack-error"] {
        let point = conformance::point(name).unwrap();
        let of = |fault: &str| {
            let target = Target::program(program())
                .env("STAND_IN_TYPE", "crypto")
                .env("STAND_IN_FAULT", fault)
                .of_type(DeviceType::Crypto);
            Check::new(target, LIMIT).run(point).outcome
        };
        let (right, wrong) = (of(""), of(name));
        assert!(matches!(right, Outcome::Holds(_)), "{name}: {right:?}");
        assert!(matches!(wrong, Outcome::Fails(_)), "{name}: {wrong:?}");
    }
}

#[test]
fn points_are_named_after_their_groups_and_explained() {
    let mut names: Vec<_> = points().map(|point| point.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two points have one name");
    for point in points() {
        let (group, name) = point.name.split_once('/').expect(point.name);
        assert!(
            ["conventions", "protocol", "device"].contains(&group),
            "{group}"
        );
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        assert!(name.chars().all(is_plain), "{name}");
        assert!(
            point.asks.ends_with('.') && !point.asks.contains("  "),
            "{}",
            point.asks
        );
        assert!(!point.section.is_empty(), "{name}");
    }
}
