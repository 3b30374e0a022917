// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The GPU: a hostile driver on both queues, a front-end in any state, and consoles.

use std::collections::BTreeSet;

use vhost_user_backend::VringT;
use vhost_user_backends::backend::fuzzing::FakeContext;
use vhost_user_backends::backend::{Device, DeviceContext};
use vhost_user_backends::gpu::CONSOLE_SOCKET;
use vhost_user_backends::gpu::fuzzing::command::*;
use vhost_user_backends::gpu::fuzzing::{FuzzGpu, fake_render_server, fake_virglrenderer};
use vmm_sys_util::epoll::EventSet;

use crate::bytes::Bytes;
use crate::front_end::FrontEnd;
use crate::guest::Guest;
use crate::turns;
use commands::{backing_of, command_2d, command_3d, command_venus, cursor_command, request};
use consoles::Consoles;
use maps::Maps;

mod commands;
mod consoles;
mod maps;
pub(crate) mod resumed;
#[cfg(test)]
mod venus_seeds;

pub use resumed::resumed_2d;

/// What resources may take: a few screens, so that it is soon used up.
const MAX_HOSTMEM: u64 = 2 << 20;
/// In 3D, contexts take of it too.
const MAX_HOSTMEM_3D: u64 = 9 << 20;
/// Steps of one run. What takes more tells nothing new.
const MAX_STEPS: usize = 200;
/// Messages that may be kept for a display or of one: what is read at a time, and as many answers as wait then.
const MAX_KEPT: usize = 64;
/// Turns of the event loop after which there must be nothing to do.
const MAX_TURNS: usize = 1000;

const CONTROL: usize = 0;
const CURSOR: usize = 1;

/// A 2D device.
pub fn control_2d(data: &[u8]) {
    Machine::in_2d().run(data);
}

/// A 3D device with the fake virglrenderer.
pub fn control_3d(data: &[u8]) {
    Machine::in_3d().run(data);
    check_nothing_is_left();
}

/// A device with Vulkan, by a fake virglrenderer and its render server.
pub fn control_venus(data: &[u8]) {
    Machine::with_venus().run(data);
    assert_eq!(
        fake_render_server::population(),
        (0, 0),
        "something is left behind"
    );
}

/// A device in 2D or in 3D with consoles, hostile ones among them.
pub fn display_consoles(data: &[u8]) {
    match data.split_first() {
        Some((mode, data)) if mode & 1 != 0 => {
            Machine::in_3d().run_with_consoles(data);
            check_nothing_is_left();
        }
        Some((_, data)) => Machine::in_2d().run_with_consoles(data),
        None => {}
    }
}

fn check_nothing_is_left() {
    assert_eq!(
        fake_virglrenderer::population(),
        (0, 0),
        "something is left behind"
    );
    assert_eq!(
        fake_virglrenderer::open_dmabufs(),
        0,
        "a buffer is left open"
    );
}

/// A 2D device whose driver is most of all busy with cursors.
pub fn cursor(data: &[u8]) {
    let mut machine = Machine::new(
        |context| FuzzGpu::in_2d(MAX_HOSTMEM, context),
        Mood::Cursors,
    );
    // Resource 1 is a cursor.
    for words in [
        &[RESOURCE_CREATE_2D, 1, 1, 64, 64][..],
        &[RESOURCE_CREATE_2D, 2, 2, 65, 64],
    ] {
        let (kind, fields) = words.split_first().expect("a command");
        let request = request(*kind, [0; 5], fields);
        machine
            .guest
            .submit(CONTROL, &request, &mut Bytes::new(&[]));
    }
    machine.turn(CONTROL as u16, EventSet::IN);
    machine.run(data);
}

/// Which commands there are most of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Flat,
    Deep,
    Vulkan,
    Cursors,
}

struct Machine {
    bench: FuzzGpu,
    program: FakeContext,
    guest: Guest,
    front_end: Option<FrontEnd>,
    consoles: Consoles,
    maps: Maps,
    mood: Mood,
    /// The resources that were spoken of.
    ids: BTreeSet<u32>,
}

