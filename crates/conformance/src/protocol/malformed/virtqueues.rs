// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtqueues that do not exist, have no place, or hold what no driver writes.

use std::os::fd::AsFd as _;
use std::time::Duration;

use frontend::{Descriptor, FrontendReq as Req, descriptor_flags};

use super::{VERSION, alive, event, message, named, try_each};
use crate::guest::{Guest, QUEUE_SIZE};
use crate::outcome::Seen;
use crate::trial::Trial;

pub(super) fn indices(trial: &Trial) -> Seen {
    let event = event()?;
    let mut cases = Vec::new();
    for index in [200_u32, 1 << 16, u32::MAX] {
        for request in [
            Req::SET_VRING_NUM,
            Req::SET_VRING_BASE,
            Req::SET_VRING_ENABLE,
            Req::GET_VRING_BASE,
        ] {
            let body = [index, 0].map(u32::to_ne_bytes).concat();
            cases.push((
                format!("{request:?} of {index}"),
                message(request.into(), VERSION, &body),
                Vec::new(),
            ));
        }
        let body = [[index, 0].map(u32::to_ne_bytes).concat(), vec![0; 32]].concat();
        let what = format!("SET_VRING_ADDR of {index}");
        cases.push((
            what,
            message(Req::SET_VRING_ADDR.into(), VERSION, &body),
            Vec::new(),
        ));
    }
    for request in [Req::SET_VRING_KICK, Req::SET_VRING_CALL, Req::SET_VRING_ERR] {
        for value in [200_u64, 0xfe00, 0xffff_ffff_0000_0000] {
            cases.push((
                format!("{request:?} of {value:#x}"),
                message(request.into(), VERSION, &value.to_ne_bytes()),
                vec![event.as_fd()],
            ));
        }
    }
    try_each(trial, cases)
}

/// A virtqueue of this size, which the device is then to serve.
pub(super) fn queue_sizes(trial: &Trial) -> Seen {
    let sizes = [0, 3, 32769, 65535, 1 << 16, u32::MAX];
    for size in sizes {
        let what = format!("{size} entries");
        let mut guest = Guest::connect(trial)?;
        guest.session.acknowledge = false;
        let ring = guest.work.ring;
        // The connection may end at any of these.
        let _ = guest.run();
        let _ = guest
            .session
            .set_vring_state(Req::SET_VRING_NUM, ring, size);
        let _ = guest.queue().kick();
        let Guest {
            mut session,
            mut started,
            ..
        } = guest;
        alive(trial, &mut session, &mut started, &what)?;
    }
    Ok(format!("{} cases", sizes.len()))
}

pub(super) fn addresses(trial: &Trial) -> Seen {
    let far = 0x1234_5678_0000_u64;
    let cases = [
        ("outside the memory", Some([far, far, far])),
        ("at 0", Some([0, 0, 0])),
        ("at the end of the address space", Some([!0xfff; 3])),
        ("at the memory's last byte", None),
        ("nowhere", Some([0; 3])),
    ];
    for (what, places) in cases {
        let what = format!("a virtqueue {what}");
        let mut guest = Guest::connect(trial)?;
        guest.session.acknowledge = false;
        let _ = guest.session.set_features(guest.features);
        let _ = guest.session.set_memory(&guest.memory);
        let ring = guest.work.ring;
        let last = guest.memory.user_address(guest.memory.end() - 1);
        let [table, available, used] = places.unwrap_or([last; 3]);
        guest.add(1)?;
        guest.queue().publish()?;
        let session = &mut guest.session;
        let queue = &guest.queues[ring as usize];
        // The connection may end at any of these.
        let _ = session.set_vring_state(Req::SET_VRING_NUM, ring, QUEUE_SIZE.into());
        if !what.ends_with("nowhere") {
            let _ = session.set_vring_addresses(ring, table, available, used);
        }
        let _ = session.set_vring_fd(Req::SET_VRING_CALL, ring, Some(queue.call_fd()));
        let _ = session.set_vring_fd(Req::SET_VRING_KICK, ring, Some(queue.kick_fd()));
        let _ = session.enable_queue(ring, true);
        let _ = guest.queue().kick();
        let Guest {
            mut session,
            mut started,
            ..
        } = guest;
        alive(trial, &mut session, &mut started, &what)?;
        // A virtqueue's thread crashes later than the connection's.
        std::thread::sleep(Duration::from_millis(20));
        alive(trial, &mut session, &mut started, &what)?;
    }
    Ok(format!("{} cases", cases.len()))
}

pub(super) fn rings(trial: &Trial) -> Seen {
    type Spoil = fn(&mut Guest) -> frontend::Result<()>;
    let cases: [(&str, Spoil); 8] = [
        ("an available index far ahead", |guest| {
            guest.queue().force_available_index(1000)
        }),
        ("a head beyond the table", |guest| guest.queue().offer(999)),
        ("a head of 65535", |guest| guest.queue().offer(u16::MAX)),
        ("a chain that is a loop", |guest| {
            spoil(guest, |at| [at, 8, 1 | 0x0001_0000])
        }),
        ("a next descriptor beyond the table", |guest| {
            spoil(guest, |at| [at, 8, 1 | 999 << 16])
        }),
        ("a buffer outside the memory", |guest| {
            spoil(guest, |_| [0x1234_5678_0000, 64, 2])
        }),
        ("a buffer of 4 GiB", |guest| {
            spoil(guest, |at| [at, u32::MAX.into(), 2])
        }),
        ("a table of descriptors of 7 bytes", |guest| {
            spoil(guest, |at| [at, 7, 4])
        }),
    ];
    for (what, spoil) in cases {
        let mut guest = Guest::start(trial)?;
        guest.work(1)?;
        spoil(&mut guest)?;
        guest.queue().publish()?;
        guest.queue().kick()?;
        let Guest {
            mut session,
            mut started,
            ..
        } = guest;
        // The virtqueue's thread has its turn meanwhile.
        for _ in 0..3 {
            alive(trial, &mut session, &mut started, what)?;
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(session);
        started
            .left(trial, false)
            .map_err(|flaw| named(flaw, what))?;
    }
    Ok(format!("{} cases", cases.len()))
}

/// Offers a descriptor: its address, length, and flags with the next one.
fn spoil(guest: &mut Guest, descriptor: fn(u64) -> [u64; 3]) -> frontend::Result<()> {
    let at = guest.memory.alloc(4096, 8)?;
    let [address, len, flags] = descriptor(at);
    let index = 1;
    let descriptor = Descriptor {
        address,
        len: len as u32,
        flags: flags as u16
            & (descriptor_flags::NEXT | descriptor_flags::WRITE | descriptor_flags::INDIRECT),
        next: (flags >> 16) as u16,
    };
    guest.queue().write_descriptor(index, descriptor)?;
    guest.queue().offer(index)
}
