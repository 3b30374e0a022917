//! The display socket: what the front-end is asked and shown (QEMU, docs/interop/vhost-user-gpu.rst).
//!
//! Nothing in here blocks. Questions are sent and their answers come with a later event; pixels go
//! out as far as the front-end reads, the rest when it reads again.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use vmm_sys_util::epoll::EventSet;

use super::protocol::DisplayInfo;
use super::scanout::{DmabufSupport, Scanouts};
use super::virtio_gpu::{DisplayQuery, DisplayReply};
use inbox::{Inbox, Reply};
use outbox::{Outbox, Progress, Request};

pub use updates::UPDATE_LIMIT;

mod inbox;
mod outbox;
mod updates;

/// How long an answer is waited for; the driver waits as long.
pub const REPLY_LIMIT: Duration = Duration::from_secs(3);
/// After how long a front-end that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes that the socket is to take before the front-end reads: a screen goes out in rounds of it, and
/// each wakes both sides. (Twice the usual, and as much as anybody may have.)
const SEND_BUFFER: usize = 416 << 10;
/// Most questions without an answer.
const MAX_UNANSWERED: usize = 8;

/// `VHOST_USER_GPU_PROTOCOL_F_EDID`, as a mask: the front-end answers `GET_EDID`.
const PROTOCOL_F_EDID: u64 = 1 << 0;
/// `VHOST_USER_GPU_PROTOCOL_F_DMABUF2`, as a mask: the front-end takes `DMABUF_SCANOUT2`.
const PROTOCOL_F_DMABUF2: u64 = 1 << 1;

/// Why a display socket is given up.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// The front-end closed it, as it does when the guest's driver leaves the device.
    #[error("the front-end closed the display socket")]
    Closed,
    /// It does not work any more.
    #[error("the display socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The front-end does not keep to the protocol.
    #[error(
        "the front-end sent an unexpected message on the display socket: \
         request {request}, flags {flags:#x}, {size} bytes"
    )]
    Protocol {
        /// The message's request code.
        request: u32,
        /// Its flags.
        flags: u32,
        /// The length of its payload in bytes.
        size: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Negotiation {
    /// The front-end has not said yet what it can do: nothing but the question is sent.
    Awaited,
    Settled {
        edid: bool,
        dmabuf2: bool,
    },
}

/// Whose time is over without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// A question.
    pub question: bool,
    /// A `DMABUF_UPDATE`: until it answers there are pixels, or for good.
    pub update: Option<Pixels>,
}

/// For how long a front-end whose answer is late is sent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Until it answers.
    UntilAnswered,
    /// For as long as it is the display: it was late too often.
    ForGood,
}

struct Link {
    socket: Arc<UnixStream>,
    outbox: Outbox,
    inbox: Inbox,
    negotiation: Negotiation,
    unanswered: VecDeque<Request>,
    deadline: Option<Instant>,
    silent_since: Option<Instant>,
    /// What the front-end said last of its displays.
    modes: Option<DisplayInfo>,
    blocked: bool,
}

impl Link {
    fn request(&mut self, request: Request, now: Instant) {
        self.outbox.request(request);
        if request.has_reply() {
            self.unanswered.push_back(request);
            self.deadline.get_or_insert(now + REPLY_LIMIT);
        }
    }

    /// Sends what the question needs next, once the front-end has said what it can do.
    fn pose(&mut self, question: DisplayQuery, now: Instant) {
        let Negotiation::Settled { edid, .. } = self.negotiation else {
            return;
        };
        match question {
            DisplayQuery::Edid(scanout) if edid && self.has_display(scanout) => {
                self.request(Request::Edid(scanout), now);
            }
            DisplayQuery::Edid(_) | DisplayQuery::DisplayInfo => {
                self.request(Request::DisplayInfo, now)
            }
        }
    }