impl Machine {
    fn in_2d() -> Self {
        Self::new(|context| FuzzGpu::in_2d(MAX_HOSTMEM, context), Mood::Flat)
    }

    fn in_3d() -> Self {
        Self::new(
            |context| FuzzGpu::in_3d(MAX_HOSTMEM_3D, context),
            Mood::Deep,
        )
    }

    fn with_venus() -> Self {
        Self::new(
            |context| FuzzGpu::with_venus(MAX_HOSTMEM_3D, context),
            Mood::Vulkan,
        )
    }

    fn new(build: impl FnOnce(DeviceContext) -> FuzzGpu, mood: Mood) -> Self {
        let mut guest = Guest::new();
        // TRANSFER_FROM_HOST_3D writes into backings; nothing of 2D does.
        if mood == Mood::Deep {
            guest = guest.sharing(backing_of);
        }
        let program =
            FakeContext::new(guest.memory.clone()).expect("the host has descriptors left");
        let (consoles, listener) = Consoles::new();
        let added = program.add_listener(CONSOLE_SOCKET, listener);
        added.expect("fcntl(2) does not fail");
        let mut bench = build(program.context());
        if mood == Mood::Vulkan {
            program.begin_mapping();
        }
        let gpu = &mut bench.gpu;
        gpu.memory_changed();
        gpu.acked_features(gpu.features());
        guest.start(true, &mut Bytes::new(&[]));
        Self {
            bench,
            program,
            guest,
            front_end: None,
            consoles,
            maps: Maps::default(),
            mood,
            ids: (1..6).collect(),
        }
    }

    fn run(mut self, data: &[u8]) {
        let mut bytes = Bytes::new(data);
        for _ in 0..MAX_STEPS {
            if bytes.is_empty() {
                break;
            }
            self.step(&mut bytes);
            self.check();
        }
        self.rest();
        self.end();
    }

    fn run_with_consoles(mut self, data: &[u8]) {
        let mut bytes = Bytes::new(data);
        for _ in 0..MAX_STEPS {
            if bytes.is_empty() {
                break;
            }
            match bytes.u8() {
                0..=15 => {
                    self.rest();
                    self.consoles.connect();
                    self.rest();
                    self.consoles.accepted();
                }
                16..=119 => self.consoles.act(&mut bytes),
                120..=127 => self.check_shown(),
                128..=143 => self.show(&mut bytes),
                144..=159 => self.rest(),
                _ => self.step(&mut bytes),
            }
            self.check();
        }
        self.rest();
        self.end();
    }

