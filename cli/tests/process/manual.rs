// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The manual pages as man(1) reads them.

use std::path::Path;
use std::process::Command;

use crate::common::{have, run, stderr, stdout};

#[test]
fn pages_render_without_warnings() {
    if !have("man", "package man-db") {
        return;
    }
    for page in [
        "vhostctl.1",
        "vhost-user@.service.5",
        "vhost-user-gpu.8",
        "vhost-user-input.8",
        "vhost-user-accept.8",
        "vhost-vnc.8",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../man")
            .join(page);
        let output = run(Command::new("man")
            .args(["--warnings=all", "--local-file"])
            .arg(&path)
            .env("LANG", "C.UTF-8")
            .env("MANPAGER", "cat")
            .env("MANWIDTH", "100"));
        assert!(output.status.success(), "{page}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{page}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("SEE ALSO"), "{page}: {text}");
        // man(1) does not warn of quotes within quotes.
        let source = std::fs::read_to_string(&path).expect("a page");
        let headings = source.lines().filter(|line| line.starts_with(".SH"));
        for heading in headings {
            assert!(matches!(heading.matches('"').count(), 0 | 2), "{heading}");
        }
    }
}

/// The units are found by their names.
#[test]
fn units_have_pages() {
    if !have("man", "package man-db") {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().expect("a folder");
    stdout(
        Command::new("make")
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .args([
                "--silent",
                "-f",
                "install.mk",
                "install-manual",
                "PREFIX=/usr",
            ])
            .arg(format!("DESTDIR={}", folder.path().display()))
            .current_dir(&source),
    );
    let pages = folder.path().join("usr/share/man");
    let templates = ["vhost-user", "vhost-user-gpu", "vhost-user-input"];
    let names = templates.map(|name| ["service", "socket"].map(|half| format!("{name}@.{half}")));
    for name in names.concat() {
        let mut man = Command::new("man");
        man.env("MANPATH", &pages)
            .env("MANPAGER", "cat")
            .env("MANWIDTH", "200")
            .arg(&name);
        let output = run(&mut man);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains(&name),
            "man {name}: {text}{}",
            stderr(&output)
        );
    }
}
