//! Its queues: which requests are served, in what order, and for how long at a time.

use std::io::Write as _;
use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use super::super::protocol::{HEADER_LEN, Header, Response, response};
use super::super::renderer::WORK;
use super::super::virtio_gpu::{CommandResult, DisplayReply, QueueKind};
use super::cursor_order::position;
use super::{CONTROL_QUEUE, CURSOR_QUEUE, Gpu};
use crate::backend::{Chain, QueuePass, VirtqueueError, Vring};

/// Requests of one queue after which the others have their turn: more than drivers make for a frame, so
/// that what is ready together is shown together.
pub(super) const PASS_REQUESTS: usize = 120;
/// Time after which the others have their turn: a driver can make a request of so many descriptors
/// that looking at them takes longer than doing it, and what a 3D command takes is the guest's to
/// say.
const PASS_TIME: Duration = Duration::from_millis(10);

/// What may be done after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Whatever comes.
    Any,
    /// The rest of the same request, once the others had their turn.
    Rest,
    /// The same request, once the control queue has gone on.
    AfterControl,
}

impl Gpu {
    /// Whether the queues may be served: false while, after a stop, it is not yet known who comes.
    fn decide_who_comes(&mut self, vrings: &[Vring]) -> bool {
        let ready = |queue: u16| {
            let state = vrings.get(usize::from(queue))?.get_ref();
            let usable = state.is_enabled() && state.get_queue().ready();
            usable.then(|| state.get_queue().next_avail())
        };
        if self.continuity.is_stopped() {
            let Some(position) = ready(CONTROL_QUEUE) else {
                return false;
            };
            if self.continuity.is_new_driver(position) {
                log::debug!("a new driver begins");
                self.reset();
            } else {
                log::debug!("the driver goes on");
                self.continuity.go_on();
            }
        }
        if ready(CURSOR_QUEUE).is_some() {
            self.continuity.cursor_runs();
        }
        true
    }

    /// Serves all that waits, as far as it should be done in one go.
    pub(super) fn serve(&mut self, vrings: &[Vring]) {
        if self.decide_who_comes(vrings) {
            // Cursors are few and small, and most should not wait for a screen full of pixels.
            self.turn(vrings, QueueKind::Cursor);
            self.turn(vrings, QueueKind::Control);
            if let Some(control) = vrings.get(usize::from(CONTROL_QUEUE)) {
                let position = position(control);
                self.continuity.stands_at(position);
                // The display answers in time, or its time ends; a fence may not.
                let goes_on = self.waiting[usize::from(CONTROL_QUEUE)] || self.display.is_asked();
                if self.cursor_order.control_went_on(position, goes_on) {
                    self.waiting[usize::from(CURSOR_QUEUE)] = true;
                    self.turn(vrings, QueueKind::Cursor);
                }
            }
        }
        self.state.follow_drawing();
        self.settle();
    }

    /// Has a queue its turn, if anything may wait in it.
    fn turn(&mut self, vrings: &[Vring], kind: QueueKind) {
        let index = match kind {
            QueueKind::Control => usize::from(CONTROL_QUEUE),
            QueueKind::Cursor => usize::from(CURSOR_QUEUE),
        };
        if !self.waiting.get(index).is_some_and(|waiting| *waiting) {
            return;
        }
        // A cursor that waits is looked at again when it has waited.
        let more = match vrings.get(index) {
            Some(vring) if kind == QueueKind::Control || !self.cursor_order.is_waiting() => {
                self.pass(vrings, vring, kind).unwrap_or_else(|e| {
                    vring.report_error();
                    self.device_errors.warn(format_args!("{kind:?} queue: {e}"));
                    false
                })
            }
            _ => false,
        };
        if let Some(waiting) = self.waiting.get_mut(index) {
            *waiting = more;
        }
    }

