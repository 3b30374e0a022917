// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VMM's display over the deaths of the device's processes.

use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::backend::continuity::{DIED, Death, Ledger, Owner, Slot, crash};
use crate::backend::testing::kept_state::KeptState as Processes;
use crate::gpu::display::stream::send_limit;
use crate::gpu::kept_state::KeptState;

const SIZE: Size = Size::new(6, 4);
const CURSOR_LEN: usize = 64 * 64 * 4;

/// The VMM, and what its display shows.
struct Vmm {
    socket: UnixStream,
    ours: UnixStream,
    id: u64,
    processes: Processes,
    received: Vec<u8>,
    requests: Vec<u32>,
    pixels: Vec<u32>,
    size: [u32; 2],
    cursor: Option<Vec<u8>>,
    answers: bool,
}

/// A process of the device.
struct Process {
    display: Display,
    ledger: Ledger,
    scanouts: Scanouts,
    now: Instant,
}

fn image(colour: u32) -> SharedImage {
    let mut image = Image::new(SIZE, &Budget::new(1 << 20)).unwrap();
    for y in 0..SIZE.height {
        let row = (0..SIZE.width).flat_map(|x| (colour << 16 | y << 8 | x).to_le_bytes());
        image.merge_row(0, y, &row.collect::<Vec<_>>());
    }
    SharedImage::new(image)
}

fn pixels(colour: u32) -> Vec<u32> {
    let all = (0..SIZE.height).flat_map(|y| (0..SIZE.width).map(move |x| (y, x)));
    all.map(|(y, x)| colour << 16 | y << 8 | x).collect()
}

fn cursor(colour: u8) -> Shape {
    Shape {
        hot_x: 1,
        hot_y: 2,
        pixels: Box::new([colour; CURSOR_LEN]),
    }
}

/// Scanouts that show one picture and a cursor, both of this colour.
fn shown(colour: u32) -> Scanouts {
    let image = image(colour);
    let mut scanouts = Scanouts::default();
    let rect = Rect::from(SIZE);
    scanouts.show(0, ScanoutSource::of_pixels(&image, rect));
    scanouts.flush(&image, &rect);
    let position = Position {
        visible: true,
        ..Position::default()
    };
    scanouts.set_cursor_shape(0, position, cursor(colour as u8));
    scanouts
}

impl Vmm {
    fn new() -> Self {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            ours,
            id: 7,
            processes: Processes::new().unwrap(),
            received: Vec::new(),
            requests: Vec::new(),
            pixels: Vec::new(),
            size: [0, 0],
            cursor: None,
            answers: true,
        }
    }

    /// The next process, which gets the socket.
    fn start(&mut self, scanouts: Scanouts) -> Process {
        let continuity = self.processes.next_process().unwrap();
        let ledger = continuity.ledger(Owner::Device);
        let slot = |slot| continuity.slot(slot).unwrap();
        let kept = KeptStream::new(
            KeptState::new(ledger.clone(), None),
            slot(Slot::DisplayOut),
            slot(Slot::DisplayIn),
        );
        let mut process = Process {
            display: Display::resume(DisplayRole::default(), kept).unwrap(),
            ledger,
            scanouts,
            now: Instant::now(),
        };
        let socket = self.ours.try_clone().unwrap();
        let socket = DisplaySocket::new(socket, FdId::from_bits(self.id));
        let scanouts = &mut process.scanouts;
        match process.display.attach_vmm(socket, scanouts, process.now) {
            true => scanouts.resume_vmm_display(),
            false => scanouts.attach_display(DisplayId::VMM),
        }
        process
    }

    /// Reads what came, and answers it.
    fn serve(&mut self) {
        let _ = (&self.socket).read_to_end(&mut self.received);
        while let Some(header) = self.received.first_chunk::<12>() {
            let header = display_protocol::Header::decode(header);
            assert_eq!(header.flags, 0);
            let len = 12 + header.size as usize;
            if self.received.len() < len {
                return;
            }
            let message: Vec<u8> = self.received.drain(..len).collect();
            self.take(header.request, &message[12..]);
        }
    }

    fn take(&mut self, request: u32, payload: &[u8]) {
        let fields = words(&payload[..payload.len().min(20)]);
        match request {
            GET_PROTOCOL_FEATURES => self.reply(request, &1_u64.to_ne_bytes()),
            GET_DISPLAY_INFO if self.answers => {
                let response = Response::DisplayInfo(Box::new(two_displays()));
                self.reply(request, &response.encode(&Header::default()));
            }
            GET_EDID if self.answers => self.reply(request, &edid_reply(&[9; 128])),
            SCANOUT => {
                self.size = [fields[1], fields[2]];
                self.pixels = vec![0; (fields[1] * fields[2]) as usize];
            }
            UPDATE => {
                let [_, x, y, width, height] = fields[..] else {
                    panic!("{fields:?}");
                };
                let pixels = words(&payload[20..]);
                for (row, y) in pixels.chunks(width as usize).zip(y..y + height) {
                    let start = (y * self.size[0] + x) as usize;
                    self.pixels[start..start + width as usize].copy_from_slice(row);
                }
                return;
            }
            CURSOR_UPDATE => {
                self.cursor = Some(payload[20..].to_vec());
                return;
            }
            _ => {}
        }
        self.requests.push(request);
    }

    fn reply(&self, request: u32, payload: &[u8]) {
        let reply = FrontEnd::raw(request, REPLY, payload);
        (&self.socket).write_all(&reply).unwrap();
    }

    /// Has `process` and the VMM do all that they can.
    fn settle(&mut self, process: &mut Process) {
        for _ in 0..10 {
            process.send();
            self.serve();
            process.display.receive(process.now).unwrap();
        }
    }

    fn assert_shows(&self, colour: u32, context: &str) {
        assert!(self.received.is_empty(), "{context}: a message has no end");
        assert_eq!(self.pixels, pixels(colour), "{context}");
        let cursor = cursor(colour as u8).pixels.to_vec();
        assert!(self.cursor.as_ref() == Some(&cursor), "{context}");
    }
}

