// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The proxy of a program that another process may replace at any time.
//!
//! It forwards one message at a time, and knows when the daemon has carried it out. What the front-end set up is in a journal;
//! the message under way is recorded before it is taken out of the front-end's socket, and its reply before it is sent. A
//! successor replays the journal to its own daemon, and goes on with the message under way: each message may be carried out
//! once more on top of its own effect.

use std::io::IoSlice;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use vhost::vhost_user::message::FrontendReq;

use super::backend_channel::BackendChannel;
use super::display_socket::DisplaySocketMailbox;
use super::forwarder::{MAX_FORWARDED_MESSAGES, ProxyError};
use super::journal::{Executed, Journal, KeptFd, RecordError, Table};
use super::message_header::HEADER;
use super::proxy::{ConnectionSide, FrontEndProxy, hung_up};
use super::sanitize::{RequestSanitizer, message, refusal};
use super::succession::Succession;
use crate::backend::continuity::{
    Continuity, EndReason, FdId, IoSlot, Ledger, Owner, Slot, ValueError, Work,
};
use crate::backend::device::request_links::RequestLinks;
use crate::backend::virtqueue::signal;
use daemon_link::{DaemonLink, Execution};
use incoming::{Incoming, Message, Progress, pass_descriptors_only};
use under_way::UnderWay;

mod daemon_link;
mod incoming;
mod under_way;

const GET_FEATURES: u32 = FrontendReq::GET_FEATURES as u32;
const GPU_SET_SOCKET: u32 = FrontendReq::GPU_SET_SOCKET as u32;
const ADD_MEM_REG: u32 = FrontendReq::ADD_MEM_REG as u32;

/// Keeps the connection of a front-end that was accepted. Returns whether it is kept.
pub(crate) fn keep_front_end(continuity: &Continuity, front_end: &UnixStream) -> bool {
    let ledger = continuity.ledger(Owner::Proxy);
    match continuity.locker().keep(&[front_end.as_fd()]) {
        Ok(Some(packet)) => {
            ledger.write(Table::Connection.key(0), |value| {
                value.u64(packet.to_bits());
            });
            ledger.commit();
            true
        }
        Ok(None) => false,
        Err(error) => {
            continuity.end(error.end_reason());
            false
        }
    }
}

/// The front-end whose connection a predecessor kept; none if it had none.
///
/// # Errors
/// If the records are damaged.
pub(crate) fn kept_front_end(continuity: &Continuity) -> Result<Option<UnixStream>, RecordError> {
    let ledger = continuity.ledger(Owner::Proxy);
    let packet = ledger.read(Table::Connection.key(0), |value| {
        let packet = FdId::from_bits(value.u64()?);
        packet.ok_or(ValueError::Content("there is no connection"))
    })?;
    let Some(packet) = packet else {
        return Ok(None);
    };
    let taken = continuity
        .locker()
        .take(packet)
        .and_then(|mut fds| fds.pop());
    taken
        .map(|fd| Some(fd.into()))
        .ok_or(RecordError::Descriptor)
}

/// What the daemon or the front-end is doing.
enum Stage {
    /// The daemon carries out what the front-end set up with a predecessor.
    Replaying {
        /// The eventfds to signal then: a predecessor may have died before it notified a driver.
        calls: Vec<OwnedFd>,
        next: Option<UnderWay>,
    },
    Receiving,
    /// The daemon carries out a message.
    Executing(Executed),
    /// The front-end is being sent a reply.
    Replying {
        start: u64,
        reply: Vec<u8>,
    },
}

/// The front-end's and the daemon's connection, joined so that a successor can go on.
pub(crate) struct ResumableProxy {
    front_end: UnixStream,
    continuity: Continuity,
    ledger: Ledger,
    stage: Stage,
    incoming: Incoming,
    replies: IoSlot,
    daemon: DaemonLink,
    journal: Journal,
    sanitizer: RequestSanitizer,
    display_socket: DisplaySocketMailbox,
    channel: BackendChannel,
    succession: Succession,
}

