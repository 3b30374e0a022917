// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers that send or ask without end, slowly or quickly, alone or by the thousand.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

/// Byte by byte, with the other viewer served between any two of them.
#[test]
fn bytes_one_at_a_time_hold_up_nobody() {
    let mut console = Console::start();
    let mut slow = console.connect();
    let mut said = b"RFB 003.008\n\x01\x01".to_vec();
    said.extend(set_encodings(&[encoding::RAW]));
    said.extend(update_request(false, 0, 0, 64, 64));
    for byte in said {
        slow.write_all(&[byte]).unwrap();
        console.assert_served();
    }
    // It is a viewer like any other.
    let mut greeting = [0; 12 + 2 + 4 + 24];
    slow.read_exact(&mut greeting).unwrap();
    console.finish();
}

/// A viewer that takes a byte now and then.
#[test]
fn viewer_that_reads_byte_by_byte_slows_nobody() {
    let mut console = Console::start();
    let mut slow = console.viewer();
    slow.set_encodings(&[encoding::RAW]);
    for _ in 0..100 {
        slow.send(&update_request(false, 0, 0, 640, 480));
        let [_] = slow.read();
        console.assert_served();
    }
    console.finish();
}

#[test]
fn thousand_connections_leave_the_first_viewer_served() {
    let mut console = Console::start();
    let before = console.settled();
    // As many as the kernel keeps and the program takes; those above its limits it closes.
    let mut streams = Vec::new();
    for n in 0..1000 {
        let path = console.vnc.socket_path().to_owned();
        match UnixStream::connect(&path) {
            Ok(stream) => streams.push(stream),
            Err(e) => panic!("connection {n}: {e}"),
        }
    }
    console.assert_served();
    let grown = Holdings::of(&console.vnc)
        .resident
        .saturating_sub(before.resident);
    assert!(grown < 64 << 10, "{grown} KiB more for 1000 connections");
    drop(streams);
    // A new one is served again.
    let mut last = None;
    Deadline::default()
        .until("a place for a viewer", || {
            let mut stream = console.vnc.connect()?;
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            let mut version = [0; 12];
            let served = stream.read_exact(&mut version).is_ok();
            last = served.then_some(stream);
            Ok(served.then_some(()))
        })
        .unwrap();
    console.finish();
}

/// Who connects and says nothing, or leaves off in the middle of the handshake, takes no viewer's place.
#[test]
fn unfinished_handshakes_keep_nobody_out() {
    let mut console = Console::start();
    let said = b"RFB 003.008\n\x01";
    let mut silent = Vec::new();
    for n in 0..100 {
        let mut stream = console.connect();
        // One that is closed meanwhile takes nothing.
        let _ = stream.write_all(&said[..n % (said.len() + 1)]);
        silent.push(stream);
    }
    let begun = Instant::now();
    let mut viewers: Vec<Viewer> = (0..31).map(|_| console.viewer()).collect();
    // The oldest ones made room for them, long before their time was over.
    assert!(is_closed(&silent[0]));
    assert!(begun.elapsed() < QUICK / 2, "{:?}", begun.elapsed());
    console.assert_served();
    // Of those that look none was closed.
    for viewer in &mut viewers {
        viewer.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
        viewer.send(&update_request(false, 0, 0, 8, 8));
        viewer.update();
    }
    // There is no other place, and who is told so takes none either.
    let told: Vec<UnixStream> = (0..100).map(|_| console.connect()).collect();
    let mut last = console.connect();
    last.write_all(said).unwrap();
    let mut reason = Vec::new();
    last.read_to_end(&mut reason).unwrap();
    let reason = String::from_utf8_lossy(&reason);
    assert!(reason.contains("32 viewers"), "{reason}");
    drop(viewers.pop());
    Deadline::default()
        .until("a place for a viewer", || {
            let mut stream = console.connect();
            stream.write_all(said).unwrap();
            let mut first = [0; 12 + 2 + 4];
            let taken = stream.read_exact(&mut first).is_ok() && first[12] == 1;
            Ok(taken.then_some(()))
        })
        .unwrap();
    drop((silent, told));
    console.finish();
}