impl Process {
    fn send(&mut self) {
        while let Some(readback) = self.scanouts.next_readback() {
            self.scanouts.readback_done(&readback, true);
        }
        let updates = self.scanouts.pending_updates(DisplayId::VMM);
        self.display.send(updates, self.now).unwrap();
    }

    /// Does something that the process may die of. Whether it lives.
    fn survives(&mut self, doing: impl FnOnce(&mut Self)) -> bool {
        match catch_unwind(AssertUnwindSafe(|| doing(self))) {
            Ok(()) => true,
            Err(payload) => {
                let is_death = payload.downcast_ref() == Some(&DIED) || payload.is::<crash::Died>();
                assert!(is_death, "it panicked");
                false
            }
        }
    }
}

/// Requests of the negotiation and a scanout, in an undisturbed run.
const UNDISTURBED: [u32; 4] = [
    GET_PROTOCOL_FEATURES,
    SET_PROTOCOL_FEATURES,
    SCANOUT,
    SCANOUT,
];

#[test]
fn stream_is_whole_wherever_it_is_cut() {
    // All that is sent first: two requests, the cursor, the scanout and its pixels.
    let pixels = SIZE.width as usize * SIZE.height as usize * 4;
    let cursor = 12 + 20 + CURSOR_LEN;
    let total = 12 + 20 + cursor + 24 + 32 + pixels;
    let within_cursor = 12 + 20 + 100..12 + 20 + cursor - 100;
    for cut in (0..total + 1).filter(|cut| !within_cursor.contains(cut) || cut % 509 == 0) {
        // The second one dies, too, soon after or right behind the message.
        for second in [None, Some(1), Some(pixels + 8)] {
            let context = format!("cut at {cut}, then at {second:?}");
            let mut vmm = Vmm::new();
            let mut process = vmm.start(shown(1));
            send_limit::set(cut);
            vmm.settle(&mut process);
            if let Some(second) = second {
                process = vmm.start(shown(2));
                send_limit::set(second);
                vmm.settle(&mut process);
            }
            send_limit::set(usize::MAX);
            process = vmm.start(shown(3));
            vmm.settle(&mut process);
            vmm.assert_shows(3, &context);
            let negotiation = &vmm.requests[..2];
            assert_eq!(negotiation, &UNDISTURBED[..2], "{context}");
            let again = vmm.requests[2..].iter();
            let scanouts = again.filter(|request| **request == SCANOUT).count();
            assert!((1..=3).contains(&scanouts), "{context}: {:?}", vmm.requests);
            assert!(!process.display.is_query_pending());
            assert_eq!(process.display.deadline(), None, "{context}");
        }
    }
}

#[test]
fn stream_is_whole_whichever_record_is_the_last() {
    for commits in 0..6 {
        for is_committed in [false, true] {
            let context = format!("{commits} commits, {is_committed}");
            let mut vmm = Vmm::new();
            let mut process = vmm.start(shown(1));
            process.ledger.die(Death {
                commits,
                is_committed,
            });
            let lives = process.survives(|process| vmm.settle(process));
            assert!(!lives, "{context}");
            drop(process);
            let mut process = vmm.start(shown(2));
            vmm.settle(&mut process);
            vmm.assert_shows(2, &context);
            let features = vmm.requests.iter();
            let features = features.filter(|request| **request == SET_PROTOCOL_FEATURES);
            assert_eq!(features.count(), 1, "{context}: {:?}", vmm.requests);
        }
    }
}

