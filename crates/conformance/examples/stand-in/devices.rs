// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices of the stand-in: each does what the checks ask of its type.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::events::{Event, Source};
use crate::fault;
use crate::gpu::Gpu;
use crate::memory::{Broken, Memory};

/// A descriptor chain.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) readable: Vec<(u64, u32)>,
    pub(crate) writable: Vec<(u64, u32)>,
}

impl Chain {
    pub(crate) fn read(&self, memory: &Memory) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        for (address, len) in &self.readable {
            bytes.extend(memory.read(*address, *len as usize)?);
        }
        Ok(bytes)
    }

    /// Writes what fits, and gives how much.
    pub(crate) fn write(&self, memory: &Memory, mut bytes: &[u8]) -> Result<u32, Broken> {
        let mut written = 0;
        for (address, len) in &self.writable {
            let n = bytes.len().min(*len as usize);
            memory.write(*address, &bytes[..n])?;
            bytes = &bytes[n..];
            written += n as u32;
        }
        Ok(written)
    }

    pub(crate) fn room(&self) -> usize {
        self.writable.iter().map(|(_, len)| *len as usize).sum()
    }
}

pub(crate) trait Device {
    /// How many virtqueues it has.
    fn queues(&self) -> usize;
    /// Feature bits of the device's own.
    fn features(&self) -> u64 {
        0
    }
    fn config(&self) -> Vec<u8>;
    fn set_config(&mut self, offset: usize, bytes: &[u8]) {
        let _ = (offset, bytes);
    }
    /// Serves a chain; gives how many bytes were written, or none if it is kept for later.
    fn handle(
        &mut self,
        queue: usize,
        chain: &Chain,
        memory: &Memory,
    ) -> Result<Option<u32>, Broken>;
    /// A display's socket.
    fn set_display(&mut self, socket: OwnedFd) {
        drop(socket);
    }
    /// What is readable once events have come.
    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn take_events(&mut self) {}
    /// The rings were stopped.
    fn reset(&mut self) {}
    /// Virtqueues that have to be served again after this one.
    fn wakes(&self, queue: usize) -> Option<usize> {
        let _ = queue;
        None
    }
}

pub(crate) fn open(
    device_type: &str,
    disk: Option<&Path>,
    read_only: bool,
    events: Option<Source>,
) -> Box<dyn Device> {
    match device_type {
        "gpu" => Box::new(Gpu::default()),
        "input" => Box::new(Input {
            source: events,
            ..Input::default()
        }),
        "rng" => Box::new(Rng { state: 1 }),
        "fs" => Box::new(Fs),
        "net" => Box::new(Net::default()),
        _ => Box::new(Block::open(disk, read_only)),
    }
}

struct Rng {
    state: u64,
}

impl Device for Rng {
    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn handle(&mut self, _: usize, chain: &Chain, memory: &Memory) -> Result<Option<u32>, Broken> {
        if !fault("device/rng-differs") {
            self.state = self
                .state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
        }
        let bytes: Vec<u8> = (0..chain.room() as u64)
            .map(|n| (self.state.wrapping_mul(n + 7) >> 32) as u8)
            .collect();
        let written = chain.write(memory, &bytes)?;
        Ok(Some(if fault("device/rng-bytes") {
            0
        } else {
            written
        }))
    }
}

struct Block {
    file: Option<File>,
    size: u64,
    read_only: bool,
}

