// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The backend's own messages to the front-end (`VHOST_USER_SET_BACKEND_REQ_FD`), of which there is one: the
//! configuration space changed.
//!
//! The crate `vhost` has no sender for it, and waits for answers. Waiting would be a deadlock: QEMU does not read this
//! channel while it waits for the backend.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send, sockopt};
use vhost::vhost_user::message::{BackendReq, FrontendReq, VhostUserProtocolFeatures};

use super::journal::{RecordError, Table};
use crate::backend::continuity::{Continuity, IoSlot, Ledger, Owner, Slot};
use crate::backend::device::config_change::ConfigChangeLink;

const SET_PROTOCOL_FEATURES: u32 = FrontendReq::SET_PROTOCOL_FEATURES as u32;
const SET_BACKEND_REQ_FD: u32 = FrontendReq::SET_BACKEND_REQ_FD as u32;
const SET_VRING_KICK: u32 = FrontendReq::SET_VRING_KICK as u32;
const SET_VRING_ENABLE: u32 = FrontendReq::SET_VRING_ENABLE as u32;
const GET_VRING_BASE: u32 = FrontendReq::GET_VRING_BASE as u32;
const RESET_OWNER: u32 = FrontendReq::RESET_OWNER as u32;
const RESET_DEVICE: u32 = FrontendReq::RESET_DEVICE as u32;

const CONFIG_CHANGE: u32 = BackendReq::CONFIG_CHANGE_MSG as u32;
/// Flags of a message: the protocol's version, a reply, an answer is wanted.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
/// An answer: header, then 64 bits, 0 for success.
const ANSWER_LEN: usize = 20;
/// An answer that agrees, as its bytes lie in memory.
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
/// A message: its header.
const MESSAGE_LEN: u64 = 12;
/// The virtqueue's index in the payload of `SET_VRING_KICK`.
const INDEX_MASK: u64 = 0xff;

/// The channel back to the front-end, and what tells when it may be used.
pub(super) struct BackendChannel {
    link: ConfigChangeLink,
    socket: Option<Arc<OwnedFd>>,
    /// Whether the front-end answers (`VHOST_USER_PROTOCOL_F_REPLY_ACK`).
    has_answers: bool,
    vrings: RunningVrings,
    awaits_answer: bool,
    answer: Vec<u8>,
    kept: Option<KeptChannel>,
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

/// Why the channel is given up.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("VHOST_USER_SET_BACKEND_REQ_FD came without a stream socket")]
    NoSocket,
    #[error("it does not read what it was sent")]
    Full,
    #[error("it closed the channel")]
    Closed,
    #[error("it answered with {0}")]
    Refused(u64),
    #[error("it sent what is no answer")]
    NoAnswer,
    #[error("{0}")]
    Socket(#[source] io::Error),
}

impl BackendChannel {
    pub(super) fn new(link: ConfigChangeLink) -> Self {
        Self {
            link,
            socket: None,
            has_answers: false,
            vrings: RunningVrings::default(),
            awaits_answer: false,
            answer: Vec::new(),
            kept: None,
        }
    }

