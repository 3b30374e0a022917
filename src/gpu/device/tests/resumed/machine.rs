// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine whose device's processes die.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use vhost_user_backend::VringT;
use vm_memory::{GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

use super::model_display::ModelDisplay;
use super::*;
use crate::backend::continuity::{Continuity, DIED, Death, Ledger, Owner};
use crate::backend::testing::committing::Committing;
use crate::backend::testing::kept_state::KeptState as Processes;
use crate::backend::testing::split_queue::SplitQueue;
use crate::backend::{FakeContext, MAX_QUEUE_SIZE, Positions};
use crate::gpu::renderer::SoftwareRenderer;
use crate::gpu::resource::Budget;
use crate::gpu::scanout::DisplayId;

pub(super) const MAX_HOSTMEM: u64 = 4 << 20;

/// A machine, its device's processes, and the VMM's display.
pub(super) struct MortalMachine {
    pub(super) machine: Machine,
    processes: Processes,
    pub(super) ledger: Ledger,
    pub(super) budget: Budget,
    pub(super) display: ModelDisplay,
    pub(super) deaths: u32,
    /// Whether the front-end has the virtqueues running.
    runs: bool,
    /// Where they were stopped.
    bases: [u16; NUM_QUEUES],
}

fn build(continuity: &Continuity, program: &FakeContext) -> io::Result<(Gpu, Budget)> {
    let budget = Budget::new(MAX_HOSTMEM);
    let memory = program.context().memory().clone();
    let arena = continuity.arena(MAX_HOSTMEM)?.expect("all is kept");
    let kept = KeptState::new(continuity.ledger(Owner::Device), Some(arena.clone()));
    let renderer = SoftwareRenderer::resume(budget.clone(), memory, kept.clone(), arena)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let resolutions = Resolutions::default();
    let gpu = Gpu::new(
        program.context(),
        Box::new(renderer),
        &resolutions,
        false,
        &kept,
        HostVisibleMemory::default(),
    )?;
    Ok((gpu, budget))
}

impl MortalMachine {
    pub(super) fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let mut processes = Processes::new().unwrap();
        let continuity = processes.next_process().unwrap();
        let program = FakeContext::with_continuity(memory.clone(), continuity.clone()).unwrap();
        let (mut gpu, budget) = build(&continuity, &program).unwrap();
        let scanouts = gpu.virtio_gpu.scanouts_mut();
        scanouts.attach_display(DisplayId::VMM);
        let ledger = continuity.ledger(Owner::Device);
        let positions = Positions::new(ledger.clone());
        let driver = |base| SplitQueue::new([base, base + 0x2000, base + 0x3000], QUEUE_SIZE);
        let mut mortal = Self {
            machine: Machine {
                gpu,
                program,
                vrings: vrings(&memory, &positions, &ledger),
                memory,
                drivers: [driver(0x10_0000), driver(0x20_0000)],
            },
            processes,
            ledger,
            budget,
            display: ModelDisplay::default(),
            deaths: 0,
            runs: false,
            bases: [0; NUM_QUEUES],
        };
        positions.replay_done();
        mortal.set_up();
        mortal.start_new_driver();
        mortal
    }

    /// What every process is told first.
    fn set_up(&mut self) {
        let gpu = &mut self.machine.gpu;
        gpu.memory_changed();
        gpu.acked_features(gpu.features());
    }

    /// A new driver begins.
    pub(super) fn start_new_driver(&mut self) {
        self.bases = [0; NUM_QUEUES];
        let memory = self.machine.memory.memory();
        for driver in &mut self.machine.drivers {
            driver.begin(&memory, 0).unwrap();
        }
        drop(memory);
        self.start();
    }

    /// Starts the virtqueues where they were stopped.
    pub(super) fn start(&mut self) {
        let bases = self.bases;
        self.survive(|machine| {
            for ((driver, vring), base) in machine.drivers.iter().zip(&machine.vrings).zip(bases) {
                place(driver, vring);
                vring.set_queue_next_avail(base);
                vring.set_queue_ready(true);
            }
        });
        self.runs = true;
        self.serve();
    }

    pub(super) fn stop(&mut self) {
        self.survive(Machine::stop);
        self.runs = false;
        let positions = self.machine.vrings.iter().map(VringT::queue_next_avail);
        for (base, position) in self.bases.iter_mut().zip(positions) {
            *base = position;
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    /// The process dies after `commits` more commits.
    pub(super) fn die(&self, commits: u32, is_committed: bool) {
        self.ledger.die(Death {
            commits,
            is_committed,
        });
    }

    /// Does what may be cut by the process's death. The front-end's message `doing` is executed again then.
    pub(super) fn survive(&mut self, doing: impl Fn(&mut Machine)) {
        loop {
            let ledger = self.ledger.clone();
            let machine = &mut self.machine;
            let done = catch_unwind(AssertUnwindSafe(|| {
                doing(machine);
                ledger.commit();
            }));
            match done {
                Ok(()) => return,
                Err(payload) if payload.downcast_ref() == Some(&DIED) => self.resume(),
                Err(payload) => resume_unwind(payload),
            }
        }
    }

    /// Serves the virtqueues until there is nothing left to do.
    pub(super) fn serve(&mut self) {
        self.survive(|machine| {
            for queue in [CONTROL_QUEUE, CURSOR_QUEUE] {
                machine.event(queue);
            }
            machine.run();
        });
    }

    /// The display takes all updates.
    pub(super) fn show(&mut self) {
        let scanouts = self.machine.gpu.virtio_gpu.scanouts_mut();
        assert!(self.display.take_updates(scanouts, usize::MAX));
    }

    /// The display takes some updates. The process does not die meanwhile: that a message is sent after its record is valid,
    /// and whole, is the display connection's to see to.
    pub(super) fn show_some(&mut self, most: usize) {
        self.die(u32::MAX, true);
        let scanouts = self.machine.gpu.virtio_gpu.scanouts_mut();
        self.display.take_updates(scanouts, most);
        self.ledger.commit();
    }

    /// The process is dead, and its successor begins.
    pub(super) fn resume(&mut self) {
        self.try_resume().unwrap();
    }

    pub(super) fn try_resume(&mut self) -> io::Result<()> {
        self.deaths += 1;
        let memory = self.machine.memory.clone();
        let continuity = self.processes.next_process()?;
        let program = FakeContext::with_continuity(memory.clone(), continuity.clone())?;
        let (gpu, budget) = build(&continuity, &program)?;
        // The dead process's mapping of the arena is dropped here, as it is by exit(2).
        self.machine.gpu = gpu;
        self.budget = budget;
        self.machine.program = program;
        self.ledger = continuity.ledger(Owner::Device);
        let positions = Positions::new(self.ledger.clone());
        self.machine.vrings = vrings(&memory, &positions, &self.ledger);
        self.set_up();
        let scanouts = self.machine.gpu.virtio_gpu.scanouts_mut();
        scanouts.resume_vmm_display();
        for (driver, vring) in self.machine.drivers.iter().zip(&self.machine.vrings) {
            place(driver, vring);
            vring.set_queue_next_avail(0);
            vring.set_queue_ready(self.runs);
        }
        positions.replay_done();
        // Another number for each process: no death is taken for that of one that did nothing.
        let lives = crate::backend::continuity::RecordKey::new(100, 0);
        self.ledger.put(lives, &self.deaths.to_le_bytes());
        self.ledger.commit();
        Ok(())
    }
}

/// What the front-end says of a virtqueue before it starts it.
fn place(driver: &SplitQueue, vring: &Vring) {
    vring.set_queue_size(driver.size);
    vring
        .set_queue_info(driver.descriptors, driver.available, driver.used)
        .unwrap();
    vring.set_queue_next_used(vring.queue_used_idx().unwrap());
    vring.set_enabled(true);
}

fn vrings(memory: &GuestMemory, positions: &Positions, ledger: &Ledger) -> Vec<Vring> {
    let vring = |index| {
        let vring = Vring::new(memory.clone(), MAX_QUEUE_SIZE as u16).unwrap();
        vring.keep(index, positions).unwrap();
        vring.observe(index, Arc::new(Committing::new(ledger.clone())));
        vring
    };
    (0..NUM_QUEUES as u32).map(vring).collect()
}