/// The virtqueue that the message under way stops. Devices have less than 256.
fn stopped_vring(next: Option<&UnderWay>) -> Option<u8> {
    match next? {
        UnderWay::Received { bytes, .. } if is_whole(bytes) => {
            let is_stop = request_of(bytes) == Some(FrontendReq::GET_VRING_BASE as u32);
            bytes.get(HEADER).copied().filter(|_| is_stop)
        }
        _ => None,
    }
}

impl ResumableProxy {
    /// Joins the front-end's connection and the daemon's, `ends`. If there is a predecessor, goes on where it was.
    ///
    /// # Errors
    /// If that is impossible.
    pub(crate) fn new(
        ends: [UnixStream; 2],
        display_socket: DisplaySocketMailbox,
        requests: RequestLinks,
        succession: Succession,
    ) -> Result<Self, ProxyError> {
        let continuity = succession.continuity().clone();
        for end in &ends {
            end.set_nonblocking(true).map_err(ProxyError::Receive)?;
        }
        let [front_end, daemon] = ends;
        pass_descriptors_only(&front_end).map_err(ProxyError::Receive)?;
        let ledger = continuity.ledger(Owner::Proxy);
        let mut proxy = Self {
            front_end,
            stage: Stage::Receiving,
            incoming: Incoming::new(&continuity).map_err(ProxyError::Receive)?,
            replies: continuity
                .slot(Slot::FrontEndOut)
                .map_err(ProxyError::Send)?,
            daemon: DaemonLink::new(daemon),
            journal: Journal::read(ledger.clone(), continuity.locker())?,
            sanitizer: RequestSanitizer::default(),
            display_socket,
            channel: BackendChannel::kept(requests, &continuity).map_err(ProxyError::Send)?,
            ledger,
            continuity: continuity.clone(),
            succession,
        };
        if continuity.is_resumed() {
            proxy.replay()?;
        } else {
            proxy.succession.replayed();
        }
        Ok(proxy)
    }

    /// Has the daemon carry out what the front-end set up with a predecessor.
    fn replay(&mut self) -> Result<(), ProxyError> {
        let next = UnderWay::read(&self.ledger).map_err(RecordError::from)?;
        // The device would take the old socket for a new one.
        let replaces_display = matches!(
            &next,
            Some(UnderWay::Received { bytes, .. })
                if request_of(bytes) == Some(GPU_SET_SOCKET) && is_whole(bytes)
        );
        let stopped = stopped_vring(next.as_ref());
        let replay = self.journal.replay(replaces_display)?;
        self.channel.resume(|channel| {
            for setup in &replay.messages {
                channel.note(setup.request as u32, &setup.payload, &setup.fds);
            }
        })?;
        for setup in replay.messages {
            let request = setup.request as u32;
            // The device may have stopped it already, and would begin anew with its driver.
            let is_stopped = stopped.is_some_and(|index| setup.payload.first() == Some(&index));
            if let (FrontendReq::SET_VRING_KICK, true, Some(index)) =
                (setup.request, is_stopped, stopped)
            {
                self.succession.positions().stops_again(index.into());
                continue;
            }
            let mut fds = setup.fds;
            let mut bytes = message(request, &setup.payload);
            if request == GPU_SET_SOCKET {
                self.display_socket.duplicate(fds.first(), setup.packet);
            }
            sanitize(&mut self.sanitizer, &mut bytes, &mut fds)?;
            self.daemon.push(request, bytes, fds);
        }
        self.daemon.finish(message(GET_FEATURES, &[]));
        let calls = replay.calls;
        self.stage = Stage::Replaying { calls, next };
        Ok(())
    }

    /// The replay was carried out. Goes on with the message that was under way.
    fn resume(&mut self, calls: &[OwnedFd], next: Option<UnderWay>) -> Result<(), ProxyError> {
        for reply in self.daemon.take_replies() {
            note_reply(&mut self.sanitizer, &reply);
        }
        self.stage = Stage::Receiving;
        match next {
            None => {}
            Some(UnderWay::Received {
                start,
                fds,
                bytes,
                doubtful,
            }) => self.incoming.resume(start, fds, bytes, doubtful)?,
            Some(UnderWay::Replied { start, bytes }) => {
                self.stage = Stage::Replying {
                    start,
                    reply: bytes,
                };
            }
        }
        self.succession.replayed();
        calls.iter().for_each(signal);
        Ok(())
    }