    /// The driver does what it must for the screen to change.
    fn show(&mut self, bytes: &mut Bytes<'_>) {
        let [id, scanout] = [1 + u32::from(bytes.u8() % 3), u32::from(bytes.u8() % 2)];
        let side = bytes.of(&[64, 16, 300, 1]);
        self.guest.fill(bytes);
        for (kind, words) in [
            (RESOURCE_CREATE_2D, &[id, 2, side, side][..]),
            (RESOURCE_ATTACH_BACKING, &[id, 1, 0x9000, 0, 0x8000, 0]),
            (
                TRANSFER_TO_HOST_2D,
                &[0, 0, side, side.min(100), 0, 0, id, 0],
            ),
            (SET_SCANOUT, &[0, 0, side, side, scanout, id]),
            (RESOURCE_FLUSH, &[0, 0, side, side, id, 0]),
        ] {
            let request = request(kind, [0; 5], words);
            self.guest.submit(CONTROL, &request, &mut Bytes::new(&[]));
        }
        self.ids.insert(id);
        self.turn(CONTROL as u16, EventSet::IN);
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let queue = |bytes: &mut Bytes<'_>| usize::from(bytes.u8() & 1);
        match bytes.u8() {
            0..=95 => self.command(bytes),
            96..=119 => {
                let (queue, request) = (CURSOR, cursor_command(&mut self.ids, bytes));
                self.guest.submit(queue, &request, bytes);
            }
            120..=159 => self.turn(CONTROL as u16, EventSet::IN),
            160..=175 => self.turn(CURSOR as u16, EventSet::IN),
            176..=199 => self.rest(),
            200..=203 => self.plug(),
            204..=209 => self.front_end(|front_end| front_end.read_all()),
            210..=213 => {
                let most = usize::from(bytes.u16());
                self.front_end(|front_end| front_end.read(most));
            }
            214..=219 => self.front_end(|front_end| {
                front_end.read_all();
                front_end.answer(bytes);
            }),
            220 => self.front_end(|front_end| front_end.rave(bytes)),
            221 => self.front_end(|front_end| front_end.stammer(bytes)),
            222 => self.front_end = None,
            223 => self.within(|bench, guest| bench.expire(&guest.vrings)),
            224 => {
                self.maps.stop(&self.program);
                self.bench.gpu.reset_device();
            }
            225..=227 => self.restart(false, bytes),
            228..=230 => self.restart(true, bytes),
            231 => {
                let queue = queue(bytes);
                self.stop(queue);
            }
            232 => self.guest.start(false, bytes),
            233..=234 => {
                self.guest.remap(bytes);
                self.within(|bench, _| bench.gpu.memory_changed());
            }
            235..=237 => self.guest.scribble(queue(bytes), bytes),
            238..=239 => self.guest.publish(queue(bytes), bytes.u16()),
            240 => self.guest.run_away(queue(bytes), bytes),
            241 => self.config(bytes),
            242 => self.bench.gpu.acked_features(bytes.u64()),
            243 => self.guest.want(queue(bytes), bytes),
            244 => self.guest.misplace(queue(bytes), bytes),
            245..=249 => self.guest.fill(bytes),
            250 => self.turn(bytes.u16(), EventSet::IN),
            _ if self.mood == Mood::Vulkan => match bytes.u8() {
                0 => fake_render_server::end_server(),
                1..=40 => fake_render_server::crash(bytes.mostly(&[1, 2, 3])),
                41..=140 => self.maps.answer(&self.program, bytes),
                _ => fake_render_server::retire(bytes.mostly(&[1, 2, 3]), bytes.u8().into()),
            },
            _ => fake_virglrenderer::retire(bytes.u8().into()),
        }
    }

    /// The device has a turn, and is checked after it.
    fn within(&mut self, turn: impl FnOnce(&mut FuzzGpu, &Guest)) {
        self.guest.before();
        turn(&mut self.bench, &self.guest);
        self.guest.after();
    }

    fn turn(&mut self, event: u16, set: EventSet) {
        self.within(|bench, guest| {
            let handled = bench.gpu.handle_event(event, set, &guest.vrings);
            handled.expect("nothing ends the worker");
        });
    }

    /// Lets the device do what it has to, without waiting.
    fn rest(&mut self) {
        turns::rest(self, |run| &run.program, Self::turn);
    }

    fn front_end(&mut self, act: impl FnOnce(&mut FrontEnd)) {
        if let Some(front_end) = &mut self.front_end {
            act(front_end);
        }
    }

    fn plug(&mut self) {
        let (front_end, socket) = FrontEnd::new();
        self.within(|bench, _| {
            let attached = bench.gpu.set_gpu_socket(socket.into());
            attached.expect("a GPU has a display");
        });
        self.front_end = Some(front_end);
    }

    fn stop(&mut self, queue: usize) {
        self.guest.stop(queue);
        self.maps.stop(&self.program);
        self.within(|bench, _| {
            let stopped = bench.gpu.stop_vring(queue as u32);
            stopped.expect("a queue can be stopped");
        });
    }

    fn restart(&mut self, anew: bool, bytes: &mut Bytes<'_>) {
        self.stop(CONTROL);
        self.stop(CURSOR);
        if anew {
            self.bench.gpu.get_config(0, 16);
        }
        self.guest.start(anew, bytes);
        self.turn(CONTROL as u16, EventSet::IN);
    }

    fn config(&mut self, bytes: &mut Bytes<'_>) {
        let offset = bytes.mostly(&[0, 4, 8, 255, 256]);
        let size = bytes.mostly(&[0, 1, 4, 16, 256]);
        let read = self.bench.gpu.get_config(offset, size);
        assert!(read.is_empty() || read.len() == size as usize);
        // Refused or taken: a front-end that writes beyond the end is told so.
        let _ = self.bench.gpu.set_config(offset, bytes.some(300));
    }

