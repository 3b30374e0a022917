// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kernel's side of an input device: what hardware reports, and what can be read of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use vhost_user_backends::input::event_codes::*;
use vhost_user_backends::input::testing::FakeHardware;
use vhost_user_backends::input::{AbsInfo, Bitmap, Contact, DeviceInfo, DeviceState, Event, Touch};

use crate::bytes::Bytes;

/// Events that the kernel keeps for a reader.
const KERNEL_BUFFER: usize = 64;
pub(super) const SLOTS: i32 = 5;
pub(super) const ABS_X: u16 = 0;
pub(super) const ABS_MT_X: u16 = 0x35;

/// The lasting state of a device, in terms of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) keys: BTreeSet<u16>,
    pub(super) switches: BTreeSet<u16>,
    pub(super) axes: BTreeMap<u16, i32>,
    pub(super) slot: i32,
    pub(super) contacts: BTreeMap<i32, i32>,
    /// `ABS_MT_POSITION_X` of each slot, which outlasts the contact.
    pub(super) positions: BTreeMap<i32, i32>,
}

impl Truth {
    pub(super) fn apply(&mut self, event: &Event) {
        let Event { kind, code, value } = *event;
        let set = match kind {
            EV_KEY => &mut self.keys,
            EV_SW => &mut self.switches,
            EV_ABS if code == ABS_MT_SLOT => {
                self.slot = value;
                return;
            }
            EV_ABS if code == ABS_MT_TRACKING_ID => {
                if value < 0 {
                    self.contacts.remove(&self.slot);
                } else {
                    self.contacts.insert(self.slot, value);
                }
                return;
            }
            EV_ABS if code == ABS_MT_X => {
                self.positions.insert(self.slot, value);
                return;
            }
            EV_ABS => {
                self.axes.insert(code, value);
                return;
            }
            _ => return,
        };
        if value == 0 {
            set.remove(&code);
        } else {
            set.insert(code);
        }
    }

    /// The state as the device reads it, with `slots` slots.
    fn to_state(&self, slots: usize) -> DeviceState {
        let value = |values: &BTreeMap<i32, i32>, slot| values.get(&slot).copied();
        let contacts = (0..slots as i32).map(|slot| {
            let mut contact = Contact::new(value(&self.contacts, slot).unwrap_or(-1));
            let position = value(&self.positions, slot).unwrap_or(0);
            contact.values.insert(ABS_MT_X, position);
            contact
        });
        DeviceState {
            keys: bitmap(&self.keys),
            switches: bitmap(&self.switches),
            axes: self.axes.clone(),
            touch: Touch {
                slot: usize::try_from(self.slot).ok(),
                contacts: contacts.collect(),
            },
        }
    }
}

/// The kernel between the hardware and a fake evdev device.
pub(super) struct Kernel {
    device: Arc<Mutex<FakeHardware>>,
    info: DeviceInfo,
    /// The state that the hardware is in.
    pub(super) truth: Truth,
    /// A report that is not whole yet.
    pending: Vec<Event>,
}

impl Kernel {
    pub(super) fn new(device: Arc<Mutex<FakeHardware>>, info: DeviceInfo) -> Self {
        let mut kernel = Self {
            device,
            info,
            truth: Truth::default(),
            pending: Vec::new(),
        };
        kernel.update_state();
        kernel
    }

    /// The device as the programs of the host see it.
    pub(super) fn device(&self) -> MutexGuard<'_, FakeHardware> {
        self.device.lock().expect("nobody panics with it")
    }

    /// Reports `event` as the kernel does: only what changes something, and whole reports.
    pub(super) fn report(&mut self, event: Event) {
        let Event { kind, code, value } = event;
        let known = kind == EV_SYN || self.info.has(kind, code);
        let changes = match kind {
            EV_KEY if value == 2 => self.truth.keys.contains(&code),
            EV_KEY => self.truth.keys.contains(&code) != (value != 0),
            EV_SW => self.truth.switches.contains(&code) != (value != 0),
            EV_ABS if code == ABS_MT_SLOT => (0..SLOTS).contains(&value),
            EV_ABS if !is_contact_axis(code) => self.truth.axes.get(&code) != Some(&value),
            _ => true,
        };
        if !known || !changes {
            return;
        }
        self.truth.apply(&event);
        self.update_state();
        self.pending.push(event);
        let mut device = self.device.lock().expect("nobody panics with it");
        if self.pending.len() + device.readable.len() >= KERNEL_BUFFER {
            device.readable.clear();
            self.pending = vec![Event::new(EV_SYN, SYN_DROPPED, 0), event];
        }
        if event.ends_report() {
            device.readable.extend(self.pending.drain(..));
        }
    }

    /// Reports `event` as no kernel does: whatever it is, `times` times.
    pub(super) fn report_anything(&mut self, event: Event, times: usize) {
        self.truth.apply(&event);
        self.update_state();
        let events = std::iter::repeat_n(event, times);
        self.device().readable.extend(events);
    }

    /// As the kernel tells it: all that was reported, also of a report that is not whole yet.
    fn update_state(&mut self) {
        self.device().state = self.truth.to_state(self.info.slots());
    }
}

/// What a device is, as `bytes` choose.
pub fn device_info(bytes: &mut Bytes<'_>) -> DeviceInfo {
    let mut device = DeviceInfo {
        name: bytes.of(&["A", "", "Ein Gerät, das einen Namen hat, der sehr lang ist, und noch länger: viel länger, als er sein dürfte, um ganz hineinzupassen, ähem"]).into(),
        serial: bytes.of(&["", "0123"]).into(),
        ..DeviceInfo::default()
    };
    let kinds = bytes.u8();
    let mut has = |kind: u16, codes: &[u16]| {
        device.codes.insert(kind, codes.iter().copied().collect());
    };
    if kinds & 1 != 0 {
        has(EV_KEY, &[1, 28, 30, 0x110, 0x120, 0x2ff]);
        has(EV_MSC, &[4]);
        has(EV_LED, &[0, 1, 2]);
        has(EV_SND, &[2]);
    }
    if kinds & 2 != 0 {
        has(EV_REP, &[REP_DELAY, REP_PERIOD]);
    }
    if kinds & 4 != 0 {
        has(EV_REL, &[0, 1, 8]);
    }
    if kinds & 8 != 0 {
        has(EV_SW, &[0, 1]);
    }
    let mut axes = Vec::new();
    if kinds & 0x10 != 0 {
        axes.extend([ABS_X, 1, 0x3f]);
    }
    if kinds & 0x20 != 0 {
        axes.extend([ABS_MT_SLOT, ABS_MT_TRACKING_ID, ABS_MT_X]);
    }
    if kinds & 0x40 != 0 {
        axes.push(ABS_MT_X);
    }
    if !axes.is_empty() {
        has(EV_ABS, &axes);
    }
    for axis in axes {
        let max = if axis == ABS_MT_SLOT { SLOTS - 1 } else { 4095 };
        device.axes.insert(
            axis,
            AbsInfo {
                max,
                ..AbsInfo::default()
            },
        );
    }
    device
}

fn bitmap(codes: &BTreeSet<u16>) -> Bitmap {
    codes.iter().copied().collect()
}
