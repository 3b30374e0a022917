// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the GPU's bytes to the pixels that viewers have.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rfb::Encoding;
use rfb::client::Client;
use rfb::server_message::LedState;

use crate::geometry::{Rect, Size};
use crate::vnc::display::{Decoder, Progress};
use crate::vnc::head::{Head, HeadState};
use crate::vnc::test_random::Random;
use crate::vnc::viewer::{Viewer, ViewerError};

const SIZE: Size = Size::new(323, 97);
const LIMIT: Duration = Duration::from_secs(120);

/// A guest's screen, and the messages by which the GPU sends it.
struct Guest {
    pixels: Vec<u8>,
    random: Random,
}

impl Guest {
    /// Draws some pixels, and says within which rectangle.
    fn draw(&mut self) -> Rect {
        let stride = SIZE.width as usize * 4;
        let (x, y) = (
            self.random.below(SIZE.width),
            self.random.below(SIZE.height),
        );
        let rect = Rect::from_edges(
            x,
            y,
            x + 1 + self.random.below(SIZE.width - x),
            y + 1 + self.random.below(SIZE.height - y),
        );
        match self.random.below(4) {
            // Lines move up.
            0 => {
                self.pixels.copy_within(16 * stride.., 0);
                Rect::from(SIZE)
            }
            // All of the rectangle.
            1 => {
                let colour = self.random.below(1 << 24);
                for y in rect.y..rect.bottom() {
                    for x in rect.x..rect.right() {
                        self.set(x, y, colour ^ (x * y) >> 7);
                    }
                }
                rect
            }
            // A few pixels somewhere in what is sent.
            _ => {
                for _ in 0..self.random.below(60) {
                    let x = rect.x + self.random.below(rect.width);
                    let y = rect.y + self.random.below(rect.height);
                    let colour = self.random.below(1 << 24);
                    self.set(x, y, colour);
                }
                rect
            }
        }
    }

    fn set(&mut self, x: u32, y: u32, colour: u32) {
        let at = (y * SIZE.width + x) as usize * 4;
        self.pixels[at..at + 4].copy_from_slice(&(colour & 0x00ff_ffff).to_le_bytes());
    }

    fn update(&self, rect: Rect) -> Vec<u8> {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let mut bytes = message(8, &[0, x, y, width, height], rect.area() as usize * 4);
        let rows = self.pixels.chunks_exact(SIZE.width as usize * 4);
        for row in rows.skip(y as usize).take(height as usize) {
            bytes.extend_from_slice(&row[x as usize * 4..rect.right() as usize * 4]);
        }
        bytes
    }
}

fn message(request: u32, fields: &[u32], pixels: usize) -> Vec<u8> {
    let size = 4 * fields.len() + pixels;
    let words = [request, 0, size as u32];
    let words = words.iter().chain(fields);
    words.flat_map(|word| word.to_ne_bytes()).collect()
}

/// A viewer's end, in a thread of its own.
struct Watcher {
    viewer: Viewer,
    thread: JoinHandle<()>,
    /// A word for each update that a slow one reads; after it, it reads all.
    turns: Option<Sender<()>>,
    is_gone: bool,
}

/// What the guest drew last, once it draws no more.
type Last = Arc<Mutex<Option<Vec<u8>>>>;

impl Watcher {
    fn new(encodings: &'static [Encoding], is_slow: bool, last: &Last) -> Self {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (turns, turn) = channel();
        let last = Arc::clone(last);
        let thread = std::thread::spawn(move || watch(theirs, encodings, &turn, &last));
        Self {
            viewer: Viewer::new(ours.into(), Instant::now()),
            thread,
            turns: is_slow.then_some(turns),
            is_gone: false,
        }
    }

    fn serve(&mut self, head: &Head) {
        self.is_gone = self.is_gone || self.try_to_serve(head).is_err();
    }

