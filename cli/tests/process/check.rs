// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl check`, on a backend of the crate's own tests.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::common::json_members::Members;
use crate::common::{run, stderr, stdout, vhostctl};

/// The backend of the points' own tests: Cargo builds it with all targets.
fn stand_in() -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_vhostctl")).parent();
    let program = programs.unwrap().join("examples/stand-in");
    assert!(
        program.exists(),
        "{} is missing: cargo build --workspace --all-targets",
        program.display()
    );
    program
}

fn check(fault: &str, only: &str) -> Command {
    let mut command = vhostctl();
    command.arg("check").arg(stand_in());
    command.arg(format!("--only={only}")).arg("--timeout=30");
    command
        .env("STAND_IN_TYPE", "rng")
        .env("STAND_IN_FAULT", fault);
    command
}

const SOME: &str = "conventions/print-*,conventions/sigterm-status,device/gpu-*,protocol/mq";

#[test]
fn points_that_hold_make_a_table_and_status_0() {
    let output = run(&mut check("", SOME));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let words = line.unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("POINT")[..3], ["POINT", "LEVEL", "RESULT"]);
    let holds = line("conventions/print-capabilities");
    assert_eq!(holds[1..5], ["required", "holds", "type", "rng,"]);
    assert!(text.contains("0 fail"), "{text}");
}

#[test]
fn required_point_that_fails_is_explained_and_status_1() {
    let output = run(&mut check("conventions/print-capabilities", SOME));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "conventions/print-capabilities (required) fails: it prints no capabilities",
        "[vhost-user.rst, Backend program conventions]",
        "1 fail",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn recommended_point_that_fails_leaves_status_0() {
    let output = run(&mut check("conventions/sigterm-status", SOME));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("sigterm-status (recommended) fails: status 3"),
        "{text}"
    );
}

#[test]
fn results_are_also_json_and_junit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("junit.xml");
    let mut command = check("protocol/mq", SOME);
    command
        .arg("--json=short")
        .arg(format!("--junit={}", file.display()));
    let text = stdout(&mut command);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let documented = Members::under(&["`vhostctl check --list`", "`vhostctl check`"]).unwrap();
    for object in all.as_array().unwrap() {
        documented.check(object).unwrap();
    }
    let of = |name: &str| {
        let all = all.as_array().unwrap().iter();
        all.clone().find(|it| it["point"] == name).cloned().unwrap()
    };
    let mq = of("protocol/mq");
    assert_eq!(mq["result"], "fails");
    assert_eq!(mq["level"], "recommended");
    assert_eq!(mq["seen"], "not offered");
    assert!(
        mq["asks"].as_str().unwrap().ends_with('.') && mq["seconds"].is_f64(),
        "{mq}"
    );
    let xml = fs::read_to_string(&file).unwrap();
    assert!(
        xml.starts_with("<?xml") && xml.contains("failures=\"0\""),
        "{xml}"
    );
    assert!(xml.contains("recommended, and fails: not offered"), "{xml}");
}

#[test]
fn points_are_listed_without_a_backend() {
    let text = stdout(vhostctl().args(["check", "--list", "--json=short"]));
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let all = all.as_array().unwrap();
    assert!(all.len() > 80, "{} points", all.len());
    let documented = Members::under(&["`vhostctl check --list`"]).unwrap();
    for object in all {
        documented.check(object).unwrap();
    }
    let some = stdout(vhostctl().args(["check", "--list", "--only=protocol/order-*"]));
    assert!(some.ends_with("\n6 points listed.\n"), "{some}");
}

