// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Control requests that wait for the front-end to map or unmap memory.
//!
//! They wait while the virtqueues are stopped, too: a guest that is paused goes on with what it waited for.

use super::completion::complete;
use super::error_log::ErrorLog;
use crate::backend::{Chain, QueuePass};
use crate::gpu::protocol::command::CommandName;
use crate::gpu::protocol::{Header, Response};
use crate::gpu::virtio_gpu::{Mappings, WaitingCommand};

struct MappingRequest {
    command: WaitingCommand,
    chain: Chain,
    header: Header,
}

/// The control requests that wait for the front-end.
#[derive(Default)]
pub(super) struct MappingRequests(Vec<MappingRequest>);

impl MappingRequests {
    /// Keeps a request until its command is complete.
    pub(super) fn keep(&mut self, chain: Chain, header: Header, command: WaitingCommand) {
        self.0.push(MappingRequest {
            command,
            chain,
            header,
        });
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Completes those whose commands are complete.
    pub(super) fn complete_done(
        &mut self,
        pass: &mut QueuePass<'_>,
        mappings: &mut Mappings,
        log: &mut ErrorLog,
    ) {
        for (command, result) in mappings.take_completed() {
            let position = self.0.iter().position(|waiting| waiting.command == command);
            let Some(position) = position else {
                continue;
            };
            // They complete in their order, but for errors.
            let MappingRequest { chain, header, .. } = self.0.remove(position);
            let response = result.unwrap_or_else(|error| {
                let command = CommandName(header.kind);
                log.guest(format_args!("{command} refused: {error}"));
                Response::Error(error.code())
            });
            complete(pass, chain, response.encode(&header));
        }
    }

    /// Drops them, with the driver that made them.
    pub(super) fn drop_all(&mut self) {
        self.0.clear();
    }
}
