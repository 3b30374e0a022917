// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the front-end set the device up, for a successor, which replays it to its own daemon.
//!
//! Each message is kept by what it sets: a later one of the same kind, for the same virtqueue, takes its place. The replay has
//! a fixed order, in which each message finds what it needs and no virtqueue starts before all else is there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures, VhostUserVirtioFeatures};

use crate::backend::continuity::{FdId, Ledger, Locker};
use memory::{MAX_TABLE, MemoryJournal};
pub(crate) use record::RecordError;
pub(super) use record::{KeptFd, Table};

mod memory;
mod record;

/// Bits of the virtqueue's index in the payload of a message with an eventfd.
const INDEX_MASK: u32 = 0xff;
/// Offsets of the addresses in the payload of `SET_VRING_ADDR`.
const RING_PARTS: [usize; 3] = [8, 16, 24];

/// A message that the daemon has carried out.
pub(super) struct Executed {
    pub(super) request: u32,
    /// As the front-end sent it, and as the daemon got it.
    pub(super) payload: Vec<u8>,
    pub(super) sanitized: Vec<u8>,
    pub(super) fds: Vec<KeptFd>,
    /// A duplicate of the descriptor of `ADD_MEM_REG`.
    pub(super) region: Option<OwnedFd>,
    /// The payload of the daemon's reply.
    pub(super) reply: Vec<u8>,
}

/// A message of the replay.
#[derive(Debug)]
pub(super) struct SetupMessage {
    pub(super) request: FrontendReq,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    /// The packet of the locker that its descriptor is in.
    pub(super) packet: Option<FdId>,
}

/// The replay, and the eventfds of the virtqueues by which the driver is notified.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) messages: Vec<SetupMessage>,
    pub(super) calls: Vec<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    request: u32,
    /// The virtqueue, or 1 for the second of two messages of a kind that are kept.
    index: u32,
}

impl Key {
    fn of(request: FrontendReq) -> Self {
        Self::ring(request, 0)
    }

    fn ring(request: FrontendReq, index: u32) -> Self {
        Self {
            request: request as u32,
            index,
        }
    }

    fn is(self, request: FrontendReq) -> bool {
        self.request == request as u32
    }

    fn id(self) -> u64 {
        u64::from(self.request) << 32 | u64::from(self.index)
    }

    fn from_id(id: u64) -> Self {
        Self {
            request: (id >> 32) as u32,
            index: id as u32,
        }
    }
}

/// The features that were set last of those that enable all virtqueues, which `VHOST_USER_F_PROTOCOL_FEATURES` is not among.
const ENABLING_FEATURES: Key = Key {
    request: FrontendReq::SET_FEATURES as u32,
    index: 1,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    fd: Option<KeptFd>,
    payload: Vec<u8>,
}

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    ledger: Ledger,
    locker: Locker,
    messages: BTreeMap<Key, Stored>,
    memory: MemoryJournal,
    /// Packets of the locker that no record names once all is committed.
    unused: BTreeSet<FdId>,
    /// Memory that the front-end took away, which may be in a packet with other memory.
    removed: Vec<KeptFd>,
}

impl Journal {
    /// The journal of this connection, with what a predecessor wrote.
    ///
    /// # Errors
    /// If that cannot be read.
    pub(super) fn read(ledger: Ledger, locker: Locker) -> Result<Self, RecordError> {
        let messages = ledger.read_table(Table::Setup as u16, |id, value| {
            let fd = KeptFd::read_optional(value)?;
            let payload = value.rest().to_vec();
            Ok((Key::from_id(id), Stored { fd, payload }))
        })?;
        Ok(Self {
            memory: MemoryJournal::read(&ledger)?,
            ledger,
            locker,
            messages: messages.into_iter().collect(),
            unused: BTreeSet::new(),
            removed: Vec::new(),
        })
    }

    /// The message with these descriptors is none of the setup.
    pub(super) fn forget(&mut self, fds: Vec<KeptFd>) {
        let kept = self.packets();
        let packets = fds.iter().map(|fd| fd.packet);
        self.unused
            .extend(packets.filter(|packet| !kept.contains(packet)));
    }

