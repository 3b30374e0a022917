// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A state that anything was written to, and all that a successor reads of it, for the target in fuzz/.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, SendFlags};

use super::{Continuity, Descriptors, FdId, List, Owner, RecordKey, Slot, layout};

const PROGRAM: &str = "fuzz";
/// Most tables that the programs use, and the last.
const TABLES: std::ops::Range<u16> = 0..64;

/// A part of the state.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Magic number, version, attempts, tails, name.
    Header,
    /// The counts of transfers.
    Slots,
    /// The buffers of received bytes.
    Buffers,
    /// The events of an evdev device.
    Inbox,
    /// The cells of the proxy's or the device's ledger.
    Cells {
        /// The device's, and not the proxy's.
        device: bool,
    },
    /// The device's lists.
    Lists,
    /// The area `second` of the proxy's or the device's log.
    Log {
        /// The device's, and not the proxy's.
        device: bool,
        /// The second area.
        second: bool,
    },
}

/// What a service manager keeps of processes of which each may have written anything.
#[derive(Debug)]
pub struct HostileState {
    descriptors: Descriptors,
}

/// A process that goes on with it.
#[derive(Debug)]
pub struct Successor(Continuity);

impl HostileState {
    /// The state that a process begins.
    ///
    /// # Errors
    /// If the host has no descriptors or memory left.
    pub fn new() -> io::Result<(Self, Successor)> {
        let state = Self {
            descriptors: Descriptors::create()?,
        };
        let first = Continuity::begin(PROGRAM, state.duplicate()?).map_err(io::Error::other)?;
        Ok((state, Successor(first)))
    }

    fn duplicate(&self) -> io::Result<Descriptors> {
        let [(_, state), (_, images), (_, incoming), (_, outgoing)] = self.descriptors.named();
        Ok(Descriptors::from_kept([
            state.try_clone()?,
            images.try_clone()?,
            incoming.try_clone()?,
            outgoing.try_clone()?,
        ]))
    }

    /// Writes `bytes` at `at` of a part, as far as the state goes.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    pub fn write(&self, part: Part, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, len) = match part {
            Part::Header => (0, layout::PAGE),
            Part::Slots => (layout::AT_SLOTS, layout::SLOTS * layout::SLOT_LEN),
            Part::Buffers => (layout::AT_BUFFERS, layout::SLOTS * layout::BUFFER_LEN),
            Part::Inbox => (layout::AT_INBOX, layout::INBOX_LEN),
            Part::Cells { device } => {
                let one = layout::cells(1) - layout::cells(0);
                (layout::cells(u64::from(device)), one)
            }
            Part::Lists => (layout::AT_LISTS, layout::LISTS_LEN),
            Part::Log { device, second } => {
                (layout::area(u64::from(device), second), layout::AREA_LEN)
            }
        };
        write(&self.descriptors, start, len, at, bytes)
    }

    /// Sends `bytes` and a descriptor into the locker, or into the end that nobody reads.
    ///
    /// # Errors
    /// If the host has no descriptors left. A full locker is none.
    pub fn send(&self, reverse: bool, bytes: &[u8], with_descriptor: bool) -> io::Result<()> {
        let [_, _, (_, incoming), (_, outgoing)] = self.descriptors.named();
        let end = if reverse { incoming } else { outgoing };
        let (one, _) = UnixStream::pair()?;
        let fds = [one.as_fd()];
        let fds = if with_descriptor { &fds[..] } else { &[] };
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(rustix::net::SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::sendmsg(end, &[IoSlice::new(bytes)], &mut control, flags);
        Ok(())
    }

    /// The next process; none if it does not go on.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn successor(&self) -> io::Result<Option<Successor>> {
        let resumed = Continuity::resume(PROGRAM, self.duplicate()?);
        Ok(resumed.ok().flatten().map(Successor))
    }
}

/// Writes `bytes` at `at` of the device's lists, as far as these go.
///
/// # Errors
/// As `pwrite(2)`.
pub(crate) fn write_lists(descriptors: &Descriptors, at: u64, bytes: &[u8]) -> io::Result<()> {
    write(descriptors, layout::AT_LISTS, layout::LISTS_LEN, at, bytes)
}

fn write(descriptors: &Descriptors, start: u64, len: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
    let at = at % len;
    let room = usize::try_from(len - at).unwrap_or(usize::MAX);
    let bytes = &bytes[..bytes.len().min(room)];
    rustix::io::pwrite(&descriptors.state, bytes, start + at)?;
    Ok(())
}

/// A record: table, id, value.
pub type Entry = (u16, u64, Vec<u8>);

impl Successor {
    fn owner(device: bool) -> Owner {
        if device { Owner::Device } else { Owner::Proxy }
    }

    /// All records of an owner.
    #[must_use]
    pub fn records(&self, device: bool) -> Vec<Entry> {
        let ledger = self.0.ledger(Self::owner(device));
        let tables = TABLES.chain([u16::MAX]);
        let records = tables.flat_map(|table| {
            let records = ledger.table(table);
            records
                .into_iter()
                .map(move |(id, value)| (table, id, value))
        });
        records.collect()
    }

