// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

/// Folders as on a system: `user`, `etc/qemu/vhost-user` and `usr/share/qemu/vhost-user`.
struct System(TempDir);

impl System {
    fn new() -> Self {
        let system = Self(tempfile::tempdir().expect("a folder"));
        for folder in system.folders() {
            fs::create_dir_all(folder).expect("a folder");
        }
        system
    }

    fn folders(&self) -> Vec<PathBuf> {
        ["user", "etc/qemu/vhost-user", "usr/share/qemu/vhost-user"]
            .map(|name| self.0.path().join(name))
            .into()
    }

    fn put(&self, folder: usize, name: &str, text: &str) -> PathBuf {
        let path = self.folders()[folder].join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// A program that does this, as a shell script.
    fn program(&self, name: &str, script: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path.display().to_string()
    }

    fn describe(&self, kind: &str, binary: &str) -> String {
        format!(r#"{{"description": "a test", "type": "{kind}", "binary": "{binary}"}}"#)
    }

    fn list(&self) -> Vec<Descriptor> {
        list(&self.folders(), true)
    }
}

#[test]
fn the_specific_file_counts_and_the_order_is_by_name() {
    let system = System::new();
    let answer = system.program("answer", r#"echo '{"type": "fs", "features": ["x"]}'"#);
    let text = system.describe("fs", &answer);
    system.put(2, "50-b.json", &text);
    let hiding = system.put(1, "50-b.json", &text);
    system.put(2, "10-a.json", &text);
    system.put(2, "90-c.json", &text);
    let mask = system.put(0, "90-c.json", "");
    system.put(2, ".hidden", "{");
    fs::create_dir(system.folders()[2].join("folder")).expect("a folder");
    let found: Vec<_> = system
        .list()
        .into_iter()
        .map(|d| (d.name, d.state, d.by))
        .collect();
    assert_eq!(
        found,
        [
            ("10-a".to_owned(), DescriptorState::Usable, None),
            ("50-b".to_owned(), DescriptorState::Usable, None),
            ("50-b".to_owned(), DescriptorState::Hidden, Some(hiding)),
            ("90-c".to_owned(), DescriptorState::Mask, None),
            ("90-c".to_owned(), DescriptorState::Masked, Some(mask)),
        ]
    );
    assert_eq!(system.list()[0].features, Some(vec!["x".to_owned()]));
}

#[test]
fn what_is_wrong_is_said_and_whether_libvirt_minds() {
    let system = System::new();
    let answer = system.program("answer", r#"echo '{"type": "fs"}'"#);
    let cases = [
        ("README", "hello", "not a valid descriptor", true),
        ("array.json", "[1]", "not a valid descriptor", true),
        (
            "binary.json",
            r#"{"description": "d", "type": "fs"}"#,
            "binary",
            true,
        ),
        (
            "description.json",
            &format!(r#"{{"type": "fs", "binary": "{answer}"}}"#),
            "description",
            false,
        ),
        (
            "missing.json",
            &system.describe("fs", "/nonexistent/program"),
            "/nonexistent/program",
            false,
        ),
        (
            "relative.json",
            &system.describe("fs", "virtiofsd"),
            "absolute",
            false,
        ),
        (
            "text.json",
            &system.describe("fs", "/etc/passwd"),
            "not executable",
            false,
        ),
        ("type.json", &system.describe("tpu", &answer), "tpu", true),
        (
            "other.json",
            &system.describe("net", &answer),
            "its type is 'fs'",
            false,
        ),
        (
            "gpu.json",
            &system.describe("gpu", &system.program("gpu", r#"echo '{"type": "gpu"}'"#)),
            "features",
            false,
        ),
    ];
    for (name, text, ..) in &cases {
        system.put(2, name, text);
    }
    std::os::unix::fs::symlink("nowhere", system.folders()[1].join("link.json")).expect("a link");
    let found = system.list();
    let of = |name: &str| {
        found
            .iter()
            .find(|d| d.path.file_name().is_some_and(|file| file == name))
            .expect(name)
    };
    for (name, _, word, breaks) in cases {
        let descriptor = of(name);
        assert_eq!(descriptor.state, DescriptorState::Broken, "{descriptor:?}");
        assert!(
            descriptor.problems.join(" ").contains(word),
            "{descriptor:?}"
        );
        assert_eq!(descriptor.breaks_libvirt, breaks, "{descriptor:?}");
    }
    assert!(of("link.json").breaks_libvirt);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let system = System::new();
    let pipe = system.folders()[2].join("pipe.json");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let found = system.list();
    assert_eq!(found[0].problems, ["it cannot be read: it is not a file"]);
}

#[test]
fn a_broken_file_that_is_hidden_breaks_nothing() {
    let system = System::new();
    system.put(2, "50-a.json", "{");
    system.put(1, "50-a.json", "");
    assert!(system.list().iter().all(|d| !d.breaks_libvirt));
    // libvirt's system daemon does not look into a user's folder.
    let system = System::new();
    system.put(0, "50-a.json", "{");
    assert!(system.list().iter().all(|d| !d.breaks_libvirt));
}

#[test]
fn misbehaving_programs_are_reported_in_time() {
    let system = System::new();
    let cases = [
        (
            "exits",
            "echo oh no >&2; exit 3",
            "ends with status 3: oh no",
        ),
        ("dies", "kill -SEGV $$", "signal 11"),
        (
            "babbles",
            "while :; do echo babble; done",
            "more than 64 KiB",
        ),
        ("prints", "echo hello", "no valid capabilities"),
        ("hangs", "sleep 1000", "within 5 s"),
        (
            "leaves",
            "sleep 1000 & echo '{\"type\": \"fs\"}'",
            "within 5 s",
        ),
        ("closes", "exec >&- 2>&-; sleep 1000", "within 5 s"),
    ];
    for (name, script, _) in cases {
        let program = system.program(name, script);
        system.put(2, &format!("{name}.json"), &system.describe("fs", &program));
    }
    let start = Instant::now();
    let found = system.list();
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "one after the other"
    );
    for (name, _, word) in cases {
        let descriptor = found.iter().find(|d| d.name == name).expect(name);
        assert!(
            descriptor.problems.join(" ").contains(word),
            "{descriptor:?}"
        );
    }
}

#[test]
fn a_backend_has_several_names() {
    let system = System::new();
    system.put(
        2,
        "50-qemu-virtiofsd.json",
        &system.describe("fs", "/usr/lib/qemu/virtiofsd"),
    );
    let found = list(&system.folders(), false);
    for name in ["50-qemu-virtiofsd", "qemu-virtiofsd", "virtiofsd"] {
        assert!(found[0].is_called(name), "{name}");
    }
    for name in ["virtio", "50", "qemu"] {
        assert!(!found[0].is_called(name), "{name}");
    }
}
