// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several viewers, fast and slow, and several heads.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use display_protocol::Features;
use frontend::{Command, SocketForm};
use rfb::client::{Client, Event};
use rfb::{Channel, ClientMessage, Encoding, Fence, PixelFormat};

use super::{Console, Viewer, assert_shows, picture};
use crate::common::QUICK;

/// Pixels as a viewer sees them that has fewer bits for the colours.
pub(super) fn rounded(pixels: &[u8], [red, green, blue]: [Channel; 3]) -> Vec<u8> {
    let round = |value: u8, max: u16| {
        let max = u32::from(max);
        let seen = (u32::from(value) * max + 127) / 255;
        ((seen * 255 + max / 2) / max) as u8
    };
    let pixel = |pixel: &[u8]| {
        [
            round(pixel[0], blue.max),
            round(pixel[1], green.max),
            round(pixel[2], red.max),
            0,
        ]
    };
    pixels.chunks_exact(4).flat_map(pixel).collect()
}

#[test]
fn each_viewer_has_its_format_and_encoding() {
    let first = picture(160, 120, 1);
    let (mut console, mut gpu, _viewer) = Console::showing((160, 120), &first, &[]);
    let mut viewers = Vec::new();
    for format in [
        PixelFormat::XRGB8888,
        PixelFormat::RGB565,
        PixelFormat::BGR233,
    ] {
        for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
            let mut viewer = console.viewer();
            viewer.set_format(format).unwrap();
            let encodings = [encoding, Encoding::LAST_RECT];
            viewer.set_encodings(&encodings).unwrap();
            viewers.push((viewer, format));
        }
    }
    let mut pixels = first;
    for round in 0..3 {
        for (viewer, format) in &mut viewers {
            let seen = rounded(&pixels, format.channels());
            assert_shows(viewer, (160, 120), &seen);
        }
        pixels = picture(160, 120, 10 + round);
        gpu.update(0, 0, 160, 120, &pixels);
    }
}

#[test]
fn viewer_that_does_not_read_stalls_nobody_and_gets_no_stale_pictures() {
    let size = (640, 480);
    let first = picture(640, 480, 1);
    let (mut console, mut gpu, mut viewer) = Console::showing(size, &first, &[Encoding::RAW]);
    // It has asked for every picture that there will be.
    let mut stalled = console.viewer();
    let encodings = [Encoding::RAW, Encoding::CONTINUOUS_UPDATES];
    stalled.set_encodings(&encodings).unwrap();
    let all = stalled.frame().rect();
    let every = ClientMessage::EnableContinuousUpdates {
        enable: true,
        rect: all,
    };
    stalled.send(&every).unwrap();
    let mut pixels = first;
    for round in 0..10 {
        pixels = picture(640, 480, 2 + round);
        gpu.update(0, 0, 640, 480, &pixels);
        assert_shows(&mut viewer, size, &pixels);
    }
    // As many bytes as the socket holds, the rest of one update, and at most a few more.
    let before = stalled.received();
    assert_shows(&mut stalled, size, &pixels);
    // The answer comes after all that was waiting.
    let fence = Fence::new(Fence::REQUEST, b"all").unwrap();
    stalled.send(&ClientMessage::Fence(fence)).unwrap();
    while !matches!(stalled.next_event().unwrap(), Event::Fence(_)) {}
    let frame = 640 * 480 * 4;
    let bytes = stalled.received() - before;
    assert!(bytes < 4 * frame, "{bytes} bytes");
}

#[test]
fn memory_does_not_grow_with_a_viewer_that_does_not_read() {
    let pixels = picture(640, 480, 1);
    let encodings = [Encoding::ZRLE];
    let (mut console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &encodings);
    let mut stalled = console.viewer();
    stalled.set_encodings(&[Encoding::ZRLE]).unwrap();
    let mut memory = Vec::new();
    for round in 0..8 {
        for _ in 0..50 {
            stalled.request(false, stalled.frame().rect()).unwrap();
        }
        let pixels = picture(640, 480, 2 + round);
        gpu.update(0, 0, 640, 480, &pixels);
        assert_shows(&mut viewer, (640, 480), &pixels);
        memory.push(resident(console.program.pid()));
    }
    let (first, last) = (memory[2], memory[7]);
    assert!(last < first + (2 << 20), "{memory:?}");
}

