// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes of a program that die one after the other, for the targets in fuzz/: what a service manager keeps of them, and
//! the one that lives.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use rustix::event::PollFlags;
use vhost_user_backend::VringT as _;

use super::committing::Committing;
use super::fake_context::FakeContext;
use super::kept_state::KeptState;
use crate::backend::continuity::fuzzing::Entry;
use crate::backend::continuity::{Continuity, DIED, Death, FdId, Ledger, Owner, RecordKey};
use crate::backend::device::request_links::RequestLinks;
use crate::backend::transport::display_socket::DisplaySocketMailbox;
use crate::backend::transport::proxy::FrontEndProxy as _;
use crate::backend::transport::resumable::{ResumableProxy, keep_front_end, kept_front_end};
use crate::backend::transport::succession::Succession;
use crate::backend::virtqueue::{GuestMemory, MAX_QUEUE_SIZE, Positions, Vring};

/// All tables of the programs.
const TABLES: std::ops::Range<u16> = 0..64;

/// The processes of a program.
pub struct Processes {
    kept: KeptState,
    continuity: Continuity,
    positions: Positions,
    lives: u32,
}

impl Processes {
    /// The first one.
    ///
    /// # Errors
    /// If the host has no descriptors or address space left.
    pub fn new() -> io::Result<Self> {
        let mut kept = KeptState::new()?;
        let continuity = kept.next_process()?;
        let positions = Positions::new(continuity.ledger(Owner::Device));
        Ok(Self {
            kept,
            continuity,
            positions,
            lives: 0,
        })
    }

    /// The process is dead: the next one goes on. All that it had is to be dropped.
    ///
    /// # Errors
    /// If the state has ended, or cannot be used.
    pub fn succeed(&mut self) -> io::Result<()> {
        self.continuity = self.kept.next_process()?;
        self.positions = Positions::new(self.ledger(true));
        self.lives += 1;
        Ok(())
    }

    fn ledger(&self, device: bool) -> Ledger {
        self.continuity.ledger(match device {
            true => Owner::Device,
            false => Owner::Proxy,
        })
    }

    /// The program around the device.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn context(&self, memory: GuestMemory) -> io::Result<FakeContext> {
        FakeContext::with_continuity(memory, self.continuity.clone())
    }

    /// The device's virtqueues, of which the front-end has said nothing yet.
    ///
    /// # Errors
    /// If the records of their positions cannot be used.
    pub fn vrings(&self, memory: &GuestMemory, count: u32) -> io::Result<Vec<Vring>> {
        let vring = |index| {
            let vring = Vring::new(memory.clone(), MAX_QUEUE_SIZE as u16);
            let vring = vring.map_err(io::Error::other)?;
            let kept = vring.keep(index, &self.positions);
            kept.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            vring.observe(index, Arc::new(Committing::new(self.ledger(true))));
            Ok(vring)
        };
        (0..count).map(vring).collect()
    }

    /// The front-end's old messages are replayed.
    pub fn replayed(&self) {
        self.positions.replay_done();
        self.continuity.locker().forget_left();
        // Another number for each process: no death is taken for that of one that did nothing.
        let ledger = self.ledger(true);
        ledger.put(RecordKey::new(100, 0), &self.lives.to_le_bytes());
        ledger.commit();
    }

    /// Writes `bytes` at `at` of the device's lists, which records name.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    pub fn write_lists(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.kept.write_lists(at, bytes)
    }

    /// Makes the device's records valid.
    pub fn commit(&self) {
        self.ledger(true).commit();
    }

    /// The process dies at the commit of the device after `commits` more, before or after it is made.
    pub fn die(&self, commits: u32, is_committed: bool) {
        self.ledger(true).die(Death {
            commits,
            is_committed,
        });
    }

    /// The process does something. Returns whether it lives.
    pub fn survives(doing: impl FnOnce()) -> bool {
        match catch_unwind(AssertUnwindSafe(doing)) {
            Ok(()) => true,
            Err(payload) if payload.downcast_ref() == Some(&DIED) => false,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// All records of the device or the proxy.
    pub fn records(&self, device: bool) -> Vec<Entry> {
        let ledger = self.ledger(device);
        let records = TABLES.flat_map(|table| {
            let records = ledger.table(table).into_iter();
            records.map(move |(id, value)| (table, id, value))
        });
        records.collect()
    }

    /// Sets a record, as a process does that a guest broke into, and makes it valid.
    pub fn put(&self, device: bool, (table, id, value): &Entry) {
        let ledger = self.ledger(device);
        ledger.put(RecordKey::new(*table, *id), value);
        ledger.commit();
    }

    /// Removes a record, in the same way.
    pub fn remove(&self, device: bool, table: u16, id: u64) {
        let ledger = self.ledger(device);
        ledger.remove(RecordKey::new(table, id));
        ledger.commit();
    }

    /// Keeps a descriptor. Returns its number for records.
    ///
    /// # Errors
    /// If the locker is full.
    pub fn keep(&self, fd: &UnixStream) -> io::Result<u64> {
        let id = self.continuity.locker().keep(&[fd.as_fd()]);
        let id = id.map_err(io::Error::other)?;
        Ok(id.map_or(0, FdId::to_bits))
    }

    /// Keeps the connection of a front-end, of which `ours` is the program's end.
    pub fn accept(&self, ours: &UnixStream) {
        keep_front_end(&self.continuity, ours);
    }

    /// Joins the front-end that is kept with a daemon, of which `daemon` is the proxy's end.
    ///
    /// # Errors
    /// If what is kept cannot be used.
    pub fn proxy(&self, daemon: UnixStream) -> io::Result<Option<Proxy>> {
        let front_end = kept_front_end(&self.continuity).map_err(io::Error::other)?;
        let Some(front_end) = front_end else {
            return Ok(None);
        };
        let proxy = ResumableProxy::new(
            [front_end, daemon],
            DisplaySocketMailbox::default(),
            RequestLinks::default(),
            Succession::new(self.continuity.clone()),
        );
        Ok(Some(Proxy(proxy.map_err(io::Error::other)?)))
    }
}

/// The proxy of a process.
pub struct Proxy(ResumableProxy);

impl Proxy {
    /// Passes on what can be passed without blocking; `false` after the end of the connection.
    pub fn pass(&mut self) -> bool {
        matches!(self.0.pass([PollFlags::empty(); 2]), Ok(None))
    }
}
