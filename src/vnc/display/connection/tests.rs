// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;

struct Gpu {
    folder: tempfile::TempDir,
    display: Display,
    heads: [Head; 1],
    now: Instant,
}

impl Gpu {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let display = Display::new(folder.path().join("display.sock"));
        Self {
            folder,
            display,
            heads: [Head::new("vm1".to_owned())],
            now: Instant::now(),
        }
    }

    fn listen(&self) -> UnixListener {
        let path = self.folder.path().join("display.sock");
        // What a GPU that has ended left.
        let _ = std::fs::remove_file(&path);
        UnixListener::bind(path).unwrap()
    }

    fn connect(&mut self) -> bool {
        self.display.connect(&mut self.heads, self.now)
    }

    fn serve(&mut self) -> Vec<(Requester, ResizeResult)> {
        let mut answers = Vec::new();
        self.display.serve(&mut self.heads, &mut answers, self.now);
        answers
    }

    /// Connects, with the extension or without.
    fn connected(&mut self, features: Features) -> UnixStream {
        let listener = self.listen();
        assert!(self.connect());
        let (mut gpu, _) = listener.accept().unwrap();
        gpu.write_all(&words(&[1, 0, 0])).unwrap();
        self.serve();
        let mut reply = [0; 20];
        gpu.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..12], words(&[1, 4, 8]));
        assert_eq!(reply[12..], (1_u64 << 32).to_ne_bytes());
        gpu.write_all(&words(&[2, 0, 8])).unwrap();
        gpu.write_all(&features.encode()).unwrap();
        self.serve();
        gpu
    }

    fn state(&self) -> HeadState {
        self.heads[0].state()
    }
}

/// A scanout of a size, and pixels in its upper left corner.
fn shown(size: [u32; 2], part: [u32; 2], pixels: &[u32]) -> Vec<u8> {
    let payload = (20 + part[0] * part[1] * 4).to_ne_bytes();
    let size = words(&[7, 0, 12, 0, size[0], size[1]]);
    let update = [words(&[8, 0]), payload.into(), words(&[0, 0, 0])].concat();
    [size, update, words(&part), words(pixels)].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn connection_is_tried_again_after_longer_and_longer_pauses() {
    let mut gpu = Gpu::new();
    for pause in [1, 2, 4, 8, 10, 10] {
        assert!(!gpu.connect());
        let due = gpu.display.due(gpu.now).unwrap();
        assert_eq!(due - gpu.now, Duration::from_secs(pause));
        assert!(!gpu.connect(), "not before it is due");
        assert_eq!(gpu.display.due(gpu.now), Some(due));
        gpu.now = due;
    }
    assert_eq!(gpu.state(), HeadState::Unreachable);
    let listener = gpu.listen();
    assert!(gpu.connect());
    assert_eq!(gpu.state(), HeadState::Waiting);
    assert_eq!(gpu.display.due(gpu.now), None);

    // A GPU that shows something is tried again at once after its end.
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&shown([64, 48], [1, 1], &[0])).unwrap();
    gpu.serve();
    assert_eq!(gpu.state(), HeadState::On);
    drop(peer);
    gpu.serve();
    let due = gpu.display.due(gpu.now).unwrap();
    assert_eq!(due - gpu.now, Duration::from_millis(100));

    // Whoever looks next waits for the same time, and is not one more attempt.
    gpu.display.disconnect(&mut gpu.heads);
    assert_eq!(gpu.display.due(gpu.now), Some(due));
    assert!(!gpu.connect());
    gpu.now = due;
    assert!(gpu.connect());
    // What ends well has no pause.
    gpu.display.disconnect(&mut gpu.heads);
    assert_eq!(gpu.state(), HeadState::Unreachable);
    assert!(gpu.connect());
}

