// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's qtest protocol, and a virtio-pci driver that uses it.
//!
//! QEMU runs with a processor that halts at its first instruction, so that what it spends is spent for
//! devices and displays. We play the driver: guest memory is shared, and registers are written over
//! qtest's socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail, ensure};
use frontend::Queue;
use frontend::features::VERSION_1;

/// Registers of a PCI function's configuration space.
const COMMAND: u8 = 0x04;
const FIRST_BAR: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;
/// Memory accesses and bus mastering on.
const ENABLE: u32 = 0x06;
/// Virtio's capabilities are vendor specific ones.
const VENDOR: u8 = 0x09;

/// `cfg_type` of a virtio capability (virtio 1.2, section 4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;

/// Fields of `virtio_pci_common_cfg` (virtio 1.2, section 4.1.4.3).
mod common {
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const DEVICE_STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
}

/// Bits of the device status (virtio 1.2, section 2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// Where the BARs are placed, and how far apart: above memory, below 4 GiB.
const BARS: u64 = 0xe000_0000;
const BAR_ROOM: u64 = 0x10_0000;

/// A connection to QEMU's qtest socket.
#[derive(Debug)]
pub(crate) struct Qtest {
    stream: BufReader<UnixStream>,
    next_bar: u64,
}

impl Qtest {
    /// On a connection.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            next_bar: BARS,
        }
    }

    /// Sends a command and gives the value of its answer, 0 where it has none.
    fn command(&mut self, command: &str) -> anyhow::Result<u64> {
        let mut line = String::with_capacity(command.len() + 1);
        line.push_str(command);
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        line.clear();
        self.stream.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some("OK"), "qtest: {command}: {line:?}");
        match words.next() {
            None => Ok(0),
            Some(word) => {
                let digits = word.trim_start_matches("0x");
                u64::from_str_radix(digits, 16).with_context(|| format!("qtest answers {word}"))
            }
        }
    }

    /// A command that no device hears of, to find what a command itself costs.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub(super) fn nothing(&mut self) -> anyhow::Result<()> {
        self.command("outb 0x80 0").map(drop)
    }

    fn select(&mut self, device: u8, register: u8) -> anyhow::Result<()> {
        let address = 1 << 31 | u32::from(device) << 11 | u32::from(register & !3);
        self.command(&format!("outl 0xcf8 {address:#x}")).map(drop)
    }

    fn config(&mut self, device: u8, register: u8) -> anyhow::Result<u32> {
        self.select(device, register)?;
        Ok(self.command("inl 0xcfc")?.try_into()?)
    }

    fn set_config(&mut self, device: u8, register: u8, value: u32) -> anyhow::Result<()> {
        self.select(device, register)?;
        self.command(&format!("outl 0xcfc {value:#x}")).map(drop)
    }

    /// Starts the virtio device in slot `device` of bus 0 with these queues, and no features but VERSION_1 and `features`.
    ///
    /// # Errors
    /// If there is none, or it refuses.
    pub(crate) fn start(
        &mut self,
        device: u8,
        queues: &[&Queue],
        features: u64,
    ) -> anyhow::Result<Doorbells> {
        let parts = self.locate(device)?;
        let write = |qtest: &mut Self, size: char, field: u64, value: u64| {
            let address = parts.common + field;
            qtest
                .command(&format!("write{size} {address:#x} {value:#x}"))
                .map(drop)
        };
        for status in [0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
            write(self, 'b', common::DEVICE_STATUS, status.into())?;
        }
        let features = VERSION_1 | features;
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            write(self, 'l', common::DRIVER_FEATURE_SELECT, select)?;
            write(self, 'l', common::DRIVER_FEATURE, half)?;
        }
        let accepted = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        write(self, 'b', common::DEVICE_STATUS, accepted.into())?;
        let status = parts.common + common::DEVICE_STATUS;
        let status = self.command(&format!("readb {status:#x}"))?;
        ensure!(
            status == u64::from(accepted),
            "the device refuses features {features:#x}: status {status:#x}"
        );
        let mut doorbells = Vec::new();
        for (index, queue) in (0_u64..).zip(queues) {
            let [descriptors, available, used] = queue.addresses();
            write(self, 'w', common::QUEUE_SELECT, index)?;
            write(self, 'w', common::QUEUE_SIZE, queue.size().into())?;
            write(self, 'q', common::QUEUE_DESC, descriptors)?;
            write(self, 'q', common::QUEUE_DRIVER, available)?;
            write(self, 'q', common::QUEUE_DEVICE, used)?;
            write(self, 'w', common::QUEUE_ENABLE, 1)?;
            let offset = parts.common + common::QUEUE_NOTIFY_OFF;
            let offset = self.command(&format!("readw {offset:#x}"))?;
            let address = parts.notify + offset * parts.multiplier;
            doorbells.push(format!("writew {address:#x} {index:#x}"));
        }
        let status = accepted | DRIVER_OK;
        write(self, 'b', common::DEVICE_STATUS, status.into())?;
        Ok(Doorbells(doorbells))
    }

    /// Rings a queue's doorbell.
    ///
    /// # Errors
    /// If QEMU has ended.
    pub(crate) fn kick(&mut self, doorbells: &Doorbells, queue: usize) -> anyhow::Result<()> {
        let doorbell = doorbells.0.get(queue).context("no such queue")?;
        self.command(doorbell).map(drop)
    }

    /// Places the device's BAR and finds its structures.
    fn locate(&mut self, device: u8) -> anyhow::Result<Parts> {
        let (mut common, mut notify) = (None, None);
        let mut at = self.config(device, CAPABILITIES)? as u8;
        while at != 0 {
            let head = self.config(device, at)?;
            let [id, next, _, kind] = head.to_le_bytes();
            if id == VENDOR && (kind == COMMON || kind == NOTIFY) {
                let bar = self.config(device, at + 4)? as u8;
                let offset = self.config(device, at + 8)?;
                if kind == COMMON {
                    common = Some((bar, offset));
                } else {
                    notify = Some((bar, offset, self.config(device, at + 16)?));
                }
            }
            at = next;
        }
        let (Some((bar, common)), Some((notify_bar, notify, multiplier))) = (common, notify) else {
            bail!("there is no virtio device in slot {device:#x}");
        };
        ensure!(bar == notify_bar, "the structures lie in two BARs");
        let base = self.next_bar;
        self.next_bar += BAR_ROOM;
        let register = FIRST_BAR + 4 * bar;
        self.set_config(device, register, base.try_into()?)?;
        self.set_config(device, register + 4, 0)?;
        self.set_config(device, COMMAND, ENABLE)?;
        Ok(Parts {
            common: base + u64::from(common),
            notify: base + u64::from(notify),
            multiplier: multiplier.into(),
        })
    }
}

/// Where a device's structures lie.
struct Parts {
    common: u64,
    notify: u64,
    multiplier: u64,
}

/// By queue: the command that notifies the device.
#[derive(Debug)]
pub(crate) struct Doorbells(Vec<String>);
