// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Vulnerabilities of other VNC servers, replayed against the real program over its sockets. docs/security.md
//! has the table.

use std::io::Write as _;

use super::*;

/// QEMU, set_pixel_format: the bits of a pixel were not checked, and sizes were computed from them.
#[test]
fn cve_2014_7815_bits_of_a_pixel() {
    let mut console = Console::start();
    for bits in [0, 1, 4, 15, 24, 33, 64, 128, 255] {
        console.assert_refused(&pixel_format(bits, 24, true, [255; 3], [16, 8, 0]));
    }
    for (bits, max, shift) in [
        (8, [u16::MAX; 3], [0; 3]),
        (16, [255; 3], [16, 8, 0]),
        (32, [255; 3], [255; 3]),
        (32, [255; 3], [31, 8, 0]),
        (32, [u16::MAX; 3], [17, 0, 0]),
    ] {
        console.assert_refused(&pixel_format(bits, bits, true, max, shift));
    }
    console.finish();
}

/// QEMU, set_pixel_format: a division by the greatest value of a color, 0.
#[test]
fn cve_2015_8504_colors_of_no_value() {
    let mut console = Console::start();
    for bits in [8, 16, 32] {
        for max in [[0, 255, 255], [7, 0, 3], [0; 3]] {
            for encoding in [encoding::RAW, encoding::ZRLE, encoding::TIGHT] {
                let mut viewer = console.viewer();
                viewer.send(&pixel_format(bits, 8, true, max, [0; 3]));
                viewer.set_encodings(&[encoding, encoding::LAST_RECT]);
                viewer.send(&update_request(false, 0, 0, 640, 480));
                console.assert_served();
            }
        }
    }
    console.finish();
}

/// QEMU, protocol_client_msg: the number of encodings was multiplied in 16 bits, and a list without an end
/// was waited for.
#[test]
fn cve_2008_2382_encodings_without_end() {
    let mut console = Console::start();
    let list: Vec<i32> = (0..65535).collect();
    let mut viewer = console.viewer();
    viewer.set_encodings(&list);
    console.assert_served();
    let mut unfinished = console.viewer();
    unfinished.send(&set_encodings(&list)[..1000]);
    console.assert_served();
    let before = Holdings::of(&console.vnc);
    flood(&viewer.stream, &set_encodings(&list), 300);
    console.assert_served();
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

/// QEMU, protocol_client_msg, and LibVNCServer, rfbProcessClientNormalMessage (also CVE-2014-6053,
/// CVE-2018-7225): as much memory as a cut text said it had.
#[test]
fn cve_2015_5239_cut_text_of_four_gigabytes() {
    let mut console = Console::start();
    let before = peak_resident(&console.vnc);
    for length in [u32::MAX, 1 << 31, (1 << 31) - 1, 1 << 30, 100 << 20] {
        let mut viewer = console.viewer();
        viewer.send(&cut_text(length, &[b'x'; 4096]));
        flood(&viewer.stream, &[b'x'; 1 << 16], 400);
        console.assert_served();
    }
    let grown = peak_resident(&console.vnc).saturating_sub(before);
    assert!(grown < VIEWER_KIB, "{grown} KiB more");
    console.finish();
}

/// QEMU, vnc_client_cut_text_ext: a length below that of its own flags.
#[test]
fn cve_2022_3165_clipboard_shorter_than_its_head() {
    let mut console = Console::start();
    for length in [-1_i32, -2, -3, -4, -5, i32::MIN, i32::MIN + 1] {
        for flags in [
            0x1000_0001_u32,
            0x0200_0001,
            0x0400_0000,
            0x0800_0001,
            u32::MAX,
        ] {
            let mut viewer = console.viewer();
            viewer.set_encodings(&[encoding::RAW, encoding::EXTENDED_CLIPBOARD]);
            viewer.send(&cut_text(length as u32, &flags.to_be_bytes()));
            viewer.send(&[0; 64]);
        }
    }
    console.finish();
}

/// QEMU, inflate_buffer: compressed text that ended early was inflated for ever; and text that inflates to a
/// thousand times its size.
#[test]
fn cve_2023_3255_clipboard_that_inflates_without_end() {
    let mut console = Console::start();
    let before = peak_resident(&console.vnc);
    // The head of a zlib stream, a stored block that lacks its data, and a block of no known kind.
    let broken: [&[u8]; 4] = [
        &[0x78, 0x9c],
        &[0x78, 0x9c, 0x01, 0xff, 0xff, 0, 0],
        &[0x78, 0x9c, 0x07],
        &[],
    ];
    for data in broken.into_iter().chain([&bomb()[..]]) {
        let mut text = 0x1000_0001_u32.to_be_bytes().to_vec();
        text.extend(data);
        let mut viewer = console.viewer();
        viewer.set_encodings(&[encoding::RAW, encoding::EXTENDED_CLIPBOARD]);
        viewer.send(&cut_text((text.len() as u32).wrapping_neg(), &text));
        console.assert_served();
    }
    let grown = peak_resident(&console.vnc).saturating_sub(before);
    assert!(grown < VIEWER_KIB, "{grown} KiB more");
    let used = console.vnc.cpu_time().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let spinning = console.vnc.cpu_time().unwrap().saturating_sub(used);
    assert!(
        spinning < Duration::from_millis(250),
        "{spinning:?} in half a second"
    );
    console.finish();
}

/// A zlib stream (RFC 1950) of one byte and two million repetitions of it, 258 at a time: half a gigabyte out of
/// three megabytes.
fn bomb() -> Vec<u8> {
    let mut bits = Bits::default();
    // The last block, of fixed codes (RFC 1951, 3.2.6).
    bits.push(0b011, 3);
    // Codes begin with their highest bit: the literal 0, then length 258 and distance 1.
    bits.push(0b00001100, 8);
    for _ in 0..2_000_000 {
        bits.push(0b10100011, 8);
        bits.push(0, 5);
    }
    // The end of the block.
    bits.push(0, 7);
    [&[0x78, 0x9c][..], &bits.finish()].concat()
}

/// Bits, the lowest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u32,
    used: u32,
}