    fn try_to_serve(&mut self, head: &Head) -> Result<(), ViewerError> {
        let mut actions = Vec::new();
        if self.viewer.wants_input() {
            self.viewer.receive(head, &mut actions)?;
        }
        if self.viewer.is_waiting() {
            let leds = LedState::default();
            self.viewer.start(head, leds, &mut actions)?;
        }
        self.viewer.unblock();
        self.viewer.send(head, || true).map(drop)
    }
}

/// Looks until it sees what the guest drew last.
fn watch(socket: UnixStream, encodings: &[Encoding], turn: &Receiver<()>, last: &Last) {
    let mut client = Client::connect(socket, LIMIT).unwrap();
    client.set_encodings(encodings).unwrap();
    loop {
        // Without a sender it goes on at once.
        let _ = turn.recv();
        client.request(true, client.frame().rect()).unwrap();
        client.wait_for_update().unwrap();
        let last = last.lock().unwrap();
        if last.as_deref() == Some(client.frame().bytes()) {
            break;
        }
    }
}

#[test]
fn each_viewer_ends_with_the_pixels_that_the_guest_drew_last() {
    let mut guest = Guest {
        pixels: vec![0; SIZE.area() as usize * 4],
        random: Random(11),
    };
    let (mut gpu, display) = UnixStream::pair().unwrap();
    gpu.set_nonblocking(true).unwrap();
    display.set_nonblocking(true).unwrap();
    let mut decoder = Decoder::new();
    let mut heads = [Head::new("vm1".to_owned())];
    let mut serve = |bytes: &[u8], watchers: &mut Vec<Watcher>| {
        let mut bytes = bytes;
        loop {
            let sent = gpu.write(bytes).unwrap_or(0);
            bytes = &bytes[sent..];
            // Small turns: viewers have theirs in the middle of messages.
            let progress = decoder.read(&display, &mut heads, &mut { 16 << 10 });
            let [head] = &mut heads;
            for watcher in watchers.iter_mut() {
                watcher.viewer.note_changes(head);
            }
            head.forget_changes();
            watchers.iter_mut().for_each(|watcher| watcher.serve(head));
            if bytes.is_empty() && matches!(progress.unwrap(), Progress::Drained) {
                return head.state();
            }
        }
    };
    let mut watchers = Vec::new();
    serve(&message(7, &[0, SIZE.width, SIZE.height], 0), &mut watchers);
    serve(&guest.update(SIZE.into()), &mut watchers);
    let last = Last::default();
    watchers.extend(
        [
            (&[Encoding::RAW], false),
            (&[Encoding::RAW], true),
            (&[Encoding::ZRLE], false),
            (&[Encoding::ZRLE], true),
            (&[Encoding::TIGHT], false),
            (&[Encoding::TIGHT], true),
        ]
        .map(|(encodings, is_slow)| Watcher::new(encodings, is_slow, &last)),
    );
    for round in 0..200 {
        let rect = guest.draw();
        assert_eq!(serve(&guest.update(rect), &mut watchers), HeadState::On);
        if round % 13 == 0 {
            let turns = watchers.iter().filter_map(|watcher| watcher.turns.as_ref());
            turns.for_each(|turns| turns.send(()).unwrap());
        }
    }
    // The viewers see the last picture, and that nothing comes after it: one pixel that they wait for.
    guest.set(0, 0, 0x0012_3456);
    *last.lock().unwrap() = Some(guest.pixels.clone());
    serve(&guest.update(Rect::sized(1, 1)), &mut watchers);
    watchers.iter_mut().for_each(|watcher| watcher.turns = None);
    let deadline = Instant::now() + LIMIT;
    while watchers.iter().any(|watcher| !watcher.thread.is_finished()) {
        assert!(Instant::now() < deadline, "a viewer has other pixels");
        serve(&[], &mut watchers);
        std::thread::yield_now();
    }
    for watcher in watchers {
        watcher.thread.join().unwrap();
    }
}