    /// Has the daemon carry out a message of the front-end.
    fn execute(&mut self, received: Message) -> Result<(), ProxyError> {
        let Message {
            mut bytes,
            mut fds,
            kept,
            ..
        } = received;
        self.continuity.begin_work(Work::Message);
        let request = request_of(&bytes).unwrap_or_default();
        let payload = payload_of(&bytes).to_vec();
        if request == GPU_SET_SOCKET {
            let packet = kept.first().map(|fd| fd.packet);
            self.display_socket.duplicate(fds.first(), packet);
        }
        self.channel.note(request, &payload, &fds);
        if self.sanitizer.declines(&bytes, &fds, false) {
            self.decline(request, kept);
            return Ok(());
        }
        let region = match fds.first() {
            Some(fd) if request == ADD_MEM_REG => fd.try_clone().ok(),
            _ => None,
        };
        let sanitized = sanitize(&mut self.sanitizer, &mut bytes, &mut fds)?;
        self.daemon.push(request, bytes, fds);
        self.daemon.finish(message(GET_FEATURES, &[]));
        self.stage = Stage::Executing(Executed {
            request,
            payload,
            sanitized,
            fds: kept,
            region,
            reply: Vec::new(),
        });
        Ok(())
    }

    /// The daemon does not get the message, and the front-end an error.
    fn decline(&mut self, request: u32, fds: Vec<KeptFd>) {
        self.journal.forget(fds);
        self.answer(refusal(request));
    }

    /// The daemon has carried out the message. From here on a successor does not carry it out again.
    fn executed(&mut self, mut executed: Executed) {
        let replies = self.daemon.take_replies();
        for reply in &replies {
            note_reply(&mut self.sanitizer, reply);
        }
        let reply = replies.concat();
        executed.reply = payload_of(&reply).to_vec();
        self.journal.apply(executed);
        self.answer(reply);
    }

    /// The message that was under way is done, and this is the reply, if it has one.
    fn answer(&mut self, reply: Vec<u8>) {
        let start = self.replies.transferred();
        self.stage = if reply.is_empty() {
            UnderWay::remove(&self.ledger);
            Stage::Receiving
        } else {
            let bytes = reply.clone();
            UnderWay::Replied { start, bytes }.put(&self.ledger);
            Stage::Replying { start, reply }
        };
        self.ledger.commit();
        self.journal.committed();
        self.continuity.work_done(Work::Message);
    }

    /// Sends the rest of a reply.
    fn reply(&mut self, start: u64, reply: &[u8]) -> Result<Progress, ProxyError> {
        loop {
            let sent = self.replies.transferred().saturating_sub(start);
            let sent = usize::try_from(sent).unwrap_or(usize::MAX);
            let Some(rest) = reply.get(sent..).filter(|rest| !rest.is_empty()) else {
                return Ok(Progress::Whole);
            };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let rest = [IoSlice::new(rest)];
            match self.replies.send(&self.front_end, &rest, &[], flags) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Progress::Waiting),
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Progress::Closed),
                Err(error) => return Err(ProxyError::Send(error.into())),
            }
        }
    }

    /// Makes a step. Returns whether the next one may be possible at once, or who closed the connection.
    fn step(&mut self) -> Result<Step, ProxyError> {
        match std::mem::replace(&mut self.stage, Stage::Receiving) {
            Stage::Replaying { calls, next } => match self.daemon.drive()? {
                Execution::Done => {
                    self.resume(&calls, next)?;
                    Ok(Step::Made)
                }
                Execution::Waiting => {
                    self.stage = Stage::Replaying { calls, next };
                    Ok(Step::Waiting)
                }
                Execution::Closed => Ok(Step::Closed(ConnectionSide::Backend)),
            },
            Stage::Receiving => match self.incoming.receive(&self.front_end)? {
                Progress::Whole => {
                    let received = self.incoming.take();
                    self.execute(received)?;
                    Ok(Step::Made)
                }
                Progress::Waiting => Ok(Step::Waiting),
                Progress::Closed => Ok(Step::Closed(ConnectionSide::FrontEnd)),
            },
            Stage::Executing(executed) => match self.daemon.drive()? {
                Execution::Done => {
                    self.executed(executed);
                    Ok(Step::Made)
                }
                Execution::Waiting => {
                    self.stage = Stage::Executing(executed);
                    Ok(Step::Waiting)
                }
                Execution::Closed => {
                    // Its last reply says that it refuses the message.
                    let reply = self.daemon.take_replies().concat();
                    let start = self.replies.transferred();
                    self.continuity.end(EndReason::Over);
                    self.reply(start, &reply)?;
                    Ok(Step::Closed(ConnectionSide::Backend))
                }
            },
            Stage::Replying { start, reply } => match self.reply(start, &reply)? {
                Progress::Whole => Ok(Step::Made),
                Progress::Waiting => {
                    self.stage = Stage::Replying { start, reply };
                    Ok(Step::Waiting)
                }
                Progress::Closed => Ok(Step::Closed(ConnectionSide::FrontEnd)),
            },
        }
    }
}

