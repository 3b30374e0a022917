// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every command with valid and invalid arguments, without queues and sockets.

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::*;
use crate::backend::GuestMemory;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{
    DisplayInfo, EncodedResponse, HEADER_LEN, Header, MAX_SCANOUTS, NegotiatedFeatures, command,
    response,
};
use crate::gpu::renderer::{MAX_STEP_WORK, SoftwareRenderer};
use crate::gpu::resource::Budget;
use crate::gpu::scanout::{DisplayId, Position, Update};

mod blobs;
mod cursors;
mod display_info;
mod mappings;
mod requests;
mod resources;
mod scanouts;
mod transfers;
mod values;

const WIDTH: u32 = 64;
const HEIGHT: u32 = 64;
const LEN: u32 = WIDTH * HEIGHT * 4;
const MEMORY: u64 = 0x10_0000;
const BGRX: u32 = 2;
const FEATURES: NegotiatedFeatures = NegotiatedFeatures {
    virgl: false,
    blob: true,
    context_init: false,
};

#[derive(Clone, Copy)]
enum QueueKind {
    Control,
    Cursor,
}

struct Guest {
    state: VirtioGpu,
    reply: Option<DisplayReply>,
    /// Work and error of the last request.
    work: u64,
    error: Option<CommandError>,
    memory: MemoryGuard,
    /// The same, which the front-end may change.
    shared: GuestMemory,
}

/// A request without a fence; `words` follow its header.
fn request(kind: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.resize(HEADER_LEN, 0);
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    bytes
}

fn kind(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

impl Guest {
    fn new() -> Self {
        Self::with_budget(1 << 20)
    }

    fn with_budget(bytes: u64) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let shared = GuestMemoryAtomic::new(memory);
        let memory = shared.memory();
        let renderer = SoftwareRenderer::new(Budget::new(bytes), shared.clone());
        let mut state = VirtioGpu::resume(
            Box::new(renderer),
            &Resolutions::default(),
            &KeptState::default(),
        )
        .unwrap();
        state.scanouts_mut().attach_display(DisplayId::VMM);
        Self {
            state,
            reply: None,
            work: 0,
            error: None,
            memory,
            shared,
        }
    }

    /// With resource 1, 64 by 64 pixels, backed by the memory from 0 on.
    fn with_resource() -> Self {
        let mut guest = Self::new();
        guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
        guest.ok(command::RESOURCE_ATTACH_BACKING, &[1, 1, 0, 0, LEN, 0]);
        guest
    }

    /// Executes a request as the device's queues do.
    fn execute(&mut self, queue: QueueKind, bytes: &[u8]) -> CommandResult {
        self.execute_with_header(queue, bytes).1
    }

    fn execute_with_header(&mut self, queue: QueueKind, bytes: &[u8]) -> (Header, CommandResult) {
        let mut reader = RequestReader::new(bytes);
        let (header, result) = match queue {
            QueueKind::Control => {
                let request = Command::decode(&mut reader, FEATURES);
                let reply = self.reply.take();
                let execution = self
                    .state
                    .execute(request, &mut reader, &self.memory, reply);
                self.work = execution.work;
                (request.header, execution.result)
            }
            QueueKind::Cursor => {
                let request = CursorCommand::decode(&mut reader);
                let result = self.state.execute_cursor(request.command);
                (request.header, result.map(CommandResult::Complete))
            }
        };
        let result = result.unwrap_or_else(|error| {
            let response = Response::Error(error.code());
            self.error = Some(error);
            CommandResult::Complete(response)
        });
        (header, result)
    }

    fn done(&mut self, queue: QueueKind, bytes: &[u8]) -> EncodedResponse {
        match self.execute_with_header(queue, bytes) {
            (header, CommandResult::Complete(response)) => response.encode(&header),
            (_, other) => panic!("{other:?}"),
        }
    }

    /// The kind of response to a command of the control queue.
    fn control(&mut self, command: u32, words: &[u32]) -> u32 {
        kind(&self.done(QueueKind::Control, &request(command, words)))
    }

    fn cursor(&mut self, command: u32, words: &[u32]) -> u32 {
        kind(&self.done(QueueKind::Cursor, &request(command, words)))
    }

    #[track_caller]
    fn ok(&mut self, command: u32, words: &[u32]) {
        assert_eq!(self.control(command, words), response::OK_NODATA);
    }

    fn updates(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.state.scanouts.take_update(false)).collect()
    }
}
