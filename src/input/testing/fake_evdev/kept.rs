// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device whose open descriptor outlives the process that reads it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use crate::backend::continuity::{Continuity, Ledger, Owner, RecordKey, crash};
use crate::input::device_info::DeviceInfo;
use crate::input::protocol::Event;
use crate::input::records::tables;
use crate::input::source::evdev_source::event_reader::EventReader;
use crate::input::source::evdev_source::grab::Grab;
use crate::input::source::{HostAccess, ReadOutcome, SourceReturn};

use super::{FakeEvdev, FakeHardware, READ_CAPACITY};

/// The kernel's buffer of an open device.
#[derive(Debug)]
pub(super) struct OpenFile {
    reader: UnixStream,
    writer: UnixStream,
}

/// What reads it in a process whose state is kept.
#[derive(Debug)]
pub(super) struct KeptFile {
    file: Arc<OpenFile>,
    reader: EventReader,
    ledger: Ledger,
    is_gone: bool,
    /// Whether it is recorded that the device is grabbed when a guest has it.
    grabs: bool,
}

/// Whether the device is there, and grabbed when a guest has it.
const DEVICE: RecordKey = RecordKey::new(tables::EVDEV, 0);

impl FakeEvdev {
    /// As [`FakeEvdev::new`], in a process that keeps its state in `continuity`.
    pub(crate) fn kept(info: DeviceInfo, host_access: HostAccess, continuity: &Continuity) -> Self {
        let mut evdev = Self::new(info, host_access).expect("cannot make an eventfd");
        let (reader, writer) = UnixStream::pair().expect("cannot make sockets");
        reader.set_nonblocking(true).expect("it is a socket");
        let file = Arc::new(OpenFile { reader, writer });
        evdev.kept = Some(KeptFile::new(file, continuity));
        evdev
    }

    /// The same open device in the next process. One that is gone, or was when its state was recorded, is waited for.
    pub(crate) fn successor(&self, continuity: &Continuity) -> Self {
        let info = self.info.clone();
        let mut evdev = Self::new(info, self.host_access).expect("cannot make an eventfd");
        evdev.hardware = self.hardware.clone();
        let file = self.kept.as_ref().map(|kept| kept.file.clone());
        evdev.kept = file.map(|file| KeptFile::new(file, continuity));
        let unplugged = self.lock().unplugged;
        if let Some(kept) = &mut evdev.kept {
            evdev.grab = Grab::Left {
                is_recorded: kept.grabs,
            };
            kept.set_grabs(kept.grabs && self.host_access == HostAccess::UntilGrab);
            kept.set_gone(kept.is_gone || unplugged);
            let mut hardware = self.lock();
            hardware.awaited = kept.is_gone;
            // What is gone is closed.
            hardware.grabbed &= !kept.is_gone;
            let is_back = kept.is_gone && !hardware.unplugged;
            if is_back && hardware.returns.is_empty() {
                hardware.returns.push_back(SourceReturn::Back);
            }
        }
        evdev
    }
}

impl KeptFile {
    fn new(file: Arc<OpenFile>, continuity: &Continuity) -> Self {
        let reader = EventReader::load(continuity).expect("the record is valid");
        let ledger = continuity.ledger(Owner::Device);
        let left = ledger.get(DEVICE).unwrap_or_else(|| vec![1, 0]);
        Self {
            file,
            reader: reader.expect("the state is kept"),
            is_gone: left[0] == 0,
            grabs: left[1] != 0,
            ledger,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn set_gone(&mut self, is_gone: bool) {
        self.is_gone = is_gone;
        self.put();
    }

    pub(super) fn set_grabs(&mut self, grabs: bool) {
        self.grabs = grabs;
        self.put();
    }

    fn put(&self) {
        let value = [!self.is_gone, self.grabs].map(u8::from);
        self.ledger.put(DEVICE, &value);
    }

    pub(super) fn read(
        &mut self,
        hardware: &Mutex<FakeHardware>,
        events: &mut Vec<Event>,
    ) -> io::Result<ReadOutcome> {
        let left = self.reader.left();
        if !left.is_empty() {
            events.extend(left);
            return Ok(ReadOutcome::MaybeMore);
        }
        self.file.fill(hardware);
        let read = self.reader.read(&self.file.reader)?;
        crash::point();
        let outcome = if read.len() < READ_CAPACITY {
            ReadOutcome::Drained
        } else {
            ReadOutcome::MaybeMore
        };
        events.extend(read);
        Ok(outcome)
    }
}

impl OpenFile {
    /// The kernel moves the next events of the hardware into the buffer, if that is empty.
    fn fill(&self, hardware: &Mutex<FakeHardware>) {
        if rustix::io::ioctl_fionread(&self.reader).expect("it is a socket") > 0 {
            return;
        }
        let mut hardware = hardware.lock().expect("no test panics with the lock");
        let count = hardware.readable.len().min(READ_CAPACITY);
        let mut bytes = Vec::new();
        for event in hardware.readable.drain(..count) {
            // struct input_event: the time, type, code and value.
            bytes.extend(1_i64.to_ne_bytes());
            bytes.extend(0_i64.to_ne_bytes());
            bytes.extend(event.kind.to_ne_bytes());
            bytes.extend(event.code.to_ne_bytes());
            bytes.extend(event.value.to_ne_bytes());
        }
        if !bytes.is_empty() {
            let written = rustix::io::write(&self.writer, &bytes);
            assert_eq!(written, Ok(bytes.len()), "a socket has room for that");
        }
    }
}
