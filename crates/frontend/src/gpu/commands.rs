// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands on a virtio-gpu queue: a request the device reads, an answer it writes.

use std::time::Duration;

use virtio_bindings::virtio_gpu as v;

use crate::{Buffer, DEFAULT_LIMIT, Error, Memory, Queue, Result};

/// Size of a `virtio_gpu_ctrl_hdr` in bytes: of a response without a body.
pub const HEADER_SIZE: usize = size_of::<v::virtio_gpu_ctrl_hdr>();
/// Size of a `virtio_gpu_resp_edid` in bytes.
pub const EDID_RESPONSE_SIZE: usize = size_of::<v::virtio_gpu_resp_edid>();

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $constant:ident,)*) => {
        /// What an answer's header says it is (virtio 1.2, section 5.7.6.7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as in the specification")]
        pub enum ResponseKind {
            $($name,)*
            /// A number the specification does not have.
            Unknown(u32),
        }

        impl From<u32> for ResponseKind {
            fn from(number: u32) -> Self {
                match number {
                    $(v::$constant => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }
        }
    };
}

kinds! {
    OkNodata = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_NODATA,
    OkDisplayInfo = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_DISPLAY_INFO,
    OkCapsetInfo = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET_INFO,
    OkCapset = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_CAPSET,
    OkEdid = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_EDID,
    OkResourceUuid = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_RESOURCE_UUID,
    OkMapInfo = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_MAP_INFO,
    ErrUnspec = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_UNSPEC,
    ErrOutOfMemory = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY,
    ErrInvalidScanoutId = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID,
    ErrInvalidResourceId = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
    ErrInvalidContextId = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID,
    ErrInvalidParameter = virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER,
}

/// A device's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What it is.
    pub kind: ResponseKind,
    /// VIRTIO_GPU_FLAG_FENCE and others.
    pub flags: u32,
    /// Of the command, if it was fenced.
    pub fence_id: u64,
    /// Of the command.
    pub ctx_id: u32,
    /// How many bytes the device says it wrote, header included.
    pub written: u32,
    /// What it wrote after the header.
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8], written: u32) -> Result<Self> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Err(Error::Protocol(format!(
                "an answer of {written} bytes has no header"
            )));
        };
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[n + i]));
        Ok(Self {
            kind: word(0).into(),
            flags: word(4),
            fence_id: u64::from(word(8)) | u64::from(word(12)) << 32,
            ctx_id: word(16),
            written,
            body: body.to_vec(),
        })
    }

    /// Whether it carries the fence `id`, completed.
    pub fn has_fence(&self, id: u64) -> bool {
        self.flags & v::VIRTIO_GPU_FLAG_FENCE != 0 && self.fence_id == id
    }

    /// Itself, if it is of this kind.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn expect(self, command: &'static str, kind: ResponseKind) -> Result<Self> {
        if self.kind == kind {
            return Ok(self);
        }
        Err(Error::Answer {
            command,
            answer: format!("{:?}", self.kind),
            expected: format!("{kind:?}"),
        })
    }
}

/// How a request and its answer are laid over descriptors. All are the same to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One descriptor each, as Linux does.
    #[default]
    Plain,
    /// Descriptors of at most this many bytes.
    Pieces(u32),
    /// One indirect table of two descriptors.
    Indirect,
    /// One indirect table of descriptors of at most this many bytes.
    IndirectPieces(u32),
}

/// A command on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u16);

/// Guest memory for one command and its answer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    request: u64,
    request_len: u32,
    response: u64,
    response_len: u32,
}

/// A queue of commands, any number of them on their way.
#[derive(Debug)]
pub struct CommandQueue {
    /// The queue itself, for chains that are no commands.
    pub queue: Queue,
    /// How the next commands are laid out.
    pub layout: Layout,
    /// How long an answer may take.
    pub limit: Duration,
    memory: Memory,
    free: Vec<Slot>,
    /// By head: the slot, and the answer's length that was asked for.
    pending: Vec<Option<(Slot, u32)>>,
    /// Answers that came before those that were waited for.
    done: Vec<(Ticket, Response)>,
}

impl CommandQueue {
    /// Commands on `queue`.
    pub fn new(queue: Queue) -> Self {
        let pending = vec![None; usize::from(queue.size())];
        Self {
            memory: queue.memory().clone(),
            queue,
            layout: Layout::default(),
            limit: DEFAULT_LIMIT,
            free: Vec::new(),
            pending,
            done: Vec::new(),
        }
    }

