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
    peer.write_all(&words(&[7, 0, 12, 0, 64, 48])).unwrap();
    peer.write_all(&words(&[8, 0, 24, 0, 0, 0, 1, 1, 0]))
        .unwrap();
    gpu.serve();
    assert_eq!(gpu.state(), HeadState::On);
    drop(peer);
    gpu.serve();
    assert_eq!(gpu.state(), HeadState::Unreachable);
    let due = gpu.display.due(gpu.now).unwrap();
    assert_eq!(due - gpu.now, Duration::from_secs(1));

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
