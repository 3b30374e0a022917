// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices whose process dies at any point, and whose successor goes on.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::backend::Positions;
use crate::backend::continuity::{Continuity, Ledger, Owner as Records, crash};
use crate::backend::testing::kept_state::KeptState;
use crate::input::device::release::{GrabRequest, ReleasedBy};
use crate::input::protocol::event_codes::EV_SW;
use crate::input::source::SourceReturn;

use super::*;

/// A host and a guest that outlive the processes of the device between them.
struct World {
    kept: KeptState,
    continuity: Continuity,
    context: FakeContext,
    /// `None` while no process lives.
    input: Option<Input<FakeEvdev>>,
    /// The open device, for the next process.
    file: FakeEvdev,
    /// How the host may ask for the device, for the next process.
    control: Control,
    hardware: Arc<Mutex<FakeHardware>>,
    memory: GuestMemory,
    events: Driver,
    status: Driver,
    /// Whether the event queue is started.
    runs: bool,
    deaths: u64,
    received: Vec<Event>,
}

type Control = Box<dyn Fn() -> GrabControl>;

fn of_chord(toggle: Option<GrabToggle>) -> Control {
    Box::new(move || toggle.map(GrabControl::of_chord).unwrap_or_default())
}

/// What host and guest do.
#[derive(Clone, Debug)]
enum Step {
    Report(Vec<Event>),
    /// The kernel's buffer was full, and the hardware's state is another one.
    Lose(DeviceState),
    Offer(usize),
    Set(Event),
    Select([u8; 2]),
    /// The host asks for the device, or gives it again.
    Ask(GrabRequest),
    Pause,
    Continue,
    Reset,
    Unplug,
    Return(DeviceState),
}

impl World {
    fn new(queue: u16, info: DeviceInfo, host_access: HostAccess, control: Control) -> Self {
        let mut kept = KeptState::new().unwrap();
        let continuity = kept.next_process().unwrap();
        let memory = guest_memory();
        let file = FakeEvdev::kept(info, host_access, &continuity);
        let mut world = Self {
            context: FakeContext::new(memory.clone()).unwrap(),
            input: None,
            hardware: file.hardware(),
            file,
            control,
            events: Driver::new(&memory, 0x1_0000, queue),
            status: Driver::new(&memory, 0x3_0000, queue),
            memory,
            kept,
            continuity,
            runs: true,
            deaths: 0,
            received: Vec::new(),
        };
        let positions = Positions::new(world.ledger());
        world.events.vring.keep(0, &positions).unwrap();
        world.status.vring.keep(1, &positions).unwrap();
        positions.replay_done();
        world.build();
        world.kick();
        world
    }

    fn ledger(&self) -> Ledger {
        self.continuity.ledger(Records::Device)
    }

