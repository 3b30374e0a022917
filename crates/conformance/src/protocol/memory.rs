// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's memory: tables and slots.

use std::time::Duration;

use frontend::{Deadline, FrontendReq, Memory, Region, VhostUserProtocolFeatures as Protocol};

use super::malformed::resources;
use crate::guest::{Guest, QUEUE_SIZE};
use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::process::Resources;
use crate::trial::Trial;

const TABLE: &str = "vhost-user.rst, VHOST_USER_SET_MEM_TABLE";
const SLOTS: &str = "vhost-user.rst, VHOST_USER_GET_MAX_MEM_SLOTS, VHOST_USER_ADD_MEM_REG and VHOST_USER_REM_MEM_REG";

/// How long a region may stay mapped after it was removed.
const UNMAPPED: Duration = Duration::from_secs(2);

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/memory-regions",
        TABLE,
        "Memory of several regions with holes between them is used: virtqueues in one, buffers in another, beyond 4 GiB.",
        regions,
    ),
    Point::required(
        "protocol/memory-offset",
        "vhost-user.rst, Memory region description",
        "A region may begin anywhere in its file (mmap offset).",
        offset,
    ),
    Point::required(
        "protocol/memory-replaced",
        TABLE,
        "A second SET_MEM_TABLE while virtqueues run, as after memory was plugged in, replaces the table: they go on, and \
         buffers may lie in the new memory.",
        replaced,
    ),
    Point::required(
        "protocol/memory-slots",
        SLOTS,
        "Regions are added by ADD_MEM_REG and removed by REM_MEM_REG, one by one, and GET_MAX_MEM_SLOTS tells how many \
         there may be.",
        slots,
    )
    .offering(Protocol::CONFIGURE_MEM_SLOTS),
    Point::required(
        "protocol/memory-leak",
        TABLE,
        "Memory tables that are replaced leave no descriptors and mappings behind.",
        leak,
    ),
];

fn regions(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    guest.part = 1;
    guest.work(2)?;
    Ok("buffers beyond 4 GiB are used".into())
}

/// The first region in two halves of one file.
fn offset(trial: &Trial) -> Seen {
    let mut guest = Guest::connect(trial)?;
    guest.session.set_features(guest.features)?;
    let memory = guest.memory.clone();
    let all = memory.regions();
    let first = all[0];
    let half = first.size / 2;
    let halves = [
        Region {
            size: half,
            ..first
        },
        Region {
            guest_address: first.guest_address + half,
            size: half,
            user_address: first.user_address + half,
            mmap_offset: half,
            ..first
        },
    ];
    guest
        .session
        .set_regions(&[&halves[..], &all[1..]].concat())?;
    guest.start_queues()?;
    // What is allocated from now on lies in the second half.
    while guest.memory.alloc_in(0, 4096, 4096)? < first.guest_address + half {}
    guest.work(2)?;
    Ok("buffers at an offset are used".into())
}

fn replaced(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let memory = guest.memory.clone();
    let mut regions = memory.regions();
    guest.session.set_regions(&regions)?;
    guest.work(1)?;
    // Two memories, one after the other, at the same new address: only the file tells which it is.
    for plugged in [plugged()?, plugged()?] {
        let all = [&regions[..], &plugged.regions()].concat();
        guest.session.set_regions(&all)?;
        guest.session.settle()?;
        guest.plugged = Some(plugged);
        guest.work(1)?;
    }
    guest.plugged = None;
    // Without memory that no virtqueue uses.
    regions.pop();
    guest.session.set_regions(&regions)?;
    guest.session.settle()?;
    guest.work(1)?;
    Ok("the virtqueues go on, with buffers in the new memory".into())
}

/// Memory of a file of its own, beyond all that the guest has.
fn plugged() -> frontend::Result<Memory> {
    Memory::new(&[(8 << 30, 1 << 20)])
}

fn slots(trial: &Trial) -> Seen {
    let wanted = Protocol::CONFIGURE_MEM_SLOTS | Protocol::REPLY_ACK | Protocol::CONFIG;
    let mut guest = Guest::connect_with(trial, QUEUE_SIZE, |session| {
        Ok(session.negotiate(wanted | Protocol::MQ)?)
    })?;
    let most = guest.session.get_u64(FrontendReq::GET_MAX_MEM_SLOTS)?;
    if most < 2 {
        return fails(format!("there are {most} slots"));
    }
    guest.session.set_features(guest.features)?;
    let memory = guest.memory.clone();
    let regions = memory.regions();
    for region in &regions {
        guest.session.add_region(region)?;
    }
    guest.start_queues()?;
    guest.work(1)?;
    guest.part = 1;
    guest.work(1)?;
    guest.session.remove_region(&regions[1])?;
    guest.session.settle()?;
    let soon = Deadline::after(UNMAPPED.min(trial.left()));
    let file = regions[1].fd;
    let unmapped = soon.until("the end of the mapping", || {
        Ok((!guest.started.backend.maps(file)?).then_some(()))
    });
    if unmapped.is_err() {
        return fails("a region that was removed stays mapped");
    }
    guest.part = 0;
    guest.work(1)?;
    guest.session.add_region(&regions[1])?;
    guest.session.settle()?;
    guest.part = 1;
    guest.work(1)?;
    // Another memory in its place.
    guest.session.remove_region(&regions[1])?;
    let other = Memory::new(&[(regions[1].guest_address, regions[1].size)])?;
    guest.session.add_region(&other.regions()[0])?;
    guest.session.settle()?;
    guest.plugged = Some(other);
    guest.work(1)?;
    Ok(format!("{most} slots"))
}

fn leak(trial: &Trial) -> Seen {
    const TIMES: usize = 50;
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let memory = guest.memory.clone();
    let again = |guest: &mut Guest| -> Result<Resources, Flaw> {
        guest.session.set_memory(&memory)?;
        // Once this is answered the table has been replaced.
        guest.session.get_u64(FrontendReq::GET_FEATURES)?;
        resources(&guest.started.backend)
    };
    let before = again(&mut guest)?;
    for _ in 0..TIMES {
        guest.session.set_memory(&memory)?;
    }
    let after = again(&mut guest)?;
    guest.work(1)?;
    for (what, before, after) in [
        ("descriptors", before.descriptors, after.descriptors),
        ("mappings", before.mappings, after.mappings),
    ] {
        if after >= before + TIMES / 2 {
            return fails(format!(
                "{before} {what} before {TIMES} tables, {after} after"
            ));
        }
    }
    Ok(format!(
        "{} descriptors and {} mappings, before and after {TIMES} tables",
        after.descriptors, after.mappings
    ))
}
