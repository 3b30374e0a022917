// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's own virtio-gpu, keyboard and VNC server, with a guest that we play over qtest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use frontend::gpu::CommandQueue;
use frontend::input::Event;
use frontend::{Buffer, Command, Deadline, Descriptor, Memory, Queue, descriptor_flags};
use harness::artifacts::Artifacts;

use super::guest::Guest;
use crate::qemu::{Doorbells, LOOK, Machine};

/// Slots of bus 0.
const GPU: u8 = 0x10;
const KEYBOARD: u8 = 0x11;
/// Entries of the queues, as QEMU has them.
const CONTROL_SIZE: u16 = 64;
const CURSOR_SIZE: u16 = 16;
const INPUT_SIZE: u16 = 64;
/// Bytes of an input event.
const EVENT: u32 = 8;

/// A machine with QEMU's own devices.
pub(super) struct QemuGuest {
    machine: Machine,
    gpu: Doorbells,
    control: CommandQueue,
    events: Queue,
    /// Where the buffer of descriptor n lies: at this address + n * [`EVENT`].
    buffers: u64,
    taken: u16,
    memory: Memory,
    _cursor: Queue,
    _status: Queue,
}

impl QemuGuest {
    /// Starts it, with so much memory.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn start(size: u64) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |text| eprintln!("{text}"))?;
        let prepared = artifacts.qemu.command();
        let mut command = Command::new(prepared.get_program());
        for (name, value) in prepared.get_envs() {
            command = command.env(name, value.unwrap_or_default());
        }
        let mut machine = Machine::start(command, size, |folder| {
            let vnc = format!("unix:{}", folder.join("vnc").display());
            let gpu = format!("virtio-gpu-pci,addr={GPU:x}.0");
            let keyboard = format!("virtio-keyboard-pci,addr={KEYBOARD:x}.0");
            ["-device", &gpu, "-device", &keyboard, "-vnc", &vnc]
                .map(Into::into)
                .to_vec()
        })?;
        let memory = machine.memory();
        let control = Queue::new(&memory, CONTROL_SIZE, false)?;
        let cursor = Queue::new(&memory, CURSOR_SIZE, false)?;
        let events = Queue::new(&memory, INPUT_SIZE, false)?;
        let status = Queue::new(&memory, INPUT_SIZE, false)?;
        for queue in [&control, &cursor, &events, &status] {
            queue.suppress_notifications(true)?;
        }
        let gpu = machine.start_device(GPU, &[&control, &cursor], 0)?;
        let keyboard = machine.start_device(KEYBOARD, &[&events, &status], 0)?;
        let mut guest = Self {
            buffers: memory.alloc(u64::from(INPUT_SIZE) * u64::from(EVENT), 8)?,
            control: CommandQueue::new(control),
            machine,
            gpu,
            events,
            taken: 0,
            memory,
            _cursor: cursor,
            _status: status,
        };
        for _ in 0..INPUT_SIZE {
            guest.give_buffer()?;
        }
        guest.events.publish()?;
        guest.machine.kick(&keyboard, 0)?;
        guest.machine.take_excess();
        Ok(guest)
    }

    fn give_buffer(&mut self) -> anyhow::Result<()> {
        // The descriptor is the lowest that is free; its number is known only once it is taken.
        let head = self.events.add(&[Buffer::writable(self.buffers, EVENT)])?;
        let address = self.buffers + u64::from(head) * u64::from(EVENT);
        let descriptor = Descriptor {
            address,
            len: EVENT,
            flags: descriptor_flags::WRITE,
            next: 0,
        };
        self.events.write_descriptor(head, descriptor)?;
        Ok(())
    }
}

impl Guest for QemuGuest {
    fn pids(&self) -> Vec<u32> {
        vec![self.machine.pid()]
    }

    fn vnc(&self) -> PathBuf {
        self.machine.path("vnc")
    }

    fn control(&mut self) -> &mut CommandQueue {
        &mut self.control
    }

    fn memory(&self) -> Memory {
        self.memory.clone()
    }

    fn kick(&mut self) -> anyhow::Result<()> {
        self.control.queue.publish()?;
        self.machine.kick(&self.gpu, 0)
    }

    fn wait_answer(&mut self) -> anyhow::Result<()> {
        let deadline = Deadline::default();
        while self.control.queue.used_index()? == self.taken {
            if deadline.passed() {
                bail!("QEMU's GPU does not answer: {}", self.machine.said());
            }
            std::thread::sleep(LOOK);
        }
        self.taken = self.taken.wrapping_add(1);
        Ok(())
    }

    fn next_event(&mut self) -> anyhow::Result<Event> {
        let deadline = Deadline::default();
        let used = loop {
            if let Some(used) = self.events.take_used()? {
                break used;
            }
            if deadline.passed() {
                bail!("no key arrives from QEMU");
            }
            std::thread::sleep(LOOK);
        };
        let mut bytes = [0; EVENT as usize];
        let address = self.buffers + u64::from(used.head) * u64::from(EVENT);
        self.memory.read(address, &mut bytes)?;
        let [a, b, c, d, value @ ..] = bytes;
        self.give_buffer()?;
        // The device looks for buffers itself when it has an event.
        self.events.publish()?;
        Ok(Event::new(
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d]),
            i32::from_le_bytes(value),
        ))
    }

    fn take_excess(&mut self) -> Duration {
        self.machine.take_excess()
    }

    fn said(&self) -> String {
        self.machine.said()
    }
}