#[test]
fn broken_message_ends_the_connection() {
    let mut gpu = Gpu::new();
    let mut peer = gpu.connected(Features::default());
    peer.write_all(&words(&[99, 0, 0])).unwrap();
    gpu.serve();
    assert!(gpu.display.socket().is_none());
    assert_eq!(gpu.state(), HeadState::Unreachable);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn resizes_are_answered_in_their_order() {
    let mut gpu = Gpu::new();
    let mut peer = gpu.connected(Features::RESIZE);
    let size = Size::new(1920, 1080);
    for requester in [5, 6, 7, 8] {
        assert_eq!(gpu.display.resize(2, size, requester), None);
        let mut request = [0; 24];
        peer.read_exact(&mut request).unwrap();
        assert_eq!(request[..], words(&[0x1000, 0, 12, 2, 1920, 1080]));
    }
    for status in [0, 1, 2, 3] {
        peer.write_all(&words(&[0x1000, 4, 4, status])).unwrap();
    }
    let answers = [
        (5, ResizeResult::Done),
        (6, ResizeResult::Refused),
        (7, ResizeResult::InvalidSize),
        (8, ResizeResult::NoSuchScanout),
    ];
    assert_eq!(gpu.serve(), answers);
    // One more answer than requests.
    peer.write_all(&words(&[0x1000, 4, 4, 0])).unwrap();
    gpu.serve();
    assert!(gpu.display.socket().is_none());
}

#[test]
fn resize_that_nobody_answers_is_refused_at_the_end() {
    let mut gpu = Gpu::new();
    let peer = gpu.connected(Features::RESIZE);
    let size = Size::new(1920, 1080);
    for requester in 0..MAX_RESIZES as u64 {
        assert_eq!(gpu.display.resize(0, size, requester), None);
    }
    assert_eq!(gpu.display.resize(0, size, 99), Some(ResizeResult::Refused));
    drop(peer);
    let answers = gpu.serve();
    assert_eq!(answers.len(), MAX_RESIZES);
    assert!(
        answers
            .iter()
            .all(|(_, answer)| *answer == ResizeResult::Refused)
    );
}

#[test]
fn resize_is_refused_without_the_extension_or_a_connection() {
    let mut gpu = Gpu::new();
    let size = Size::new(1920, 1080);
    assert_eq!(gpu.display.resize(0, size, 1), Some(ResizeResult::Refused));
    let mut peer = gpu.connected(Features::default());
    assert_eq!(gpu.display.resize(0, size, 1), Some(ResizeResult::Refused));
    peer.set_nonblocking(true).unwrap();
    assert!(peer.read(&mut [0]).is_err(), "nothing was sent");
}

#[test]
fn gpu_that_asks_and_does_not_read_is_left() {
    let mut gpu = Gpu::new();
    let mut peer = gpu.connected(Features::default());
    peer.set_nonblocking(true).unwrap();
    let mut rounds = 0;
    while gpu.display.socket().is_some() {
        let _ = peer.write(&words(&[1, 0, 0]).repeat(1000));
        gpu.serve();
        rounds += 1;
        assert!(rounds < 100_000);
    }
}

/// A connection to a GPU whose head is shown, and the GPU's end of it.
fn showing(gpu: &mut Gpu, listener: &UnixListener) -> UnixStream {
    assert!(gpu.connect());
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&shown([2, 2], [2, 2], &[1, 2, 3, 4]))
        .unwrap();
    gpu.serve();
    assert_eq!(gpu.state(), HeadState::On);
    gpu.heads[0].forget_changes();
    peer
}

fn pixels(gpu: &Gpu) -> Vec<u8> {
    gpu.heads[0].picture().borrow().bytes().to_vec()
}

#[test]
fn picture_is_kept_until_the_next_gpu_shows_one() {
    let mut gpu = Gpu::new();
    let listener = gpu.listen();
    let peer = showing(&mut gpu, &listener);
    let before = pixels(&gpu);
    drop(peer);
    gpu.serve();
    let kept_until = gpu.display.kept_until().unwrap();
    gpu.now = gpu.display.due(gpu.now).unwrap();
    assert!(gpu.now < kept_until);
    assert!(gpu.connect());
    gpu.display.forget_kept(&mut gpu.heads, gpu.now);
    assert!(gpu.heads[0].changes().is_empty());
    assert_eq!(pixels(&gpu), before);

    // The next one has drawn something meanwhile.
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&shown([2, 2], [2, 2], &[1, 2, 3, 5]))
        .unwrap();
    gpu.serve();
    gpu.now = kept_until;
    gpu.display.forget_kept(&mut gpu.heads, gpu.now);
    assert_eq!(gpu.state(), HeadState::On);
    assert_eq!(pixels(&gpu)[..], words(&[1, 2, 3, 5]));
    let changes = gpu.heads[0].changes();
    assert!(!changes.damage.is_empty() && !changes.picture && !changes.name);
}

#[test]
fn picture_is_not_kept_for_long() {
    // With a GPU that says nothing, and without one.
    for comes_back in [true, false] {
        let mut gpu = Gpu::new();
        let listener = gpu.listen();
        drop(showing(&mut gpu, &listener));
        gpu.serve();
        let kept_until = gpu.display.kept_until().unwrap();
        assert_eq!(kept_until - gpu.now, KEPT);
        gpu.now = gpu.display.due(gpu.now).unwrap();
        if !comes_back {
            drop(listener);
        }
        assert_eq!(gpu.connect(), comes_back);
        gpu.now = kept_until - Duration::from_millis(1);
        gpu.display.forget_kept(&mut gpu.heads, gpu.now);
        assert_eq!(gpu.state(), HeadState::On);
        gpu.now = kept_until;
        gpu.display.forget_kept(&mut gpu.heads, gpu.now);
        let state = match comes_back {
            true => HeadState::Waiting,
            false => HeadState::Unreachable,
        };
        assert_eq!(gpu.state(), state);
        assert_eq!(gpu.display.kept_until(), None);
    }
}

/// What a message changed before it was cut reaches the viewers with the next picture, which compares equal there.
#[test]
fn message_that_is_cut_leaves_no_difference() {
    let mut gpu = Gpu::new();
    let listener = gpu.listen();
    let mut peer = showing(&mut gpu, &listener);
    let next = shown([2, 2], [2, 2], &[5, 6, 7, 8]);
    peer.write_all(&next[..next.len() - 4]).unwrap();
    gpu.serve();
    drop(peer);
    gpu.serve();
    assert!(gpu.heads[0].changes().damage.is_empty());
    gpu.now = gpu.display.due(gpu.now).unwrap();
    assert!(gpu.connect());
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&shown([2, 2], [2, 2], &[5, 6, 7, 4]))
        .unwrap();
    gpu.serve();
    assert_eq!(pixels(&gpu)[..], words(&[5, 6, 7, 4]));
    assert!(!gpu.heads[0].changes().damage.is_empty());
}