    /// A channel that a successor goes on with.
    pub(super) fn kept(link: ConfigChangeLink, continuity: &Continuity) -> io::Result<Self> {
        let mut kept = KeptChannel {
            ledger: continuity.ledger(Owner::Proxy),
            sent: continuity.slot(Slot::ChannelOut)?,
            received: continuity.slot(Slot::ChannelIn)?,
            begin: ChannelBegin::default(),
        };
        kept.begin = kept.transferred();
        Ok(Self {
            kept: Some(kept),
            ..Self::new(link)
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
        let messages = now.sent.saturating_sub(kept.begin.sent) / MESSAGE_LEN;
        let received = now.received.saturating_sub(kept.begin.received);
        let answers = received / ANSWER_LEN as u64;
        if self.has_answers && self.socket.is_some() && messages > answers {
            self.awaits_answer = true;
            // A part of an answer was received by a predecessor, and is taken for one that agrees.
            let part = (received % ANSWER_LEN as u64) as usize;
            self.answer = AGREEMENT.iter().copied().take(part).collect();
            self.link.resume();
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

    /// The socket, while an answer is to come by it.
    pub(super) fn awaits_answer(&self) -> Option<BorrowedFd<'_>> {
        let socket = self.socket.as_ref().filter(|_| self.awaits_answer)?;
        Some(socket.as_fd())
    }

    /// Takes note of a request of the front-end.
    pub(super) fn note(&mut self, request: u32, payload: &[u8], fds: &[OwnedFd]) {
        if !self.link.is_offered() {
            return;
        }
        match request {
            SET_PROTOCOL_FEATURES => {
                let reply_ack = VhostUserProtocolFeatures::REPLY_ACK.bits();
                self.has_answers = number(payload) & reply_ack != 0;
            }
            SET_BACKEND_REQ_FD => {
                let socket = duplicate(fds).inspect_err(warn).ok();
                self.set_socket(socket.map(Arc::new));
                if let Some(kept) = &mut self.kept {
                    kept.begin = kept.transferred();
                }
            }
            SET_VRING_KICK => self.vrings.start(number(payload) & INDEX_MASK),
            SET_VRING_ENABLE if word(payload, 4) == 0 => self.vrings.disable(index(payload)),
            SET_VRING_ENABLE => self.vrings.enable(index(payload)),
            GET_VRING_BASE => self.vrings.stop(index(payload)),
            RESET_OWNER | RESET_DEVICE => self.vrings.disable_all(),
            _ => {}
        }
        self.record();
    }

    /// Reads an answer, and sends what the device wants to be sent, if the front-end runs the device. `is_quiet`: no
    /// message of the front-end is being read; it may be the one that stops the device.
    pub(super) fn serve(&mut self, is_quiet: bool) {
        if let Err(error) = self.receive().and_then(|()| self.send(is_quiet)) {
            warn(&error);
            self.set_socket(None);
        }
    }

    fn set_socket(&mut self, socket: Option<Arc<OwnedFd>>) {
        self.awaits_answer = false;
        self.answer.clear();
        self.link.set_channel(socket.clone());
        self.socket = socket;
    }

    fn send(&mut self, is_quiet: bool) -> Result<(), ChannelError> {
        if !self.link.is_wanted() {
            return Ok(());
        }
        if !self.vrings.run() {
            self.link.withdraw();
            return Ok(());
        }
        let Some(socket) = self.socket.as_ref().filter(|_| is_quiet) else {
            return Ok(());
        };
        let flags = VERSION | if self.has_answers { NEED_REPLY } else { 0 };
        let message = [CONFIG_CHANGE, flags, 0].map(u32::to_ne_bytes).concat();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match &mut self.kept {
            Some(kept) => kept
                .sent
                .send(socket, &[IoSlice::new(&message)], &[], flags),
            None => retry_on_intr(|| send(socket, &message, flags)),
        };
        match sent {
            Ok(sent) if sent == message.len() => {}
            Ok(_) | Err(Errno::AGAIN) => return Err(ChannelError::Full),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(error) => return Err(ChannelError::Socket(error.into())),
        }
        log::debug!("the front-end is told that the configuration changed");
        self.awaits_answer = self.has_answers;
        self.link.sent(self.has_answers);
        Ok(())
    }

    fn receive(&mut self) -> Result<(), ChannelError> {
        let Some(socket) = self.socket.as_ref().filter(|_| self.awaits_answer) else {
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
        let expected = [CONFIG_CHANGE, VERSION | REPLY, 8].map(u32::to_ne_bytes);
        let value = value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        match value {
            Some(0) if header == expected.as_flattened() => {}
            Some(value) if header == expected.as_flattened() => {
                return Err(ChannelError::Refused(value));
            }
            _ => return Err(ChannelError::NoAnswer),
        }
        self.awaits_answer = false;
        self.answer.clear();
        self.link.answered();
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
    log::warn!("the front-end cannot be told that the configuration changed: {error}");
}

/// Which virtqueues the front-end has running, and whether it is about to stop them: it stops them one by one.
#[derive(Debug, Default)]
struct RunningVrings {
    started: u64,
    enabled: u64,
    run: bool,
}

impl RunningVrings {
    /// Whether some run, and none was stopped since the last one began.
    fn run(&self) -> bool {
        self.run
    }

    fn start(&mut self, index: u64) {
        self.started |= bit(index);
        self.run |= self.enabled & bit(index) != 0;
    }

    fn enable(&mut self, index: u64) {
        self.enabled |= bit(index);
        self.run |= self.started & bit(index) != 0;
    }

    fn disable(&mut self, index: u64) {
        self.run &= self.started & self.enabled & bit(index) == 0;
        self.enabled &= !bit(index);
    }

    fn stop(&mut self, index: u64) {
        self.run &= self.started & bit(index) == 0;
        self.started &= !bit(index);
    }

    fn disable_all(&mut self) {
        self.run = false;
        self.enabled = 0;
    }
}

/// None for an index that no device has.
fn bit(index: u64) -> u64 {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    1_u64.checked_shl(index).unwrap_or(0)
}

/// The virtqueue's index in a payload of 32-bit words. The daemon refuses a payload that is too short.
fn index(payload: &[u8]) -> u64 {
    word(payload, 0).into()
}

fn word(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn number(payload: &[u8]) -> u64 {
    let bytes = payload.first_chunk();
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