    /// Puts a record.
    pub fn put(&self, device: bool, table: u16, id: u64, value: &[u8]) {
        let key = RecordKey::new(table, id);
        self.0.ledger(Self::owner(device)).put(key, value);
    }

    /// Puts a record that is put often.
    pub fn put_often(&self, device: bool, table: u16, id: u64, value: &[u8]) {
        let key = RecordKey::new(table, id);
        let ledger = self.0.ledger(Self::owner(device));
        ledger.write_often(key, 0, |fields| {
            fields.bytes(value);
        });
    }

    /// Removes a record.
    pub fn remove(&self, device: bool, table: u16, id: u64) {
        let key = RecordKey::new(table, id);
        self.0.ledger(Self::owner(device)).remove(key);
    }

    /// Removes a table.
    pub fn remove_table(&self, device: bool, table: u16) {
        self.0.ledger(Self::owner(device)).remove_table(table);
    }

    /// Makes records valid.
    pub fn commit(&self, device: bool) {
        self.0.ledger(Self::owner(device)).commit();
    }

    /// It lives.
    pub fn settle(&self) {
        self.0.forget_deaths();
    }

    /// Counts a transfer in a slot, and checks its count.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    ///
    /// # Panics
    /// If the count is wrong.
    pub fn transfer(&self, slot: u8, bytes: &[u8]) -> io::Result<()> {
        let slot = match slot % 6 {
            0 => Slot::FrontEndIn,
            1 => Slot::FrontEndOut,
            2 => Slot::DisplayIn,
            3 => Slot::DisplayOut,
            _ => Slot::EventsClient(slot),
        };
        let mut slot = self.0.slot(slot)?;
        let before = slot.transferred();
        assert!(slot.shared_bytes().len() <= layout::BUFFER_LEN as usize);
        let (one, other) = UnixStream::pair()?;
        let sent = slot.send(&one, &[IoSlice::new(bytes)], &[], SendFlags::DONTWAIT)?;
        assert_eq!(slot.transferred(), before.saturating_add(sent as u64));
        if sent > 0 {
            let got = slot.receive_shared(&other, sent, RecvFlags::DONTWAIT)?;
            assert_eq!(slot.shared_bytes(), &bytes[..got]);
        }
        Ok(())
    }

    /// Reads the inbox.
    #[must_use]
    pub fn events(&self) -> usize {
        let inbox = self.0.inbox();
        inbox.map_or(0, |inbox| inbox.events().count())
    }

    /// Takes lists of numbers that records may name, and reads them; and fills another one.
    ///
    /// # Panics
    /// If two overlap.
    pub fn adopt_lists(&self, lists: &[(u64, u32)]) {
        let Ok(Some(arena)) = self.0.arena(1 << 16) else {
            return;
        };
        let read = |(place, len): &(u64, u32)| arena.adopt_list::<u64>(*place, *len as usize);
        let adopted: Vec<_> = lists.iter().filter_map(read).collect();
        let before: Vec<_> = adopted.iter().map(|list| list.to_vec()).collect();
        if let Some(mut list) = arena.list::<u64>(600) {
            assert!((0..600).all(|n| list.push(!n)));
            assert!(list.iter().copied().eq((0..600).map(|n| !n)));
        }
        let is_same = |(list, before): (&List<u64>, &Vec<u64>)| **list == before[..];
        assert!(adopted.iter().zip(&before).all(is_same), "taken twice");
    }

    /// Takes extents that records may name, and writes to them.
    ///
    /// # Panics
    /// If two overlap.
    pub fn adopt(&self, extents: &[(u64, u32)]) {
        let Ok(Some(arena)) = self.0.arena(1 << 16) else {
            return;
        };
        let mut adopted = Vec::new();
        for (number, (offset, len)) in (1_u8..).zip(extents) {
            if let Some(mut extent) = arena.adopt(*offset, *len as usize) {
                extent.fill(number);
                adopted.push((number, extent));
            }
        }
        for (number, extent) in &adopted {
            assert!(extent.iter().all(|byte| byte == number), "they overlap");
        }
        if let Some(extent) = arena.allocate(5000) {
            assert!(extent.iter().all(|byte| *byte == 0), "not new");
        }
        for (number, extent) in &adopted {
            assert!(extent.iter().all(|byte| byte == number), "taken twice");
        }
    }

    /// Takes descriptors from the locker, and keeps one. Returns whether there were any.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn take(&self, ids: &[u64]) -> io::Result<bool> {
        let locker = self.0.locker();
        let taken = ids
            .iter()
            .filter_map(|id| locker.take(FdId::from_bits(*id)?));
        let taken: Vec<_> = taken.flatten().collect();
        assert!(taken.iter().all(|fd| fd.as_raw_fd() >= 0));
        let (one, _) = UnixStream::pair()?;
        if let Ok(Some(id)) = locker.keep(&[one.as_fd()]) {
            locker.forget(id);
        }
        locker.forget_left();
        Ok(!taken.is_empty())
    }
}
