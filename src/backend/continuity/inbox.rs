// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events of an evdev device, read into memory that outlives the process.
//!
//! read(2) of such a device tells nobody but its caller how many events it returned. Here it reads into memory that is
//! zeroed before: an event has a time that is not 0, so a successor sees how many came. A number tells whether the dead
//! process had made something of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::crash;
use super::layout;
use super::shared_memory::SharedMemory;

/// Bytes of an event on this machine (`struct input_event`).
pub(crate) const EVENT_LEN: usize = size_of::<libc::input_event>();
/// Most events of a read.
pub(crate) const MAX_EVENTS: usize = 128;

const AT_NUMBER: u64 = layout::AT_INBOX;
const AT_EVENTS: u64 = layout::AT_INBOX + 64;

const _: () = assert!(EVENT_LEN % size_of::<u64>() == 0);
const _: () = assert!(64 + (EVENT_LEN * MAX_EVENTS) as u64 <= layout::INBOX_LEN);

/// The events of the last read. Reads are numbered from 1 on; a record of the device has the number of the last one of
/// which it made something.
#[derive(Debug)]
pub(crate) struct Inbox {
    memory: Arc<SharedMemory>,
    /// How many events the last read returned; none if a predecessor made it.
    count: Option<usize>,
}

impl Inbox {
    pub(super) fn new(memory: Arc<SharedMemory>) -> Self {
        Self {
            memory,
            count: None,
        }
    }

    fn number_cell(&self) -> Option<&AtomicU64> {
        self.memory.u64(AT_NUMBER)
    }

    /// The number of the last read.
    pub(crate) fn number(&self) -> u64 {
        self.number_cell()
            .map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Reads events, which [`Inbox::events`] then returns. Those of the read before must be recorded: they are dropped.
    ///
    /// # Errors
    /// As `read(2)`; 0 events are none.
    pub(crate) fn read(&mut self, device: impl AsFd) -> io::Result<()> {
        let len = EVENT_LEN * MAX_EVENTS;
        let (Some(buffer), Some(number)) =
            (self.memory.address(AT_EVENTS, len), self.number_cell())
        else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        crash::point();
        // In this order: until the number is the next one, the buffer counts as recorded.
        self.clear();
        number.store(
            number.load(Ordering::Acquire).wrapping_add(1),
            Ordering::Release,
        );
        self.count = Some(0);
        let device = device.as_fd().as_raw_fd();
        loop {
            // SAFETY: the kernel writes within the buffer, which is mapped, and to which there is no reference.
            let got = unsafe { libc::read(device, buffer.cast(), len) };
            match usize::try_from(got) {
                Ok(got) => {
                    self.count = Some(got / EVENT_LEN);
                    return Ok(());
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// How many events the last read returned.
    fn count(&self) -> usize {
        let has_time =
            |event: &libc::input_event| event.time.tv_sec != 0 || event.time.tv_usec != 0;
        self.count
            .unwrap_or_else(|| self.first(MAX_EVENTS).take_while(has_time).count())
    }

    /// Zeros the events of the last read. A successor of a process that dies meanwhile does not look at them, because they
    /// are recorded and have the number. But it finds some of them, so it zeros all that there may be.
    fn clear(&self) {
        let len = EVENT_LEN * self.count.unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
        if let Some(buffer) = self.memory.address(AT_EVENTS, len) {
            // SAFETY: mapped, and to which there is no reference.
            unsafe { buffer.write_bytes(0, len) };
        }
    }

    /// The first `count` events in the buffer.
    fn first(&self, count: usize) -> impl ExactSizeIterator<Item = libc::input_event> {
        let buffer = self.memory.address(AT_EVENTS, EVENT_LEN * MAX_EVENTS);
        let count = buffer.map_or(0, |_| count.min(MAX_EVENTS));
        let buffer = buffer.unwrap_or(std::ptr::null_mut());
        (0..count).map(move |index| {
            let event = buffer.cast::<libc::input_event>().wrapping_add(index);
            // SAFETY: mapped, as there are events, and numbers only, for which all bytes are valid. Nobody writes meanwhile.
            unsafe { event.read_unaligned() }
        })
    }

    /// The events of the last read, also if a predecessor made it.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = libc::input_event> {
        self.first(self.count())
    }
}

#[cfg(test)]
mod tests;
