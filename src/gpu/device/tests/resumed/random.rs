// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random guests: what one sees of a device whose processes die is what it sees of one that lives.

use vm_memory::{Bytes, GuestAddress};

use super::machine::MortalMachine;
use super::*;
use crate::gpu::protocol::HEADER_LEN;
use crate::gpu::resource::{Backing, PIXEL_LEN};

/// Ids of resources; the last one is never created.
const RESOURCES: u32 = 6;
/// Where backings lie.
const PIXELS: u64 = 0x8000;
const PIXELS_LEN: u64 = 0x4_0000;
/// All formats, and a number that is none.
const FORMATS: [u32; 9] = [1, 2, 3, 4, 67, 68, 121, 134, 5];

struct Random(u64);

impl Random {
    fn below(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % u64::from(below)) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn rect(&mut self) -> [u32; 4] {
        let side = |random: &mut Self| match random.below(20) {
            0 => 0,
            1 => u32::MAX,
            n if n < 8 => 64,
            _ => 1 + random.below(64),
        };
        let place = |random: &mut Self| match random.below(4) {
            0 => random.below(70),
            _ => 0,
        };
        [place(self), place(self), side(self), side(self)]
    }
}

/// What a guest and its front-end do.
#[derive(Clone, Debug)]
enum Action {
    Request {
        queue: u16,
        request: Vec<u8>,
        room: u32,
    },
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    Serve,
    Pause,
    NewDriver,
    ResetDevice,
    ReadConfig,
}

/// Up to four pieces of memory, mostly the guest's.
fn entries(random: &mut Random) -> Vec<u32> {
    let entries = (0..random.below(5)).flat_map(|_| {
        let at = PIXELS as u32 + random.below(PIXELS_LEN as u32);
        let at = if random.one_in(20) { MEMORY as u32 } else { at };
        [at, 0, random.below(0x8000), 0]
    });
    entries.collect()
}

fn action(random: &mut Random) -> Action {
    let id = 1 + random.below(RESOURCES);
    let existing = if random.one_in(8) {
        id
    } else {
        1 + id % (RESOURCES - 1)
    };
    let control = |request, room| Action::Request {
        queue: CONTROL_QUEUE,
        request,
        room,
    };
    let [x, y, width, height] = random.rect();
    let scanout = random.below(3);
    match random.below(100) {
        0..4 => {
            let mut words = vec![existing % RESOURCES, 1 + random.below(2), 2];
            let entries = entries(random);
            words.extend([entries.len() as u32 / 4, 0, 0, random.below(0x8000), 0]);
            words.extend(entries);
            control(request(command::RESOURCE_CREATE_BLOB, &words), 24)
        }
        4..14 => {
            let format = FORMATS[random.below(9) as usize];
            let (width, height) = match random.below(3) {
                0 => (64, 64),
                _ => (width, height),
            };
            let words = [existing % RESOURCES, format, width, height];
            control(request(command::RESOURCE_CREATE_2D, &words), 24)
        }
        14..18 => control(request(command::RESOURCE_UNREF, &[existing, 0]), 24),
        18..30 => {
            let entries = entries(random);
            let words = [vec![existing, entries.len() as u32 / 4], entries].concat();
            control(request(command::RESOURCE_ATTACH_BACKING, &words), 24)
        }
        30..33 => control(
            request(command::RESOURCE_DETACH_BACKING, &[existing, 0]),
            24,
        ),
        33..55 => {
            let words = [x, y, width, height, random.below(64), 0, existing, 0];
            control(request(command::TRANSFER_TO_HOST_2D, &words), 24)
        }
        55..58 => {
            let (columns, rows) = (64 - random.below(2), 1 + random.below(64));
            let mut words = vec![x, y, width, height, scanout, existing % RESOURCES];
            words.extend([columns, rows, FORMATS[random.below(9) as usize], 0]);
            words.extend([columns * 4 + random.below(3), 0, 0, 0]);
            words.extend([random.below(64), 0, 0, 0]);
            control(request(command::SET_SCANOUT_BLOB, &words), 24)
        }
        58..62 => {
            let words = [x, y, width, height, scanout, existing % RESOURCES];
            control(request(command::SET_SCANOUT, &words), 24)
        }
        62..75 => {
            let words = [x, y, width, height, existing, 0];
            control(request(command::RESOURCE_FLUSH, &words), 24)
        }
        75..77 => control(request(command::GET_DISPLAY_INFO, &[]), 408),
        77..78 => control(request(command::GET_EDID, &[scanout, 0]), 1056),
        78..79 => control(vec![7; HEADER_LEN], 24),
        79..84 => {
            let words = [scanout, x, y, 0, existing, width, height, 0];
            Action::Request {
                queue: CURSOR_QUEUE,
                request: request(command::UPDATE_CURSOR, &words),
                room: 0,
            }
        }
        84..87 => {
            let words = [scanout, x, y, 0, existing % RESOURCES, 0, 0, 0];
            Action::Request {
                queue: CURSOR_QUEUE,
                request: request(command::MOVE_CURSOR, &words),
                room: 24,
            }
        }
        87..96 => {
            let at = PIXELS + u64::from(random.below(PIXELS_LEN as u32));
            let byte = random.below(256) as u8;
            let bytes = (0..random.below(5000)).map(|n| (n as u8).wrapping_mul(byte));
            Action::Write {
                at,
                bytes: bytes.collect(),
            }
        }
        96..97 => Action::Pause,
        97..98 if random.one_in(4) => Action::NewDriver,
        98..99 if random.one_in(4) => Action::ResetDevice,
        99 => Action::ReadConfig,
        _ => Action::Serve,
    }
}

