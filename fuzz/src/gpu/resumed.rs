// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A 2D device whose process is replaced, beside one that lives: guest and screen must not differ.

use std::collections::BTreeSet;
use std::io;

use vhost_user_backend::VringT;
use vhost_user_backends::backend::Device;
use vhost_user_backends::backend::fuzzing::{FakeContext, Processes};
use vhost_user_backends::gpu::fuzzing::FuzzGpu;
use vmm_sys_util::epoll::EventSet;

use super::commands::{command_2d, cursor_command};
use super::{CONTROL, CURSOR, MAX_HOSTMEM, MAX_TURNS, RESOURCE_ASSIGN_UUID};
use crate::bytes::Bytes;
use crate::front_end::FrontEnd;
use crate::guest::{Guest, QUEUES};
use crate::turns;

const MAX_STEPS: usize = 120;
/// Most bytes of a step.
const MAX_STEP: usize = 200;
/// Commits before a death: more than a turn makes.
const MAX_COMMITS: u8 = 24;

/// A 2D device whose process dies, and one whose process lives.
pub fn resumed_2d(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (mut lives, mut dies) = (Mortal::new(), Mortal::new());
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        let fate = bytes.u8();
        let step = bytes.some(MAX_STEP);
        match fate {
            0..=63 => dies.resume().expect("the state is valid"),
            64..=159 => dies.processes.die((fate % MAX_COMMITS).into(), fate >= 112),
            _ => {}
        }
        lives.step(&mut Bytes::new(step));
        dies.step(&mut Bytes::new(step));
        lives.compare(&dies);
    }
    // One that was to die later does so no more.
    dies.resume().expect("the state is valid");
    for machine in [&mut lives, &mut dies] {
        machine.rest();
        machine.check_shown();
    }
    lives.compare(&dies);
    let expected = [&lives, &dies].map(|machine| machine.bench().expected_console());
    assert_eq!(expected[0], expected[1], "the screens differ");
    for machine in [&mut lives, &mut dies] {
        machine.end();
    }
}

/// A device whose processes may die.
pub(crate) struct Mortal {
    pub(crate) processes: Processes,
    /// The device of the process that lives.
    bench: Option<FuzzGpu>,
    program: FakeContext,
    guest: Guest,
    /// Whether the front-end has the virtqueues running, and where they were stopped.
    runs: bool,
    bases: [u16; QUEUES],
    ids: BTreeSet<u32>,
}

impl Mortal {
    pub(crate) fn new() -> Self {
        let processes = Processes::new().expect("the host has descriptors left");
        let mut guest = Guest::new();
        let program = processes.context(guest.memory.clone());
        let program = program.expect("the host has descriptors left");
        let bench = FuzzGpu::kept(MAX_HOSTMEM, program.context());
        guest.vrings = processes
            .vrings(&guest.memory, QUEUES as u32)
            .expect("nothing was left");
        processes.replayed();
        let mut mortal = Self {
            processes,
            bench: Some(bench.expect("nothing was left")),
            program,
            guest,
            runs: true,
            bases: [0; QUEUES],
            ids: (1..6).collect(),
        };
        mortal.set_up();
        mortal.guest.start(true, &mut Bytes::new(&[]));
        mortal.processes.commit();
        mortal.rest();
        mortal
    }

    pub(crate) fn bench(&self) -> &FuzzGpu {
        self.bench.as_ref().expect("a process lives")
    }

    fn gpu(&mut self) -> &mut FuzzGpu {
        self.bench.as_mut().expect("a process lives")
    }

    /// What each process is told first.
    fn set_up(&mut self) {
        let gpu = &mut self.gpu().gpu;
        gpu.memory_changed();
        gpu.acked_features(gpu.features());
    }

