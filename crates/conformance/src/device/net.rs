// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-net: as far as a frame that comes back.

use conventions::DeviceType;
use frontend::{Buffer, Deadline};
use rustix::event::PollFlags;

use crate::guest::Guest;
use crate::outcome::{Seen, fails};
use crate::point::Point;
use crate::trial::Trial;
use crate::work::{NET_HEADER, arp_request};

const NET: &[DeviceType] = &[DeviceType::Net];
/// Room for a frame, in bytes.
const ROOM: u32 = 2048;
/// The guest's buffers.
const BUFFERS: usize = 16;

pub(super) const POINTS: &[Point] = &[Point::recommended(
    "device/net-frame",
    "virtio 1.2, 5.1.6",
    "An ARP request that the guest sends brings it a frame: the network beyond the backend answers.",
    frame,
)
.of(NET)];

fn frame(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    let memory = guest.memory.clone();
    let mut places = Vec::new();
    for _ in 0..BUFFERS {
        let at = memory.alloc(ROOM.into(), 8)?;
        let head = guest.queues[0].add(&[Buffer::writable(at, ROOM)])?;
        places.push((head, at));
    }
    guest.queues[0].submit()?;
    let sent = [vec![0; NET_HEADER], arp_request()].concat();
    let at = memory.alloc(sent.len() as u64, 8)?;
    memory.write(at, &sent)?;
    guest
        .queue()
        .add(&[Buffer::readable(at, sent.len() as u32)])?;
    guest.queue().submit()?;
    guest.queue().wait_used(trial.left())?;
    // Half of the time: what does not come is no more than a network without an answer.
    let deadline = Deadline::after(trial.left() / 2);
    loop {
        if let Some(used) = guest.queues[0].take_used()? {
            let Some((_, at)) = places.iter().find(|(head, _)| *head == used.head) else {
                return fails(format!("it uses descriptor {}", used.head));
            };
            let len = (used.len as usize).min(ROOM as usize);
            let mut bytes = vec![0; len];
            memory.read(*at, &mut bytes)?;
            let Some(kind) = bytes.get(NET_HEADER + 12..NET_HEADER + 14) else {
                return fails(format!("a frame of {len} bytes"));
            };
            return Ok(format!(
                "a frame of {} bytes, type {:#06x}",
                len - NET_HEADER,
                u16::from_be_bytes([kind[0], kind[1]])
            ));
        }
        if !deadline.ready(guest.queues[0].call_fd(), PollFlags::IN)? {
            return fails("no frame comes");
        }
        guest.queues[0].notifications()?;
    }
}