    fn hardware(&self) -> MutexGuard<'_, FakeHardware> {
        self.hardware.lock().expect("no test panics with the lock")
    }

    fn build(&mut self) {
        let (memory, continuity) = (self.memory.clone(), self.continuity.clone());
        self.context = FakeContext::with_continuity(memory, continuity).unwrap();
        let source = self.file.successor(&self.continuity);
        let built = InputBuilder::new(source)
            .with_grab_control((self.control)())
            .build(self.context.context());
        self.input = Some(built.expect("the state is valid"));
        self.ledger().commit();
    }

    /// The next process goes on, and the front-end's messages are replayed.
    fn go_on(&mut self) {
        self.continuity = self.kept.next_process().expect("the state is valid");
        self.build();
        let positions = Positions::new(self.ledger());
        self.events.resume_at(0, &positions, self.runs);
        self.status.resume_at(1, &positions, true);
        positions.replay_done();
    }

    fn vrings(&self) -> Vec<Vring> {
        vec![self.events.vring.clone(), self.status.vring.clone()]
    }

    fn handle(&mut self, event: u16) {
        let vrings = self.vrings();
        let input = self.input.as_mut().expect("a process lives");
        input
            .handle_event(event, NONE, &vrings)
            .expect("nothing ends the worker");
        self.ledger().commit();
    }

    /// Everything that an event loop finds until there is nothing left to do.
    fn handle_all(&mut self) {
        loop {
            let left = self.hardware().readable.len();
            if !self.hardware().returns.is_empty() {
                self.handle(RETURN);
            }
            self.handle(SOURCE);
            self.kick();
            if left == 0 {
                return;
            }
        }
    }

    fn kick(&mut self) {
        self.handle(EVENT_QUEUE as u16);
        self.handle(STATUS_QUEUE as u16);
    }

    /// Does what follows from a step, in as many processes as it takes: the first ones die at the points `deaths`.
    fn until_done(&mut self, deaths: &[u64], mut work: impl FnMut(&mut Self)) {
        let mut deaths = deaths.iter();
        loop {
            crash::dies_after(deaths.next().copied());
            let done = catch_unwind(AssertUnwindSafe(|| {
                if self.input.is_none() {
                    self.go_on();
                }
                // The message under way is executed again before anything else.
                work(self);
                self.handle(WAKE);
                self.kick();
                self.handle_all();
            }));
            crash::dies_after(None);
            match done {
                Ok(()) => break,
                Err(died) if died.is::<crash::Died>() => {
                    self.deaths += 1;
                    self.input = None;
                }
                Err(other) => resume_unwind(other),
            }
        }
        self.continuity.forget_deaths();
    }

    /// Something happens, and the processes die as [`World::until_done`] says.
    fn step(&mut self, step: &Step, deaths: &[u64]) {
        match step {
            Step::Report(events) => {
                let mut hardware = self.hardware();
                events.iter().for_each(|event| hardware.state.apply(event));
                hardware.readable.extend(events);
            }
            Step::Lose(state) => {
                let mut hardware = self.hardware();
                hardware.state = state.clone();
                let dropped = [Event::new(EV_SYN, SYN_DROPPED, 0), Event::REPORT];
                hardware.readable.extend(dropped);
            }
            Step::Offer(count) => (0..*count).for_each(|_| {
                self.events.offer(&[(8, true)]);
            }),
            Step::Set(event) => {
                let head = self.status.offer(&[(8, false)]);
                self.status
                    .write(self.status.buffer(head), &event.to_bytes());
            }
            Step::Unplug => self.hardware().unplugged = true,
            Step::Return(state) => {
                let mut hardware = self.hardware();
                hardware.state = state.clone();
                hardware.leds = Bitmap::default();
                hardware.returns.push_back(SourceReturn::Back);
            }
            Step::Select(_) | Step::Ask(_) | Step::Pause | Step::Continue | Step::Reset => {}
        }
        self.until_done(deaths, |world| {
            let input = world.input.as_mut().expect("a process lives");
            match step {
                Step::Select(query) => input.set_config(0, query).unwrap(),
                Step::Pause => {
                    world.events.vring.set_queue_ready(false);
                    input.stop_vring(0).unwrap();
                }
                Step::Reset => input.reset_device(),
                Step::Ask(request) => {
                    changing_hands::obey(&mut input.ownership, *request, &mut input.virtio_input);
                }
                Step::Continue => world.events.vring.set_queue_ready(true),
                _ => return,
            }
            world.ledger().commit();
        });
        match step {
            Step::Pause => self.runs = false,
            Step::Continue => self.runs = true,
            _ => {}
        }
        for (head, length) in self.events.take_used() {
            assert_eq!(length, 8);
            let at = self.events.buffer(head as u16);
            self.received.push(Event::from_bytes(self.events.read(at)));
        }
        self.status.take_used();
    }

    /// What host and guest see.
    fn seen(&self) -> Seen {
        let input = self.input.as_ref().expect("a process lives");
        let hardware = self.hardware();
        let sounds = hardware.sent.iter().filter(|event| event.kind == EV_SND);
        let mut sounds: BTreeMap<_, _> = sounds.map(|event| (event.code, event.value)).collect();
        sounds.retain(|_, value| *value != 0);
        Seen {
            received: self.received.clone(),
            leds: hardware.leds,
            sounds,
            grabbed: hardware.grabbed,
            awaited: hardware.awaited,
            config: input.get_config(0, 16),
        }
    }
}

/// What host and guest see of a device.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    received: Vec<Event>,
    leds: Bitmap,
    /// Those that last.
    sounds: BTreeMap<u16, i32>,
    grabbed: bool,
    awaited: bool,
    config: Vec<u8>,
}

/// Pseudo-random numbers below a limit (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const LEFT: u16 = 29;
const RIGHT: u16 = 97;
const KEYS: [u16; 6] = [30, 31, 57, 0x14a, LEFT, RIGHT];
const SLOTS: u64 = 5;

/// Makes up what happens, as far as it can happen.
struct Story {
    random: Random,
    free: usize,
    plugged: bool,
    runs: bool,
    next_contact: i32,
}

