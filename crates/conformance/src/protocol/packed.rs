// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packed virtqueues: whoever offers them serves them.

use frontend::PackedQueue;
use frontend::features::RING_PACKED;

use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::Trial;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/packed",
        "virtio 1.2, 2.8",
        "A backend that offers VIRTIO_F_RING_PACKED serves packed virtqueues, several times round the ring.",
        serve,
    ),
    Point::required(
        "protocol/packed-resume",
        "vhost-user.rst, VHOST_USER_GET_VRING_BASE",
        "GET_VRING_BASE of a packed virtqueue tells the place of the next descriptor with its wrap counter, and that of the \
         next used one or 0, and started there again it goes on.",
        resume,
    ),
];

/// Entries of the virtqueues: few, so that requests go round them.
const SIZE: u16 = 8;

/// A guest whose virtqueues are packed.
struct Packed {
    guest: Guest,
    queues: Vec<PackedQueue>,
    next: u32,
}

impl Packed {
    fn start(trial: &Trial) -> Result<Self, Flaw> {
        trial.form()?;
        if trial.facts.features & RING_PACKED == 0 {
            return not_tried("not offered: VIRTIO_F_RING_PACKED");
        }
        let mut guest = Guest::connect(trial)?;
        let queues = (0..guest.work.queues).map(|_| PackedQueue::new(&guest.memory, SIZE));
        let queues = queues.collect::<frontend::Result<Vec<_>>>()?;
        guest.features |= RING_PACKED;
        guest.session.set_features(guest.features)?;
        guest.session.set_memory(&guest.memory)?;
        let mut packed = Self {
            guest,
            queues,
            next: 0,
        };
        packed.start_queues()?;
        Ok(packed)
    }

    fn start_queues(&mut self) -> Result<(), Flaw> {
        for (index, queue) in (0..).zip(&self.queues) {
            self.guest.session.start_packed_queue(index, queue)?;
        }
        Ok(self.guest.session.settle()?)
    }

    fn work(&mut self, count: u32) -> Result<(), Flaw> {
        let Self {
            guest,
            queues,
            next,
        } = self;
        let queue = &mut queues[guest.work.ring as usize];
        for _ in 0..count {
            let (buffers, answer) = guest.work.buffers(*next, &guest.memory, guest.part)?;
            let head = queue.submit(&buffers)?;
            let request = guest.work.request(head, *next, answer);
            *next += 1;
            let used = queue.wait_used(guest.session.channel.left())?;
            if used.head != head {
                return fails(format!("it uses chain {} instead of {head}", used.head));
            }
            if let Some(problem) = guest.work.problem(&request, used, &guest.memory)? {
                return fails(problem);
            }
        }
        Ok(())
    }
}

fn serve(trial: &Trial) -> Seen {
    const REQUESTS: u32 = 3 * SIZE as u32 + 1;
    Packed::start(trial)?.work(REQUESTS)?;
    Ok(format!("{REQUESTS} requests in {SIZE} entries"))
}

fn resume(trial: &Trial) -> Seen {
    const STOPS: u16 = 2 * SIZE;
    let mut packed = Packed::start(trial)?;
    // At many places, and with either wrap counter.
    for _ in 0..STOPS {
        packed.work(1)?;
        let ring = packed.guest.work.ring;
        let expected = packed.queues[ring as usize].base();
        for index in 0..packed.guest.work.queues {
            let base = packed.guest.session.vring_base(index)?;
            // DPDK tells the lower half only, and QEMU is content: both places are the same once all is used.
            if index == ring && base != expected && base != expected & 0xffff {
                return fails(format!("the base is {base:#x} instead of {expected:#x}"));
            }
        }
        packed.start_queues()?;
    }
    packed.work(1)?;
    Ok(format!("it goes on after {STOPS} stops"))
}
