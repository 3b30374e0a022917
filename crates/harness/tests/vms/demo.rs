// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo as a test: its claims are checked from outside.

use std::fs;
use std::process::Command;

use harness::image::Image;

#[test]
fn demo_succeeds_and_its_picture_is_the_test_card() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let picture = folder.path().join("demo.png");
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg(&picture)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    for step in [
        "vhostctl add console demo --now",
        "pixels are right",
        "keys typed",
        "sees the same by VNC",
        "vhostctl screenshot demo: the same",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }

    let picture = Image::from_png(&fs::read(&picture)?)?;
    let card = Image::test_card(picture.width, picture.height);
    assert_eq!(picture.difference(&card), None);
    Ok(())
}
