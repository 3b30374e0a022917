//! The manual pages as man(1) reads them.

mod common;

use std::path::Path;
use std::process::Command;

use common::{have, run, stderr};

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
    }
}