impl MortalMachine {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Request {
                queue,
                request,
                room,
            } => {
                self.machine.submit(*queue, request, *room);
            }
            Action::Write { at, bytes } => self.machine.write(*at, bytes),
            Action::Serve => self.serve(),
            Action::Pause => {
                self.stop();
                self.start();
            }
            Action::NewDriver => {
                self.stop();
                self.survive(|machine| drop(machine.gpu.get_config(0, 16)));
                self.start_new_driver();
            }
            Action::ResetDevice => {
                self.survive(|machine| machine.gpu.reset_device());
                self.serve();
            }
            Action::ReadConfig => {
                self.survive(|machine| drop(machine.gpu.get_config(0, 16)));
            }
        }
    }

    fn all_memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY];
        let memory = self.machine.memory.memory();
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    /// The blobs: their lengths and those of their backings.
    fn blobs(&self) -> Vec<Option<(u64, Option<u64>)>> {
        let renderer = self.machine.gpu.virtio_gpu.renderer();
        let blob = |id| {
            let blob = renderer.blob(id)?;
            Some((blob.len(), blob.with_backing(Backing::len)))
        };
        (1..=RESOURCES).map(blob).collect()
    }

    /// The pixels of all images.
    fn images(&self) -> Vec<Option<Vec<u8>>> {
        let renderer = self.machine.gpu.virtio_gpu.renderer();
        let image = |id| {
            let size = renderer.size(id).ok()?;
            let image = renderer.existing_image(id).ok()??;
            let len = size.area() as usize * PIXEL_LEN;
            Some(image.lock().bytes(0, 0, len).to_vec())
        };
        (1..=RESOURCES).map(image).collect()
    }
}

/// What a guest does, twice: one device lives, the processes of the other die at random places.
fn run(seed: u64) -> u32 {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut fate = Random(seed.wrapping_mul(0xd134_2543_de82_ef95) | 1);
    let (mut lives, mut dies) = (MortalMachine::new(), MortalMachine::new());
    for round in 0..60 {
        let context = format!("seed {seed}, round {round}");
        if fate.one_in(3) {
            dies.die(fate.below(12), fate.one_in(2));
        }
        for _ in 0..1 + random.below(8) {
            let action = action(&mut random);
            lives.act(&action);
            dies.act(&action);
        }
        if fate.one_in(8) {
            dies.resume();
        }
        lives.serve();
        dies.serve();
        if lives.runs() {
            lives.show();
            dies.show_some(fate.below(8) as usize);
        }
        assert!(lives.images() == dies.images(), "{context}: pixels differ");
        assert_eq!(lives.blobs(), dies.blobs(), "{context}");
        assert_eq!(lives.budget.used(), dies.budget.used(), "{context}");
        let (expected, seen) = (lives.all_memory(), dies.all_memory());
        if expected != seen {
            let at = expected.iter().zip(&seen).position(|(a, b)| a != b);
            panic!("{context}: the guest's memory differs at {at:#x?}");
        }
        let active = |m: &MortalMachine| {
            let scanouts = m.machine.gpu.virtio_gpu.scanouts();
            scanouts
                .active_scanouts()
                .map(|s| s.size)
                .collect::<Vec<_>>()
        };
        assert_eq!(active(&lives), active(&dies), "{context}");
    }
    // In the end all has a backing and is flushed, and looks the same.
    for id in 1..RESOURCES {
        let renderer = lives.machine.gpu.virtio_gpu.renderer();
        let size = match renderer.blob(id) {
            Some(_) => Ok(Size::new(64, 64)),
            None => renderer.size(id),
        };
        let Ok(size) = size else {
            continue;
        };
        let attach = [id, 1, PIXELS as u32, 0, PIXELS_LEN as u32, 0];
        let flush = [0, 0, size.width, size.height, id, 0];
        for machine in [&mut lives, &mut dies] {
            for (command, words) in [
                (command::RESOURCE_ATTACH_BACKING, attach),
                (command::RESOURCE_FLUSH, flush),
            ] {
                let request = request(command, &words);
                machine.machine.submit(CONTROL_QUEUE, &request, 24);
                machine.serve();
            }
        }
    }
    for machine in [&mut lives, &mut dies] {
        machine.show();
        machine.display.updates = 0;
    }
    for (a, b) in lives.display.scanouts.iter().zip(&dies.display.scanouts) {
        assert_eq!(a.size, b.size, "seed {seed}");
        assert!(a.pixels == b.pixels, "seed {seed}: the screen differs");
    }
    for (a, b) in lives.display.cursors.iter().zip(&dies.display.cursors) {
        assert_eq!(a.position.visible, b.position.visible, "seed {seed}");
        if a.position.visible {
            assert!(a == b, "seed {seed}: the cursor differs");
        }
    }
    dies.deaths
}

#[test]
fn guest_does_not_notice_that_processes_die() {
    let deaths: u32 = (1..=80).map(run).sum();
    assert!(deaths > 300, "{deaths} deaths");
}
