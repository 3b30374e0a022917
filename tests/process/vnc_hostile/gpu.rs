// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hostile GPU: what listens at the display socket. Its connection is closed, viewers stay.

use std::io::IoSlice;
use std::os::fd::AsFd as _;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

impl Console {
    /// Asserts that the console leaves the GPU, keeps its viewers, and takes the GPU's next offer.
    #[track_caller]
    fn assert_gpu_dropped(&mut self) {
        assert!(
            is_closed(&self.link.stream),
            "the GPU is still served: {}",
            self.vnc.stderr()
        );
        self.link = self.gpu.accept();
        self.link.begin();
        self.link.scanout(0, SIZE);
        self.assert_served();
    }
}

#[test]
fn updates_of_a_wrong_size_end_the_gpu() {
    let mut console = Console::start();
    let words = [0, 0, 0, 16, 16];
    for size in [
        0,
        19,
        20,
        20 + 16 * 16 * 4 - 1,
        20 + 16 * 16 * 4 + 1,
        1 << 31,
        u32::MAX,
    ] {
        console
            .link
            .send_as(request::UPDATE, 0, size, &words, &[0xff; 16 * 16 * 4]);
        console.assert_gpu_dropped();
    }
    console.finish();
}

#[test]
fn updates_outside_of_the_scanout_end_the_gpu() {
    const MAX: u32 = u32::MAX;
    let mut console = Console::start();
    for [x, y, width, height] in [
        [640, 0, 1, 1],
        [0, 480, 1, 1],
        [639, 479, 2, 2],
        [MAX, MAX, 1, 1],
        [MAX - 1, 0, 4, 1],
        [0, MAX, 1, 2],
    ] {
        let pixels = vec![0xff; (width * height * 4) as usize];
        console
            .link
            .send(request::UPDATE, 0, &[0, x, y, width, height], &pixels);
        console.assert_gpu_dropped();
    }
    // 2^32 and 2^64 pixels, as if they had no bytes.
    for side in [1 << 16, MAX] {
        console
            .link
            .send(request::UPDATE, 0, &[0, 0, 0, side, side], &[]);
        console.assert_gpu_dropped();
    }
    console.finish();
}

#[test]
fn scanouts_that_do_not_exist_end_the_gpu() {
    let mut console = Console::start();
    for scanout in [16, 255, 1 << 31, u32::MAX] {
        console.link.scanout(scanout, SIZE);
        console.assert_gpu_dropped();
        console
            .link
            .send(request::CURSOR_POS, 0, &[scanout, 1, 1], &[]);
        console.assert_gpu_dropped();
    }
    console.finish();
}

/// A head too large to be shown costs no memory, and says so to its viewers.
#[test]
fn huge_scanouts_cost_nothing() {
    let mut console = Console::start();
    let before = peak_resident(&console.vnc);
    for size in [
        (u32::MAX, u32::MAX),
        (1 << 16, 1 << 16),
        (1 << 31, 1),
        (1, u32::MAX),
        (65535, 65535),
    ] {
        console.link.scanout(0, size);
        console.link.scanout(0, SIZE);
        console.assert_served();
    }
    let grown = peak_resident(&console.vnc).saturating_sub(before);
    assert!(grown < VIEWER_KIB, "{grown} KiB more");
    console.finish();
}

