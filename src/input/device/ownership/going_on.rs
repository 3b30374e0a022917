// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Going on where a predecessor died, and leaving the source to a successor.
//!
//! The record says that the guest has the source only while it is grabbed for it: it is grabbed before the record is
//! valid, and given back after the record of that is. So the grab lasts from process to process.

use crate::backend::EventSet;
use crate::backend::continuity::{Ledger, RecordKey, ValueError, ValueReader};
use crate::input::records::{RecordError, tables};
use crate::input::source::{EventSource, HostAccess};
use crate::input::virtio_input::VirtioInput;

use super::{Owner, Ownership, changing_hands};

const OWNERSHIP: RecordKey = RecordKey::new(tables::OWNERSHIP, 0);

/// What is recorded of the ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptOwnership {
    pub(super) owner: Owner,
    /// The host has the source, and is to get its LEDs back.
    pub(super) gives_back: bool,
    pub(super) continues: bool,
    pub(super) has_returned: bool,
    /// The source is gone, and a guest that has it was told.
    pub(super) is_gone: bool,
}

impl KeptOwnership {
    /// That of a source that no guest had.
    const NEW: Self = Self {
        owner: Owner::Host,
        gives_back: false,
        continues: false,
        has_returned: false,
        is_gone: false,
    };

    /// What a predecessor recorded, if there was one.
    pub(super) fn load(ledger: &Ledger) -> Result<Self, RecordError> {
        let left = ledger.read(OWNERSHIP, Self::decode)?;
        Ok(left.unwrap_or(Self::NEW))
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        Ok(Self {
            owner: match value.u8()? {
                0 => Owner::Host,
                1 => Owner::HostUntilReleased,
                2 => Owner::Guest,
                3 => Owner::Releasing,
                4 => Owner::Released,
                _ => return Err(ValueError::Content("there is no such owner")),
            },
            gives_back: value.bool()?,
            continues: value.bool()?,
            has_returned: value.bool()?,
            is_gone: value.bool()?,
        })
    }

    fn put(self, ledger: &Ledger) {
        let owner = match self.owner {
            Owner::Host => 0,
            Owner::HostUntilReleased => 1,
            Owner::Guest => 2,
            Owner::Releasing => 3,
            Owner::Released => 4,
        };
        ledger.write(OWNERSHIP, |value| {
            value.u8(owner).bool(self.gives_back).bool(self.continues);
            value.bool(self.has_returned).bool(self.is_gone);
        });
    }
}

/// Records who has the source.
pub(super) fn put<S: EventSource>(ownership: &Ownership<S>) {
    if ownership.ledger.is_kept() {
        let kept = KeptOwnership {
            owner: ownership.owner,
            gives_back: ownership.gives_back,
            continues: ownership.continues,
            has_returned: ownership.hardware_return.has_returned(),
            is_gone: ownership.source.is_gone(),
        };
        if ownership.recorded.replace(Some(kept)) != Some(kept) {
            kept.put(&ownership.ledger);
        }
        ownership.requests.put(&ownership.ledger);
    }
}

/// What was recorded so far is valid.
pub(in crate::input::device) fn committed<S: EventSource>(ownership: &mut Ownership<S>) {
    ownership.source.committed();
}

/// The host has the source, which is recorded: gives it back.
pub(super) fn give_back<S: EventSource>(ownership: &mut Ownership<S>, virtio_input: &VirtioInput) {
    if std::mem::take(&mut ownership.gives_back) {
        ownership.source.send(virtio_input.host_leds());
    }
    ownership.source.ungrab();
    put(ownership);
}

/// Goes on where a predecessor died.
pub(in crate::input::device) fn go_on<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    let label = ownership.source.label();
    match ownership.owner {
        // The predecessor may have died before it gave it back, or just after it grabbed it.
        Owner::Host => {
            give_back(ownership, virtio_input);
            changing_hands::publish_host(ownership);
        }
        Owner::HostUntilReleased if ownership.source.is_gone() => {
            ownership.give_gone_source(virtio_input);
            ownership.publish_gone();
        }
        Owner::HostUntilReleased => {
            ownership.source.ungrab();
            ownership.fds.begin_long_wait();
        }
        Owner::Releasing | Owner::Released if ownership.source.is_gone() => {
            ownership.owner = Owner::Released;
            ownership.publish_gone();
        }
        // It is grabbed, and the guest was told.
        Owner::Releasing => changing_hands::release(ownership, virtio_input),
        Owner::Released => {
            ownership.source.ungrab();
            if !ownership.requests.host_keeps() {
                ownership.fds.try_again();
            }
            changing_hands::publish_host(ownership);
        }
        Owner::Guest if ownership.source.is_gone() => {
            if !ownership.was_gone {
                // It went while no process lived. What it reported before counts, but is not told: all is released.
                let _ = ownership.source.read(true, virtio_input.reports_mut());
                virtio_input.source_gone();
            }
            ownership.publish_gone();
        }
        Owner::Guest => {
            let host_access = ownership.source.host_access();
            if host_access == HostAccess::UntilGrab {
                // No more than a check, unless the options have changed.
                if let Err(error) = ownership.source.grab() {
                    ownership.cannot_grab(&error, virtio_input);
                }
            } else {
                ownership.source.ungrab();
            }
            // What the predecessor took from the queue may not have reached the device.
            ownership.source.send(virtio_input.leds_and_sounds());
            ownership.service_status.publish_guest(&label, host_access);
        }
    }
    if let Some(request) = ownership.requests.take_first() {
        changing_hands::obey(ownership, request, virtio_input);
    }
    put(ownership);
    // The events that the predecessor read and made nothing of. A guest that waits for a key may get the source.
    ownership.read_source(EventSet::empty(), virtio_input);
}

/// Whether another process goes on for this one when it ends.
pub(in crate::input::device) fn has_successor<S: EventSource>(ownership: &Ownership<S>) -> bool {
    ownership.context.continuity().has_successor()
}

/// The program exits, and a successor is to go on with the source as it is. Only the LEDs become the host's: there is
/// none if the service is stopped.
pub(in crate::input::device) fn suspend<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &VirtioInput,
) {
    if ownership.owner == Owner::Guest {
        ownership.source.send(virtio_input.host_leds());
    }
}