/// A short message of more rows than one system call takes pieces.
#[test]
fn tall_picture_is_whole_wherever_the_process_dies() {
    let size = Size::new(8, 1100);
    let image = Image::new(size, &Budget::new(1 << 20)).unwrap();
    let image = SharedImage::new(image);
    let scanouts = |image: &SharedImage| {
        let mut scanouts = Scanouts::default();
        scanouts.show(0, ScanoutSource::of_pixels(image, Rect::from(size)));
        scanouts.flush(image, &Rect::from(size));
        scanouts
    };
    for height in [1000, 1023, 1024, 1100] {
        for points in 0.. {
            let context = format!("{height} rows, {points} points");
            let mut vmm = Vmm::new();
            let mut process = vmm.start(scanouts(&image));
            vmm.settle(&mut process);
            let changed = Rect::sized(4, height);
            let mut damage = Region::default();
            damage.add(changed);
            process.scanouts.add_damage(&image, &damage);
            process.scanouts.flush(&image, &changed);
            crash::dies_after(Some(points));
            process.survives(Process::send);
            let is_over = crash::dies_after(None).is_some();
            drop(process);
            let mut process = vmm.start(scanouts(&image));
            vmm.settle(&mut process);
            assert!(vmm.received.is_empty(), "{context}: a message has no end");
            assert_eq!(vmm.size, [size.width, size.height], "{context}");
            if is_over {
                assert!(points > 0, "{context}: nothing was sent");
                break;
            }
        }
    }
}

/// What is gone is black: a picture of another size, whose display is told the size after the cut message.
#[test]
fn rest_of_a_picture_that_is_gone_is_black() {
    let mut vmm = Vmm::new();
    let mut process = vmm.start(shown(1));
    send_limit::set(12 + 20 + 12 + 20 + CURSOR_LEN + 24 + 32 + 4 * 5);
    vmm.settle(&mut process);
    send_limit::set(usize::MAX);
    let mut process = vmm.start(Scanouts::default());
    vmm.settle(&mut process);
    let mut expected = pixels(1);
    expected[5..].fill(0);
    assert_eq!(vmm.pixels, expected);
    assert!(vmm.received.is_empty());
}

fn ask(process: &mut Process, query: DisplayQuery) {
    assert!(process.display.ask(query, process.now));
    process.ledger.commit();
}

/// The reply comes in two parts, and the process dies anywhere between or in them.
#[test]
fn reply_is_taken_once_wherever_the_process_dies() {
    let reply = FrontEnd::raw(GET_EDID, REPLY, &edid_reply(&[9; 128]));
    let deaths =
        (0..3).flat_map(|commits| [false, true].map(|is_committed| (commits, is_committed)));
    let deaths: Vec<_> = deaths.map(Some).chain([None]).collect();
    for part in [0, 1, 11, 12, 13, 100, reply.len() - 1, reply.len()] {
        for death in &deaths {
            let context = format!("{part} bytes, {death:?}");
            let mut vmm = Vmm::new();
            vmm.answers = false;
            let mut process = vmm.start(shown(1));
            vmm.settle(&mut process);
            ask(&mut process, DisplayQuery::Edid(0));
            vmm.settle(&mut process);
            (&vmm.socket).write_all(&reply[..part]).unwrap();
            if let Some((commits, is_committed)) = *death {
                process.ledger.die(Death {
                    commits,
                    is_committed,
                });
            }
            let now = process.now;
            process.survives(|process| process.display.receive(now).unwrap());
            // It dies before the driver has the reply.
            drop(process);
            (&vmm.socket).write_all(&reply[part..]).unwrap();
            let mut process = vmm.start(shown(1));
            process.display.receive(now).unwrap();
            let asked = |vmm: &Vmm| vmm.requests.iter().filter(|r| **r == GET_EDID).count();
            match process.display.take_reply() {
                Some(answer) => {
                    assert_eq!(answer, DisplayReply::Edid(vec![9; 128]), "{context}");
                    assert_eq!(asked(&vmm), 1, "{context}");
                }
                None => {
                    // The first one had taken it: the driver's request is executed, and asks, again.
                    assert_eq!(part, reply.len(), "{context}");
                    assert!(!process.display.is_query_pending(), "{context}");
                    ask(&mut process, DisplayQuery::Edid(0));
                    vmm.settle(&mut process);
                    assert_eq!(asked(&vmm), 2, "{context}");
                    assert_eq!(process.display.take_reply(), None, "{context}: an old one");
                    (&vmm.socket).write_all(&reply).unwrap();
                    process.display.receive(now).unwrap();
                    assert!(process.display.take_reply().is_some(), "{context}");
                }
            }
            assert_eq!(process.display.deadline(), None, "{context}");
            // It is no reply to the next query, in no process.
            ask(&mut process, DisplayQuery::Edid(0));
            vmm.settle(&mut process);
            drop(process);
            let mut process = vmm.start(shown(1));
            process.display.receive(now).unwrap();
            assert!(process.display.is_query_pending(), "{context}: an old one");
        }
    }
}