    /// The process is dead, and its successor begins.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        self.bench = None;
        self.processes.succeed()?;
        self.program = self.processes.context(self.guest.memory.clone())?;
        self.bench = Some(FuzzGpu::kept(MAX_HOSTMEM, self.program.context())?);
        self.guest.vrings = self.processes.vrings(&self.guest.memory, QUEUES as u32)?;
        self.set_up();
        for vring in &self.guest.vrings {
            // As the front-end set them first.
            vring.set_queue_next_avail(0);
        }
        if self.runs {
            self.guest.start(false, &mut Bytes::new(&[]));
        }
        self.processes.replayed();
        Ok(())
    }

    /// What may be cut by the process's death, and is done again then.
    fn survive(&mut self, mut doing: impl FnMut(&mut Self)) {
        loop {
            let lives = Processes::survives(|| {
                doing(self);
                self.processes.commit();
            });
            if lives {
                return;
            }
            self.resume().expect("the state is valid");
        }
    }

    fn turn(&mut self, event: u16, set: EventSet) {
        let vrings = self.guest.vrings.clone();
        let handled = self.gpu().gpu.handle_event(event, set, &vrings);
        handled.expect("nothing ends the worker");
    }

    /// Lets the device do all that there is to do.
    pub(crate) fn rest(&mut self) {
        self.survive(|machine| {
            machine.turn(CURSOR as u16, EventSet::IN);
            machine.turn(CONTROL as u16, EventSet::IN);
            turns::rest(machine, |machine| &machine.program, Self::turn);
        });
    }

    pub(crate) fn step(&mut self, bytes: &mut Bytes<'_>) {
        while !bytes.is_empty() {
            match bytes.u8() {
                0..=139 => {
                    let request = command_2d(&mut self.ids, bytes);
                    // Another each time.
                    if !request.starts_with(&RESOURCE_ASSIGN_UUID.to_le_bytes()) {
                        self.submit(CONTROL, &request, bytes);
                    }
                }
                140..=189 => {
                    let request = cursor_command(&mut self.ids, bytes);
                    self.submit(CURSOR, &request, bytes);
                }
                190..=219 => self.guest.fill(bytes),
                220..=239 => self.rest(),
                240..=244 => self.pause(false),
                245..=247 => self.pause(true),
                248..=250 => self.survive(|machine| drop(machine.gpu().gpu.get_config(0, 16))),
                251 => self.survive(|machine| machine.gpu().gpu.reset_device()),
                _ => self.survive(|machine| machine.gpu().gpu.memory_changed()),
            }
        }
        self.rest();
        let used = self.bench().used();
        assert!(used <= MAX_HOSTMEM, "the budget is exceeded");
    }

    /// A request of one shape or another, whole and where there is room for it.
    fn submit(&mut self, queue: usize, request: &[u8], bytes: &mut Bytes<'_>) {
        if self.guest.room(queue) < 16 {
            self.rest();
        }
        let shape = bytes.of(&[0, 4, 5, 6, 8, 0x10, 0x18]);
        self.guest
            .submit(queue, request, &mut Bytes::new(&[shape, 9, 5, 7, 3]));
    }

    /// The virtqueues stop, and start again: with their driver, or a new one.
    fn pause(&mut self, anew: bool) {
        self.survive(|machine| {
            for queue in 0..QUEUES {
                machine.guest.stop(queue);
                let stopped = machine.gpu().gpu.stop_vring(queue as u32);
                stopped.expect("a queue can be stopped");
            }
        });
        for (base, vring) in self.bases.iter_mut().zip(&self.guest.vrings) {
            *base = vring.queue_next_avail();
        }
        self.runs = false;
        if anew {
            self.survive(|machine| drop(machine.gpu().gpu.get_config(0, 16)));
            // Which a successor must not find running meanwhile.
            self.processes.die(u32::MAX, true);
            self.guest.start(true, &mut Bytes::new(&[]));
        } else {
            let bases = self.bases;
            self.survive(|machine| {
                for (vring, base) in machine.guest.vrings.iter().zip(bases) {
                    vring.set_queue_next_avail(base);
                }
                machine.guest.start(false, &mut Bytes::new(&[]));
            });
        }
        self.runs = true;
        self.rest();
    }

    /// The VMM's display has what the scanouts show.
    fn check_shown(&mut self) {
        let (mut front_end, socket) = FrontEnd::new();
        let attached = self.gpu().gpu.set_gpu_socket(socket.into());
        attached.expect("a GPU has a display");
        let mut quiet = 0;
        for _ in 0..MAX_TURNS {
            let heard = front_end.heard();
            front_end.read_all();
            front_end.answer(&mut Bytes::new(&[]));
            self.rest();
            front_end.read_all();
            quiet = if front_end.heard() == heard {
                quiet + 1
            } else {
                0
            };
            if quiet > 2 {
                break;
            }
        }
        if let Some(expected) = self.bench().expected_display() {
            front_end.check(&expected);
        }
    }

    fn compare(&self, other: &Self) {
        let both = [self, other].map(Self::bench);
        assert_eq!(both[0].used(), both[1].used(), "the budgets differ");
        assert_eq!(both[0].scanouts(), both[1].scanouts(), "scanouts differ");
        for id in &self.ids {
            let [one, two] = both.map(|bench| bench.image(*id));
            assert!(one == two, "resource {id} differs");
        }
        for id in 0..16 {
            let [one, two] = both.map(|bench| bench.cursor(id));
            assert!(one == two, "cursor {id} differs");
        }
        let memory = [self, other].map(|machine| machine.guest.contents());
        for ((start, one), (_, two)) in memory[0].iter().zip(&memory[1]) {
            let differs = one.iter().zip(two).position(|(a, b)| a != b);
            let at = differs.map(|at| start + at as u64);
            assert_eq!(at, None, "the guest's memory differs there");
        }
    }

    /// A reset leaves nothing behind.
    pub(crate) fn end(&mut self) {
        for vring in &self.guest.vrings {
            vring.set_enabled(false);
        }
        self.gpu().gpu.reset_device();
        self.rest();
        assert_eq!(self.bench().scanouts(), []);
        for id in &self.ids {
            assert_eq!(self.bench().size(*id), None, "resource {id} is left");
        }
        // A display that left may still be sent what was shown.
        let (_, socket) = FrontEnd::new();
        let attached = self.gpu().gpu.set_gpu_socket(socket.into());
        attached.expect("a GPU has a display");
        self.rest();
        assert_eq!(self.bench().used(), 0, "a reset leaves something behind");
    }
}