    /// Whether the front-end is known to have a display for `scanout`: asked for the EDID of
    /// another it does not answer. The first one always exists.
    fn has_display(&self, scanout: u32) -> bool {
        scanout == 0 || self.modes.is_some_and(|m| m.enabled(scanout).is_some())
    }
}

/// The front-end as a display; there may be none.
#[derive(Default)]
pub struct Display {
    /// Whether there are buffers that it could be passed.
    has_dmabufs: bool,
    link: Option<Link>,
    question: Option<DisplayQuery>,
    answer: Option<DisplayReply>,
}

impl Display {
    /// Has displays passed buffers where they take them.
    pub fn pass_dmabufs(&mut self) {
        self.has_dmabufs = true;
    }

    /// What the front-end takes. The protocol has a feature only for buffers with modifiers; others
    /// are for every front-end, but for one that does not answer in time.
    pub fn takes(&self) -> DmabufSupport {
        match &self.link {
            _ if !self.has_dmabufs => DmabufSupport::None,
            None => DmabufSupport::default(),
            Some(link) if link.outbox.updates.is_unresponsive() => DmabufSupport::None,
            Some(link) => match link.negotiation {
                Negotiation::Settled { dmabuf2: false, .. } => DmabufSupport::LinearOnly,
                Negotiation::Settled { dmabuf2: true, .. } | Negotiation::Awaited => {
                    DmabufSupport::Modifiers
                }
            },
        }
    }

