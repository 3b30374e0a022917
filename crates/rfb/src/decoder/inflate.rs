// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Zlib streams that stay open from rectangle to rectangle.

use std::io::{Read, Take};

use flate2::{Decompress, FlushDecompress, Status};

use crate::ServerMessageError;

/// A stream, and the bytes of it that are waiting. It has 32 KiB of buffers and zlib's window of as many.
#[derive(Debug)]
pub(super) struct Inflater {
    encoding: &'static str,
    stream: Decompress,
    input: Window,
    output: Window,
}

#[derive(Debug)]
struct Window {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

const WINDOW_LEN: usize = 16 << 10;

impl Window {
    fn new() -> Self {
        Self {
            bytes: vec![0; WINDOW_LEN].into(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves what waits to the front, and gives the room behind it.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

impl Inflater {
    pub(super) fn new(encoding: &'static str) -> Self {
        Self {
            encoding,
            stream: Decompress::new(true),
            input: Window::new(),
            output: Window::new(),
        }
    }

    /// The next `len` bytes, at most 16 KiB.
    pub(super) fn take(
        &mut self,
        source: &mut Take<impl Read>,
        len: usize,
    ) -> Result<&[u8], ServerMessageError> {
        while self.output.filled().len() < len {
            if !self.inflate(source)? {
                return Err(self.broken("its data ends too early"));
            }
        }
        let start = self.output.start;
        self.output.start += len;
        Ok(self
            .output
            .bytes
            .get(start..start + len)
            .unwrap_or_default())
    }

    /// Fills `to` with the next bytes.
    pub(super) fn fill(
        &mut self,
        source: &mut Take<impl Read>,
        to: &mut [u8],
    ) -> Result<(), ServerMessageError> {
        for part in to.chunks_mut(WINDOW_LEN) {
            part.copy_from_slice(self.take(source, part.len())?);
        }
        Ok(())
    }

    /// The next byte.
    pub(super) fn byte(&mut self, source: &mut Take<impl Read>) -> Result<u8, ServerMessageError> {
        self.take(source, 1)
            .map(|bytes| bytes.iter().fold(0, |_, byte| *byte))
    }

    /// Reads to the end of a rectangle: the stream must not have more.
    pub(super) fn finish(
        &mut self,
        source: &mut Take<impl Read>,
    ) -> Result<(), ServerMessageError> {
        while self.output.is_empty() {
            if !self.inflate(source)? {
                return Ok(());
            }
        }
        Err(self.broken("it has more data than pixels"))
    }

    /// Inflates some more. False: there is no more.
    fn inflate(&mut self, source: &mut Take<impl Read>) -> Result<bool, ServerMessageError> {
        let mut ended = false;
        if self.input.is_empty() {
            let len = source.read(self.input.room())?;
            self.input.end = len;
            if len == 0 && source.limit() > 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            ended = len == 0;
        }
        let (taken, given) = (self.stream.total_in(), self.stream.total_out());
        let room = self.output.room();
        let (input, flush) = (self.input.filled(), FlushDecompress::None);
        let status = self.stream.decompress(input, room, flush);
        let taken = usize::try_from(self.stream.total_in() - taken).unwrap_or(usize::MAX);
        let given = usize::try_from(self.stream.total_out() - given).unwrap_or(usize::MAX);
        self.input.start = self.input.start.saturating_add(taken).min(self.input.end);
        self.output.end = self.output.end.saturating_add(given).min(WINDOW_LEN);
        match status {
            Ok(Status::Ok | Status::BufError) => Ok(!ended || given > 0),
            Ok(Status::StreamEnd) => Err(self.broken("its stream ended")),
            Err(_) => Err(self.broken("it is not a zlib stream")),
        }
    }

    pub(super) fn broken(&self, reason: &'static str) -> ServerMessageError {
        ServerMessageError::Broken {
            encoding: self.encoding,
            reason,
        }
    }
}