/// Resident memory in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages = status.split(' ').nth(1).unwrap();
    pages.parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

#[test]
fn twenty_viewers_see_the_same_and_too_many_are_told_so() {
    let pixels = picture(320, 200, 1);
    let (mut console, mut gpu, first) = Console::showing((320, 200), &pixels, &[]);
    let mut viewers = vec![first];
    for n in 1..32 {
        let mut viewer = console.viewer();
        let encoding = [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT][n % 3];
        viewer
            .set_encodings(&[encoding, Encoding::LAST_RECT])
            .unwrap();
        viewers.push(viewer);
    }
    let pixels = picture(320, 200, 2);
    gpu.update(0, 0, 320, 200, &pixels);
    for viewer in &mut viewers {
        assert_shows(viewer, (320, 200), &pixels);
    }
    let error = Client::connect(console.program.connect().unwrap(), QUICK).unwrap_err();
    assert!(error.to_string().contains("32 viewers"), "{error}");
    // A place becomes free.
    drop(viewers.pop());
    let last = frontend::Deadline::after(QUICK).until("a place", || {
        let stream = console.program.connect()?;
        Ok(Client::connect(stream, QUICK).ok())
    });
    assert_shows(&mut last.unwrap(), (320, 200), &pixels);
}

#[test]
fn viewer_that_breaks_the_protocol_leaves_alone() {
    let pixels = picture(320, 200, 1);
    let (mut console, mut gpu, mut viewer) = Console::showing((320, 200), &pixels, &[]);
    for broken in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"RFB 003.008\n\x02"] {
        let mut stream = console.program.connect().unwrap();
        stream.set_read_timeout(Some(QUICK)).unwrap();
        stream.write_all(broken).unwrap();
        // Whatever it says, it hangs up.
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut other = console.viewer();
    other.send_bytes(&[77]).unwrap();
    assert!(other.wait_for_update().is_err());
    let pixels = picture(320, 200, 2);
    gpu.update(0, 0, 320, 200, &pixels);
    assert_shows(&mut viewer, (320, 200), &pixels);
}

#[test]
fn each_head_has_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("second.sock");
    let option = format!("--socket-path={}", second.display());
    let mut console = Console::with(|command: Command| {
        // After the one of head 0.
        command.socket(SocketForm::Path).arg(&option)
    });
    let mut gpu = super::FakeGpu::listen(&console.display());
    let joining = console.join();
    gpu.accept(Features::default());
    let pixels = [picture(320, 200, 1), picture(640, 480, 2)];
    gpu.scanout(0, 320, 200);
    gpu.scanout(1, 640, 480);
    gpu.scanout(2, 800, 600);
    gpu.update_head(0, [0, 0, 320, 200], &pixels[0]);
    gpu.update_head(1, [0, 0, 640, 480], &pixels[1]);
    let mut first: Viewer = joining.join().unwrap();
    let stream = std::os::unix::net::UnixStream::connect(&second).unwrap();
    let mut other = Client::connect(stream, QUICK).unwrap();
    assert_shows(&mut first, (320, 200), &pixels[0]);
    assert_shows(&mut other, (640, 480), &pixels[1]);
    assert_eq!(
        (first.name(), other.name()),
        ("vm1 - head 0", "vm1 - head 1")
    );
    first.set_limit(Duration::from_millis(200));
    first.request(true, first.frame().rect()).unwrap();
    gpu.update_head(1, [0, 0, 1, 1], &[9; 4]);
    assert!(first.wait_for_update().is_err(), "it is the other head's");
}
