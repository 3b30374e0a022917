// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use display_protocol::Features;

use super::*;
use crate::vnc::server::accounts::Accounts;
use crate::vnc::server::peer::ViewerPeer;
use crate::vnc::server::poller::Poller;

const SMALL: Size = Size::new(640, 480);
const LARGE: Size = Size::new(800, 600);

fn wish(viewer: u64, head: usize, size: Size) -> Wish {
    Wish { viewer, head, size }
}

#[test]
fn answers_are_for_the_wish_of_their_viewer() {
    let mut wishes = Wishes::default();
    let asked = [wish(1, 0, SMALL), wish(2, 1, SMALL)];
    wishes.asked.extend(asked);
    assert!(wishes.concern(0) && wishes.concern(1) && !wishes.concern(2));
    assert_eq!(wishes.take_asked(1), Some(asked[0]));
    assert_eq!(wishes.take_asked(1), None);
    assert_eq!(wishes.take_asked(2), Some(asked[1]));
    assert!(!wishes.concern(0));
    assert_eq!(wishes.deadline(), None);
}

#[test]
fn wish_ends_by_its_size_by_the_next_one_or_in_time() {
    let mut wishes = Wishes::default();
    let now = Instant::now();
    assert!(!wishes.tell(wish(1, 0, SMALL), now));
    assert!(wishes.tell(wish(1, 0, LARGE), now));
    assert!(!wishes.tell(wish(2, 0, LARGE), now));
    assert!(!wishes.tell(wish(3, 1, LARGE), now));
    assert!(!wishes.tell(wish(4, 0, SMALL), now));
    assert_eq!(wishes.fulfil(0, LARGE), [1, 2]);
    assert_eq!(wishes.fulfil(0, LARGE), [0; 0]);
    assert!(wishes.concern(0));
    wishes.forget(4);
    assert!(!wishes.concern(0));
    let due = wishes.deadline().unwrap();
    assert_eq!(wishes.expire(now), [0; 0]);
    assert_eq!(wishes.expire(due), [3]);
    assert_eq!(wishes.deadline(), None);
}

/// A GPU that takes resizes, and viewers without a handshake.
struct Setup {
    _folder: tempfile::TempDir,
    gpu: UnixStream,
    heads: [Head; 1],
    display: Display,
    viewers: Viewers,
    wishes: Wishes,
    _peers: Vec<UnixStream>,
}

impl Setup {
    fn new(count: usize) -> Self {
        let now = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("display.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut heads = [Head::new("vm1".to_owned())];
        let mut display = Display::new(path);
        assert!(display.connect(&mut heads, now));
        let (mut gpu, _) = listener.accept().unwrap();
        gpu.write_all(&words(&[2, 0, 8])).unwrap();
        gpu.write_all(&Features::RESIZE.encode()).unwrap();
        display.serve(&mut heads, &mut Vec::new(), now);
        gpu.set_nonblocking(true).unwrap();
        let mut viewers = Viewers::default();
        let poller = Poller::new().unwrap();
        let mut peers = Vec::new();
        for _ in 0..count {
            let (socket, peer) = UnixStream::pair().unwrap();
            let socket = socket.into();
            let viewer = ViewerPeer::of(&socket, &Accounts::read());
            viewers.add(socket, viewer, 0, &poller, now).unwrap();
            peers.push(peer);
        }
        Self {
            _folder: folder,
            gpu,
            heads,
            display,
            viewers,
            wishes: Wishes::default(),
            _peers: peers,
        }
    }

    fn ask(&mut self, viewer: u64, size: Size) {
        let (viewers, display) = (&mut self.viewers, &mut self.display);
        self.wishes.ask(viewer, size, viewers, &self.heads, display);
    }

    /// The widths that the GPU was asked for.
    fn asked(&mut self) -> Vec<u32> {
        let mut bytes = Vec::new();
        let read = self.gpu.read_to_end(&mut bytes);
        assert!(read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
        let words = bytes.chunks_exact(4);
        let words: Vec<_> = words
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        words.chunks_exact(6).map(|message| message[4]).collect()
    }

    fn answer(&mut self) {
        let now = Instant::now();
        self.gpu.write_all(&words(&[0x1000, 4, 4, 0])).unwrap();
        let mut answers = Vec::new();
        self.display.serve(&mut self.heads, &mut answers, now);
        assert_eq!(answers.len(), 1);
        let (viewers, display) = (&mut self.viewers, &mut self.display);
        self.wishes
            .take_answers(answers, viewers, &self.heads, display, now);
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn viewer_that_asks_again_waits_for_its_answer() {
    let mut setup = Setup::new(2);
    for width in 100..200 {
        setup.ask(1, Size::new(width, 100));
    }
    setup.ask(2, SMALL);
    assert_eq!(setup.asked(), [100, 640]);
    setup.answer();
    // Only the newest size.
    assert_eq!(setup.asked(), [199]);
    setup.answer();
    setup.answer();
    assert_eq!(setup.asked(), [0; 0]);
    assert!(setup.wishes.asked.is_empty() && setup.wishes.next.is_empty());
}

#[test]
fn wishes_end_with_the_connection() {
    let mut setup = Setup::new(1);
    setup.ask(1, SMALL);
    setup.ask(1, LARGE);
    setup.display.disconnect(&mut setup.heads);
    setup.wishes.forget_asked();
    assert!(!setup.wishes.concern(0));
    // What its viewer left behind is not asked for either.
    setup.wishes.asked.push_back(wish(1, 0, SMALL));
    setup.wishes.ask_next(wish(1, 0, LARGE));
    setup.wishes.forget(1);
    assert_eq!(setup.wishes.take_next(1), None);
}