    /// Takes note of a message, which is kept from the next commit of the ledger on. [`Journal::committed`] follows that.
    pub(super) fn apply(&mut self, executed: Executed) {
        let mut before = self.packets();
        before.extend(executed.fds.iter().map(|fd| fd.packet));
        self.note(executed);
        let after = self.packets();
        self.unused.extend(before.difference(&after));
    }

    /// Forgets the descriptors that are no longer needed.
    pub(super) fn committed(&mut self) {
        let unused = std::mem::take(&mut self.unused);
        for file in std::mem::take(&mut self.removed) {
            if !unused.contains(&file.packet) {
                self.locker.forget_one(file.packet, file.index.into());
            }
        }
        for packet in unused {
            self.locker.forget(packet);
        }
    }

    fn note(&mut self, executed: Executed) {
        let payload = executed.payload;
        let fd = executed.fds.first().copied();
        let index = word(&payload, 0);
        let Ok(request) = FrontendReq::try_from(executed.request) else {
            return;
        };
        let once = Key::of(request);
        let of_ring = Key::ring(request, index);
        let of_eventfd = Key::ring(request, index & INDEX_MASK);
        match request {
            FrontendReq::SET_OWNER
            | FrontendReq::SET_PROTOCOL_FEATURES
            | FrontendReq::SET_BACKEND_REQ_FD
            | FrontendReq::GPU_SET_SOCKET => self.set(once, fd, payload),
            FrontendReq::RESET_OWNER => {
                self.remove(Key::of(FrontendReq::SET_OWNER));
                self.set(once, None, payload);
            }
            FrontendReq::SET_FEATURES => {
                self.remove(Key::of(FrontendReq::RESET_OWNER));
                if !has_protocol_features(&payload) {
                    self.remove_all(FrontendReq::SET_VRING_ENABLE);
                    self.set(ENABLING_FEATURES, None, payload.clone());
                }
                self.set(once, None, payload);
            }
            FrontendReq::RESET_DEVICE => {
                self.remove_all(FrontendReq::SET_VRING_ENABLE);
                self.remove(ENABLING_FEATURES);
                let features = Key::of(FrontendReq::SET_FEATURES);
                let features_stay = self.messages.get(&features);
                // Others are not set again after the reset.
                if features_stay.is_some_and(|stored| !has_protocol_features(&stored.payload)) {
                    self.remove(features);
                }
            }
            FrontendReq::SET_MEM_TABLE => {
                self.memory.replace(&payload, &executed.fds, &self.ledger);
            }
            FrontendReq::ADD_MEM_REG => self.memory.add(
                &payload,
                &executed.fds,
                executed.region,
                &self.ledger,
                &self.locker,
            ),
            FrontendReq::REM_MEM_REG => {
                self.removed
                    .extend(self.memory.remove(&payload, &self.ledger));
            }
            FrontendReq::SET_VRING_ADDR => {
                // The crate `vhost-user-backend` resolves the addresses once: later changes of the memory do not move the
                // virtqueue.
                let resolved =
                    map_addresses(&executed.sanitized, |user| self.memory.guest_address(user));
                self.set(of_ring, None, resolved);
            }
            FrontendReq::SET_VRING_NUM
            | FrontendReq::SET_VRING_BASE
            | FrontendReq::SET_VRING_ENABLE => self.set(of_ring, None, payload),
            FrontendReq::SET_VRING_KICK
            | FrontendReq::SET_VRING_CALL
            | FrontendReq::SET_VRING_ERR => self.set(of_eventfd, fd, payload),
            FrontendReq::GET_VRING_BASE => {
                self.remove(Key::ring(FrontendReq::SET_VRING_KICK, index));
                self.remove(Key::ring(FrontendReq::SET_VRING_CALL, index));
                let base = Key::ring(FrontendReq::SET_VRING_BASE, index);
                self.set(base, None, executed.reply);
            }
            // SET_CONFIG: the device keeps its own configuration. The others set nothing.
            _ => {}
        }
    }