#[test]
fn query_is_sent_and_answered_wherever_the_process_dies() {
    for commits in 0..4 {
        for is_committed in [false, true] {
            let context = format!("{commits} commits, {is_committed}");
            let mut vmm = Vmm::new();
            let mut process = vmm.start(shown(1));
            vmm.settle(&mut process);
            process.ledger.die(Death {
                commits,
                is_committed,
            });
            // It asks for the modes first, to know whether there is a second display.
            process.survives(|process| {
                ask(process, DisplayQuery::Edid(1));
                vmm.settle(process);
            });
            drop(process);
            let mut process = vmm.start(shown(1));
            if !process.display.is_query_pending() {
                ask(&mut process, DisplayQuery::Edid(1));
            }
            vmm.settle(&mut process);
            let answer = Some(DisplayReply::Edid(vec![9; 128]));
            assert_eq!(process.display.take_reply(), answer, "{context}");
            assert_eq!(process.display.deadline(), None, "{context}");
            let infos = vmm.requests.iter().filter(|r| **r == GET_DISPLAY_INFO);
            assert_eq!(infos.count(), 1, "{context}: {:?}", vmm.requests);
        }
    }
}

#[test]
fn query_that_was_given_up_stays_so() {
    let mut vmm = Vmm::new();
    vmm.answers = false;
    let mut process = vmm.start(shown(1));
    vmm.settle(&mut process);
    ask(&mut process, DisplayQuery::DisplayInfo);
    vmm.settle(&mut process);
    process.display.cancel_query();
    process.ledger.commit();
    let mut process = vmm.start(shown(1));
    assert!(!process.display.is_query_pending());
    // Its reply is still awaited, for as long as any.
    let late = process.now + REPLY_LIMIT;
    assert_eq!(process.display.deadline(), Some(late));
    assert!(process.display.expire(late).query);
    process.ledger.commit();
    // A display that leaves replies out is not asked again soon, by nobody.
    let mut process = vmm.start(shown(1));
    assert!(!process.display.ask(DisplayQuery::DisplayInfo, process.now));
    let later = process.now + RETRY_AFTER;
    assert!(process.display.ask(DisplayQuery::DisplayInfo, later));
}

#[test]
fn another_socket_begins_anew() {
    let mut vmm = Vmm::new();
    let mut process = vmm.start(shown(1));
    send_limit::set(1000);
    vmm.settle(&mut process);
    send_limit::set(usize::MAX);
    drop(process);
    let old = std::mem::replace(&mut vmm, Vmm::new());
    vmm.processes = old.processes;
    vmm.id = 8;
    let mut process = vmm.start(shown(2));
    vmm.settle(&mut process);
    vmm.assert_shows(2, "another socket");
    assert_eq!(vmm.requests, UNDISTURBED[..3]);
    // And that one goes on.
    let mut process = vmm.start(shown(3));
    vmm.settle(&mut process);
    vmm.assert_shows(3, "the same socket");
    assert_eq!(vmm.requests[..2], UNDISTURBED[..2]);
}

/// The socket is open elsewhere, too: closing it is not enough.
#[test]
fn display_sees_the_end_of_a_kept_socket() {
    let mut vmm = Vmm::new();
    let mut process = vmm.start(shown(1));
    vmm.settle(&mut process);
    vmm.reply(UPDATE, &[]);
    let wrong = process.display.receive(process.now);
    assert!(matches!(wrong, Err(DisplayError::Protocol(_))));
    assert_eq!((&vmm.socket).read(&mut [0]).unwrap(), 0);
    assert!(vmm.ours.as_fd().try_clone_to_owned().is_ok());
    process.ledger.commit();
    let mut process = vmm.start(shown(1));
    assert!(!process.display.is_query_pending());
    assert!(process.display.receive(process.now).is_err());
    assert!(!process.display.is_connected());
}