/// The rows of the table of other programs are of one set of points, which was added to at most.
#[test]
fn documented_results_are_of_all_points() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let document = fs::read_to_string(path).unwrap();
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, counts @ ..] = &cells[..] else {
            return None;
        };
        let counts: Result<Vec<usize>, _> = counts.iter().map(|cell| cell.parse()).collect();
        counts.ok().filter(|counts| counts.len() == 4)
    });
    let sums: Vec<usize> = rows.map(|counts| counts.iter().sum()).collect();
    assert!(sums.len() > 10, "{sums:?}");
    let text = stdout(vhostctl().args(["check", "--list", "--json=short"]));
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(sums[0] <= all.len(), "{} points, but {sums:?}", all.len());
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    for (args, code, said) in [
        (
            &["check", "no-such-backend"][..],
            5,
            "No backend 'no-such-backend' is installed. See 'vhostctl list-backends', or give the path of a program.\n",
        ),
        (
            &["check", "/missing/program"],
            5,
            "/missing/program: No such file or directory (os error 2).\n",
        ),
        (
            &["check", "--list", "--only=nothing"],
            1,
            "No point is called 'nothing'. See 'vhostctl check --list'.\n",
        ),
        (
            &["check"],
            1,
            "Missing: BACKEND|PROGRAM. See 'vhostctl check --help'.\n",
        ),
        (
            &["check", "/bin/true", "--type=toaster"],
            1,
            "Invalid --type: there is no device type 'toaster', only 9p, balloon, block, caif, console, crypto, fs, gpu, \
             input, net, rng, rpmsg, rproc-serial, scsi, vsock; for a device of another type leave --type out: points that \
             need its type are not tried. See 'vhostctl check --help'.\n",
        ),
    ] {
        let output = run(vhostctl().args(args));
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert_eq!(stderr(&output), said, "{args:?}");
    }
}