    /// Uses `socket` from now on and forgets the one before.
    pub fn attach(&mut self, socket: UnixStream, now: Instant) {
        self.detach();
        // What the kernel allows of it will do.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let mut link = Link {
            socket: Arc::new(socket),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            negotiation: Negotiation::Awaited,
            unanswered: VecDeque::new(),
            deadline: None,
            silent_since: None,
            modes: None,
            blocked: false,
        };
        link.request(Request::Features, now);
        self.link = Some(link);
    }

    /// Closes the socket; who waits for an answer gets none.
    pub fn detach(&mut self) {
        self.link = None;
        self.give_up();
    }

    fn give_up(&mut self) {
        if self.question.take().is_some() {
            self.answer = Some(DisplayReply::Nothing);
        }
    }

    /// Asks the front-end; the answer comes with [`Display::take_answer`] after some event.
    /// `false` where there is nobody who would answer.
    pub fn ask(&mut self, question: DisplayQuery, now: Instant) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        // A driver that begins anew before it has its answer asks again.
        if link.unanswered.len() >= MAX_UNANSWERED {
            return false;
        }
        if let Some(since) = link.silent_since {
            if now.saturating_duration_since(since) < RETRY_AFTER {
                return false;
            }
            link.silent_since = None;
        }
        self.answer = None;
        self.question = Some(question);
        link.pose(question, now);
        true
    }

    /// Forgets what was asked; an answer to it is ignored.
    pub fn forget_question(&mut self) {
        self.question = None;
        self.answer = None;
    }

    /// Whether an answer is awaited.
    pub fn is_asked(&self) -> bool {
        self.question.is_some()
    }

    /// The answer to what was asked last, once it is there.
    pub fn take_answer(&mut self) -> Option<DisplayReply> {
        self.answer.take()
    }

    /// The socket, and what it is waited for.
    pub fn interest(&self) -> Option<(&Arc<UnixStream>, EventSet)> {
        let link = self.link.as_ref()?;
        let interest = if link.blocked {
            EventSet::IN | EventSet::OUT
        } else {
            EventSet::IN
        };
        Some((&link.socket, interest))
    }

    /// When [`Display::expire`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let link = self.link.as_ref()?;
        let update = link.outbox.updates.deadline();
        link.deadline.into_iter().chain(update).min()
    }

    /// Gives up waiting for answers whose time is over.
    pub fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        let Some(link) = &mut self.link else {
            return expired;
        };
        let updates = &mut link.outbox.updates;
        if updates.expire(now) {
            expired.update = Some(if updates.is_disabled() {
                Pixels::ForGood
            } else {
                Pixels::UntilAnswered
            });
        }
        if link.deadline.is_some_and(|at| at <= now) {
            expired.question = true;
            link.deadline = None;
            link.silent_since = Some(now);
            if link.negotiation == Negotiation::Awaited {
                link.negotiation = Negotiation::Settled {
                    edid: false,
                    dmabuf2: false,
                };
            }
            self.give_up();
        }
        expired
    }

    /// Reads what the front-end answered.
    ///
    /// # Errors
    /// Where the socket is of no more use; it is closed then, and who waits gets no answer.
    pub fn receive(&mut self, now: Instant) -> Result<(), DisplayError> {
        let result = self.try_receive(now);
        if result.is_err() {
            self.detach();
        }
        result
    }

    fn try_receive(&mut self, now: Instant) -> Result<(), DisplayError> {
        while let Some(link) = &mut self.link {
            let Some(reply) = link.inbox.receive(&link.socket)? else {
                break;
            };
            self.take_reply(reply, now);
        }
        Ok(())
    }

    fn take_reply(&mut self, reply: Reply, now: Instant) {
        let Some(link) = &mut self.link else {
            return;
        };
        if matches!(reply, Reply::Updated) {
            link.outbox.updates.answered();
            return;
        }
        // The front-end answers in order; what it left out before this one it will not answer.
        let answers = |request: &Request| reply.answers(request);
        let Some(position) = link.unanswered.iter().position(answers) else {
            return;
        };
        let request = link.unanswered.drain(..=position).next_back();
        link.silent_since = None;
        link.deadline = (!link.unanswered.is_empty()).then(|| now + REPLY_LIMIT);
        match reply {
            Reply::Features(offered) => {
                let mut known = PROTOCOL_F_EDID;
                if self.has_dmabufs {
                    known |= PROTOCOL_F_DMABUF2;
                }
                let accepted = offered & known;
                link.request(Request::SetFeatures(accepted), now);
                link.negotiation = Negotiation::Settled {
                    edid: accepted & PROTOCOL_F_EDID != 0,
                    dmabuf2: accepted & PROTOCOL_F_DMABUF2 != 0,
                };
                if let Some(question) = self.question {
                    link.pose(question, now);
                }
            }
            Reply::DisplayInfo(modes) => {
                link.modes = Some(*modes);
                let edid = matches!(link.negotiation, Negotiation::Settled { edid: true, .. });
                match self.question {
                    Some(DisplayQuery::Edid(id)) if edid && modes.enabled(id).is_some() => {
                        link.request(Request::Edid(id), now);
                    }
                    Some(_) => self.settle(DisplayReply::DisplayInfo(modes)),
                    None => {}
                }
            }
            Reply::Edid(edid) => {
                if let (Some(DisplayQuery::Edid(asked)), Some(Request::Edid(id))) =
                    (self.question, request)
                    && asked == id
                {
                    self.settle(edid.map_or(DisplayReply::Nothing, DisplayReply::Edid));
                }
            }
            Reply::Updated => {}
        }
    }

    fn settle(&mut self, answer: DisplayReply) {
        self.question = None;
        self.answer = Some(answer);
    }

    /// Sends as much as the front-end takes: questions, and what `screen` has for it (nothing of
    /// that where `screen` is `None`).
    ///
    /// # Errors
    /// Where the socket is of no more use; it is closed then, and who waits gets no answer.
    pub fn send(
        &mut self,
        screen: Option<&mut Scanouts>,
        now: Instant,
    ) -> Result<(), DisplayError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let screen = screen.filter(|_| link.negotiation != Negotiation::Awaited);
        match link.outbox.send(&link.socket, screen, now) {
            Ok(progress) => {
                link.blocked = progress == Progress::Blocked;
                Ok(())
            }
            Err(e) => {
                self.detach();
                Err(match e.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                        DisplayError::Closed
                    }
                    _ => e.into(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
