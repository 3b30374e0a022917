// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options that only print, and starts that fail.

use super::*;

#[test]
fn capabilities_option_precedes_all_others() {
    let cases: [&[&str]; 7] = [
        &["--print-capabilities"],
        &["--no-such-option", "--print-capabilities"],
        &["--print-capabilities", "--no-such-option=1", "stray", "-x"],
        &[
            "stray",
            "--fd=999",
            "--socket-path=/missing/x",
            "--print-capabilities",
        ],
        &["--fd", "--print-capabilities"],
        &[
            "--evdev-path=/missing",
            "--render-node=/missing",
            "--print-capabilities",
        ],
        &["--help", "--version", "--print-capabilities"],
    ];
    for case in cases {
        for (program, kind) in [(gpu_program(), "gpu"), (input_program(), "input")] {
            let mut program = Command::new(program).args(case).spawn().unwrap();
            let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
            assert!(status.success(), "{case:?}: {}", program.stderr());
            let json: serde_json::Value = serde_json::from_str(&program.stdout()).unwrap();
            assert_eq!(json["type"], kind);
            let features = json["features"].as_array().unwrap();
            let known = match kind {
                "gpu" => ["render-node", "virgl"],
                _ => ["evdev-path", "no-grab"],
            };
            for feature in features {
                assert!(
                    known.contains(&feature.as_str().unwrap()),
                    "{feature} is no feature"
                );
            }
            if kind == "input" {
                assert_eq!(features.len(), 2);
            }
        }
    }
}

#[test]
fn gpu_has_a_render_node_only_where_the_host_has_one() {
    let mut program = Command::new(gpu_program())
        .arg("--print-capabilities")
        .spawn()
        .unwrap();
    program.wait_exit(DEFAULT_LIMIT).unwrap();
    let json: serde_json::Value = serde_json::from_str(&program.stdout()).unwrap();
    let told = json["features"]
        .as_array()
        .unwrap()
        .contains(&"render-node".into());
    let names = fs::read_dir("/dev/dri")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name());
    let there = names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("renderD"));
    assert_eq!(told, there);
}

#[test]
fn help_and_version_are_printed() {
    for (program, options) in [
        (
            gpu_program(),
            [
                "--socket-path",
                "--fd",
                "--print-capabilities",
                "--render-node",
            ],
        ),
        (
            input_program(),
            [
                "--socket-path",
                "--fd",
                "--print-capabilities",
                "--evdev-path",
            ],
        ),
    ] {
        let mut help = Command::new(&program).arg("--help").spawn().unwrap();
        assert!(help.wait_exit(DEFAULT_LIMIT).unwrap().success());
        for option in options {
            assert!(
                help.stdout().contains(option),
                "{option} is not in the help"
            );
        }
        let mut version = Command::new(&program).arg("--version").spawn().unwrap();
        assert!(version.wait_exit(DEFAULT_LIMIT).unwrap().success());
        assert!(
            version.stdout().contains(env!("CARGO_PKG_VERSION")),
            "{}",
            version.stdout()
        );
    }
}

#[test]
fn unusable_options_fail_early() {
    let gpu = || gpu_command(SocketForm::Path);
    let mut program = gpu()
        .arg("--render-node=/missing/renderD128")
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["/missing/renderD128"]);
    let mut program = gpu().arg("--render-node=/dev/null").spawn().unwrap();
    assert_early_failure(&mut program, &["/dev/null"]);
    let native = || gpu().arg("--native-context");
    let mut program = native().spawn().unwrap();
    assert_early_failure(&mut program, &["--render-node"]);
    let mut program = native().arg("--render-node=/dev/null").spawn().unwrap();
    assert_early_failure(&mut program, &["/dev/null"]);
    let mut program = gpu().arg("--no-such-option").spawn().unwrap();
    assert_early_failure(&mut program, &["--no-such-option"]);
    let mut program = gpu().arg("stray").spawn().unwrap();
    assert_early_failure(&mut program, &["stray"]);

    let input = || Command::new(input_program()).socket(SocketForm::Path);
    assert_early_failure(&mut input().spawn().unwrap(), &["--evdev-path"]);
    for path in ["/missing/event0", "/dev/null", "/"] {
        let mut program = input().arg(format!("--evdev-path={path}")).spawn().unwrap();
        assert_early_failure(&mut program, &[path]);
        assert!(!program.socket_path().exists(), "the socket stays behind");
    }
}

/// Paths and options may have come from anywhere: a device, a file's name.
#[test]
fn stderr_cannot_steer_a_terminal() {
    for (option, shown) in [
        ("--evdev-path=/dev/in\x1b[2Jput\n", r"/dev/in\x1b[2Jput\x0a"),
        ("--no-\x1b[31mgrab", r"--no-\x1b[31mgrab"),
    ] {
        let mut program = Command::new(input_program())
            .arg(option)
            .socket(SocketForm::Path)
            .spawn()
            .unwrap();
        let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
        assert!(!status.success());
        let said = program.stderr();
        assert!(said.contains(shown), "{said:?}");
        assert!(
            !said.contains(|c: char| c.is_control() && c != '\n'),
            "{said:?}"
        );
    }
}

/// The front-ends that wait on a listening socket when the start fails are told so at once: nobody waits
/// for ever, and nothing is left on the socket by which a service manager would start the program again.
#[test]
fn failed_start_closes_the_connections_that_wait() {
    let gpu: [&[&str]; 4] = [
        &["--render-node=/missing/renderD128"],
        &["--no-such-option"],
        &["stray"],
        &["--socket-path=/missing/socket", "--fd=3"],
    ];
    let input: [&[&str]; 3] = [
        &["--evdev-path=/missing/event0"],
        &["--evdev-path="],
        &["--no-such-option"],
    ];
    let gpu = gpu.map(|args| (gpu_program(), args));
    let input = input.map(|args| (input_program(), args));
    for (program, args) in gpu.into_iter().chain(input) {
        for form in [SocketForm::Listening(3), SocketForm::Activation] {
            let command = Command::new(&program).args(args).socket(form).waiting(3);
            assert_refused(&mut command.spawn().unwrap(), &format!("{form:?} {args:?}"));
        }
    }
}

/// Too few descriptors for the program's own are a failed start as any other.
#[test]
fn failed_start_finds_the_descriptors_to_close_connections() {
    let mut failed = 0;
    // With fewer the libraries cannot be loaded; with more it serves.
    for limit in 5..32 {
        let mut program = Command::new("/usr/bin/prlimit")
            .arg(format!("--nofile={limit}"))
            .arg(gpu_program())
            .socket(SocketForm::Activation)
            .notify()
            .waiting(2)
            .spawn()
            .unwrap();
        let ended = Deadline::default().until("its end or readiness", || {
            let ready = program.notify()?.count("READY", "1")? > 0;
            let ended = program.try_exit()?.is_some();
            Ok((ended || ready).then_some(ended))
        });
        if !ended.unwrap() {
            break;
        }
        failed += 1;
        assert_refused(&mut program, &format!("{limit} descriptors"));
    }
    assert!(failed > 3, "only {failed} starts failed");
}

fn assert_refused(program: &mut Program, case: &str) {
    assert_early_failure(program, &[]);
    assert_waiting_closed(program, case);
}