    /// Serves one queue; `true` where requests are left that nobody will announce.
    fn pass(
        &mut self,
        vrings: &[Vring],
        vring: &Vring,
        kind: QueueKind,
    ) -> Result<bool, VirtqueueError> {
        let memory = self.memory.clone();
        let Some(mut ring) = QueuePass::begin(vring, &memory) else {
            return Ok(false);
        };
        let began = Instant::now();
        if kind == QueueKind::Control
            && let Some(renderer) = self.state.renderer_3d_mut()
        {
            self.fenced.answer(&mut ring, renderer);
        }
        for _ in 0..PASS_REQUESTS {
            if kind == QueueKind::Control && self.display.is_asked() {
                ring.flush_used()?;
                // The answer makes it go on.
                return Ok(false);
            }
            if kind == QueueKind::Control && self.fenced.is_full(vring) {
                ring.flush_used()?;
                // The next fence that is retired makes it go on.
                return Ok(false);
            }
            if kind == QueueKind::Cursor {
                self.state.control_is_done = self.cursor_order.has_waited(position(vring));
            }
            match ring.pop() {
                Ok(Some(chain)) => {
                    match self.request(vring, &mut ring, chain, kind) {
                        Next::Any => {}
                        Next::Rest => break,
                        Next::AfterControl => {
                            let control = vrings.get(usize::from(CONTROL_QUEUE));
                            self.cursor_order.wait(vring, control, &memory);
                            if self.cursor_order.is_waiting() {
                                ring.flush_used()?;
                                // Perhaps its kick comes only now.
                                self.waiting[usize::from(CONTROL_QUEUE)] = true;
                                return Ok(false);
                            }
                        }
                    }
                }
                Ok(None) => {
                    ring.flush_used()?;
                    return ring.enable_notification();
                }
                Err(e) => {
                    ring.flush_used()?;
                    return Err(e);
                }
            }
            if self.state.take_moved() >= WORK || began.elapsed() >= PASS_TIME {
                break;
            }
        }
        ring.flush_used()?;
        Ok(true)
    }

    fn request(
        &mut self,
        vring: &Vring,
        ring: &mut QueuePass<'_>,
        chain: Chain,
        kind: QueueKind,
    ) -> Next {
        let head = chain.head_index();
        let memory = ring.memory().clone();
        let outcome = match chain.clone().reader(&memory) {
            Ok(reader) => self.state.execute(kind, &memory, reader),
            Err(e) => {
                let trouble = format_args!("{kind:?} queue: unreadable request: {e}");
                self.device_errors.warn(trouble);
                let unreadable = Response::Plain(response::ERR_UNSPEC);
                CommandResult::Complete(unreadable.to_bytes(&Header::default()))
            }
        };
        if let Some(complaint) = self.state.take_complaint() {
            self.guest_errors.warn(complaint);
        }
        match outcome {
            CommandResult::Complete(response) => {
                ring.add_used(head, respond(chain, &memory, &response))
            }
            CommandResult::Fenced(response, fence) => {
                self.fenced.keep(vring, chain, response, fence)
            }
            CommandResult::NeedsDisplay(question) => {
                // It stays in the queue, so that a ring that is stopped meanwhile loses nothing.
                ring.undo_pop();
                if !self.display.ask(question, Instant::now()) {
                    self.state.answer = Some(DisplayReply::Nothing);
                }
            }
            CommandResult::InPart => {
                // As with a question: the queue may stop before the rest is done.
                ring.undo_pop();
                return Next::Rest;
            }
            CommandResult::AfterControl => {
                ring.undo_pop();
                return Next::AfterControl;
            }
        }
        Next::Any
    }
}

/// Writes a response into a request's buffers and tells its length. Where it does not fit, an
/// error is written; where even that does not, nothing.
pub(super) fn respond(chain: Chain, memory: &GuestMemoryMmap, response: &[u8]) -> u32 {
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    let room = writer.available_bytes();
    let written = if room >= response.len() {
        writer.write_all(response)
    } else if room >= HEADER_LEN {
        let mut error = [0; HEADER_LEN];
        for (to, from) in error.iter_mut().zip(response) {
            *to = *from;
        }
        error[..4].copy_from_slice(&response::ERR_UNSPEC.to_le_bytes());
        writer.write_all(&error)
    } else {
        return 0;
    };
    match written {
        Ok(()) => u32::try_from(writer.bytes_written()).unwrap_or(0),
        Err(_) => 0,
    }
}
