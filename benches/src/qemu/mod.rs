// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A QEMU whose processor halts at once: what it spends is spent for devices and displays. We play the driver.

mod qtest;

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use frontend::{Command, Deadline, Memory, Program, Queue};
use rustix::event::PollFlags;
use tempfile::TempDir;

use crate::usage::Usage;
pub(crate) use qtest::Doorbells;
use qtest::Qtest;

/// Memory that a PC uses otherwise lies below.
const LOW_MEMORY: u64 = 2 << 20;
/// Firmware whose processor does nothing: its first instructions lie 16 bytes before the end, and are `cli`,
/// `hlt`, and a jump back to that.
const FIRMWARE_SIZE: usize = 0x1_0000;
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// How often the guest looks for what a device has done: QEMU's interrupts reach nobody here.
pub(crate) const LOOK: Duration = Duration::from_micros(20);
/// Commands whose cost is measured.
const CALIBRATION: u32 = 2000;

/// A machine without a processor, and the connection by which its devices are driven.
pub(crate) struct Machine {
    qemu: Program,
    qtest: Qtest,
    memory: Memory,
    /// Processor time that QEMU takes for a command of qtest itself.
    command: Duration,
    commands: u32,
    folder: TempDir,
}

impl Machine {
    /// Starts `qemu` with `size` bytes of memory, and with the options that `devices` gives: it is told a folder for
    /// sockets.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn start(
        mut qemu: Command,
        size: u64,
        devices: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> anyhow::Result<Self> {
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
        qemu = qemu
            .args(["-nodefaults", "-no-user-config", "-vga", "none"])
            .args(["-accel", "tcg", "-bios"])
            .arg(path("firmware"))
            .args(["-m", &format!("{}K", size >> 10), "-object"])
            .arg(format!(
                "memory-backend-file,id=ram,size={size},mem-path={memory_file},share=on"
            ))
            .args(["-machine", "q35,i8042=off,memory-backend=ram"])
            .args(devices(folder.path()))
            .arg("-qtest")
            .arg(format!("unix:{}", path("qtest").display()))
            .args(["-qtest-log", "/dev/null"]);
        let qemu = qemu.spawn()?;
        if !Deadline::default().ready(&listener, PollFlags::IN)? {
            bail!("QEMU does not connect: {}", qemu.stderr());
        }
        let mut machine = Self {
            qtest: Qtest::new(listener.accept()?.0),
            qemu,
            memory: memory.clone(),
            command: Duration::ZERO,
            commands: 0,
            folder,
        };
        let calibrated = machine.calibrate();
        calibrated.map_err(|e| e.context(machine.said()))?;
        Ok(machine)
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

    /// The guest's memory.
    pub(crate) fn memory(&self) -> Memory {
        self.memory.clone()
    }

    /// Starts the virtio device in slot `device` of bus 0 with these queues, and no features but VERSION_1 and `features`.
    ///
    /// # Errors
    /// If there is none, or it refuses.
    pub(crate) fn start_device(
        &mut self,
        device: u8,
        queues: &[&Queue],
        features: u64,
    ) -> anyhow::Result<Doorbells> {
        let started = self.qtest.start(device, queues, features);
        started.map_err(|e| e.context(self.qemu.stderr()))
    }

    /// Rings a queue's doorbell.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub(crate) fn kick(&mut self, doorbells: &Doorbells, queue: usize) -> anyhow::Result<()> {
        self.commands += 1;
        self.qtest.kick(doorbells, queue)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// A file in its folder of sockets.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Processor time since the last call that it took to be told of kicks.
    pub(crate) fn take_excess(&mut self) -> Duration {
        self.command * std::mem::take(&mut self.commands)
    }

    /// What it has said on stderr.
    pub(crate) fn said(&self) -> String {
        self.qemu.stderr()
    }
}
