// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cursor queue (virtio 1.2, 5.7.6.10): its requests wait for control requests where their order
//! matters.

use super::completion::{complete, complete_unreadable};
use super::cursor_order::CursorOrder;
use super::error_log::ErrorLog;
use super::queue_turn::{Next, RequestHandler, serve_turn};
use crate::backend::{Chain, GuestMemory, QueuePass, Vring};
use crate::gpu::protocol::command::CommandName;
use crate::gpu::protocol::{CursorCommand, RequestReader, Response};
use crate::gpu::virtio_gpu::VirtioGpu;

/// The cursor queue, between its turns.
pub(super) struct CursorQueue {
    memory: GuestMemory,
    /// Whether a turn is scheduled: requests may be waiting.
    is_notified: bool,
    order: CursorOrder,
}

impl CursorQueue {
    pub(super) fn new(memory: GuestMemory) -> Self {
        Self {
            memory,
            is_notified: false,
            order: CursorOrder::default(),
        }
    }

    /// Schedules a turn: requests may be waiting.
    pub(super) fn notify(&mut self) {
        self.is_notified = true;
    }

    /// Whether a turn is scheduled.
    pub(super) fn is_notified(&self) -> bool {
        self.is_notified
    }

    /// The queue is stopped.
    pub(super) fn stop(&mut self) {
        self.order.forget();
        self.is_notified = false;
    }

    /// The control queue is stopped: nothing waits for it any more.
    pub(super) fn control_stopped(&mut self) {
        if self.order.forget() {
            self.notify();
        }
    }

    /// The control queue has reached `position`. With `goes_on` false it will not advance unprompted, so
    /// any wait ends. Returns whether requests that waited for it may be served.
    pub(super) fn control_went_on(&mut self, position: u16, goes_on: bool) -> bool {
        let is_over = self.order.control_went_on(position, goes_on);
        self.is_notified |= is_over;
        is_over
    }

    /// Serves requests for one turn if one is scheduled and they do not wait for the control queue.
    /// Returns whether it now waits for the control queue.
    pub(super) fn turn(
        &mut self,
        vring: &Vring,
        control_vring: Option<&Vring>,
        virtio_gpu: &mut VirtioGpu,
        log: &mut ErrorLog,
    ) -> bool {
        // The end of the wait schedules another turn.
        if !std::mem::take(&mut self.is_notified) || self.order.is_waiting() {
            return false;
        }
        let memory = self.memory.clone();
        let mut handler = CursorRequests {
            memory: &memory,
            order: &mut self.order,
            vring,
            control_vring,
            virtio_gpu,
            log,
        };
        self.is_notified = serve_turn(vring, &memory, &mut handler).unwrap_or_else(|e| {
            vring.report_error();
            log.device(format_args!("Cursor queue: {e}"));
            false
        });
        self.order.is_waiting()
    }
}

/// Serves cursor requests for one turn.
struct CursorRequests<'a> {
    memory: &'a GuestMemory,
    order: &'a mut CursorOrder,
    vring: &'a Vring,
    control_vring: Option<&'a Vring>,
    virtio_gpu: &'a mut VirtioGpu,
    log: &'a mut ErrorLog,
}

impl RequestHandler for CursorRequests<'_> {
    fn serve(&mut self, pass: &mut QueuePass<'_>, chain: Chain) -> Next {
        let memory = pass.memory().clone();
        let mut reader = match chain.clone().reader(&memory) {
            Ok(reader) => RequestReader::new(reader),
            Err(e) => {
                complete_unreadable(pass, chain, "Cursor queue", e, self.log);
                return Next::Request;
            }
        };
        let request = CursorCommand::decode(&mut reader);
        let reads_pixels = request.command.is_ok_and(|command| command.reads_pixels());
        // The request was popped: the next available one is the one after it.
        let at = self.vring.next_available().wrapping_sub(1);
        if reads_pixels && !self.order.has_waited(at) {
            pass.undo_pop();
            self.order.wait(self.vring, self.control_vring, self.memory);
            return if self.order.is_waiting() {
                Next::Wait
            } else {
                Next::Again
            };
        }
        let response = match self.virtio_gpu.execute_cursor(request.command) {
            Ok(response) => response,
            Err(error) => {
                let command = CommandName(request.header.kind);
                self.log.guest(format_args!("{command} refused: {error}"));
                Response::Error(error.code())
            }
        };
        complete(pass, chain, response.encode(&request.header));
        Next::Request
    }
}