impl Story {
    fn new(seed: u64, queue: usize) -> Self {
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            free: queue,
            plugged: true,
            runs: true,
            next_contact: 0,
        }
    }

    fn report(&mut self) -> Vec<Event> {
        let mut report = Vec::new();
        for _ in 0..=self.random.below(6) {
            match self.random.below(5) {
                0 | 1 => {
                    let code = KEYS[self.random.below(6) as usize];
                    report.push(key(code, self.random.below(2) as i32));
                }
                2 => report.push(Event::new(EV_MSC, 4, self.random.below(9) as i32)),
                3 => report.push(Event::new(EV_SW, 1, self.random.below(2) as i32)),
                _ => {
                    self.next_contact += 1;
                    report.push(slot(self.random.below(SLOTS) as i32));
                    let ends = self.random.below(2) == 0;
                    report.push(contact(if ends { -1 } else { self.next_contact }));
                }
            }
        }
        report.push(Event::REPORT);
        report
    }

    fn state(&mut self) -> DeviceState {
        let mut state = DeviceState::new(SLOTS as usize);
        for code in KEYS {
            state.keys.set(code, self.random.below(4) == 0);
        }
        let slot = self.random.below(SLOTS) as usize;
        state.touch.slot = Some(slot);
        self.next_contact += 1;
        state.touch.contacts[slot].id = self.next_contact;
        state
    }

    fn next(&mut self) -> Step {
        loop {
            match self.random.below(21) {
                0..8 if self.plugged => {
                    let mut events = Vec::new();
                    for _ in 0..=self.random.below(3) {
                        events.extend(self.report());
                    }
                    return Step::Report(events);
                }
                8..13 => return Step::Offer(self.random.below(4) as usize),
                13 => {
                    let (kind, code) = [(EV_LED, 0), (EV_LED, 1), (EV_SND, 2), (EV_MSC, 4)]
                        [self.random.below(4) as usize];
                    return Step::Set(Event::new(kind, code, self.random.below(2) as i32));
                }
                14 => return Step::Select([self.random.below(6) as u8, 0]),
                15 if self.plugged => return Step::Lose(self.state()),
                16 if self.plugged => {
                    self.plugged = false;
                    return Step::Unplug;
                }
                17 if !self.plugged => {
                    self.plugged = true;
                    return Step::Return(self.state());
                }
                18 if self.runs => {
                    self.runs = false;
                    return Step::Pause;
                }
                18 => {
                    self.runs = true;
                    return Step::Continue;
                }
                19 if !self.runs => return Step::Reset,
                20 => {
                    let asked = [
                        GrabRequest::Grab,
                        GrabRequest::Release(ReleasedBy::Chord),
                        GrabRequest::Release(ReleasedBy::Command),
                    ];
                    return Step::Ask(asked[self.random.below(3) as usize]);
                }
                _ => {}
            }
        }
    }
}

/// The device of a story: a keyboard with a touch screen, of which some keys delay the hand-over.
fn story_info(seed: u64) -> DeviceInfo {
    let mut info = info();
    info.codes.insert(EV_SW, [1].into_iter().collect());
    if seed & 1 == 0 {
        info.codes.insert(EV_REP, [0, 1].into_iter().collect());
    }
    info
}

fn story_world(seed: u64) -> (World, Story) {
    let queue = [4, 64][(seed % 3 / 2) as usize];
    let access = [HostAccess::UntilGrab, HostAccess::Shared][(seed % 5 / 4) as usize];
    let toggle = (seed % 4 > 1).then_some(GrabToggle::CtrlCtrl);
    let world = World::new(queue, story_info(seed), access, of_chord(toggle));
    (world, Story::new(seed, queue.into()))
}

#[test]
fn guest_sees_nothing_of_deaths() {
    let mut died = 0;
    for seed in 0..120 {
        let (mut undisturbed, mut story) = story_world(seed);
        let (mut disturbed, _) = story_world(seed);
        let mut deaths = Random(seed + 77);
        for number in 0..120 {
            let mut step = story.next();
            if let Step::Offer(count) = &mut step {
                // As many as the driver has got back.
                *count = (*count).min(story.free);
            }
            let points: Vec<_> = (0..deaths.below(3)).map(|_| deaths.below(60)).collect();
            let before = undisturbed.received.len();
            undisturbed.step(&step, &[]);
            disturbed.step(&step, &points);
            assert_eq!(
                disturbed.seen(),
                undisturbed.seen(),
                "seed {seed}, step {number}: {step:?}, deaths at {points:?}"
            );
            story.free += undisturbed.received.len() - before;
            if let Step::Offer(count) = step {
                story.free -= count;
            }
        }
        died += disturbed.deaths;
    }
    assert!(died > 1000, "{died} deaths");
}

#[test]
fn chord_outlives_the_process() {
    let strike = [(LEFT, 1), (RIGHT, 1), (RIGHT, 0), (LEFT, 0)];
    let mut died = 0;
    for (dies_at, point) in (0..4).flat_map(|key| (0..40).map(move |point| (key, point))) {
        let toggle = Some(GrabToggle::CtrlCtrl);
        let control = of_chord(toggle);
        let mut world = World::new(64, story_info(0), HostAccess::UntilGrab, control);
        for grabbed in [false, true] {
            for (number, (code, value)) in strike.into_iter().enumerate() {
                let report = vec![key(code, value), Event::REPORT];
                let deaths = if number == dies_at { &[point][..] } else { &[] };
                world.step(&Step::Report(report), deaths);
            }
            let is_grabbed = world.hardware().grabbed;
            assert_eq!(is_grabbed, grabbed, "death at key {dies_at}, point {point}");
        }
        died += world.deaths;
    }
    assert!(died > 50, "{died} deaths");
}

#[test]
fn group_is_released_as_a_device_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("released");
    fs::write(&file, "").unwrap();
    let group = file.clone();
    let control = Box::new(move || GrabControl::of_resumed_group(&group).unwrap());
    let mut world = World::new(64, story_info(0), HostAccess::UntilGrab, control);
    assert!(!world.hardware().grabbed);
    // A new member begins the group anew while no process of this device lives.
    world.input = None;
    fs::remove_file(&file).unwrap();
    world.until_done(&[], |_| {});
    assert!(!world.hardware().grabbed);
    // Its helper makes the file.
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}
