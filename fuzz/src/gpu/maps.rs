// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A front-end that maps memory of the host into the guest, or does not.

use vhost_user_backends::backend::fuzzing::FakeContext;
use vhost_user_backends::backend::{SHARED_MEMORY_PAGE, SharedMemoryOutcome, SharedMemoryRequest};

use crate::bytes::Bytes;

/// Length of the region.
const REGION: u64 = 1 << 30;
/// Most maps that QEMU survives, with the guest's memory.
const MOST: usize = 256;

/// What is mapped: where it begins, and its length.
#[derive(Default)]
pub(super) struct Maps {
    /// Since a virtqueue was stopped last: by a reset, all others may be gone.
    maps: Vec<(u64, u64)>,
    /// How many there were.
    #[cfg(test)]
    pub(super) count: usize,
}

impl Maps {
    /// Does what the device asks for, or refuses it, or is about to stop the device, or ends its channel.
    pub(super) fn answer(&mut self, program: &FakeContext, bytes: &mut Bytes<'_>) {
        use SharedMemoryOutcome::{Done, Lost, Refused, Withdrawn};
        let outcome = bytes.of(&[Done, Done, Done, Done, Refused, Withdrawn, Lost]);
        let Some(request) = program.answer_mapping(outcome) else {
            return;
        };
        let (SharedMemoryRequest::Map { offset, len, .. }
        | SharedMemoryRequest::Unmap { offset, len }) = request;
        let end = offset.checked_add(len).expect("an end");
        assert!(len != 0 && end <= REGION, "{len} bytes at {offset}");
        assert_eq!((offset | len) % SHARED_MEMORY_PAGE, 0);
        if outcome != Done {
            return;
        }
        match request {
            SharedMemoryRequest::Map { .. } => {
                let is_apart = |(at, other): &(u64, u64)| end <= *at || at + other <= offset;
                assert!(self.maps.iter().all(is_apart), "maps overlap");
                self.maps.push((offset, len));
                assert!(self.maps.len() <= MOST);
                #[cfg(test)]
                {
                    self.count += 1;
                }
            }
            SharedMemoryRequest::Unmap { .. } => self.maps.retain(|map| *map != (offset, len)),
        }
    }

    /// A virtqueue stops.
    pub(super) fn stop(&mut self, program: &FakeContext) {
        program.answer_mapping(SharedMemoryOutcome::Withdrawn);
        self.maps.clear();
    }
}
