// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The backend's own messages to the front-end (`VHOST_USER_SET_BACKEND_REQ_FD`): the configuration space changed, and a
//! file is to be mapped into a shared memory region, or unmapped.
//!
//! One is under way at a time. The crate `vhost` has no sender for the first, and waits for answers. Waiting would be a
//! deadlock: QEMU does not read this channel while it waits for the backend, and it has the backend share the memory that
//! it mapped before it reads the next message here.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send, sockopt};
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

use super::file_id::FileId;
use super::journal::{RecordError, Table};
use super::running_vrings::{RunningVrings, number};
use crate::backend::continuity::{Continuity, IoSlot, Ledger, Owner, Slot};
use crate::backend::device::request_links::RequestLinks;
use crate::backend::device::shared_memory::SharedMemoryRequest;
use deadline::Deadline;
use error::ChannelError;
use message::{ANSWER_LEN, CONFIG_CHANGE, NEED_REPLY, REPLY, Request, SHMEM_MAP, VERSION};
use offer::{Offer, OfferSocket};

mod deadline;
mod error;
mod message;
mod offer;

const SET_PROTOCOL_FEATURES: u32 = FrontendReq::SET_PROTOCOL_FEATURES as u32;
const SET_BACKEND_REQ_FD: u32 = FrontendReq::SET_BACKEND_REQ_FD as u32;
const GET_SHMEM_CONFIG: u32 = FrontendReq::GET_SHMEM_CONFIG as u32;
const SET_MEM_TABLE: u32 = FrontendReq::SET_MEM_TABLE as u32;
const ADD_MEM_REG: u32 = FrontendReq::ADD_MEM_REG as u32;

/// An answer that agrees to a configuration change, as its bytes lie in memory.
const AGREEMENT: [u8; ANSWER_LEN] = {
    let mut answer = [0; ANSWER_LEN];
    let fields = [CONFIG_CHANGE, VERSION | REPLY, 8];
    let mut at = 0;
    while at < 12 {
        answer[at] = fields[at / 4].to_ne_bytes()[at % 4];
        at += 1;
    }
    answer
};
/// Most maps that are known: more than a device has, as those of the last driver are among them.
const MAX_MAPPED: usize = 1024;
/// Bytes of a configuration change. A device that outlives its process sends nothing else.
const CONFIG_CHANGE_LEN: u64 = 12;

/// The channel back to the front-end, and what tells when it may be used.
pub(super) struct BackendChannel {
    links: RequestLinks,
    socket: Option<Arc<OwnedFd>>,
    /// The same, if the front-end maps memory. All requests are sent in two parts then.
    offers: Option<OfferSocket>,
    /// The request of which it was sent the first byte.
    offer: Option<Offer>,
    /// Whether the front-end answers (`VHOST_USER_PROTOCOL_F_REPLY_ACK`).
    has_answers: bool,
    vrings: RunningVrings,
    /// The number of the message whose answer is to come.
    awaited: Option<u32>,
    answer: Vec<u8>,
    visibility: Visibility,
    /// For how long memory is awaited, as that may never come.
    deadline: Option<Deadline>,
    /// Where files are mapped into the region, or were when a driver ended, and which.
    mapped: VecDeque<(u64, FileId)>,
    kept: Option<KeptChannel>,
}

/// Whether the guest sees what was mapped. QEMU answers first, then shows the map to the guest, and then tells its devices, as
/// if the guest's memory had changed. A guest that gets its answer too early finds nothing (tried).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Visibility {
    /// The front-end told of no new memory since the last request.
    #[default]
    Unknown,
    /// It did.
    Told,
    /// It answered that it has mapped, and is to tell.
    Awaited,
}

/// What a successor has to know of the channel.
struct KeptChannel {
    ledger: Ledger,
    sent: IoSlot,
    received: IoSlot,
    /// The counts of bytes where the channel begins.
    begin: ChannelBegin,
}

#[derive(Debug, Clone, Copy, Default)]
struct ChannelBegin {
    sent: u64,
    received: u64,
}

impl BackendChannel {
    pub(super) fn new(links: RequestLinks) -> Self {
        Self {
            links,
            socket: None,
            offers: None,
            offer: None,
            has_answers: false,
            vrings: RunningVrings::default(),
            awaited: None,
            answer: Vec::new(),
            visibility: Visibility::default(),
            deadline: None,
            mapped: VecDeque::new(),
            kept: None,
        }
    }

