//! The demo as a test: what it says of itself is checked from outside.

use std::fs::File;
use std::io::BufReader;
use std::process::Command;

use harness::image::Image;

#[test]
fn the_demo_succeeds_and_its_picture_is_the_test_card() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let picture = folder.path().join("demo.png");
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg(&picture)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    for step in [
        "systemctl start vhost-user-gpu@demo.socket",
        "pixels are right",
        "keys typed",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }

    let mut png = png::Decoder::new(BufReader::new(File::open(&picture)?)).read_info()?;
    let mut rgb = vec![0; png.output_buffer_size().unwrap_or_default()];
    let info = png.next_frame(&mut rgb)?;
    let card = Image::test_card(info.width, info.height);
    let (rgb, _) = rgb.as_chunks::<3>();
    let pixels = rgb
        .iter()
        .map(|&[red, green, blue]| u32::from_be_bytes([0, red, green, blue]));
    assert!(
        pixels.eq(card.pixels.iter().copied()),
        "the picture is not the test card"
    );
    Ok(())
}