    fn command(&mut self, bytes: &mut Bytes<'_>) {
        let request = match self.mood {
            Mood::Cursors if bytes.u8() < 200 => {
                let request = cursor_command(&mut self.ids, bytes);
                return self.guest.submit(CURSOR, &request, bytes);
            }
            Mood::Deep if bytes.u8() < 160 => command_3d(&mut self.ids, bytes),
            Mood::Vulkan if bytes.u8() < 160 => command_venus(&mut self.ids, bytes),
            _ => command_2d(&mut self.ids, bytes),
        };
        self.guest.submit(CONTROL, &request, bytes);
    }

    /// What holds at any time.
    fn check(&mut self) {
        let most = match self.mood {
            Mood::Deep | Mood::Vulkan => MAX_HOSTMEM_3D,
            Mood::Flat | Mood::Cursors => MAX_HOSTMEM,
        };
        assert!(self.bench.used() <= most, "the budget is exceeded");
        let sizes = self.ids.iter().filter_map(|id| self.bench.size(*id));
        let pixels: u64 = sizes
            .map(|(width, height)| u64::from(width) * u64::from(height))
            .sum();
        if self.mood != Mood::Deep {
            let used = self.bench.used();
            assert!(pixels * 4 <= used, "{pixels} pixels in {used} bytes");
        }
        let kept = self.bench.kept_messages();
        assert!(kept <= MAX_KEPT, "{kept} messages are kept for a display");
        assert_eq!(self.program.failure(), None);
    }

    /// A front-end and consoles that read and answer, at last, have what the scanouts show.
    fn check_shown(&mut self) {
        let mut front_end = self.front_end.take();
        if front_end.is_none() && self.consoles.is_empty() {
            return;
        }
        // The first retired fence may have the device find requests, which begin another one.
        let mut quiet = 0;
        for _ in 0..MAX_TURNS {
            let heard = self.heard(front_end.as_ref());
            if let Some(front_end) = &mut front_end {
                front_end.read_all();
                front_end.answer(&mut Bytes::new(&[]));
            }
            self.consoles.converse();
            fake_virglrenderer::retire(usize::MAX);
            for context in 0..8 {
                fake_render_server::retire(context, u32::MAX);
            }
            self.rest();
            if let Some(front_end) = &mut front_end {
                front_end.read_all();
            }
            self.consoles.converse();
            quiet = match self.heard(front_end.as_ref()) == heard {
                true => quiet + 1,
                false => 0,
            };
            if quiet < 2 {
                continue;
            }
            if !self.consoles.wait() {
                break;
            }
            // What consoles say is read at a limited rate.
            self.within(|bench, guest| bench.expire(&guest.vrings));
        }
        if let (Some(front_end), Some(expected)) = (&front_end, self.bench.expected_display()) {
            front_end.check(&expected);
        }
        self.consoles.check(&self.bench.expected_console());
        self.front_end = front_end;
    }

    /// Messages that came to a front-end or a console.
    fn heard(&mut self, front_end: Option<&FrontEnd>) -> usize {
        front_end.map_or(0, FrontEnd::heard) + self.consoles.heard()
    }

    /// A reset gives everything back.
    fn end(mut self) {
        self.check_shown();
        // As the daemon does before it tells the device: what waits in the rings is not taken any more.
        for vring in &self.guest.vrings {
            vring.set_enabled(false);
        }
        self.bench.gpu.reset_device();
        self.rest();
        // With the display goes the message that is on its way, and what it reads from.
        self.front_end(|front_end| front_end.read_all());
        self.front_end = None;
        self.consoles.leave();
        self.rest();
        assert!(!self.program.has_clients(), "a console is still served");
        self.plug();
        self.front_end = None;
        self.rest();
        let leaked = self.bench.leaked();
        assert_eq!(self.bench.used(), leaked, "a reset leaves something behind");
        assert_eq!(self.bench.scanouts(), []);
        for id in &self.ids {
            assert_eq!(self.bench.size(*id), None, "a reset leaves resource {id}");
        }
    }
}