#[test]
fn keys_without_end_are_bounded() {
    let mut console = Console::start();
    let viewer = console.viewer();
    let before = Holdings::of(&console.vnc);
    let keys: Vec<u8> = (0..500)
        .flat_map(|n| [key(true, 0x61 + n % 26), key(false, 0x61 + n % 26)].concat())
        .collect();
    for _ in 0..20 {
        flood(&viewer.stream, &keys, 5);
        console.assert_served();
    }
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn fences_whose_answers_nobody_reads_are_bounded() {
    let (mut console, viewer) =
        Console::with_viewer(&[encoding::RAW, encoding::FENCE, encoding::CONTINUOUS_UPDATES]);
    let before = Holdings::of(&console.vnc);
    let mut fence = vec![message::FENCE, 0, 0, 0];
    fence.extend(0x8000_0000_u32.to_be_bytes());
    fence.push(64);
    fence.extend([7; 64]);
    flood(&viewer.stream, &fence.repeat(1000), 300);
    console.assert_served();
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn formats_and_encodings_without_end_are_bounded() {
    let mut console = Console::start();
    let viewer = console.viewer();
    let before = Holdings::of(&console.vnc);
    let mut round = Vec::new();
    for bits in [8, 16, 32] {
        let (max, shift) = if bits == 8 {
            ([7, 7, 3], [0, 3, 6])
        } else {
            ([31, 63, 31], [11, 5, 0])
        };
        round.extend(pixel_format(bits, 8, true, max, shift));
        round.extend(set_encodings(&[
            encoding::TIGHT,
            encoding::ZRLE,
            encoding::RAW,
            encoding::CURSOR,
        ]));
        round.extend(update_request(false, 0, 0, 640, 480));
    }
    flood(&viewer.stream, &round.repeat(200), 20);
    console.assert_served();
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn broken_viewers_do_not_flood_the_log() {
    let mut console = Console::start();
    for _ in 0..500 {
        let mut viewer = console.viewer();
        viewer.send(&[200; 16]);
        is_closed(&viewer.stream);
    }
    console.assert_served();
    let log = console.vnc.stderr();
    // Some of a kind in ten seconds, then their number.
    assert!(log.lines().count() < 100, "{} lines", log.lines().count());
    assert!(log.contains("viewer"), "{log}");
    console.finish();
}

/// Somebody connects and disconnects as fast as it goes, with a handshake and without: a viewer hardly notices, and the
/// program is idle again afterwards.
#[test]
fn connections_that_come_and_go_all_the_time_delay_nobody() {
    let mut console = Console::start();
    let before = console.settled();
    let path = console.vnc.socket_path().to_owned();
    let said = b"RFB 003.008\n\x01\x01";
    let stop = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for words in [&said[..], &[]] {
            let (path, stop, count) = (&path, &stop, &count);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut stream) = UnixStream::connect(path) else {
                        continue;
                    };
                    let _ = stream.write_all(words);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // One that starved would not get its update in time.
        while count.load(Ordering::Relaxed) < 20_000 {
            console.witness.send(&update_request(false, 0, 0, 64, 64));
            console.witness.update();
        }
        stop.store(true, Ordering::Relaxed);
    });
    console.assert_served();
    console.wait_left(&before);
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    let log = console.vnc.stderr();
    assert!(log.lines().count() < 100, "{} lines", log.lines().count());
    console.finish();
}

/// One of them does not read.
#[test]
fn twenty_viewers_see_the_same() {
    let mut console = Console::start();
    let mut viewers: Vec<Viewer> = (0..20).map(|_| console.viewer()).collect();
    for viewer in &mut viewers {
        viewer.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
    }
    let stuck = console.viewer();
    flood(
        &stuck.stream,
        &update_request(false, 0, 0, 640, 480).repeat(100),
        1,
    );
    for color in [[1, 2, 3], [200, 100, 50]] {
        console.link.fill(0, SIZE, color);
        for viewer in &mut viewers {
            viewer.assert_sees(SIZE, color);
        }
    }
    console.finish();
}
