// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::{Arc, Mutex, MutexGuard};

use vhost_user_backend::VringT;
use vm_memory::{GuestAddressSpace as _, GuestMemoryMmap};

use crate::backend::testing::driver::{Driver, guest_memory};
use crate::backend::{DeviceBuilder, FakeContext, GuestMemory};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_LED, EV_MSC, EV_REP, EV_SND, EV_SYN,
    SYN_DROPPED,
};
use crate::input::protocol::{AbsInfo, Bitmap, Event};
use crate::input::source::HostAccess;
use crate::input::testing::{FakeEvdev, FakeHardware};

use super::*;

mod event_queue;
mod going_on;
mod ownership;
mod released;
mod returned;
mod state;
mod status_queue;
mod unplugged;

const NONE: EventSet = EventSet::empty();

/// An input device between a driver's two queues and the host's hardware.
struct TestDevice {
    input: Input<FakeEvdev>,
    context: FakeContext,
    hardware: Arc<Mutex<FakeHardware>>,
    events: Driver,
    status: Driver,
    vrings: Vec<Vring>,
    memory: GuestMemory,
}

/// A touch screen with keys.
fn info() -> DeviceInfo {
    let mut info = DeviceInfo {
        name: "Fake".into(),
        ..DeviceInfo::default()
    };
    let contacts = [ABS_MT_SLOT, ABS_MT_TRACKING_ID];
    let codes = &mut info.codes;
    codes.insert(EV_KEY, (0..0x300).collect());
    codes.insert(EV_MSC, [4].into_iter().collect());
    codes.insert(EV_LED, [0, 1, 2].into_iter().collect());
    codes.insert(EV_SND, [2].into_iter().collect());
    codes.insert(EV_ABS, contacts.into_iter().collect());
    let slots = AbsInfo {
        max: 4,
        ..AbsInfo::default()
    };
    info.axes.insert(ABS_MT_SLOT, slots);
    info
}

impl TestDevice {
    fn new(queue: u16, info: DeviceInfo, host_access: HostAccess) -> Self {
        Self::controlled(queue, info, host_access, GrabControl::default())
    }

    fn controlled(
        queue: u16,
        info: DeviceInfo,
        host_access: HostAccess,
        control: GrabControl,
    ) -> Self {
        let source = FakeEvdev::new(info, host_access).expect("cannot make an eventfd");
        let hardware = source.hardware();
        let memory = guest_memory();
        let context = FakeContext::new(memory.clone()).expect("cannot make an event loop");
        let input = InputBuilder::new(source)
            .with_grab_control(control)
            .build(context.context())
            .expect("cannot build a device");
        let events = Driver::new(&memory, 0x1_0000, queue);
        let status = Driver::new(&memory, 0x3_0000, queue);
        let vrings = vec![events.vring.clone(), status.vring.clone()];
        Self {
            input,
            context,
            hardware,
            events,
            status,
            vrings,
            memory,
        }
    }

    /// A device to be grabbed, without a guest.
    fn idle(queue: u16) -> Self {
        Self::new(queue, info(), HostAccess::UntilGrab)
    }

    /// A device that a guest has.
    fn running(queue: u16) -> Self {
        let mut device = Self::idle(queue);
        device.kick(EVENT_QUEUE);
        assert!(device.hardware().grabbed);
        device
    }

    /// A device with autorepeat, as keyboards have it, without a guest.
    fn keyboard() -> Self {
        Self::keyboard_with(GrabControl::default())
    }

    /// The same, of which the host may ask by `control`.
    fn keyboard_with(control: GrabControl) -> Self {
        let mut info = info();
        info.codes.insert(EV_REP, [0, 1].into_iter().collect());
        let mut device = Self::controlled(64, info, HostAccess::UntilGrab, control);
        device.offer(64);
        device
    }

    fn hardware(&self) -> MutexGuard<'_, FakeHardware> {
        self.hardware.lock().expect("no test panics with the lock")
    }

    fn handle(&mut self, event: u16) {
        self.input
            .handle_event(event, NONE, &self.vrings)
            .expect("nothing ends the worker");
    }

    fn kick(&mut self, queue: usize) {
        self.handle(queue as u16);
    }

    /// The hardware reports `events`.
    fn report(&mut self, events: &[Event]) {
        self.hardware().readable.extend(events);
        while !self.hardware().readable.is_empty() {
            self.handle(SOURCE);
        }
    }

    fn unplug(&mut self) {
        self.hardware().unplugged = true;
        self.handle(SOURCE);
    }

    fn says_unplugged(&self) -> bool {
        let lost = self.context.lost_hardware();
        lost.is_some_and(|lost| lost.starts_with("/dev/input/event0 (Fake) was unplugged: "))
    }

    /// Makes `count` buffers available, for an event each.
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            self.events.offer(&[(8, true)]);
        }
    }

    /// The events in the buffers that were used since the last call, each with one event.
    fn received(&mut self) -> Vec<Event> {
        let used = self.events.take_used();
        used.into_iter()
            .map(|(head, length)| {
                assert_eq!(length, 8);
                let at = self.events.buffer(head as u16);
                Event::from_bytes(self.events.read(at))
            })
            .collect()
    }

    /// The driver sends `event` through the status queue. Returns whether its buffer was used.
    fn sets(&mut self, event: Event) -> bool {
        let head = self.status.offer(&[(8, false)]);
        self.status
            .write(self.status.buffer(head), &event.to_bytes());
        self.kick(STATUS_QUEUE);
        self.status.take_used() == [(u32::from(head), 0)]
    }

    /// The front-end shares `memory` instead. Returns the one before.
    fn replace_memory(&mut self, memory: GuestMemoryMmap) -> GuestMemoryMmap {
        let before = GuestMemoryMmap::clone(&self.memory.memory());
        self.memory
            .lock()
            .expect("no test panics with the lock")
            .replace(memory);
        self.input.memory_changed();
        before
    }

    fn stop(&mut self) {
        self.events.vring.set_queue_ready(false);
        self.input.stop_vring(0).expect("a queue can be stopped");
    }

    fn resume(&mut self) {
        self.events.vring.set_queue_ready(true);
        self.kick(EVENT_QUEUE);
    }

    fn continues(&self) -> bool {
        let ready = self.context.ready(0).expect("cannot wait");
        ready.iter().any(|(event, _)| *event == WAKE)
    }
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

fn presses(keys: std::ops::Range<u16>) -> Vec<Event> {
    let mut report: Vec<_> = keys.map(|code| key(code, 1)).collect();
    report.push(Event::REPORT);
    report
}

fn slot(slot: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_SLOT, slot)
}

fn contact(id: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_TRACKING_ID, id)
}