enum Step {
    Made,
    Waiting,
    Closed(ConnectionSide),
}

impl FrontEndProxy for ResumableProxy {
    fn poll_fds(&self) -> [PollFd<'_>; 3] {
        let front_end = match self.stage {
            Stage::Receiving => PollFlags::IN,
            Stage::Replying { .. } => PollFlags::OUT,
            Stage::Replaying { .. } | Stage::Executing(_) => PollFlags::empty(),
        };
        [
            PollFd::new(&self.front_end, front_end),
            self.daemon.poll_fd(),
            match self.channel.awaited_fd() {
                Some(channel) => PollFd::from_borrowed_fd(channel, PollFlags::IN),
                // Which is polled already.
                None => PollFd::new(&self.front_end, PollFlags::empty()),
            },
        ]
    }

    fn pass(&mut self, events: [PollFlags; 2]) -> Result<Option<ConnectionSide>, ProxyError> {
        let is_offer_read = self.channel.is_offer_read();
        let mut is_waiting = false;
        // Each message takes a few steps.
        for _ in 0..MAX_FORWARDED_MESSAGES {
            match self.step()? {
                Step::Made => {}
                Step::Waiting => {
                    is_waiting = true;
                    break;
                }
                Step::Closed(side) => return Ok(Some(side)),
            }
        }
        let is_quiet = is_waiting && matches!(self.stage, Stage::Receiving);
        let is_quiet = is_quiet && self.incoming.is_empty();
        self.channel.serve(is_quiet, is_offer_read);
        Ok(hung_up(events))
    }

    fn is_set_up(&self) -> bool {
        !matches!(self.stage, Stage::Replaying { .. })
    }
}

/// Checks and rewrites a message; the descriptors may change places with it. Returns the payload that the daemon gets.
fn sanitize(
    sanitizer: &mut RequestSanitizer,
    bytes: &mut Vec<u8>,
    fds: &mut [OwnedFd],
) -> Result<Vec<u8>, ProxyError> {
    let (Some(request), Some(payload)) = (request_of(bytes), bytes.get_mut(HEADER..)) else {
        return Ok(Vec::new());
    };
    let around = sanitizer.request(request, payload, fds)?;
    let payload = payload.to_vec();
    bytes.splice(..0, around.before);
    bytes.extend(around.after);
    Ok(payload)
}

fn note_reply(sanitizer: &mut RequestSanitizer, reply: &[u8]) {
    if let Some(request) = request_of(reply) {
        sanitizer.reply(request, payload_of(reply));
    }
}

fn request_of(bytes: &[u8]) -> Option<u32> {
    let request = bytes.first_chunk()?;
    Some(u32::from_ne_bytes(*request))
}

fn payload_of(bytes: &[u8]) -> &[u8] {
    bytes.get(HEADER..).unwrap_or_default()
}

/// Whether the message was received to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let size = bytes.get(8..).and_then(<[u8]>::first_chunk);
    size.is_some_and(|size| {
        bytes.len() >= HEADER.saturating_add(u32::from_ne_bytes(*size) as usize)
    })
}

#[cfg(test)]
mod tests;
