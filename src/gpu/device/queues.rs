//! Its queues: which requests are served, in what order, and for how long at a time.

use std::io::Write as _;
use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::{QueueT, Reader};
use vm_memory::GuestMemoryMmap;

use super::super::display_info::DisplayReply;
use super::super::protocol::command::CommandName;
use super::super::protocol::{
    Command, CursorCommand, EncodedResponse, ErrorCode, Header, RequestReader, Response,
};
use super::super::renderer::WORK;
use super::super::virtio_gpu::{CommandError, CommandResult};
use super::cursor_order::position;
use super::{CONTROL_QUEUE, CURSOR_QUEUE, Gpu};
use crate::backend::{Chain, MemoryGuard, QueuePass, VirtqueueError, Vring};

/// Which of the two queues a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Control,
    Cursor,
}

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
    /// The rest of the same request, or the next one, once the others had their turn.
    Later,
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
            match ring.pop() {
                Ok(Some(chain)) => {
                    match self.request(vring, &mut ring, chain, kind) {
                        Next::Any => {}
                        Next::Later => break,
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
            if began.elapsed() >= PASS_TIME {
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
        let memory = ring.memory().clone();
        let reader = match chain.clone().reader(&memory) {
            Ok(reader) => RequestReader::new(reader),
            Err(e) => {
                self.device_errors
                    .warn(format_args!("{kind:?} queue: unreadable request: {e}"));
                let response = Response::Error(ErrorCode::Unspec);
                complete(ring, chain, response.encode(&Header::default()));
                return Next::Any;
            }
        };
        match kind {
            QueueKind::Control => self.control_request(vring, ring, chain, reader, &memory),
            QueueKind::Cursor => self.cursor_request(vring, ring, chain, reader),
        }
    }

    fn control_request(
        &mut self,
        vring: &Vring,
        ring: &mut QueuePass<'_>,
        chain: Chain,
        mut reader: RequestReader<Reader<'_>>,
        memory: &MemoryGuard,
    ) -> Next {
        let request = Command::decode(&mut reader, self.features);
        let header = request.header;
        // A reply is for one request only.
        let reply = self.display_reply.take();
        let execution = self.state.execute(request, &mut reader, memory, reply);
        match execution.result {
            Ok(CommandResult::Complete(response)) => {
                complete(ring, chain, response.encode(&header));
            }
            Ok(CommandResult::Fenced(response, fence)) => {
                self.fenced
                    .keep(vring, chain, response.encode(&header), fence);
            }
            Ok(CommandResult::NeedsDisplay(query)) => {
                // It stays in the queue, so that a ring that is stopped meanwhile loses nothing.
                ring.undo_pop();
                if !self.display.ask(query, Instant::now()) {
                    self.display_reply = Some(DisplayReply::Nothing);
                }
            }
            Ok(CommandResult::Incomplete) => {
                // It stays in the queue here, too.
                ring.undo_pop();
                return Next::Later;
            }
            Err(error) => {
                let response = self.refuse(&header, &error);
                complete(ring, chain, response.encode(&header));
            }
        }
        if execution.work >= WORK {
            return Next::Later;
        }
        Next::Any
    }

    fn cursor_request(
        &mut self,
        vring: &Vring,
        ring: &mut QueuePass<'_>,
        chain: Chain,
        mut reader: RequestReader<Reader<'_>>,
    ) -> Next {
        let request = CursorCommand::decode(&mut reader);
        let reads_pixels = request.command.is_ok_and(|command| command.reads_pixels());
        // The request was popped: the queue stands behind it.
        if reads_pixels
            && !self
                .cursor_order
                .has_waited(position(vring).wrapping_sub(1))
        {
            ring.undo_pop();
            return Next::AfterControl;
        }
        let response = match self.state.execute_cursor(request.command) {
            Ok(response) => response,
            Err(error) => self.refuse(&request.header, &error),
        };
        complete(ring, chain, response.encode(&request.header));
        Next::Any
    }

    /// The response to a request that failed, which is logged.
    fn refuse(&mut self, header: &Header, error: &CommandError) -> Response {
        let command = CommandName(header.kind);
        self.guest_errors
            .warn(format_args!("{command} refused: {error}"));
        Response::Error(error.code())
    }
}

/// Completes a request with its response.
pub(super) fn complete(ring: &mut QueuePass<'_>, chain: Chain, response: EncodedResponse) {
    let head = chain.head_index();
    let memory = ring.memory().clone();
    let len = respond(chain, &memory, response);
    ring.add_used(head, len);
}

/// Writes a response into a request's buffers, as far as it [fits](EncodedResponse::fit); the number of
/// bytes written.
fn respond(chain: Chain, memory: &GuestMemoryMmap, mut response: EncodedResponse) -> u32 {
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    match writer.write_all(response.fit(writer.available_bytes())) {
        Ok(()) => u32::try_from(writer.bytes_written()).unwrap_or(0),
        Err(_) => 0,
    }
}
