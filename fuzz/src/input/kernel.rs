//! A kernel's side of an input device: what hardware reports, and what can be read of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use vhost_user_backends::input::fuzzing::code::*;
use vhost_user_backends::input::fuzzing::{
    Axis, Bits, Contact, Description, Event, Source, State, Touch,
};

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
}

/// The host's side of a device.
#[derive(Default)]
pub struct Hardware {
    /// A report that is not whole yet, and those that can be read.
    pub(super) pending: Vec<Event>,
    pub(super) readable: VecDeque<Event>,
    pub(super) truth: Truth,
    pub(super) leds: BTreeSet<u16>,
    pub(super) grabbed: bool,
    pub(super) taken: bool,
    pub(super) unplugged: bool,
    pub(super) mute: bool,
}

impl Hardware {
    /// Reports `event` as the kernel does: only what changes something, and whole reports.
    pub(super) fn report(&mut self, event: Event, description: &Description) {
        let Event { kind, code, value } = event;
        let known = kind == EV_SYN || description.has(kind, code);
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
        self.pending.push(event);
        if self.pending.len() + self.readable.len() >= KERNEL_BUFFER {
            self.readable.clear();
            self.pending = vec![Event::new(EV_SYN, SYN_DROPPED, 0), event];
        }
        if event.ends_report() {
            self.readable.extend(self.pending.drain(..));
        }
    }
}

/// A device of which the hardware can be had from outside.
pub struct Fake {
    pub(super) hardware: Arc<Mutex<Hardware>>,
    pub(super) description: Description,
    pub(super) fd: OwnedFd,
}

impl Fake {
    /// A device of a kind that `bytes` choose.
    pub fn new(bytes: &mut Bytes<'_>) -> Self {
        Self {
            hardware: Arc::default(),
            description: describe(bytes),
            fd: eventfd(0, EventfdFlags::NONBLOCK).expect("the host has descriptors left"),
        }
    }

    fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().expect("nobody panics with it")
    }
}

fn describe(bytes: &mut Bytes<'_>) -> Description {
    let mut device = Description {
        name: bytes.of(&["A", "", "Ein Gerät, das einen Namen hat, der sehr lang ist, und noch länger: viel länger, als er sein dürfte, um ganz hineinzupassen, ähem"]).into(),
        serial: bytes.of(&["", "0123"]).into(),
        ..Description::default()
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
            Axis {
                max,
                ..Axis::default()
            },
        );
    }
    device
}

fn bits(codes: &BTreeSet<u16>) -> Bits {
    codes.iter().copied().collect()
}

impl Source for Fake {
    fn description(&self) -> &Description {
        &self.description
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        const ROOM: usize = 7;
        let mut hardware = self.hardware();
        if hardware.unplugged {
            return Err(rustix::io::Errno::NODEV.into());
        }
        let count = hardware.readable.len().min(ROOM);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        events.extend(hardware.readable.drain(..count));
        Ok(count == ROOM)
    }

    fn state(&self) -> io::Result<State> {
        let hardware = self.hardware();
        if hardware.mute {
            return Err(rustix::io::Errno::IO.into());
        }
        // As the kernel tells it: all that was reported, also of a report that is not whole yet.
        let truth = &hardware.truth;
        let value = |values: &BTreeMap<i32, i32>, slot| values.get(&slot).copied();
        let contacts = (0..self.description.slots() as i32).map(|slot| {
            let mut contact = Contact::new(value(&truth.contacts, slot).unwrap_or(-1));
            let position = value(&truth.positions, slot).unwrap_or(0);
            contact.values.insert(ABS_MT_X, position);
            contact
        });
        Ok(State {
            keys: bits(&truth.keys),
            switches: bits(&truth.switches),
            axes: truth.axes.clone(),
            touch: Touch {
                slot: usize::try_from(truth.slot).ok(),
                contacts: contacts.collect(),
            },
        })
    }

    fn leds(&self) -> io::Result<Bits> {
        Ok(bits(&self.hardware().leds))
    }

    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        let mut hardware = self.hardware();
        let (last, events) = events.split_last().expect("something is written");
        assert!(last.ends_report());
        for event in events {
            let Event { kind, code, value } = *event;
            let may = matches!(kind, EV_LED | EV_SND) && self.description.has(kind, code);
            assert!(may, "the guest has the device do {event:?}");
            if kind == EV_LED && value != 0 {
                hardware.leds.insert(code);
            } else if kind == EV_LED {
                hardware.leds.remove(&code);
            }
            // A reader sees what it wrote.
            hardware.readable.push_back(*event);
        }
        hardware.readable.push_back(Event::REPORT);
        Ok(())
    }

    fn grab(&mut self) -> io::Result<()> {
        let mut hardware = self.hardware();
        if hardware.taken {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        hardware.grabbed = true;
        Ok(())
    }

    fn release(&mut self) -> io::Result<()> {
        self.hardware().grabbed = false;
        Ok(())
    }
}