    /// Forgets all commands on their way, as [`Queue::reset`] does.
    ///
    /// # Errors
    /// As [`Queue::reset`].
    pub fn reset(&mut self) -> Result<()> {
        self.queue.reset()?;
        self.free.extend(
            self.pending
                .iter_mut()
                .filter_map(Option::take)
                .map(|(slot, _)| slot),
        );
        self.done.clear();
        Ok(())
    }

    /// Puts a command into the queue, not yet shown to the device: see [`Queue::submit`]. The
    /// answer may have `response_len` bytes; none means that the device is given no room for one.
    ///
    /// # Errors
    /// As [`Queue::add`], or [`Error::Memory`].
    pub fn push(&mut self, request: &[u8], response_len: u32) -> Result<Ticket> {
        let slot = self.slot(request.len() as u32, response_len)?;
        self.memory.write(slot.request, request)?;
        // What the device does not write must not look like an answer.
        self.memory.fill(slot.response, 0, response_len as usize)?;
        let request = Buffer::readable(slot.request, request.len() as u32);
        let response = Buffer::writable(slot.response, response_len);
        let whole = || [request, response].into_iter().filter(|b| b.len > 0);
        let pieces = |size| {
            whole()
                .flat_map(move |b| b.pieces(size))
                .collect::<Vec<_>>()
        };
        let head = match self.layout {
            Layout::Plain if response_len > 0 => self.queue.add(&[request, response]),
            Layout::Plain => self.queue.add(&[request]),
            Layout::Pieces(size) => self.queue.add(&pieces(size)),
            Layout::Indirect => self.queue.add_indirect(&whole().collect::<Vec<_>>()),
            Layout::IndirectPieces(size) => self.queue.add_indirect(&pieces(size)),
        };
        match head {
            Ok(head) => {
                self.pending[usize::from(head)] = Some((slot, response_len));
                Ok(Ticket(head))
            }
            Err(e) => {
                self.free.push(slot);
                Err(e)
            }
        }
    }

    /// Waits for the next answer to any command.
    ///
    /// # Errors
    /// As [`Queue::wait_used`]; [`Error::Protocol`] for an answer longer than its room or without a
    /// whole header. A chain with no room for an answer gives an [`ResponseKind::Unknown`] of 0.
    pub fn next_response(&mut self) -> Result<(Ticket, Response)> {
        let used = self.queue.wait_used(self.limit)?;
        let Some((slot, room)) = self.pending[usize::from(used.head)].take() else {
            return Err(Error::Protocol(format!(
                "chain {} was no command",
                used.head
            )));
        };
        self.free.push(slot);
        if used.len > room {
            let len = used.len;
            return Err(Error::Protocol(format!(
                "{len} bytes written where {room} fit"
            )));
        }
        let response = if room == 0 {
            Response {
                kind: ResponseKind::Unknown(0),
                flags: 0,
                fence_id: 0,
                ctx_id: 0,
                written: 0,
                body: Vec::new(),
            }
        } else {
            let mut bytes = vec![0; used.len as usize];
            self.memory.read(slot.response, &mut bytes)?;
            Response::parse(&bytes, used.len)?
        };
        Ok((Ticket(used.head), response))
    }

    /// Waits for the answer to this command; answers to others are kept.
    ///
    /// # Errors
    /// As [`CommandQueue::next_response`].
    pub fn wait(&mut self, ticket: Ticket) -> Result<Response> {
        if let Some(n) = self.done.iter().position(|(t, _)| *t == ticket) {
            return Ok(self.done.swap_remove(n).1);
        }
        loop {
            let (answered, response) = self.next_response()?;
            if answered == ticket {
                return Ok(response);
            }
            self.done.push((answered, response));
        }
    }

    /// One command, from the request to the answer.
    ///
    /// # Errors
    /// As [`CommandQueue::push`], [`Queue::submit`] and [`CommandQueue::next_response`].
    pub fn command(&mut self, request: &[u8], response_len: u32) -> Result<Response> {
        let ticket = self.push(request, response_len)?;
        self.queue.submit()?;
        self.wait(ticket)
    }

    /// A free slot with as much room, or a new one.
    fn slot(&mut self, request_len: u32, response_len: u32) -> Result<Slot> {
        let fits = |s: &Slot| s.request_len >= request_len && s.response_len >= response_len;
        if let Some(n) = self.free.iter().rposition(fits) {
            return Ok(self.free.swap_remove(n));
        }
        // Small commands share slots, whatever their sizes.
        let request_len = request_len.max(128).next_power_of_two();
        let response_len = response_len.max(128).next_power_of_two();
        let request = self.memory.alloc(request_len.into(), 8)?;
        let response = self.memory.alloc(response_len.into(), 8)?;
        Ok(Slot {
            request,
            request_len,
            response,
            response_len,
        })
    }
}
