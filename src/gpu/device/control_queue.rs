// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control queue (virtio 1.2, 5.7.6): decodes, executes and completes requests.

use std::time::Instant;

use super::completion::{complete, complete_unreadable};
use super::displays::Displays;
use super::error_log::ErrorLog;
use super::fenced_requests::FencedRequests;
use super::mapping_requests::MappingRequests;
use super::queue_turn::{Next, RequestHandler, serve_turn};
use crate::backend::{Chain, GuestMemory, QueuePass, Vring};
use crate::gpu::display_info::DisplayReply;
use crate::gpu::protocol::command::CommandName;
use crate::gpu::protocol::{Command, NegotiatedFeatures, RequestReader, Response};
use crate::gpu::renderer::MAX_STEP_WORK;
use crate::gpu::virtio_gpu::{CommandResult, VirtioGpu};

/// The control queue, between its turns.
pub(super) struct ControlQueue {
    memory: GuestMemory,
    /// The features that the driver accepted.
    features: NegotiatedFeatures,
    /// Whether a turn is scheduled: a request may be waiting.
    is_notified: bool,
    /// The front-end's reply to the query of the next request.
    display_reply: Option<DisplayReply>,
    fenced: FencedRequests,
    mapping: MappingRequests,
}

impl ControlQueue {
    pub(super) fn new(memory: GuestMemory) -> Self {
        Self {
            memory,
            features: NegotiatedFeatures::default(),
            is_notified: false,
            display_reply: None,
            fenced: FencedRequests::default(),
            mapping: MappingRequests::default(),
        }
    }

    /// The driver accepted these features.
    pub(super) fn set_features(&mut self, features: NegotiatedFeatures) {
        self.features = features;
    }

    /// Schedules a turn: a request may be waiting or may be able to continue.
    pub(super) fn notify(&mut self) {
        self.is_notified = true;
    }

    /// Whether a turn is scheduled.
    pub(super) fn is_notified(&self) -> bool {
        self.is_notified
    }

    /// Continues the request that made a query.
    pub(super) fn resume(&mut self, reply: DisplayReply) {
        self.display_reply = Some(reply);
        self.notify();
    }

    /// Drops the requests that wait for a fence or for the front-end, with the driver that made them.
    pub(super) fn drop_waiting(&mut self) {
        self.fenced.drop_all();
        self.mapping.drop_all();
    }

    /// Drops what the driver left.
    pub(super) fn reset(&mut self) {
        self.display_reply = None;
        self.drop_waiting();
    }

    /// The queue is stopped: completes what waits for a fence, unless the guest sees whether the work is done, in memory that it
    /// maps. That waits until the queue runs again.
    pub(super) fn stop(&mut self, sees_work: bool, log: &mut ErrorLog) {
        self.is_notified = false;
        self.display_reply = None;
        if sees_work {
            return;
        }
        if let Err(e) = self.fenced.complete_all(&self.memory) {
            log.device(format_args!("Control queue: {e}"));
        }
    }

    /// Serves requests for one turn if one is scheduled.
    pub(super) fn turn(
        &mut self,
        vring: &Vring,
        virtio_gpu: &mut VirtioGpu,
        displays: &mut Displays,
        log: &mut ErrorLog,
    ) {
        if !std::mem::take(&mut self.is_notified) {
            return;
        }
        let memory = self.memory.clone();
        let mut handler = ControlRequests {
            state: self,
            vring,
            virtio_gpu,
            displays,
            log,
        };
        self.is_notified = serve_turn(vring, &memory, &mut handler).unwrap_or_else(|e| {
            vring.report_error();
            log.device(format_args!("Control queue: {e}"));
            false
        });
    }
}

/// Serves control requests for one turn.
struct ControlRequests<'a> {
    state: &'a mut ControlQueue,
    vring: &'a Vring,
    virtio_gpu: &'a mut VirtioGpu,
    displays: &'a mut Displays,
    log: &'a mut ErrorLog,
}

impl RequestHandler for ControlRequests<'_> {
    fn begin(&mut self, pass: &mut QueuePass<'_>) {
        if let Some(renderer) = self.virtio_gpu.renderer_3d_mut() {
            self.state.fenced.complete_retired(pass, renderer);
        }
        let mappings = self.virtio_gpu.mappings_mut();
        self.state.mapping.complete_done(pass, mappings, self.log);
    }

    /// The display's reply, the next retired fence or the front-end's next map ends this.
    fn is_blocked(&self) -> bool {
        let state = &self.state;
        self.displays.is_query_pending() || state.fenced.is_full(self.vring, state.mapping.len())
    }

    fn serve(&mut self, pass: &mut QueuePass<'_>, chain: Chain) -> Next {
        let memory = pass.memory().clone();
        let mut reader = match chain.clone().reader(&memory) {
            Ok(reader) => RequestReader::new(reader),
            Err(e) => {
                complete_unreadable(pass, chain, "Control queue", e, self.log);
                return Next::Request;
            }
        };
        let request = Command::decode(&mut reader, self.state.features);
        let header = request.header;
        // A reply is for one request only.
        let reply = self.state.display_reply.take();
        let execution = self
            .virtio_gpu
            .execute(request, &mut reader, &memory, reply);
        match execution.result {
            Ok(CommandResult::Complete(response)) => {
                complete(pass, chain, response.encode(&header));
            }
            Ok(CommandResult::Fenced(response, fence)) => {
                let response = response.encode(&header);
                self.state.fenced.keep(self.vring, chain, response, fence);
            }
            Ok(CommandResult::Waits(command)) => {
                self.state.mapping.keep(chain, header, command);
            }
            Ok(CommandResult::NeedsDisplay(query)) => {
                // It stays in the virtqueue, which loses nothing if it is stopped meanwhile.
                pass.undo_pop();
                if !self.displays.ask(query, Instant::now()) {
                    self.state.display_reply = Some(DisplayReply::Nothing);
                }
            }
            Ok(CommandResult::Incomplete) => {
                // It stays in the virtqueue here, too.
                pass.undo_pop();
                return Next::Yield;
            }
            Err(error) => {
                let command = CommandName(header.kind);
                self.log.guest(format_args!("{command} refused: {error}"));
                let response = Response::Error(error.code());
                complete(pass, chain, response.encode(&header));
            }
        }
        if execution.work >= MAX_STEP_WORK {
            return Next::Yield;
        }
        Next::Request
    }
}
