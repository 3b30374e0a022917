// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The crate `rfb` on what other projects wrote: QEMU's own VNC server, and viewers.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use harness::viewers::{self, NoVnc, TigerVnc, Unpacked, Vncdotool, XServer, gvnccapture};
use rfb::client::Client;
use rfb::server_message::Update;
use rfb::{
    ClientMessage, ClientMessageParser, Encoder, Encoding, Frame, PixelFormat, Rect,
    ServerHandshake, ServerInit, Version,
};

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

/// A test card with what the tiles of encodings tell apart: two colours, some, many, and runs.
fn picture() -> Image {
    let mut picture = Image::test_card(837, 611);
    let mut noise = 1u32;
    for y in 100..300 {
        for x in 50..750 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let colour = match x / 64 {
                0..=2 => (noise >> 31) * 0x00ff_8040,
                3 => (noise >> 30) * 0x0011_2233,
                4 => (noise >> 28) * 0x0001_0f07,
                5 | 6 => (noise >> 25) * 0x0001_0f07,
                7 => (x / 9 + y / 7) % 5 * 0x0020_3010,
                _ => continue,
            };
            let at = usize::try_from(y * picture.width + x).expect("a small picture");
            picture.pixels[at] = colour & 0x00ff_ffff;
        }
    }
    picture
}

/// Shows a frame to one viewer: all of it at first, then parts of it again, so that streams go on.
fn show(mut socket: UnixStream, frame: &Frame) -> anyhow::Result<()> {
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::new(&mut out);
    let (mut parser, mut encoder) = (ClientMessageParser::default(), Encoder::new());
    let (mut established, mut encoding) = (false, Encoding::RAW);
    let mut parts = vec![
        Rect::new(13, 70, 777, 400),
        Rect::new(100, 90, 64, 64),
        frame.rect(),
    ];
    let mut left = Vec::new();
    loop {
        socket.write_all(&out)?;
        out.clear();
        let mut piece = [0; 4096];
        let len = socket.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        left.extend_from_slice(&piece[..len]);
        let mut input = &left[..];
        if !established {
            established = handshake.advance(&mut input, &mut out)?.is_some();
            if established {
                let init = ServerInit {
                    width: frame.width(),
                    height: frame.height(),
                    format: PixelFormat::XRGB8888,
                    name: "card".to_owned(),
                };
                init.write(&mut out);
            }
        }
        let mut next = |input: &mut &[u8]| match established {
            true => parser.next(input),
            false => Ok(None),
        };
        while let Some(message) = next(&mut input)? {
            match message {
                ClientMessage::SetPixelFormat(format) => encoder.set_format(format),
                ClientMessage::SetEncodings(set) => {
                    encoding = set.preferred();
                    encoder.set_compress_level(set.compress_level());
                }
                ClientMessage::FramebufferUpdateRequest { incremental, .. } => {
                    let rect = if incremental {
                        parts.pop()
                    } else {
                        Some(frame.rect())
                    };
                    if let Some(rect) = rect {
                        let mut update = Update::begin(&mut out);
                        let rects = encoder.encode(encoding, rect, &frame.view(), &mut out);
                        assert!(update.count(rects));
                        update.finish(&mut out);
                    }
                }
                _ => {}
            }
        }
        left = input.to_vec();
    }
}

#[test]
fn every_viewer_decodes_what_we_encode() -> anyhow::Result<()> {
    let picture = picture();
    let mut frame = Frame::new(837, 611).context("a frame")?;
    for (pixel, colour) in frame.bytes_mut().chunks_exact_mut(4).zip(&picture.pixels) {
        // What the unused byte is must not matter.
        pixel.copy_from_slice(&(colour | 0x5a00_0000).to_le_bytes());
    }
    let frame = Arc::new(frame);
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("vnc.sock");
    let listener = UnixListener::bind(&socket)?;
    thread::spawn(move || {
        for viewer in listener.incoming().flatten() {
            let frame = Arc::clone(&frame);
            // A viewer that is ended breaks its connection.
            thread::spawn(move || show(viewer, &frame));
        }
    });
    let server = XServer::start()?;
    for encoding in viewers::Encoding::ALL {
        let viewer = TigerVnc::start(&server, &socket, encoding, SOON)?;
        viewer.wait_picture(&picture, SOON)?;
        eprintln!("TigerVNC shows {encoding:?}");
    }
    let unpacked = Unpacked::obtain()?;
    let seen = gvnccapture(&unpacked, &socket)?;
    assert_eq!(seen.difference(&picture), None, "gvnccapture");
    let seen = Vncdotool::new(&unpacked, &socket)?.capture()?;
    assert_eq!(seen.difference(&picture), None, "vncdotool");
    NoVnc::open(&unpacked, &socket, SOON)?.wait_picture(&picture, SOON)
}