/// A script in a folder of its own, executable if so.
fn script(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

#[test]
fn program_that_cannot_be_executed_is_one_error() {
    for (text, mode, why) in [
        ("#!/bin/sh\n", 0o644, "Permission denied (os error 13)"),
        (
            "#!/no/such/interpreter\n",
            0o755,
            "No such file or directory (os error 2)",
        ),
        // A shell would run it; systemd and libvirt do not.
        ("exit 0\n", 0o755, "Exec format error (os error 8)"),
        ("", 0o755, "Exec format error (os error 8)"),
    ] {
        let (_folder, path) = script(text, mode);
        let output = run(vhostctl().arg("check").arg(&path));
        assert_eq!(output.status.code(), Some(1));
        let path = path.display();
        let said =
            format!("Failed to start {path}: {why}. Is it a program that can be executed?\n");
        assert!(stderr(&output).ends_with(&said), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_ended_the_check_is_an_error_in_junit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("junit.xml");
    let of = |program: &str| {
        fs::write(&file, "of the time before").unwrap();
        let mut command = vhostctl();
        command.args(["check", program, "--only=protocol/mq"]);
        let output = run(command.arg(format!("--junit={}", file.display())));
        assert_eq!(output.status.code(), Some(1));
        fs::read_to_string(&file).unwrap()
    };
    let unserved = of("/bin/false");
    assert!(
        unserved.contains("errors=\"1\"")
            && unserved.contains("<error message=\"No front-end is served: it ends with status 1"),
        "{unserved}"
    );
    let (_script, path) = script("", 0o755);
    let unstarted = of(path.to_str().unwrap());
    assert!(
        unstarted.contains("tests=\"1\" failures=\"0\" errors=\"1\"")
            && unstarted.contains("Exec format error"),
        "{unstarted}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn results_until_a_signal_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("junit.xml");
    let mut command = check(
        "protocol/start-without-kick",
        "conventions/fd,protocol/start-*",
    );
    command.arg("--timeout=600").arg("--json=short");
    command.arg(format!("--junit={}", file.display()));
    let check = command.stdout(Stdio::piped()).spawn().unwrap();
    // The first point holds, and the second waits.
    thread::sleep(Duration::from_secs(4));
    let sent = Command::new("kill")
        .args(["-INT", &check.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let output = check.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let xml = fs::read_to_string(&file).unwrap();
    for part in [
        "name=\"fd\"",
        "<error message=\"Signal 2 ended the check\"/>",
    ] {
        assert!(xml.contains(part), "{part} is not in {xml}");
    }
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(all[0]["point"], "conventions/fd");
}

/// Too few descriptors, from none beside the standard ones to as many as it takes: at no number is the backend blamed, and
/// success means that the point was tried. How many it takes depends on what the caller leaves open.
#[test]
fn failure_of_the_check_itself_is_status_2() {
    let program = stand_in();
    let shell = "ulimit -n $2; exec \"$0\" check \"$1\" --only=protocol/start-on-enable";
    let mut failures = 0;
    for limit in 3..64 {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_vhostctl")]);
        command.arg(&program).arg(limit.to_string());
        let output = run(command.env("STAND_IN_TYPE", "rng"));
        let text = [stdout_of(&output), stderr(&output)].concat();
        match output.status.code() {
            Some(0) => {
                assert!(text.contains("1 holds"), "{limit} descriptors: {text}");
                break;
            }
            // The loader has none for the libraries.
            Some(127) => {}
            code => {
                assert_eq!(code, Some(2), "{limit} descriptors: {text}");
                let text = text.to_lowercase();
                let own = text.contains("the check itself failed") || text.contains("to prepare");
                assert!(own, "{limit} descriptors: {text}");
                failures += 1;
            }
        }
    }
    assert!(failures > 3, "{failures}");
}

/// What is wrong is told once.
#[test]
fn points_about_what_a_program_lacks_are_not_tried() {
    let (_folder, path) = script("#!/bin/sh\necho 'unknown option' >&2\nexit 3\n", 0o755);
    let mut command = vhostctl();
    command.arg("check").arg(&path).arg("--json=short");
    command.arg("--only=conventions/capabilities-*,conventions/fd-*,conventions/socket-neither");
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let all: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(all.len() >= 10, "{all:?}");
    for point in all {
        assert_eq!(point["result"], "not tried", "{point}");
    }
}

/// No socket can be made in such a folder.
#[test]
fn long_tmpdir_is_no_fault_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(80));
    fs::create_dir(&long).unwrap();
    let output =
        run(check("", "conventions/socket-path,conventions/fd-listening").env("TMPDIR", &long));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout_of(&output).contains("2 hold"));
}

fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn program_is_started_by_the_name_of_a_link() {
    let text = "#!/bin/sh\necho \"{\\\"type\\\": \\\"${0##*/}\\\"}\"\n";
    let (folder, _path) = script(text, 0o755);
    std::os::unix::fs::symlink("backend", folder.path().join("rng")).unwrap();
    let mut command = vhostctl();
    command.current_dir(folder.path());
    command.args(["check", "./rng", "--json=short"]);
    command.arg("--only=conventions/capabilities-type");
    let output = run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"seen\":\"type rng\""), "{text}");
}

#[test]
fn program_that_serves_nobody_is_explained_once_and_status_1() {
    let (_folder, path) = script("#!/bin/sh\necho 'no disk given' >&2\nexit 3\n", 0o755);
    let mut command = vhostctl();
    command
        .arg("check")
        .arg(&path)
        .arg("--only=protocol/mq,protocol/get-features");
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("not tried it serves no front-end\n"),
        "{text}"
    );
    let said = stderr(&output);
    assert_eq!(said.matches("no disk given").count(), 1, "{said}");
    assert!(
        said.contains("serves no front-end: it ends with status 3")
            && said.contains("go after '--'"),
        "{said}"
    );
}

#[test]
fn signal_ends_what_the_check_started() {
    let (folder, path) = script(
        "#!/bin/sh\ntrap '' TERM INT\necho up >&3\nsleep 1000\nsleep 1000\n",
        0o755,
    );
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let up = folder.path().join("up");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("&3", &format!("{}", up.display()))).unwrap();
    for signal in ["INT", "TERM", "HUP"] {
        let _ = fs::remove_file(&up);
        let mut check = vhostctl()
            .arg("check")
            .arg(&path)
            .env("TMPDIR", &temporary)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !up.exists() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let mark = format!("VHOST_USER_CHECK={}-", check.id());
        assert!(!processes_with(&mark).is_empty());
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(check.id().to_string())
            .status();
        assert!(sent.unwrap().success());
        let status = check.wait().unwrap();
        assert!(
            status.code().is_some_and(|code| code > 128),
            "{signal}: {status}"
        );
        assert_eq!(processes_with(&mark), Vec::<String>::new(), "{signal}");
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{signal}");
    }
}

/// Processes that have such a variable in their environment.
fn processes_with(variable: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let has = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry.starts_with(variable.as_bytes()))
    };
    all.filter(|entry| has(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
