// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `make gpu-check` without a render node. On one, it is tried in `vms`: `dmabuf::`.

use std::process::Command;

use harness::paths;

#[test]
fn machine_without_a_render_node_is_told_so() {
    let nodes = tempfile::tempdir().unwrap();
    std::fs::write(nodes.path().join("card0"), "").unwrap();
    let output = Command::new(paths::program("gpu-check").unwrap())
        .arg(format!(
            "--program={}",
            env!("CARGO_BIN_EXE_vhost-user-gpu")
        ))
        .arg(format!("--dri={}", nodes.path().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("There is no render node in "), "{said}");
}