impl Block {
    fn open(disk: Option<&Path>, read_only: bool) -> Self {
        let write = !read_only;
        let file = disk.and_then(|path| OpenOptions::new().read(true).write(write).open(path).ok());
        let size = file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |data| data.len());
        Self {
            file,
            size,
            read_only,
        }
    }

    fn request(&mut self, chain: &Chain, memory: &Memory) -> Result<(u8, Vec<u8>), Broken> {
        const OK: u8 = 0;
        const IO_ERROR: u8 = 1;
        const UNSUPPORTED: u8 = 2;
        let request = chain.read(memory)?;
        let header = request.get(..16).ok_or(Broken)?;
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap());
        let sector = if fault("device/blk-read") { 0 } else { sector };
        let data = &request[16..];
        let room = chain.room().saturating_sub(1);
        let length = room.max(data.len()) as u64;
        let end = sector
            .checked_mul(512)
            .and_then(|at| at.checked_add(length));
        let outside = end.is_none_or(|end| end > self.size);
        let Some(file) = self.file.as_ref() else {
            return Ok((IO_ERROR, vec![0; room]));
        };
        let at = sector.wrapping_mul(512);
        Ok(match kind {
            0 | 1 if outside && fault("device/blk-beyond-end") => (OK, vec![0; room]),
            0 | 1 if outside => (IO_ERROR, vec![0; room]),
            0 => {
                let mut bytes = vec![0; room];
                let read = file.read_exact_at(&mut bytes, at);
                (if read.is_ok() { OK } else { IO_ERROR }, bytes)
            }
            1 if self.read_only => (
                if fault("device/blk-read-only") {
                    OK
                } else {
                    IO_ERROR
                },
                Vec::new(),
            ),
            1 => {
                if !fault("device/blk-write") && file.write_all_at(data, at).is_err() {
                    return Ok((IO_ERROR, Vec::new()));
                }
                (OK, Vec::new())
            }
            4 => (
                if fault("device/blk-flush") {
                    IO_ERROR
                } else {
                    OK
                },
                Vec::new(),
            ),
            _ if fault("device/blk-unsupported") => (OK, vec![0; room]),
            _ => (UNSUPPORTED, vec![0; room]),
        })
    }
}

impl Device for Block {
    fn queues(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        let flush = 1 << 9;
        flush | if self.read_only { 1 << 5 } else { 0 }
    }

    fn config(&self) -> Vec<u8> {
        let sectors = self.size / 512;
        let sectors = if fault("device/blk-capacity") {
            sectors + 1
        } else {
            sectors
        };
        let mut config = sectors.to_le_bytes().to_vec();
        config.extend((1..=52).map(|n: u8| n));
        config
    }

    fn handle(&mut self, _: usize, chain: &Chain, memory: &Memory) -> Result<Option<u32>, Broken> {
        let (status, mut bytes) = self.request(chain, memory)?;
        bytes.push(status);
        // The status is the last byte.
        let (last, len) = *chain.writable.last().ok_or(Broken)?;
        let written = chain.write(memory, &bytes)?;
        memory.write(last + u64::from(len) - 1, &[status])?;
        Ok(Some(written))
    }
}

#[derive(Default)]
struct Input {
    select: u8,
    subsel: u8,
    source: Option<Source>,
    /// Those that the driver has not got yet.
    events: VecDeque<Event>,
    was_reset: bool,
}

impl Input {
    fn answer(&self) -> Vec<u8> {
        match (self.select, self.subsel) {
            (1, 0) if fault("device/input-name") => b"Stand-in\0".to_vec(),
            (1, 0) => b"Stand-in".to_vec(),
            (3, 0) if fault("device/input-ids") => vec![6, 0, 1],
            (3, 0) => vec![6, 0, 1, 0, 2, 0, 3, 0],
            (0x11, 1) if fault("device/input-bits") => Vec::new(),
            (0x11, 3) if fault("device/input-bits") => Vec::new(),
            // KEY_ESC and the keys after it; an axis; LED_NUML.
            (0x11, 1) => vec![0xfe],
            (0x11, 3) => vec![1],
            (0x11, 0x11) => vec![1],
            (0x12, 0) => {
                let max: u32 = if fault("device/input-axes") { 0 } else { 1023 };
                [0, max, 0, 0, 0].map(u32::to_le_bytes).concat()
            }
            (0, _) => Vec::new(),
            _ if fault("device/input-absent") => vec![1],
            _ => Vec::new(),
        }
    }
}

