// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket of a display. Where a successor of this process may go on, what goes through it is counted by the kernel,
//! and recorded before it does.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, sendmsg,
    shutdown, sockopt,
};

use crate::backend::continuity::{FdId, IoSlot};
use crate::gpu::kept_state::{
    IncomingRecord, KeptRequest, KeptState, KeptStateError, MessageRecord, Record, RecordError,
    StreamRecord, WaitingRecord,
};

/// Most bytes that a Unix socket takes whole or not at all: Linux copies up to so many into one buffer of the receiver's
/// queue, if the limit of the sender's buffer has room for two of them.
const MOST_WHOLE: usize = 32 << 10;

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// The socket of a display.
pub(super) struct Stream {
    socket: Arc<UnixStream>,
    kept: Option<KeptStream>,
}

/// What is kept of the stream to the VMM's display: its records, and how many bytes went through the socket.
pub(crate) struct KeptStream {
    records: KeptState,
    outgoing: IoSlot,
    incoming: IoSlot,
    /// What [`IncomingRecord::taken`] says.
    taken: u64,
    /// Whether the kernel counts what is sent of the message under way.
    is_counted: bool,
    /// Most bytes that the socket takes whole or not at all.
    most_whole: usize,
}

/// What a predecessor left of the stream to the VMM's display.
#[derive(Default)]
pub(super) struct LeftStream {
    pub(super) state: StreamRecord,
    pub(super) waiting: Vec<KeptRequest>,
    /// The beginning of a message of the display.
    pub(super) incoming: IncomingRecord,
    /// The message that was sent last, and how many of its bytes were.
    pub(super) message: Option<(MessageRecord, usize)>,
}

impl LeftStream {
    /// Whether it is the stream of the socket that is kept as `id`.
    pub(super) fn is_of(&self, id: FdId) -> bool {
        self.state.socket == id.to_bits()
    }
}

impl KeptStream {
    pub(crate) fn new(records: KeptState, outgoing: IoSlot, incoming: IoSlot) -> Self {
        Self {
            records,
            outgoing,
            incoming,
            taken: 0,
            is_counted: true,
            most_whole: 0,
        }
    }

    /// It is of `socket` from now on, of which so many bytes are taken.
    fn connect(&mut self, socket: &UnixStream, taken: u64) {
        self.taken = taken;
        let buffer = sockopt::socket_send_buffer_size(socket).unwrap_or(0);
        // As `unix_stream_sendmsg()` in Linux's net/unix/af_unix.c.
        self.most_whole = (buffer / 2).saturating_sub(64).min(MOST_WHOLE);
    }

