// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The input device: its queues and configuration in the hands of a hostile driver, and hardware that
//! reports anything.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use vhost_user_backends::backend::fuzzing::FakeContext;
use vhost_user_backends::backend::{Device, DeviceBuilder, FIRST_TOKEN};
use vhost_user_backends::input::event_codes::*;
use vhost_user_backends::input::testing::{
    CONFIG_SIZE, FakeEvdev, FakeHardware, event_from_bytes, event_to_bytes,
};
use vhost_user_backends::input::{Bitmap, DeviceInfo, Event, HostAccess, Input, InputBuilder};
use vmm_sys_util::epoll::EventSet;

use crate::bytes::Bytes;
use crate::guest::Guest;
use kernel::{ABS_MT_X, ABS_X, Kernel, SLOTS, Truth};

pub use kernel::device_info;

mod kernel;

const MAX_STEPS: usize = 400;
const MAX_TURNS: usize = 4000;
const EVENTS: usize = 0;
const STATUS: usize = 1;
const DEVICE_READY: u16 = FIRST_TOKEN;

/// A driver that does what it likes, and hardware that reports whatever it likes.
pub fn input_hostile(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut machine = Machine::new(&mut bytes);
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        machine.hostile_step(&mut bytes);
    }
    machine.rest();
}

/// A driver that keeps to the rules, on hardware as the kernel has it: the driver sees whole reports,
/// and in the end the state that the device is in.
pub fn input_reports(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut machine = Machine::new(&mut bytes);
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        machine.fair_step(&mut bytes);
        machine.take_events();
        machine.left_to_another |= machine.is_refused();
        machine.failed |= machine.program.failure().is_some();
        if machine.failed {
            // Another has the device: the program ends.
            assert!(machine.hardware().grabbed_by_another);
            return;
        }
    }
    machine.end();
}

struct Machine {
    input: Input<FakeEvdev>,
    program: FakeContext,
    guest: Guest,
    kernel: Kernel,
    info: DeviceInfo,
    host_leds: Bitmap,
    grab: bool,
    /// What the driver was told, and of which report it knows a part.
    told: Truth,
    partial: usize,
    running: bool,
    /// The device said that the program is to end.
    failed: bool,
    /// A guest that was to get the device did not, because another process had it.
    left_to_another: bool,
    /// The device was told that its hardware is gone: it reads no more of it.
    hung_up: bool,
}