impl Device for Input {
    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        let answer = self.answer();
        let mut config = vec![self.select, self.subsel, answer.len() as u8, 0, 0, 0, 0, 0];
        config.extend(answer);
        config.resize(136, 0);
        config
    }

    fn set_config(&mut self, offset: usize, bytes: &[u8]) {
        if fault("device/input-bytes") && bytes.len() == 1 {
            return;
        }
        for (at, byte) in (offset..).zip(bytes) {
            match at {
                0 => self.select = *byte,
                1 => self.subsel = *byte,
                _ => {}
            }
        }
    }

    fn handle(
        &mut self,
        queue: usize,
        chain: &Chain,
        memory: &Memory,
    ) -> Result<Option<u32>, Broken> {
        if queue == 0 {
            let Some(mut event) = self.events.pop_front() else {
                return Ok(None);
            };
            // EV_KEY of another key.
            if fault("device/input-events") && event[0] == 1 {
                event[2] ^= 1;
            }
            return Ok(Some(chain.write(memory, &event)?));
        }
        let event = chain.read(memory)?;
        let kind = event.first().copied().unwrap_or_default();
        // A light of another kind than the keyboard's first.
        if fault("device/input-status") && (kind, event.get(2)) == (0x11, Some(&5)) {
            return Ok(None);
        }
        Ok(Some(0))
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(Source::bell)
    }

    fn take_events(&mut self) {
        let come = self.source.as_ref().map(Source::take).unwrap_or_default();
        if self.was_reset && fault("device/input-events-restart") {
            return;
        }
        self.events.extend(come);
        if fault("device/input-events-few-buffers") {
            self.events.truncate(4);
        }
    }

    fn reset(&mut self) {
        self.events.clear();
        self.was_reset = true;
    }
}

struct Fs;

impl Device for Fs {
    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 40];
        config[..8].copy_from_slice(b"stand-in");
        config[36] = 1;
        config
    }

    fn handle(&mut self, _: usize, chain: &Chain, memory: &Memory) -> Result<Option<u32>, Broken> {
        let request = chain.read(memory)?;
        let unique = request.get(8..16).ok_or(Broken)?;
        let minor: u32 = 31;
        let major: u32 = if fault("device/fs-init") { 6 } else { 7 };
        let body = [
            major, minor, 0x2_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let body = body.map(u32::to_le_bytes).concat();
        let length = 16 + body.len() as u32;
        let answer = [&length.to_le_bytes()[..], &[0; 4], unique, &body].concat();
        Ok(Some(chain.write(memory, &answer)?))
    }
}

#[derive(Default)]
struct Net {
    /// The frame that goes back to the guest.
    answer: Option<Vec<u8>>,
}

impl Device for Net {
    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        vec![0x52, 0x54, 0, 1, 2, 3, 1, 0]
    }

    fn handle(
        &mut self,
        queue: usize,
        chain: &Chain,
        memory: &Memory,
    ) -> Result<Option<u32>, Broken> {
        if queue == 0 {
            return match self.answer.take() {
                Some(frame) => Ok(Some(chain.write(memory, &frame)?)),
                None => Ok(None),
            };
        }
        let frame = chain.read(memory)?;
        let frame = frame.get(12..).ok_or(Broken)?;
        if frame.get(12..14) == Some(&[8, 6]) && frame.len() >= 42 && !fault("device/net-frame") {
            let (own, host) = (&frame[6..12], [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
            let mut answer = vec![0; 12];
            answer[10] = 1;
            answer.extend(
                [
                    own,
                    &host,
                    &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
                    &host,
                    &frame[38..42],
                ]
                .concat(),
            );
            answer.extend([own, &frame[28..32]].concat());
            answer.resize(12 + 60, 0);
            self.answer = Some(answer);
        }
        Ok(Some(0))
    }

    fn wakes(&self, queue: usize) -> Option<usize> {
        (queue == 1 && self.answer.is_some()).then_some(0)
    }
}