#[test]
fn sixteen_heads_that_change_sizes_all_the_time_are_bounded() {
    let mut console = Console::start();
    let round = |console: &mut Console, n: u32| {
        for scanout in 0..16 {
            let size = (1 + (n * 37 + scanout) % 800, 1 + (n * 53) % 600);
            console.link.scanout(scanout, size);
            if n % 10 == 0 {
                console.link.fill(scanout, size, [n as u8; 3]);
            }
        }
    };
    for n in 0..100 {
        round(&mut console, n);
    }
    console.link.scanout(0, SIZE);
    console.assert_served();
    let before = Holdings::of(&console.vnc);
    for n in 0..2000 {
        round(&mut console, n);
    }
    console.link.scanout(0, SIZE);
    console.assert_served();
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn unknown_requests_and_flags_end_the_gpu() {
    let mut console = Console::start();
    for (request, flags) in [
        (0, 0),
        (3, 0),
        (11, 0),
        (99, 0),
        (u32::MAX, 0),
        (8, 4),
        (request::RESIZE, 0),
    ] {
        console.link.send(request, flags, &[0; 5], &[]);
        console.assert_gpu_dropped();
    }
    console.finish();
}

#[test]
fn answers_without_a_question_end_the_gpu() {
    let mut console = Console::start();
    for status in [0, 1, u32::MAX] {
        console.link.send(request::RESIZE, 4, &[status], &[]);
        console.assert_gpu_dropped();
    }
    console.finish();
}

/// Descriptors that come with messages are not kept.
#[test]
fn descriptors_of_a_gpu_are_not_kept() {
    let mut console = Console::start();
    let before = console.vnc.open_descriptors().unwrap();
    for n in 0..10_u32 {
        let file = std::fs::File::open("/dev/null").unwrap();
        let request = if n % 2 == 0 {
            request::CURSOR_POS
        } else {
            request::DMABUF_SCANOUT
        };
        let message = [request, 0, 12, 0, 1, 1].map(u32::to_ne_bytes).concat();
        let fds = [file.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(
            &console.link.stream,
            &[IoSlice::new(&message)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        if request == request::DMABUF_SCANOUT {
            console.assert_gpu_dropped();
        }
    }
    console.assert_served();
    assert_eq!(console.vnc.open_descriptors().unwrap(), before);
    console.finish();
}

/// A cursor far outside of its picture and of the screen.
#[test]
fn cursors_of_impossible_places_harm_nobody() {
    let (mut console, mut viewer) = Console::with_viewer(&[encoding::RAW, encoding::CURSOR]);
    for place in [0, 63, 64, 640, 1 << 16, 1 << 31, u32::MAX] {
        let words = [0, place, place, place, place];
        console
            .link
            .send(request::CURSOR_UPDATE, 0, &words, &[0x80; 64 * 64 * 4]);
        console
            .link
            .send(request::CURSOR_POS, 0, &[0, place, place], &[]);
        viewer.send(&update_request(true, 0, 0, 640, 480));
        // Away from the witness's picture, which is to have one color.
        console
            .link
            .send(request::CURSOR_POS_HIDE, 0, &[0, place, place], &[]);
        console.assert_served();
    }
    console
        .link
        .send(request::CURSOR_UPDATE, 0, &[0; 5], &[0x80; 64 * 64 * 4 - 1]);
    console.assert_gpu_dropped();
    console.finish();
}

/// A message that never ends: viewers are served what came before.
#[test]
fn gpu_that_stops_within_a_message_holds_up_no_viewer() {
    let mut console = Console::start();
    console.link.send_as(
        request::UPDATE,
        0,
        20 + 640 * 480 * 4,
        &[0, 0, 0, 640, 480],
        &[0x77; 5000],
    );
    for _ in 0..20 {
        console.witness.send(&update_request(false, 0, 0, 640, 480));
        console.witness.update();
        let mut another = console.viewer();
        another.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
        another.send(&update_request(false, 0, 0, 640, 480));
        another.update();
    }
    drop(std::mem::replace(
        &mut console.link.stream,
        UnixStream::pair().unwrap().0,
    ));
    console.link = console.gpu.accept();
    console.link.begin();
    console.link.scanout(0, SIZE);
    console.finish();
}

/// A GPU that takes the connection and closes it, again and again.
#[test]
fn gpu_that_always_closes_is_tried_ever_more_rarely() {
    let mut console = Console::start();
    drop(std::mem::replace(
        &mut console.link.stream,
        UnixStream::pair().unwrap().0,
    ));
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        drop(console.gpu.accept());
    }
    // A second, then two, or more.
    assert!(
        begin.elapsed() > Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    // Viewers see a text meanwhile.
    console.witness.send(&update_request(false, 0, 0, 640, 480));
    console.witness.update();
    console.link = console.gpu.accept();
    console.link.begin();
    console.link.scanout(0, SIZE);
    console.finish();
}