    fn set(&mut self, key: Key, fd: Option<KeptFd>, payload: Vec<u8>) {
        self.ledger.write(Table::Setup.key(key.id()), |value| {
            KeptFd::write(fd, value);
            value.bytes(&payload);
        });
        self.messages.insert(key, Stored { fd, payload });
    }

    fn remove(&mut self, key: Key) {
        if self.messages.remove(&key).is_some() {
            self.ledger.remove(Table::Setup.key(key.id()));
        }
    }

    fn remove_all(&mut self, request: FrontendReq) {
        let keys = self.messages.keys().copied();
        let keys: Vec<_> = keys.filter(|key| key.is(request)).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    fn packets(&self) -> BTreeSet<FdId> {
        let fds = self.messages.values().filter_map(|stored| stored.fd);
        let mut packets = fds.map(|fd| fd.packet).collect();
        self.memory.packets(&mut packets);
        packets
    }

    /// The messages to replay, without `GPU_SET_SOCKET` if `replaces_display`: the message under way replaces it.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(super) fn replay(&self, replaces_display: bool) -> Result<Replay, RecordError> {
        let mut script = Script {
            journal: self,
            packets: BTreeMap::new(),
            messages: Vec::new(),
        };
        script.begin();
        script.memory()?;
        script.all_of(FrontendReq::SET_BACKEND_REQ_FD)?;
        if !replaces_display {
            script.all_of(FrontendReq::GPU_SET_SOCKET)?;
        }
        for request in [
            FrontendReq::SET_VRING_NUM,
            FrontendReq::SET_VRING_ADDR,
            FrontendReq::SET_VRING_BASE,
            FrontendReq::SET_VRING_ERR,
            FrontendReq::SET_VRING_CALL,
            FrontendReq::SET_VRING_ENABLE,
            FrontendReq::SET_VRING_KICK,
        ] {
            script.all_of(request)?;
        }
        script.end();
        let Script { messages, .. } = script;
        let calls = messages.iter();
        let calls = calls.filter(|message| message.request == FrontendReq::SET_VRING_CALL);
        let calls = calls.filter_map(|message| message.fds.first()?.try_clone().ok());
        Ok(Replay {
            calls: calls.collect(),
            messages,
        })
    }
}

/// Writes a [`Replay`].
struct Script<'a> {
    journal: &'a Journal,
    /// What was taken out of the locker.
    packets: BTreeMap<FdId, Vec<OwnedFd>>,
    messages: Vec<SetupMessage>,
}

