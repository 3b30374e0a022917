//! Events in the driver's buffers.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::backend::{Chain, MemoryGuard};

use super::wire::Event;

/// How many descriptors of a buffer are looked at. Eight bytes cannot need more than eight of them,
/// but a driver can chain tens of thousands and have each looked up.
const MAX_DESCRIPTORS: usize = 16;

/// Writes `event` to the buffer `chain`; `false` where that has no room for a whole event, or lies
/// outside the guest's memory.
pub fn write_event(chain: &Chain, memory: &GuestMemoryMmap, event: Event) -> bool {
    let bytes = event.to_bytes();
    // As drivers make them: one descriptor, for one event.
    if let Some(first) = chain.clone().next()
        && first.is_write_only()
        && first.len() as usize >= bytes.len()
    {
        // Within one region of memory, as almost always, it is a matter of one look.
        return match memory.get_slice(first.addr(), bytes.len()) {
            Ok(slice) => {
                slice.copy_from(&bytes);
                true
            }
            Err(_) => memory.write_slice(&bytes, first.addr()).is_ok(),
        };
    }
    let Some(parts) = parts(chain, true) else {
        return false;
    };
    let mut rest = bytes.as_slice();
    for (at, length) in parts {
        let Some((part, after)) = rest.split_at_checked(length) else {
            return false;
        };
        if memory.write_slice(part, at).is_err() {
            return false;
        }
        rest = after;
    }
    true
}

/// The event in the buffer `chain`; `None` where there is no whole one, or it lies outside the
/// guest's memory.
pub fn read_event(chain: &Chain, memory: &GuestMemoryMmap) -> Option<Event> {
    let mut bytes = [0; Event::SIZE];
    let mut rest = bytes.as_mut_slice();
    for (at, length) in parts(chain, false)? {
        let (part, after) = rest.split_at_mut_checked(length)?;
        memory.read_slice(part, at).ok()?;
        rest = after;
    }
    Some(Event::from_bytes(bytes))
}

/// Where the bytes of an event lie in `chain`, in the order and with the lengths of the descriptors
/// the device may write, or may read; `None` where they are fewer than an event's.
fn parts(
    chain: &DescriptorChain<MemoryGuard>,
    writable: bool,
) -> Option<Vec<(GuestAddress, usize)>> {
    let mut needed = Event::SIZE;
    let mut parts = Vec::new();
    for descriptor in chain.clone().take(MAX_DESCRIPTORS) {
        if descriptor.is_write_only() != writable {
            continue;
        }
        let length = usize::try_from(descriptor.len()).map_or(needed, |has| has.min(needed));
        if length > 0 {
            parts.push((descriptor.addr(), length));
            needed -= length;
        }
        if needed == 0 {
            return Some(parts);
        }
    }
    None
}