    /// What a predecessor left, if there was one that had a display.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn left(&self) -> Result<Option<LeftStream>, KeptStateError> {
        let Some(state) = self.records.get(0)? else {
            return Ok(None);
        };
        let message: Option<MessageRecord> = self.records.get(0)?;
        let message = message.map(|message| {
            // Only those that are counted: it may have begun before any of them.
            let sent = self.outgoing.transferred().wrapping_sub(message.start);
            let sent = usize::try_from(sent).map_err(|_| KeptStateError::Record {
                name: MessageRecord::NAME,
                id: 0,
                source: RecordError::Field("start"),
            })?;
            Ok((message, sent))
        });
        let waiting: WaitingRecord = self.records.get(0)?.unwrap_or_default();
        Ok(Some(LeftStream {
            state,
            waiting: waiting.0,
            incoming: self.records.get(0)?.unwrap_or_default(),
            message: message.transpose()?,
        }))
    }

    /// The socket is closed.
    pub(super) fn end(&self) {
        self.put_state(&StreamRecord::default());
        self.clear();
    }

    fn clear(&self) {
        self.records.clear::<WaitingRecord>();
        self.records.clear::<MessageRecord>();
        self.records.clear::<IncomingRecord>();
    }

    fn put_state(&self, state: &StreamRecord) {
        self.records.put(0, state);
    }

    /// A message begins, of `len` bytes. A successor sends the rest of it, or, if it `may_be_lost`, all that it says.
    fn begin(&mut self, head: &[u8], len: usize, may_be_lost: bool) {
        match may_be_lost && len <= self.most_whole {
            true => {
                self.is_counted = false;
                self.records.commit();
            }
            false => self.begin_counted(head, 0),
        }
    }

    /// From here on the kernel counts what is sent of a message, of which `sent` bytes are sent already.
    fn begin_counted(&mut self, head: &[u8], sent: usize) {
        self.is_counted = true;
        let start = self.outgoing.transferred().wrapping_sub(sent as u64);
        if let Some(record) = MessageRecord::new(start, head) {
            self.records.put(0, &record);
        }
        self.records.commit();
    }

    /// Takes `count` of the bytes that are there. `partial` is what was taken of a message whose end is not there. What the
    /// whole messages have changed is recorded before.
    fn take(&mut self, count: usize, partial: &[u8]) {
        self.taken = self.incoming.transferred().saturating_add(count as u64);
        let record = IncomingRecord {
            taken: self.taken,
            bytes: partial.to_vec(),
        };
        self.records.put(0, &record);
        self.records.commit();
    }

    /// Drops from `socket` what is taken.
    fn drop_taken(&mut self, socket: &UnixStream) -> Result<(), Errno> {
        let mut scratch = [0; 4096];
        loop {
            let left = self.taken.saturating_sub(self.incoming.transferred());
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let into = scratch.len().min(most);
            let into = scratch.get_mut(..into).unwrap_or_default();
            if into.is_empty() {
                return Ok(());
            }
            let mut into = [IoSliceMut::new(into)];
            match self
                .incoming
                .receive(socket, &mut into, RecvFlags::DONTWAIT)
            {
                // What was there before is gone: the count cannot be right.
                Ok(0) | Err(Errno::AGAIN) => return Err(Errno::CONNRESET),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Stream {
    /// A socket that no successor goes on with.
    pub(super) fn new(socket: UnixStream) -> Self {
        let socket = Arc::new(socket);
        Self { socket, kept: None }
    }

    /// A new socket, with which a successor goes on by the records in `kept`.
    pub(super) fn begin_kept(socket: UnixStream, mut kept: KeptStream) -> Self {
        kept.clear();
        kept.connect(&socket, kept.incoming.transferred());
        let socket = Arc::new(socket);
        let kept = Some(kept);
        Self { socket, kept }
    }

    /// The socket of a predecessor, which had taken so many bytes of it.
    pub(super) fn resume(socket: UnixStream, mut kept: KeptStream, taken: u64) -> Self {
        kept.connect(&socket, taken);
        let socket = Arc::new(socket);
        let kept = Some(kept);
        Self { socket, kept }
    }

    /// Closes it: no successor goes on with it.
    pub(super) fn close(self) -> Option<KeptStream> {
        if let Some(kept) = &self.kept {
            kept.end();
            // The duplicate that is kept holds it open. An error says that the other side has closed it.
            let _ = shutdown(&*self.socket, Shutdown::Both);
        }
        self.kept
    }

    pub(super) fn socket(&self) -> &Arc<UnixStream> {
        &self.socket
    }

    /// Whether a successor may go on.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Records what the other side was and is asked.
    pub(super) fn put_state(&self, state: &StreamRecord) {
        if let Some(kept) = &self.kept {
            kept.put_state(state);
        }
    }

    /// Records what is to be asked before anything else is sent.
    pub(super) fn put_waiting(&self, requests: impl Iterator<Item = KeptRequest>) {
        if let Some(kept) = &self.kept {
            kept.records.put(0, &WaitingRecord(requests.collect()));
        }
    }

    /// A message of `len` bytes begins, with `head` before its pixels, of which nothing is sent yet. What is recorded until
    /// now is valid for a successor then, which sends the rest of it.
    ///
    /// It `may_be_lost` if a successor sends the same or what is newer in any case, the other side may get both, and one system
    /// call takes all of it. A short one is not recorded and not counted then: it is sent whole or not at all.
    pub(super) fn begin(&mut self, head: &[u8], len: usize, may_be_lost: bool) {
        if let Some(kept) = &mut self.kept {
            kept.begin(head, len, may_be_lost);
        }
    }

    /// The message that begins with `head` was cut after `sent` bytes.
    pub(super) fn was_cut(&mut self, head: &[u8], sent: usize) {
        // No Linux cuts one that is not counted.
        if let Some(kept) = self.kept.as_mut().filter(|kept| !kept.is_counted) {
            kept.begin_counted(head, sent);
        }
    }

    /// Sends what the socket takes of a message.
    pub(super) fn send(
        &mut self,
        pieces: &[IoSlice<'_>],
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<usize> {
        #[cfg(test)]
        let limited = send_limit::cut(pieces)?;
        #[cfg(test)]
        let pieces = &limited[..];
        let sent = match &mut self.kept {
            Some(kept) if kept.is_counted => {
                kept.outgoing
                    .send(&*self.socket, pieces, fd.as_slice(), SEND)?
            }
            _ => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut with = SendAncillaryBuffer::new(&mut space);
                let fds = fd.as_slice();
                if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                sendmsg(&*self.socket, pieces, &mut with, SEND)?
            }
        };
        #[cfg(test)]
        send_limit::used(sent);
        match sent {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent => Ok(sent),
        }
    }

    /// Reads what is there; 0 at the end. Where a successor may go on it stays there until [`Stream::take`].
    pub(super) fn receive(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut flags = RecvFlags::DONTWAIT;
        if let Some(kept) = &mut self.kept {
            kept.drop_taken(&self.socket)?;
            flags |= RecvFlags::PEEK;
        }
        let (count, _) = recv(&*self.socket, into, flags)?;
        Ok(count)
    }

    /// Takes `count` bytes that were read. `partial` is what was taken of a message whose end is not there.
    pub(super) fn take(&mut self, count: usize, partial: &[u8]) -> Result<(), Errno> {
        match &mut self.kept {
            Some(kept) if count > 0 => {
                kept.take(count, partial);
                kept.drop_taken(&self.socket)
            }
            _ => Ok(()),
        }
    }
}

/// A socket that takes so many bytes more, in tests: the process dies between any two of them.
#[cfg(test)]
pub(super) mod send_limit {
    use std::cell::Cell;
    use std::io::{self, IoSlice};

    thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(in crate::gpu) fn set(left: usize) {
        LEFT.set(left);
    }

    pub(super) fn cut<'a>(pieces: &'a [IoSlice<'a>]) -> io::Result<Vec<IoSlice<'a>>> {
        let mut left = LEFT.get();
        if left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let cut = pieces.iter().map(|piece| {
            let len = piece.len().min(left);
            left -= len;
            IoSlice::new(&piece[..len])
        });
        Ok(cut.collect())
    }

    pub(super) fn used(sent: usize) {
        LEFT.set(LEFT.get() - sent);
    }
}