impl Bits {
    fn push(&mut self, bits: u32, count: u32) {
        self.last |= bits << self.used;
        self.used += count;
        while self.used >= 8 {
            self.bytes.push(self.last as u8);
            self.last >>= 8;
            self.used -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(self.last as u8);
        self.bytes
    }
}

/// QEMU, qemu_clipboard_request: a clipboard that nobody had filled was asked for.
#[test]
fn cve_2023_6683_clipboard_of_nobody() {
    let (console, mut viewer) =
        Console::with_viewer(&[encoding::RAW, encoding::EXTENDED_CLIPBOARD]);
    for action in [1 << 24_u32, 1 << 25, 1 << 26, 1 << 27, 1 << 28, u32::MAX] {
        for formats in [0, 1, 0xffff] {
            let text = (action | formats).to_be_bytes();
            viewer.send(&cut_text(-4_i32 as u32, &text));
        }
    }
    console.finish();
}

/// QEMU, vnc_update_client: a viewer that asked and did not read had everything kept for it.
#[test]
fn cve_2017_15124_requests_without_reading() {
    let mut console = Console::start();
    let (width, height) = SIZE;
    // Pixels that no encoding makes small.
    let pixels = noise(&mut 1, (width * height * 4) as usize);
    for encodings in [
        &[encoding::RAW][..],
        &[encoding::ZRLE],
        &[encoding::TIGHT, encoding::LAST_RECT],
    ] {
        let mut viewer = console.viewer();
        viewer.set_encodings(encodings);
        console.assert_served();
        let update = [0, 0, 0, width, height];
        console.link.send(request::UPDATE, 0, &update, &pixels);
        let before = Holdings::of(&console.vnc);
        for _ in 0..60 {
            flood(&viewer.stream, &update_request(false, 0, 0, 640, 480), 5);
            // The other one, meanwhile.
            let rest = update_request(false, 0, 0, 64, 64);
            console.witness.send(&rest);
            console.witness.update();
        }
        before.assert_not_grown(&console.vnc, VIEWER_KIB);
        console.assert_served();
    }
    console.finish();
}

/// Vino, rfbSendFramebufferUpdate (also CVE-2011-0905), and LibVNCServer, rfbSendRectEncodingRaw
/// (CVE-2020-25708): requests for what lies outside of the screen, or is empty.
#[test]
fn cve_2011_0904_requests_outside_of_the_screen() {
    const MAX: u16 = u16::MAX;
    let mut console = Console::start();
    for encoding in [encoding::RAW, encoding::ZRLE, encoding::TIGHT] {
        let mut viewer = console.viewer();
        viewer.set_encodings(&[encoding, encoding::LAST_RECT]);
        for incremental in [false, true] {
            for [x, y, width, height] in [
                [0, 0, 0, 0],
                [0, 0, MAX, 0],
                [10, 10, 0, 7],
                [640, 480, 1, 1],
                [639, 479, MAX, MAX],
                [MAX, MAX, MAX, MAX],
                [MAX, 0, 1, 480],
                [0, 0, MAX, MAX],
            ] {
                viewer.send(&update_request(incremental, x, y, width, height));
            }
        }
        console.assert_served();
        // Still served, or closed: not left in between.
        viewer.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
        viewer.send(&update_request(false, 0, 0, 8, 8));
        let [_] = viewer.read();
    }
    console.finish();
}

/// QEMU, vnc_connect: the connection above a limit ended another one in the middle of its handshake, which
/// then failed.
#[test]
fn cve_2023_3354_handshakes_that_never_end() {
    let mut console = Console::start();
    let before = console.settled();
    for length in [0, 1, 11, 12, 13] {
        let said = b"RFB 003.008\n\x01";
        let streams: Vec<UnixStream> = (0..200)
            .map(|_| {
                let mut stream = console.connect();
                let _ = stream.write_all(&said[..length]);
                stream
            })
            .collect();
        console.assert_served();
        drop(streams);
        console.assert_served();
    }
    console.wait_left(&before);
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

/// RealVNC, and neatvnc (CVE-2024-42458): a security type that was not offered was taken.
#[test]
fn cve_2006_2369_security_type_that_was_not_offered() {
    let mut console = Console::start();
    for security_type in [0_u8, 2, 5, 16, 18, 19, 255] {
        let mut stream = console.connect();
        let mut version = [0; 12];
        stream.read_exact(&mut version).unwrap();
        stream.write_all(&version).unwrap();
        let mut types = [0; 2];
        stream.read_exact(&mut types).unwrap();
        stream.write_all(&[security_type]).unwrap();
        let mut result = [0; 4];
        // It may be told why.
        if stream.read_exact(&mut result).is_ok() {
            assert_ne!(result, [0; 4], "security type {security_type} was accepted");
        }
        console.assert_closed(&stream);
    }
    console.finish();
}

/// LibVNCServer: scales of 0 (also CVE-2020-14401), file transfers (CVE-2018-15127, CVE-2018-6307) and chats of
/// any length (CVE-2020-14405). No such message is known here.
#[test]
fn cve_2014_6054_messages_of_other_servers() {
    let mut console = Console::start();
    for kind in [1, 7, 8, 9, 10, 11, 15, 20, 25, 100, 249, 252, 253, 254_u8] {
        let mut bytes = vec![kind];
        bytes.extend([0; 3]);
        bytes.extend([0xff; 64]);
        console.assert_refused(&bytes);
    }
    console.finish();
}

/// Vino: after a handshake that failed, what else was sent was never read, and kept the loop busy.
#[test]
fn cve_2013_5745_data_after_a_failed_handshake() {
    let mut console = Console::start();
    for first in [
        &b"RFB 009.999\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"RFB 003.00\xff\n",
        &[0; 64],
    ] {
        let mut stream = console.connect();
        let _ = stream.write_all(first);
        flood(&stream, &[0x55; 4096], 50);
        let used = console.vnc.cpu_time().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        let spinning = console.vnc.cpu_time().unwrap().saturating_sub(used);
        assert!(
            spinning < Duration::from_millis(200),
            "{spinning:?} in 0.4 s"
        );
        console.assert_served();
    }
    console.finish();
}

/// TigerVNC: sizes of a desktop whose product has more than 32 bits (also CVE-2014-8240).
#[test]
fn cve_2014_8241_desktops_of_any_size() {
    let (mut console, mut viewer) =
        Console::with_viewer(&[encoding::RAW, encoding::EXTENDED_DESKTOP_SIZE]);
    for (width, height, screens) in [
        (0, 0, 0_u8),
        (0, 480, 1),
        (u16::MAX, u16::MAX, 1),
        (u16::MAX, 1, 255),
        (640, 480, 0),
        (640, 480, 255),
    ] {
        let mut bytes = vec![message::SET_DESKTOP_SIZE, 0];
        bytes.extend([width, height].iter().flat_map(|n| n.to_be_bytes()));
        bytes.extend([screens, 0]);
        for id in 0..screens {
            bytes.extend(u32::from(id).to_be_bytes());
            bytes.extend([u16::MAX; 4].iter().flat_map(|n| n.to_be_bytes()));
            bytes.extend([0xff; 4]);
        }
        viewer.send(&bytes);
    }
    console.assert_served();
    // Screens that never come.
    let mut unfinished = console.viewer();
    unfinished.send(&[message::SET_DESKTOP_SIZE, 0, 0, 1, 0, 1, 255, 0, 1]);
    console.assert_served();
    console.finish();
}

/// QEMU, vnc_disconnect_finish: the buffers of ZRLE and Tight were lost with their viewer.
#[test]
fn cve_2019_20382_viewers_that_leave() {
    let mut console = Console::start();
    console.leaks_nothing(120, |console, n| {
        let mut viewer = console.viewer();
        let encoding = [encoding::ZRLE, encoding::TIGHT, encoding::RAW][n as usize % 3];
        viewer.set_encodings(&[encoding, encoding::CURSOR, encoding::LAST_RECT]);
        viewer.send(&update_request(false, 0, 0, 640, 480));
        // Half of an update, and gone.
        let [_, _] = viewer.read();
    });
    console.finish();
}

/// LibVNCServer and others with a web server on the same port (CVE-2017-18922, CVE-2026-32854): a browser's
/// first words.
#[test]
fn cve_2017_18922_browsers() {
    let mut console = Console::start();
    for words in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        "CONNECT :5900 HTTP/1.0\r\n\r\n",
        "GET /proxied.connection",
    ] {
        let mut stream = console.connect();
        let _ = stream.write_all(words.as_bytes());
        console.assert_closed(&stream);
    }
    console.finish();
}