impl Script<'_> {
    fn has(&self, request: FrontendReq) -> bool {
        self.journal.messages.contains_key(&Key::of(request))
    }

    fn push(&mut self, request: FrontendReq, payload: Vec<u8>) {
        self.messages.push(SetupMessage {
            request,
            payload,
            fds: Vec::new(),
            packet: None,
        });
    }

    /// The features of the device and of the protocol, up to the memory.
    fn begin(&mut self) {
        // The daemon acknowledges messages only after it.
        self.push(FrontendReq::GET_FEATURES, Vec::new());
        if self.has(FrontendReq::SET_OWNER) && !self.has(FrontendReq::RESET_OWNER) {
            self.push(FrontendReq::SET_OWNER, Vec::new());
        }
        if self.journal.memory.len() > MAX_TABLE {
            let features = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS.bits();
            let payload = features.to_ne_bytes().to_vec();
            self.push(FrontendReq::SET_PROTOCOL_FEATURES, payload);
        }
    }

    fn memory(&mut self) -> Result<(), RecordError> {
        let regions: Vec<_> = self.journal.memory.regions().collect();
        let (table, added) = regions.split_at(MAX_TABLE.min(regions.len()));
        if !table.is_empty() {
            let mut payload = (table.len() as u64).to_ne_bytes().to_vec();
            let mut fds = Vec::new();
            for region in table {
                payload.extend(region.bytes);
                fds.push(self.descriptor(region.file)?);
            }
            self.push_with(FrontendReq::SET_MEM_TABLE, payload, fds, None);
        }
        for region in added {
            let payload = [[0; 8].as_slice(), &region.bytes].concat();
            let fd = self.descriptor(region.file)?;
            self.push_with(FrontendReq::ADD_MEM_REG, payload, vec![fd], None);
        }
        self.all_of(FrontendReq::SET_PROTOCOL_FEATURES)?;
        // First those that enable all virtqueues.
        if let Some(stored) = self.journal.messages.get(&ENABLING_FEATURES) {
            self.push(FrontendReq::SET_FEATURES, stored.payload.clone());
        }
        if let Some(stored) = self.stored(FrontendReq::SET_FEATURES) {
            self.push(FrontendReq::SET_FEATURES, stored.payload.clone());
        }
        Ok(())
    }

    fn stored(&self, request: FrontendReq) -> Option<&Stored> {
        self.journal.messages.get(&Key::of(request))
    }

    /// All messages of a kind, by virtqueue.
    fn all_of(&mut self, request: FrontendReq) -> Result<(), RecordError> {
        let journal = self.journal;
        let all = journal.messages.iter().filter(|(key, _)| key.is(request));
        for (_, stored) in all {
            let payload = match request {
                // Without memory the daemon refuses it; no virtqueue runs then.
                FrontendReq::SET_VRING_ADDR if journal.memory.len() == 0 => continue,
                FrontendReq::SET_VRING_ADDR => {
                    map_addresses(&stored.payload, |guest| journal.memory.user_address(guest))
                }
                _ => stored.payload.clone(),
            };
            let fds = stored.fd.map(|fd| self.descriptor(fd)).transpose()?;
            let packet = stored.fd.map(|fd| fd.packet);
            self.push_with(request, payload, fds.into_iter().collect(), packet);
        }
        Ok(())
    }

    /// A reset that came after the features.
    fn end(&mut self) {
        if self.has(FrontendReq::RESET_OWNER) {
            self.push(FrontendReq::RESET_OWNER, Vec::new());
            if self.has(FrontendReq::SET_OWNER) {
                self.push(FrontendReq::SET_OWNER, Vec::new());
            }
        }
    }

    fn push_with(
        &mut self,
        request: FrontendReq,
        payload: Vec<u8>,
        fds: Vec<OwnedFd>,
        packet: Option<FdId>,
    ) {
        self.messages.push(SetupMessage {
            request,
            payload,
            fds,
            packet,
        });
    }

    /// A duplicate of a descriptor that is kept.
    fn descriptor(&mut self, fd: KeptFd) -> Result<OwnedFd, RecordError> {
        let packet = match self.packets.get(&fd.packet) {
            Some(packet) => packet,
            None => {
                let taken = self.journal.locker.take(fd.packet);
                let taken = taken.ok_or(RecordError::Descriptor)?;
                self.packets.entry(fd.packet).or_insert(taken)
            }
        };
        let duplicate = packet.get(usize::from(fd.index)).map(OwnedFd::try_clone);
        match duplicate {
            Some(Ok(fd)) => Ok(fd),
            _ => Err(RecordError::Descriptor),
        }
    }
}

/// The payload of `SET_VRING_ADDR` with other addresses; one that has none becomes impossible, which the sanitizer mends.
fn map_addresses(payload: &[u8], map: impl Fn(u64) -> Option<u64>) -> Vec<u8> {
    let mut mapped = payload.to_vec();
    for at in RING_PARTS {
        let Some(address) = mapped.get_mut(at..).and_then(|part| part.first_chunk_mut()) else {
            continue;
        };
        *address = map(u64::from_ne_bytes(*address))
            .unwrap_or(u64::MAX)
            .to_ne_bytes();
    }
    mapped
}

fn has_protocol_features(payload: &[u8]) -> bool {
    let features = payload
        .first_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0
}

fn word(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
