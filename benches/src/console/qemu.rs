// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's own virtio-gpu, keyboard and VNC server, with a guest that we play over qtest.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use frontend::gpu::CommandQueue;
use frontend::input::Event;
use frontend::{Buffer, Command, Deadline, Descriptor, Memory, Program, Queue, descriptor_flags};
use harness::artifacts::Artifacts;
use rustix::event::PollFlags;
use tempfile::TempDir;

use super::guest::Guest;
use super::qtest::{Doorbells, Qtest};
use crate::usage::Usage;

/// Slots of bus 0.
const GPU: u8 = 0x10;
const KEYBOARD: u8 = 0x11;
/// Entries of the queues, as QEMU has them.
const CONTROL_SIZE: u16 = 64;
const CURSOR_SIZE: u16 = 16;
const INPUT_SIZE: u16 = 64;
/// Bytes of an input event.
const EVENT: u32 = 8;
/// Memory that a PC uses otherwise lies below.
const LOW_MEMORY: u64 = 2 << 20;
/// Firmware whose processor does nothing: its first instructions lie 16 bytes before the end, and are `cli`,
/// `hlt`, and a jump back to that.
const FIRMWARE_SIZE: usize = 0x1_0000;
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// How often the guest looks for what a device has done: QEMU's interrupts reach nobody here.
const LOOK: Duration = Duration::from_micros(20);
/// Commands whose cost is measured.
const CALIBRATION: u32 = 2000;

/// A machine with QEMU's own devices.
pub(super) struct QemuGuest {
    qemu: Program,
    qtest: Qtest,
    gpu: Doorbells,
    keyboard: Doorbells,
    control: CommandQueue,
    events: Queue,
    /// Where the buffer of descriptor n lies: at this address + n * [`EVENT`].
    buffers: u64,
    taken: u16,
    memory: Memory,
    _cursor: Queue,
    _status: Queue,
    /// Processor time that QEMU takes for a command of qtest itself.
    command: Duration,
    commands: u32,
    folder: TempDir,
}

impl QemuGuest {
    /// Starts it, with so much memory.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn start(size: u64) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |text| eprintln!("{text}"))?;
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let mut firmware = vec![0xff; FIRMWARE_SIZE];
        firmware[FIRMWARE_SIZE - 16..][..HALT.len()].copy_from_slice(&HALT);
        std::fs::write(path("firmware"), firmware)?;
        let memory = Memory::new(&[(0, size)])?;
        memory.alloc(LOW_MEMORY, 1)?;
        let regions = memory.regions();
        let file = regions.first().context("no memory")?.fd.as_raw_fd();
        let memory_file = format!("/proc/{}/fd/{file}", std::process::id());
        let listener = UnixListener::bind(path("qtest"))?;
        let prepared = artifacts.qemu.command();
        let mut command = Command::new(prepared.get_program());
        for (name, value) in prepared.get_envs() {
            command = command.env(name, value.unwrap_or_default());
        }
        let qemu = command
            .args(["-nodefaults", "-no-user-config", "-vga", "none"])
            .args(["-accel", "tcg", "-bios"])
            .arg(path("firmware"))
            .args(["-m", &format!("{}K", size >> 10), "-object"])
            .arg(format!(
                "memory-backend-file,id=ram,size={size},mem-path={memory_file},share=on"
            ))
            .args(["-machine", "q35,i8042=off,memory-backend=ram"])
            .args(["-device", &format!("virtio-gpu-pci,addr={GPU:x}.0")])
            .args([
                "-device",
                &format!("virtio-keyboard-pci,addr={KEYBOARD:x}.0"),
            ])
            .arg("-vnc")
            .arg(format!("unix:{}", path("vnc").display()))
            .arg("-qtest")
            .arg(format!("unix:{}", path("qtest").display()))
            .args(["-qtest-log", "/dev/null"])
            .spawn()?;
        if !Deadline::default().ready(&listener, PollFlags::IN)? {
            bail!("QEMU does not connect: {}", qemu.stderr());
        }
        let mut qtest = Qtest::new(listener.accept()?.0);
        let control = Queue::new(&memory, CONTROL_SIZE, false)?;
        let cursor = Queue::new(&memory, CURSOR_SIZE, false)?;
        let events = Queue::new(&memory, INPUT_SIZE, false)?;
        let status = Queue::new(&memory, INPUT_SIZE, false)?;
        for queue in [&control, &cursor, &events, &status] {
            queue.suppress_notifications(true)?;
        }
        let gpu = qtest.start(GPU, &[&control, &cursor])?;
        let keyboard = qtest.start(KEYBOARD, &[&events, &status])?;
        let mut guest = Self {
            buffers: memory.alloc(u64::from(INPUT_SIZE) * u64::from(EVENT), 8)?,
            control: CommandQueue::new(control),
            qemu,
            qtest,
            gpu,
            keyboard,
            events,
            taken: 0,
            memory: memory.clone(),
            _cursor: cursor,
            _status: status,
            command: Duration::ZERO,
            commands: 0,
            folder,
        };
        for _ in 0..INPUT_SIZE {
            guest.give_buffer()?;
        }
        guest.events.publish()?;
        guest.qtest.kick(&guest.keyboard, 0)?;
        guest.calibrate()?;
        Ok(guest)
    }

    /// Finds what a command of qtest costs.
    fn calibrate(&mut self) -> anyhow::Result<()> {
        for _ in 0..CALIBRATION / 10 {
            self.qtest.nothing()?;
        }
        let before = Usage::of(self.qemu.pid())?;
        for _ in 0..CALIBRATION {
            self.qtest.nothing()?;
        }
        let used = Usage::of(self.qemu.pid())?.since(before);
        self.command = used.cpu / CALIBRATION;
        Ok(())
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
        vec![self.qemu.pid()]
    }

    fn vnc(&self) -> PathBuf {
        self.folder.path().join("vnc")
    }

    fn control(&mut self) -> &mut CommandQueue {
        &mut self.control
    }

    fn memory(&self) -> Memory {
        self.memory.clone()
    }

    fn kick(&mut self) -> anyhow::Result<()> {
        self.control.queue.publish()?;
        self.commands += 1;
        self.qtest.kick(&self.gpu, 0)
    }

    fn wait_answer(&mut self) -> anyhow::Result<()> {
        let deadline = Deadline::default();
        while self.control.queue.used_index()? == self.taken {
            if deadline.passed() {
                bail!("QEMU's GPU does not answer: {}", self.qemu.stderr());
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
        self.command * std::mem::take(&mut self.commands)
    }

    fn said(&self) -> String {
        self.qemu.stderr()
    }
}
