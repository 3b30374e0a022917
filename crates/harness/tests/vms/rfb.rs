//! The crate `rfb` on QEMU's own VNC server, which another project wrote.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use rfb::client::Client;
use rfb::{Encoder, Encoding, Frame, PixelFormat, Version};

const SOON: Duration = Duration::from_secs(60);

fn image(frame: &Frame) -> Image {
    let pixels = frame.bytes().chunks_exact(4);
    let pixels = pixels.map(|pixel| u32::from_be_bytes([0, pixel[2], pixel[1], pixel[0]]));
    Image {
        width: frame.width().into(),
        height: frame.height().into(),
        pixels: pixels.collect(),
    }
}

/// The picture with only the upper bits of its colours, which formats with fewer bits keep, however they round.
fn coarse(image: &Image) -> Vec<u32> {
    let pixels = image.pixels.iter();
    pixels.map(|pixel| pixel & 0x00c0_c0c0).collect()
}

/// How many bytes our encoder makes of a frame, sent twice, without what it takes to connect.
fn encoded(encoding: Encoding, frame: &Frame) -> u64 {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for _ in 0..2 {
        let _ = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
    }
    out.len() as u64
}

#[test]
fn a_viewer_sees_what_qemu_shows_in_every_encoding() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("vnc.sock");
    let words = ["-vnc".to_owned(), format!("unix:{}", socket.display())];
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu")
        .arguments(&words)
        .boot()?;
    // Not a multiple of any tile.
    let card = Image::test_card(837, 611);
    vm.command("testcard 837x611")?;
    let screen = vm.wait_screen(&card, SOON)?;
    for version in [Version::V3_3, Version::V3_7, Version::V3_8] {
        for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
            for level in [None, Some(0), Some(1), Some(9)] {
                let stream = UnixStream::connect(&socket)?;
                let mut client = Client::connect_as(stream, SOON, version)?;
                let mut encodings = vec![encoding, Encoding::DESKTOP_SIZE];
                encodings.extend(level.map(Encoding::compress_level));
                client.set_encodings(&encodings)?;
                let what = format!("{version:?}, {encoding:?}, level {level:?}");
                // Twice: streams go on.
                for _ in 0..2 {
                    client.refresh().with_context(|| what.clone())?;
                    let seen = image(client.frame());
                    assert_eq!(seen.difference(&screen), None, "{what}");
                }
                if level.is_none() {
                    let (theirs, ours) = (client.received(), encoded(encoding, client.frame()));
                    eprintln!("{what}: QEMU sends {theirs} bytes, we would {ours}");
                    assert!(encoding != Encoding::ZRLE || ours <= theirs, "{what}");
                }
            }
        }
    }
    for format in [PixelFormat::RGB565, PixelFormat::BGR233] {
        for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
            let mut client = Client::connect(UnixStream::connect(&socket)?, SOON)?;
            client.set_format(format)?;
            // Without it QEMU rounds the width up.
            client.set_encodings(&[encoding, Encoding::DESKTOP_SIZE])?;
            client.refresh()?;
            let seen = coarse(&image(client.frame()));
            let expected = coarse(&screen);
            assert!(seen == expected, "{format:?} {encoding:?}");
        }
    }
    Ok(())
}