impl Machine {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let info = device_info(bytes);
        let options = bytes.u8();
        let host_leds: Bitmap = (options & 2 != 0).then_some(1).into_iter().collect();
        let grab = options & 1 == 0;
        let host_access = if grab {
            HostAccess::UntilGrab
        } else {
            HostAccess::Shared
        };
        let fake = FakeEvdev::new(info.clone(), host_access);
        let fake = fake.expect("the host has descriptors left");
        let kernel = Kernel::new(fake.hardware(), info.clone());
        kernel.device().leds = host_leds;
        let mut guest = Guest::new();
        let program =
            FakeContext::new(guest.memory.clone()).expect("the host has descriptors left");
        let input = InputBuilder::new(fake).build(program.context());
        let input = input.expect("the host has descriptors left");
        guest.start(true, &mut Bytes::new(&[bytes.u8() & 0xf]));
        Self {
            input,
            program,
            guest,
            kernel,
            info,
            host_leds,
            grab,
            told: Truth::default(),
            partial: 0,
            running: true,
            failed: false,
            left_to_another: false,
            hung_up: false,
        }
    }

    /// Whether a guest that runs lacks the device because another process has it.
    fn is_refused(&self) -> bool {
        let hardware = self.hardware();
        self.running && hardware.grabbed_by_another && !hardware.grabbed
    }

    fn hardware(&self) -> MutexGuard<'_, FakeHardware> {
        self.kernel.device()
    }

    fn turn(&mut self, event: u16, set: EventSet) {
        self.guest.before();
        let handled = self.input.handle_event(event, set, &self.guest.vrings);
        handled.expect("nothing ends the worker");
        self.guest.after();
    }

    fn rest(&mut self) {
        for _ in 0..MAX_TURNS {
            let ready = self.program.ready(0).expect("epoll_wait(2) does not fail");
            for (event, set) in &ready {
                self.turn(*event, *set);
            }
            let unread = {
                let hardware = self.hardware();
                hardware.unplugged || (!self.hung_up && !hardware.readable.is_empty())
            };
            self.failed |= self.program.failure().is_some();
            if unread && !self.failed {
                self.turn(DEVICE_READY, EventSet::IN);
            } else if ready.is_empty() {
                return;
            }
            if self.hardware().unplugged {
                return;
            }
        }
        panic!("the device never comes to rest");
    }

    fn event(&self, bytes: &mut Bytes<'_>) -> Event {
        let kind = bytes.of(&[EV_KEY, EV_ABS, EV_REL, EV_SW, EV_MSC, EV_ABS, EV_KEY]);
        let code = match kind {
            EV_KEY => bytes.of(&[30, 28, 1, 0x110, 0x120, 0x2ff]),
            EV_ABS => bytes.of(&[ABS_MT_SLOT, ABS_MT_TRACKING_ID, ABS_MT_X, ABS_X, 1, 0x3f]),
            _ => bytes.of(&[0, 1, 4, 8]),
        };
        let value = match code {
            ABS_MT_TRACKING_ID if kind == EV_ABS => i32::from(bytes.u8() % 6) - 1,
            ABS_MT_SLOT if kind == EV_ABS => i32::from(bytes.u8() % 6),
            _ => bytes.of(&[0, 1, 2, 77, -1]),
        };
        Event::new(kind, code, value)
    }

    fn fair_step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=99 => {
                let event = self.event(bytes);
                self.kernel.report(event);
            }
            100..=139 => self.kernel.report(Event::REPORT),
            140..=179 => self.turn(DEVICE_READY, EventSet::IN),
            180..=209 => {
                for _ in 0..=bytes.u8() % 16 {
                    self.guest.offer(EVENTS, None);
                }
            }
            210..=224 => self.kick(),
            225..=234 => {
                let kind = bytes.of(&[EV_LED, EV_SND, EV_MSC, EV_REP, EV_KEY]);
                let event = Event::new(kind, bytes.of(&[0, 1, 2, 4]), bytes.of(&[0, 1, -1]));
                self.guest.offer(STATUS, Some(event_to_bytes(event)));
                self.turn(STATUS as u16, EventSet::IN);
            }
            235..=244 => self.rest(),
            245 => self.restart(false, bytes),
            246 => {
                self.restart(true, bytes);
                // What came by the old queue is of no use to the new driver.
                self.guest.answers.clear();
                self.told = Truth::default();
            }
            247 => self.stop(),
            248..=250 => self.config(bytes),
            251 => {
                self.input.reset_device();
                self.partial = 0;
            }
            252 => {
                let mut hardware = self.hardware();
                hardware.grabbed_by_another = !hardware.grabbed_by_another && !hardware.grabbed;
            }
            253 => self.turn(FIRST_TOKEN + 2, EventSet::IN),
            254 => self.hardware().unplugged = true,
            _ => self.turn(FIRST_TOKEN + 1, EventSet::IN),
        }
    }

    fn hostile_step(&mut self, bytes: &mut Bytes<'_>) {
        let queue = |bytes: &mut Bytes<'_>| usize::from(bytes.u8() & 1);
        match bytes.u8() {
            0..=63 => {
                // From hardware that knows nothing of a kernel.
                let event = match bytes.u8() {
                    0..=127 => self.event(bytes),
                    128..=191 => Event::REPORT,
                    192..=199 => Event::new(EV_SYN, SYN_DROPPED, 0),
                    _ => Event::new(bytes.u16(), bytes.u16(), bytes.u32() as i32),
                };
                let times = if bytes.u8() < 4 { 1500 } else { 1 };
                self.kernel.report_anything(event, times);
            }
            64..=99 => self.turn(DEVICE_READY, EventSet::IN),
            100..=139 => {
                let bytes_of_event = [17, 0, bytes.u8() & 3, 0, 1, 0, 0, 0];
                let (queue, request) = match bytes.u8() {
                    0..=159 => (EVENTS, &[][..]),
                    160..=223 => (STATUS, &bytes_of_event[..]),
                    _ => (STATUS, bytes.some(40)),
                };
                self.guest.submit(queue, request, bytes);
            }
            140..=159 => {
                for _ in 0..=bytes.u8() % 16 {
                    self.guest.offer(EVENTS, None);
                }
            }
            160..=189 => self.turn(bytes.of(&[0, 1, 2, 3]), EventSet::IN),
            190..=199 => self.rest(),
            200..=203 => self.restart(false, bytes),
            204..=207 => self.restart(true, bytes),
            208 => self.stop(),
            209 => {
                self.guest.stop(STATUS);
                let _ = self.input.stop_vring(STATUS as u32);
            }
            210..=219 => self.config(bytes),
            220 => self.input.reset_device(),
            221..=223 => self.guest.remap(bytes),
            224..=229 => self.guest.scribble(queue(bytes), bytes),
            230..=233 => self.guest.publish(queue(bytes), bytes.u16()),
            234..=236 => self.guest.run_away(queue(bytes), bytes),
            237..=240 => self.guest.want(queue(bytes), bytes),
            241..=242 => self.guest.misplace(queue(bytes), bytes),
            243 => {
                let mut hardware = self.hardware();
                hardware.grabbed_by_another = !hardware.grabbed_by_another && !hardware.grabbed;
            }
            244 => self.hardware().unreadable ^= true,
            245 => self.hardware().unplugged = true,
            246 => {
                let set = bytes.of(&[EventSet::IN, EventSet::HANG_UP, EventSet::ERROR]);
                self.turn(DEVICE_READY, set);
                self.hung_up |= set != EventSet::IN;
            }
            247 => self.turn(bytes.u16(), EventSet::IN),
            _ => self.guest.fill(bytes),
        }
    }

    fn stop(&mut self) {
        self.guest.stop(EVENTS);
        self.guest.before();
        let stopped = self.input.stop_vring(EVENTS as u32);
        stopped.expect("a queue can be stopped");
        self.guest.after();
        self.running = false;
        let hardware = self.hardware();
        assert!(!hardware.grabbed, "the host does not get its device back");
    }

    fn restart(&mut self, anew: bool, bytes: &mut Bytes<'_>) {
        self.stop();
        self.guest.stop(STATUS);
        let _ = self.input.stop_vring(STATUS as u32);
        self.guest.start(anew, &mut Bytes::new(&[bytes.u8() & 0xf]));
        // A part of a report that a pause cut off ends with what is told after it.
        self.partial = 0;
        self.running = true;
        self.turn(EVENTS as u16, EventSet::IN);
    }

    fn config(&mut self, bytes: &mut Bytes<'_>) {
        let offset = bytes.mostly(&[0, 1, 2, 8, 135, 136]);
        let written = bytes.some(200);
        let set = self.input.set_config(offset, written);
        set.expect("a front-end may pass on anything");
        let offset = bytes.mostly(&[0, 0, 2, 8, 135]);
        let size = bytes.mostly(&[136, 1, 128, 0, 137]);
        let read = self.input.get_config(offset, size);
        let inside = u64::from(offset) + u64::from(size) <= CONFIG_SIZE as u64;
        let wanted = if inside { size as usize } else { 0 };
        assert_eq!(read.len(), wanted);
        let whole = self.input.get_config(0, CONFIG_SIZE as u32);
        assert!(whole[2] <= 128, "size {}", whole[2]);
        let behind = &whole[8 + usize::from(whole[2])..];
        assert!(
            behind.iter().all(|byte| *byte == 0),
            "more than the size says"
        );
    }

    /// Takes the driver's events and looks at them.
    fn take_events(&mut self) {
        for answer in std::mem::take(&mut self.guest.answers) {
            if answer.queue == STATUS {
                assert_eq!(answer.len, 0);
                continue;
            }
            assert_eq!(answer.len, 8, "a buffer without a whole event");
            let event = event_from_bytes(self.guest.read(answer.at));
            self.told.apply(&event);
            self.partial += 1;
            if event.ends_report() {
                assert!(self.partial > 1, "a report of nothing");
                self.partial = 0;
            }
        }
    }

    /// The driver says that it made buffers available.
    fn kick(&mut self) {
        self.turn(EVENTS as u16, EventSet::IN);
        self.take_events();
        // What is left of a report that is longer than the queue waits for as many buffers as it
        // needs, and never for more than the queue has.
        if self.partial > 0 && self.running {
            assert_ne!(
                self.guest.room(EVENTS),
                0,
                "a part of a report is held back"
            );
        }
    }

    /// A driver with all the buffers there can be finds the device in the state that it is in.
    fn end(&mut self) {
        self.hardware().grabbed_by_another = false;
        if !self.running {
            self.restart(false, &mut Bytes::new(&[]));
        }
        self.kernel.report(Event::REPORT);
        // What keeps the device with the host is a key that is held there.
        self.settle();
        if self.hardware().unplugged {
            self.end_unplugged();
            return;
        }
        if self.grab && !self.hardware().grabbed && self.left_to_another {
            // Until the host asks for it.
            assert_eq!(self.partial, 0, "a report without an end");
            assert!(self.told.keys.is_empty(), "keys are held that nobody holds");
            return;
        }
        if self.grab && !self.hardware().grabbed {
            let repeats = self.info.codes(EV_REP).is_some();
            let held: Vec<u16> = self.kernel.truth.keys.iter().copied().collect();
            // A mouse button, or what repeats; not the buttons of a joystick.
            let goes_on = |code: &u16| *code == 0x110 || (repeats && *code < 0x100);
            assert!(held.iter().any(goes_on), "no guest waits for {held:?}");
            for code in held.into_iter().filter(goes_on) {
                self.kernel.report(Event::new(EV_KEY, code, 0));
            }
            self.kernel.report(Event::REPORT);
            self.settle();
            assert!(self.grab_is_there(), "the guest does not get the device");
        }
        assert_eq!(self.partial, 0, "a report without an end");
        let truth = self.kernel.truth.clone();
        assert_eq!(self.told.keys, truth.keys);
        assert_eq!(self.told.switches, truth.switches);
        assert_eq!(self.told.axes, truth.axes);
        if self.info.slots() > 0 {
            assert_eq!(self.told.contacts, truth.contacts);
            for slot in 0..SLOTS {
                let position = |state: &Truth| state.positions.get(&slot).copied().unwrap_or(0);
                assert_eq!(position(&self.told), position(&truth), "slot {slot}");
            }
        }
        // By the program, or by the front-end before it.
        self.input.end();
        self.stop();
        assert_eq!(
            self.hardware().leds,
            self.host_leds,
            "LEDs are left as they were"
        );
        assert!(!self.failed && self.program.failure().is_none());
    }

    /// The driver has a device on which nothing is pressed or touched, and which reports no more.
    fn end_unplugged(&mut self) {
        self.turn(DEVICE_READY, EventSet::IN);
        self.settle();
        assert_eq!(self.partial, 0, "a report without an end");
        assert_eq!(self.told.keys, BTreeSet::new());
        if self.info.slots() > 0 {
            assert!(self.told.contacts.is_empty(), "{:?}", self.told.contacts);
        }
        assert!(self.input.get_config(0, CONFIG_SIZE as u32).len() == CONFIG_SIZE);
        self.stop();
        assert!(!self.failed && self.program.failure().is_none());
    }

    fn grab_is_there(&self) -> bool {
        self.hardware().grabbed
    }

    fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            self.rest();
            self.take_events();
            while self.guest.room(EVENTS) > 0 {
                self.guest.offer(EVENTS, None);
            }
            let room = self.guest.room(EVENTS);
            self.kick();
            if self.guest.room(EVENTS) == room {
                return;
            }
        }
        panic!("events without an end");
    }
}
