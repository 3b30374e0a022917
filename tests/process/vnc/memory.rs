// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the console keeps in memory: for many viewers, and for as many large pictures as it takes.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use conventions::ScreenState;
use display_protocol::Features;
use frontend::{Deadline, SocketForm};
use rfb::client::Client;
use rfb::{ClientMessage, Encoding};

use super::{Console, FakeGpu, Viewer, assert_shows_text};
use crate::common::QUICK;
use crate::common::growth::{Holdings, peak_resident};

const VIEWERS: usize = 20;
const HD: (u16, u16) = (1920, 1080);
/// MemoryMax= of vhost-vnc@.service.
const MEMORY_MAX_KIB: u64 = 1 << 20;

/// Pixels that no encoding makes small, so that little of them fills a viewer's socket.
fn noise((width, height): (u16, u16), mut state: u32) -> Vec<u8> {
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state ^ state >> 15).to_le_bytes()
    };
    let area = usize::from(width) * usize::from(height);
    std::iter::repeat_with(next).take(area).flatten().collect()
}

/// Has a viewer get every picture from now on, in this encoding.
fn subscribe(viewer: &mut Viewer, encoding: Encoding) {
    let encodings = [encoding, Encoding::LAST_RECT, Encoding::CONTINUOUS_UPDATES];
    viewer.set_encodings(&encodings).unwrap();
    let rect = viewer.frame().rect();
    viewer.request(false, rect).unwrap();
    let every = ClientMessage::EnableContinuousUpdates { enable: true, rect };
    viewer.send(&every).unwrap();
}

/// Waits until the program has nothing to do, so that each viewer has got what it takes.
fn settle(console: &Console) {
    let mut before = console.program.cpu_time().unwrap();
    let idle = Deadline::after(Duration::from_secs(120)).until("an idle console", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = console.program.cpu_time()?;
        let used = now.saturating_sub(std::mem::replace(&mut before, now));
        Ok((used < Duration::from_millis(20)).then_some(()))
    });
    idle.unwrap();
}

/// Of viewers that asked for everything and read nothing. docs/performance.md has the numbers.
#[test]
fn viewer_takes_less_than_two_megabytes() {
    for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
        let (mut console, mut gpu, witness) = Console::showing(HD, &noise(HD, 1), &[Encoding::RAW]);
        drop(witness);
        settle(&console);
        let before = Holdings::of(&console.program).resident;
        let mut viewers: Vec<Viewer> = (0..VIEWERS).map(|_| console.viewer()).collect();
        for viewer in &mut viewers {
            subscribe(viewer, encoding);
        }
        settle(&console);
        gpu.update(0, 0, HD.0, HD.1, &noise(HD, 2));
        settle(&console);
        let peak = peak_resident(&console.program);
        let each = peak.saturating_sub(before) / VIEWERS as u64;
        println!("{encoding:?}: {before} KiB, {peak} KiB with {VIEWERS} viewers, {each} KiB each");
        assert!(each < 2 << 10, "{encoding:?}: {each} KiB each");
    }
}

/// 16 screens of 4K, each seen by up to two viewers that read nothing: all of it is below the unit's limit, with room to
/// spare.
#[test]
fn as_many_large_screens_as_are_shown_fit_into_the_units_memory() {
    const HEADS: u32 = 16;
    const SIZE: (u16, u16) = (3840, 2160);
    let folder = tempfile::tempdir().unwrap();
    let path = |head: u32| -> PathBuf { folder.path().join(head.to_string()) };
    let options = (1..HEADS).map(|head| format!("--socket-path={}", path(head).display()));
    let options: Vec<String> = options.collect();
    let mut console = Console::with(|command| command.socket(SocketForm::Path).args(&options));
    let mut gpu = FakeGpu::listen(&console.display());
    let joining = console.join();
    gpu.accept(Features::default());
    let pixels = noise(SIZE, 1);
    for head in 0..HEADS {
        gpu.scanout(head, SIZE.0, SIZE.1);
        gpu.update_head(head, [0, 0, SIZE.0, SIZE.1], &pixels);
    }
    let mut last = joining.join().unwrap();
    let mut viewers = Vec::new();
    for head in 1..HEADS {
        let stream = UnixStream::connect(path(head)).unwrap();
        viewers.push(Client::connect(stream, QUICK).unwrap());
    }
    for head in 0..HEADS {
        let socket = match head {
            0 => console.program.socket_path().to_owned(),
            head => path(head),
        };
        viewers.push(Client::connect(UnixStream::connect(socket).unwrap(), QUICK).unwrap());
    }
    let encodings = [Encoding::ZRLE, Encoding::TIGHT, Encoding::RAW];
    for (viewer, encoding) in viewers.iter_mut().zip(encodings.into_iter().cycle()) {
        subscribe(viewer, encoding);
    }
    settle(&console);
    // All of them anew, while the viewers have the former ones half sent.
    for head in 0..HEADS {
        gpu.scanout(head, SIZE.1, SIZE.0);
        gpu.update_head(head, [0, 0, SIZE.1, SIZE.0], &pixels);
    }
    settle(&console);
    let peak = peak_resident(&console.program);
    println!("{peak} KiB of {MEMORY_MAX_KIB}");
    assert!(
        peak > 16 * (32 << 10) * 9 / 10,
        "{peak} KiB: they are not all there"
    );
    assert!(peak < MEMORY_MAX_KIB * 3 / 4, "{peak} KiB");

    // What would need more is not shown, and its memory is not taken.
    drop(viewers);
    gpu.scanout(0, 7680, 4320);
    gpu.update_head(0, [0, 0, 3840, 2160], &pixels);
    last.set_encodings(&[
        Encoding::ZRLE,
        Encoding::DESKTOP_SIZE,
        Encoding::DESKTOP_NAME,
    ])
    .unwrap();
    assert_shows_text(&mut last, ScreenState::TooLarge);
    let after = peak_resident(&console.program);
    assert!(after < peak + (16 << 10), "{after} KiB after {peak}");
}
