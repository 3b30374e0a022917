// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads and writes events in the driver's buffers (virtio 1.2, 5.8.6).

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::backend::Chain;
use crate::input::protocol::Event;

/// Most descriptors of a buffer that are read. An event cannot need more than eight of them, but a
/// driver can chain tens of thousands, and each costs a look-up.
const MAX_DESCRIPTORS: usize = 16;

/// Writes `event` to the buffer `chain`, all of it. Returns `false` if the buffer is too small for an event or
/// lies outside the guest's memory.
pub(crate) fn write_event<M>(
    chain: &mut DescriptorChain<M>,
    memory: &GuestMemoryMmap,
    event: Event,
) -> bool
where
    M: Deref<Target = GuestMemoryMmap>,
{
    let bytes = event.to_bytes();
    // The usual buffer: one descriptor with room for one event.
    let has_room = |descriptor: &Descriptor| {
        descriptor.is_write_only() && descriptor.len() as usize >= bytes.len()
    };
    let Some(first) = chain.next() else {
        return false;
    };
    if has_room(&first) {
        // Almost always within one region of memory, which takes one look-up.
        return match memory.get_slice(first.addr(), bytes.len()) {
            Ok(slice) => {
                slice.copy_from(&bytes);
                true
            }
            Err(_) => memory.write_slice(&bytes, first.addr()).is_ok(),
        };
    }
    let Some(pieces) = pieces(std::iter::once(first).chain(chain), true) else {
        return false;
    };
    let mut rest = bytes.as_slice();
    for piece in pieces {
        let Some((part, after)) = rest.split_at_checked(piece.length) else {
            return false;
        };
        if memory.write_slice(part, piece.at).is_err() {
            return false;
        }
        rest = after;
    }
    true
}

/// Reads the event in the buffer `chain`. Returns `None` if the buffer is smaller than an event or
/// lies outside the guest's memory.
pub(crate) fn read_event(chain: &Chain, memory: &GuestMemoryMmap) -> Option<Event> {
    let mut bytes = [0; Event::SIZE];
    let mut rest = bytes.as_mut_slice();
    for piece in pieces(chain.clone(), false)? {
        let (part, after) = rest.split_at_mut_checked(piece.length)?;
        memory.read_slice(part, piece.at).ok()?;
        rest = after;
    }
    Some(Event::from_bytes(bytes))
}

/// A part of an event's buffer.
struct Piece {
    at: GuestAddress,
    length: usize,
}

/// The pieces of an event in `chain`: of the descriptors that the device may write, or of those that it
/// may read. `None` if they hold less than an event.
fn pieces(chain: impl Iterator<Item = Descriptor>, writable: bool) -> Option<Vec<Piece>> {
    let mut needed = Event::SIZE;
    let mut pieces = Vec::new();
    for descriptor in chain.take(MAX_DESCRIPTORS) {
        if descriptor.is_write_only() != writable {
            continue;
        }
        let length = usize::try_from(descriptor.len()).map_or(needed, |has| has.min(needed));
        if length > 0 {
            pieces.push(Piece {
                at: descriptor.addr(),
                length,
            });
            needed -= length;
        }
        if needed == 0 {
            return Some(pieces);
        }
    }
    None
}
