// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The open device in the locker: a successor has it with the events in the kernel's buffer, and grabbed if it is.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::FileType;

use crate::backend::continuity::{Continuity, FdId, Ledger, Locker, Owner, RecordKey};
use crate::input::records::{RecordError, tables};

use super::address::EvdevAddress;

const DEVICE: RecordKey = RecordKey::new(tables::EVDEV, 0);

/// Where the device is kept.
#[derive(Debug)]
pub(super) struct KeptDevice {
    ledger: Ledger,
    locker: Locker,
    id: Option<FdId>,
    /// No record names them after the next commit.
    replaced: Vec<FdId>,
}

/// What a predecessor left.
#[derive(Debug)]
pub(super) struct LeftDevice {
    /// The device, unless it was gone or could not be kept.
    pub(super) file: Option<OwnedFd>,
    /// Whether it is grabbed while a guest has it.
    pub(super) grab: bool,
}

impl LeftDevice {
    /// The node of the device. A guest that took a predecessor over may have left any other file, which was deleted at any
    /// time, but no other device's node: it opens none.
    pub(super) fn node(&self) -> Option<BorrowedFd<'_>> {
        let file = self.file.as_ref()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(file).ok()?.st_mode);
        kind.is_char_device().then_some(file.as_fd())
    }
}

impl KeptDevice {
    /// No device, in the place for one.
    pub(super) fn new(continuity: &Continuity) -> Self {
        Self {
            ledger: continuity.ledger(Owner::Device),
            locker: continuity.locker(),
            id: None,
            replaced: Vec::new(),
        }
    }

    /// Takes the device that a predecessor left, which served the one at `address`. `grab`: this process is to grab it,
    /// which is recorded from [`Self::grabbed`] on.
    ///
    /// # Errors
    /// If the record is invalid, or of a device at another address.
    pub(super) fn take_left(
        &mut self,
        address: &EvdevAddress,
        grab: bool,
    ) -> Result<LeftDevice, RecordError> {
        let left = self.ledger.read(DEVICE, |value| {
            let (id, grabbed) = (FdId::from_bits(value.u64()?), value.bool()?);
            let is_meant = value.rest() == address.to_string().as_bytes();
            Ok(is_meant.then_some((id, grabbed)))
        })?;
        let (id, grabbed) = left.flatten().ok_or(RecordError::Device)?;
        self.id = id;
        let files = self.id.and_then(|id| self.locker.take(id));
        let file = files.and_then(|files| files.into_iter().next());
        self.put(address, grabbed && grab);
        Ok(LeftDevice {
            file,
            grab: grabbed,
        })
    }

    /// The device at `address` is grabbed, as it is from now on whenever a guest has it.
    pub(super) fn grabbed(&self, address: &EvdevAddress) {
        self.put(address, true);
    }

    fn put(&self, address: &EvdevAddress, grab: bool) {
        self.ledger.write(DEVICE, |value| {
            let id = self.id.map_or(0, FdId::to_bits);
            let address = address.to_string();
            value.u64(id).bool(grab).bytes(address.as_bytes());
        });
    }

    /// Keeps the device `file` at `address` instead, or that there is none. The descriptor is kept at once, and named by a
    /// record with the next commit.
    pub(super) fn set(&mut self, file: Option<BorrowedFd<'_>>, address: &EvdevAddress, grab: bool) {
        self.replaced.extend(self.id.take());
        let kept = file.map_or(Ok(None), |file| self.locker.keep(&[file]));
        self.id = kept.unwrap_or_else(|error| {
            log::warn!("after a restart of this program, {address} is opened anew: {error}");
            None
        });
        self.put(address, grab);
    }

    /// What was recorded is valid.
    pub(super) fn committed(&mut self) {
        for id in self.replaced.drain(..) {
            self.locker.forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::testing::kept_state::KeptState;

    use super::*;

    /// `--no-grab` is removed, or added, before a restart.
    #[test]
    fn record_says_what_the_last_process_does() {
        let address = EvdevAddress::Path("/dev/input/event0".into());
        let mut state = KeptState::new().expect("descriptors");
        let mut first = KeptDevice::new(&state.next_process().expect("memory"));
        first.set(None, &address, false);
        first.ledger.commit();
        let mut said = Vec::new();
        // Whether each process is to grab, and does.
        for (grab, does) in [
            (true, false),
            (true, true),
            (true, true),
            (false, false),
            (true, false),
        ] {
            let continuity = state.next_process().expect("the state is valid");
            let mut kept = KeptDevice::new(&continuity);
            let left = kept.take_left(&address, grab).expect("it is the same");
            said.push(left.grab);
            if does {
                kept.grabbed(&address);
            }
            kept.ledger.commit();
        }
        assert_eq!(said, [false, false, true, true, false]);
    }
}