    /// A channel that a successor goes on with.
    pub(super) fn kept(links: RequestLinks, continuity: &Continuity) -> io::Result<Self> {
        let mut kept = KeptChannel {
            ledger: continuity.ledger(Owner::Proxy),
            sent: continuity.slot(Slot::ChannelOut)?,
            received: continuity.slot(Slot::ChannelIn)?,
            begin: ChannelBegin::default(),
        };
        kept.begin = kept.transferred();
        Ok(Self {
            kept: Some(kept),
            ..Self::new(links)
        })
    }

    /// Has `replay` take note of the front-end's old messages, and goes on where a predecessor was.
    pub(super) fn resume(&mut self, replay: impl FnOnce(&mut Self)) -> Result<(), RecordError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        let record = kept.ledger.read(Table::Channel.key(0), |value| {
            let begin = ChannelBegin {
                sent: value.u64()?,
                received: value.u64()?,
            };
            let vrings = RunningVrings {
                started: value.u64()?,
                enabled: value.u64()?,
                run: value.bool()?,
            };
            Ok((begin, vrings))
        })?;
        replay(self);
        let (Some((begin, vrings)), Some(kept)) = (record, &mut self.kept) else {
            return Ok(());
        };
        kept.begin = begin;
        self.vrings = vrings;
        let now = kept.transferred();
        let messages = now.sent.saturating_sub(kept.begin.sent) / CONFIG_CHANGE_LEN;
        let received = now.received.saturating_sub(kept.begin.received);
        let answers = received / ANSWER_LEN as u64;
        if self.has_answers && self.socket.is_some() && messages > answers {
            self.awaited = Some(CONFIG_CHANGE);
            // A part of an answer was received by a predecessor, and is taken for one that agrees.
            let part = (received % ANSWER_LEN as u64) as usize;
            self.answer = AGREEMENT.iter().copied().take(part).collect();
            self.links.config_changes.resume();
        }
        // The replay put what it makes of the messages.
        self.record();
        Ok(())
    }

    /// Keeps what the messages so far say.
    fn record(&self) {
        if let Some(kept) = &self.kept {
            kept.ledger.write(Table::Channel.key(0), |value| {
                value.u64(kept.begin.sent).u64(kept.begin.received);
                value.u64(self.vrings.started).u64(self.vrings.enabled);
                value.bool(self.vrings.run);
            });
        }
    }

    /// What becomes readable when the front-end has read an offer, or answered a request, or let the time pass in which
    /// it should have told of new memory, if one of these is awaited.
    pub(super) fn awaited_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.offer.is_some() {
            return self.offers.as_ref().map(AsFd::as_fd);
        }
        if self.visibility == Visibility::Awaited {
            return self.deadline.as_ref().map(AsFd::as_fd);
        }
        let socket = self.socket.as_ref().filter(|_| self.awaited.is_some())?;
        Some(socket.as_fd())
    }

    /// Whether the front-end reads a request to its end now, if all messages that it sent so far are noted and none of them
    /// stops the device. Ask this first, then receive them.
    pub(super) fn is_offer_read(&self) -> bool {
        self.offer.is_some() && self.offers.as_ref().is_some_and(OfferSocket::is_read)
    }

    /// Takes note of a request of the front-end. What the device wants to be sent is withdrawn if this one stops the device.
    pub(super) fn note(&mut self, request: u32, payload: &[u8], fds: &[OwnedFd]) {
        if !self.links.are_offered() {
            return;
        }
        match request {
            SET_PROTOCOL_FEATURES => {
                let reply_ack = VhostUserProtocolFeatures::REPLY_ACK.bits();
                let has_answers = number(payload) & reply_ack != 0;
                if std::mem::replace(&mut self.has_answers, has_answers) != has_answers {
                    self.share_memory();
                }
            }
            SET_BACKEND_REQ_FD => {
                let socket = duplicate(fds).inspect_err(warn).ok();
                self.set_socket(socket.map(Arc::new));
                if let Some(kept) = &mut self.kept {
                    kept.begin = kept.transferred();
                }
            }
            GET_SHMEM_CONFIG => self.links.shared_memory.asked(),
            SET_MEM_TABLE | ADD_MEM_REG => self.memory_changes(),
            _ => self.vrings.note(request, payload),
        }
        if !self.vrings.run() {
            self.take_back();
            self.memory_changes();
            // Else it could be sent on behalf of the next driver.
            self.links.shared_memory.withdraw();
        }
        self.record();
    }

    /// Reads an answer, and sends what the device wants to be sent, if the front-end runs the device. `is_quiet`: no
    /// message of the front-end is being read; it may be the one that stops the device. `is_offer_read`: as
    /// [`BackendChannel::is_offer_read`] said before the front-end's messages were received.
    pub(super) fn serve(&mut self, is_quiet: bool, is_offer_read: bool) {
        let served = self
            .receive()
            .map(|()| self.expire())
            .and_then(|()| self.finish_offer(is_quiet && is_offer_read))
            .and_then(|()| self.send(is_quiet));
        if let Err(error) = served {
            warn(&error);
            self.set_socket(None);
        }
    }

    fn finish_offer(&mut self, is_read: bool) -> Result<(), ChannelError> {
        let (Some(offers), true) = (&self.offers, is_read) else {
            return Ok(());
        };
        if let Some(offer) = self.offer.take() {
            let request = offers.finish(offer)?;
            self.sent(&request);
        }
        Ok(())
    }

    /// The front-end stops the device, and must not read a request meanwhile.
    fn take_back(&mut self) {
        let (Some(offers), Some(offer)) = (&self.offers, self.offer.take()) else {
            return;
        };
        match offers.take_back(offer) {
            Ok(Request::ConfigChange) => self.links.config_changes.withdraw(),
            Ok(Request::SharedMemory(..)) => self.links.shared_memory.recall(),
            Err(error) => {
                warn(&error.into());
                self.set_socket(None);
            }
        }
    }

    /// The front-end told of new memory, or will tell no more of it.
    fn memory_changes(&mut self) {
        if std::mem::replace(&mut self.visibility, Visibility::Told) == Visibility::Awaited {
            self.links.shared_memory.answered(true);
        }
    }

    /// The front-end has had its time to tell of new memory: the guest has hidden the region, and waits for its answer.
    fn expire(&mut self) {
        let is_over = self.deadline.as_ref().is_some_and(Deadline::is_over);
        if self.visibility == Visibility::Awaited && is_over {
            log::debug!("the front-end tells of no map: the guest does not see the region");
            self.memory_changes();
        }
    }

    /// Whether the front-end was asked to map one of these files.
    pub(super) fn maps(&self, files: &[OwnedFd]) -> bool {
        let mut ids = files.iter().map(FileId::of);
        ids.any(|id| id.is_some_and(|id| self.mapped.iter().any(|(_, mapped)| *mapped == id)))
    }

    fn note_map(&mut self, request: &SharedMemoryRequest) {
        match request {
            SharedMemoryRequest::Map { file, offset, .. } => {
                if let Some(id) = FileId::of(file) {
                    self.mapped.retain(|(at, _)| at != offset);
                    self.mapped.push_back((*offset, id));
                }
                // The oldest is of a driver that has ended: no driver has as many.
                if self.mapped.len() > MAX_MAPPED {
                    self.mapped.pop_front();
                }
            }
            SharedMemoryRequest::Unmap { offset, .. } => {
                self.mapped.retain(|(at, _)| at != offset);
            }
        }
    }

    fn sent(&mut self, request: &Request) {
        self.visibility = Visibility::Unknown;
        if let Request::SharedMemory(_, change) = request {
            self.note_map(change);
        }
        log::debug!("the front-end is sent {request:?}");
        if let Request::ConfigChange = request {
            self.links.config_changes.sent(self.has_answers);
        }
        self.awaited = self.has_answers.then(|| request.number());
    }

    fn set_socket(&mut self, socket: Option<Arc<OwnedFd>>) {
        self.awaited = None;
        self.answer.clear();
        self.visibility = Visibility::Unknown;
        self.offer = None;
        self.links.config_changes.set_channel(socket.clone());
        self.offers = match self.links.shared_memory.region() {
            Some(_) => socket.clone().and_then(|socket| {
                let offers = OfferSocket::new(socket).map_err(ChannelError::from);
                offers.inspect_err(warn).ok()
            }),
            None => None,
        };
        self.deadline = match self.offers {
            Some(_) => Deadline::new()
                .map_err(ChannelError::from)
                .inspect_err(warn)
                .ok(),
            None => None,
        };
        // Without it, a map would be complete before the guest sees it.
        if self.deadline.is_none() {
            self.offers = None;
        }
        self.socket = socket;
        self.share_memory();
    }

    /// The front-end maps memory if it says when it has.
    fn share_memory(&self) {
        let is_there = self.offers.is_some() && self.has_answers;
        self.links.shared_memory.set_channel(is_there);
    }

    fn withdraw(&self) {
        if self.links.config_changes.is_wanted() {
            self.links.config_changes.withdraw();
        }
        self.links.shared_memory.withdraw();
    }

    fn send(&mut self, is_quiet: bool) -> Result<(), ChannelError> {
        let links = &self.links;
        let changes = links.config_changes.is_wanted();
        if !changes && !links.shared_memory.is_wanted() {
            return Ok(());
        }
        if !self.vrings.run() {
            self.withdraw();
            return Ok(());
        }
        let Some(socket) = self.socket.as_ref().filter(|_| is_quiet) else {
            return Ok(());
        };
        let is_mapping = self.visibility == Visibility::Awaited;
        if self.awaited.is_some() || self.offer.is_some() || is_mapping {
            return Ok(());
        }
        let request = match changes {
            true => Some(Request::ConfigChange),
            false => links
                .shared_memory
                .take_wanted()
                .map(|(region, request)| Request::SharedMemory(region, request)),
        };
        let Some(request) = request else {
            return Ok(());
        };
        let flags = VERSION | if self.has_answers { NEED_REPLY } else { 0 };
        if let Some(offers) = self
            .offers
            .as_ref()
            .filter(|_| links.shared_memory.is_asked())
        {
            self.offer = Some(offers.offer(request, flags)?);
            return Ok(());
        }
        let message = request.bytes(flags);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let bytes = [IoSlice::new(&message)];
        let sent = match &mut self.kept {
            Some(kept) => kept.sent.send(socket, &bytes, &[], flags),
            None => retry_on_intr(|| send(socket, &message, flags)),
        };
        match sent? {
            sent if sent == message.len() => self.sent(&request),
            _ => return Err(ChannelError::Full),
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), ChannelError> {
        let (Some(socket), Some(awaited)) = (&self.socket, self.awaited) else {
            return Ok(());
        };
        let mut rest = vec![0; ANSWER_LEN.saturating_sub(self.answer.len())];
        let received = match &mut self.kept {
            Some(kept) => {
                let into = &mut [IoSliceMut::new(&mut rest)];
                kept.received.receive(socket, into, RecvFlags::DONTWAIT)
            }
            None => recv(socket, rest.as_mut_slice(), RecvFlags::DONTWAIT).map(|(_, got)| got),
        };
        match received {
            Ok(0) | Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Ok(got) => self.answer.extend(rest.iter().take(got)),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(ChannelError::Socket(error.into())),
        }
        let Some(answer) = self.answer.first_chunk::<ANSWER_LEN>() else {
            return Ok(());
        };
        let (header, value) = answer.split_at(ANSWER_LEN - 8);
        let expected = [awaited, VERSION | REPLY, 8].map(u32::to_ne_bytes);
        if header != expected.as_flattened() {
            return Err(ChannelError::NoAnswer);
        }
        match number(value) {
            refusal @ 1.. if awaited == CONFIG_CHANGE => {
                return Err(ChannelError::Refused(refusal));
            }
            _ if awaited == CONFIG_CHANGE => self.links.config_changes.answered(),
            0 if awaited == SHMEM_MAP && self.visibility == Visibility::Unknown => {
                self.visibility = Visibility::Awaited;
                if let Some(deadline) = &mut self.deadline {
                    deadline.start()?;
                }
            }
            // It may still map others.
            refusal => self.links.shared_memory.answered(refusal == 0),
        }
        self.awaited = None;
        self.answer.clear();
        Ok(())
    }
}

impl KeptChannel {
    fn transferred(&self) -> ChannelBegin {
        ChannelBegin {
            sent: self.sent.transferred(),
            received: self.received.transferred(),
        }
    }
}

fn duplicate(fds: &[OwnedFd]) -> Result<OwnedFd, ChannelError> {
    let fd = fds.first().ok_or(ChannelError::NoSocket)?;
    match sockopt::socket_type(fd) {
        Ok(SocketType::STREAM) => {}
        _ => return Err(ChannelError::NoSocket),
    }
    fd.try_clone().map_err(ChannelError::Socket)
}

fn warn(error: &ChannelError) {
    log::warn!(
        "the front-end cannot be told that the configuration changed, nor be asked to map memory: {error}"
    );
}

#[cfg(test)]
mod tests;
