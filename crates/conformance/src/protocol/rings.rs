// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtqueues: how they start, stop and go on.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use conventions::DeviceType;
use frontend::features::{EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES};
use frontend::{
    Deadline, FrontendReq, Memory, Queue, Session, VhostUserProtocolFeatures as Protocol,
};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::features::negotiable;
use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::{QUIET, Trial};

const STATES: &str = "vhost-user.rst, Ring states";
const GET_VRING_BASE: &str = "vhost-user.rst, VHOST_USER_GET_VRING_BASE";

pub(super) const POINTS: &[Point] = &[
    Point::recommended(
        "protocol/start-without-kick",
        STATES,
        "A virtqueue starts by SET_VRING_KICK: requests that are there already are served, though nobody kicks.",
        start_without_kick,
    ),
    Point::recommended(
        "protocol/start-on-enable",
        STATES,
        "Requests that were there and kicked before a virtqueue was enabled are served once it is enabled.",
        start_on_enable,
    ),
    Point::recommended(
        "protocol/disabled",
        STATES,
        "A virtqueue that is disabled has no effects: a request that comes meanwhile is done once it is enabled.",
        disabled,
    ),
    Point::required(
        "protocol/disable-enable",
        STATES,
        "A virtqueue that is disabled and enabled again goes on.",
        disable_enable,
    ),
    Point::required(
        "protocol/base",
        GET_VRING_BASE,
        "GET_VRING_BASE tells the index of the next request in the available ring, with all requests before it done.",
        base,
    ),
    Point::required(
        "protocol/stopped",
        STATES,
        "A virtqueue that GET_VRING_BASE stopped is not served, and the driver not notified, even if it is kicked.",
        stopped,
    ),
    Point::required(
        "protocol/resume",
        GET_VRING_BASE,
        "A virtqueue that is started again at the base that it stopped at goes on there: no request is lost or done twice.",
        resume,
    ),
    Point::required(
        "protocol/driver-restart",
        STATES,
        "After all virtqueues were stopped a new driver can begin with empty ones at index 0.",
        driver_restart,
    ),
    Point::required(
        "protocol/reset-device",
        "vhost-user.rst, VHOST_USER_RESET_DEVICE",
        "After RESET_DEVICE the virtqueues that ran are not served, and a new driver can begin.",
        reset_device,
    )
    .offering(Protocol::RESET_DEVICE),
    Point::recommended(
        "protocol/kick-replaced",
        STATES,
        "A new descriptor of SET_VRING_KICK for a running virtqueue replaces the one before.",
        kick_replaced,
    ),
    Point::recommended(
        "protocol/call-replaced",
        STATES,
        "A new descriptor of SET_VRING_CALL for a running virtqueue replaces the one before, as when QEMU masks interrupts.",
        call_replaced,
    ),
    Point::required(
        "protocol/queue-sizes",
        "virtio 1.2, 2.7",
        "A virtqueue may have from 4 entries, as QEMU 10's for input devices, to 128, as QEMU's for disks; the orders of VMMs \
         have more.",
        queue_sizes,
    ),
    Point::required(
        "protocol/indirect",
        "virtio 1.2, 2.7.5.3",
        "A backend that offers VIRTIO_F_INDIRECT_DESC serves tables of descriptors.",
        indirect,
    ),
    Point::required(
        "protocol/event-idx",
        "virtio 1.2, 2.7.10",
        "A backend that offers VIRTIO_F_EVENT_IDX notifies when the used index passes used_event, and tells from which \
         index on it is to be kicked.",
        event_idx,
    ),
];

/// For how long it is looked that a virtqueue that was stopped is not served late.
const STILL: Duration = Duration::from_millis(600);

/// Sets the virtqueues up without enabling them, requests first.
fn set_up(guest: &mut Guest) -> Result<(), Flaw> {
    guest.session.set_features(guest.features)?;
    guest.session.set_memory(&guest.memory)?;
    Ok(())
}

/// All of a virtqueue but its kick.
fn place(session: &mut Session, index: u32, queue: &Queue, base: u16) -> Result<(), Flaw> {
    session.set_vring_state(FrontendReq::SET_VRING_NUM, index, queue.size().into())?;
    session.set_vring_state(FrontendReq::SET_VRING_BASE, index, base.into())?;
    let memory = queue.memory();
    let [table, available, used] = queue.addresses().map(|at| memory.user_address(at));
    session.set_vring_addresses(index, table, available, used)?;
    session.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(queue.call_fd()))?;
    Ok(())
}

fn set_kick(session: &mut Session, index: u32, queue: &Queue) -> Result<(), Flaw> {
    Ok(session.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(queue.kick_fd()))?)
}

fn enable(guest: &mut Guest, enabled: bool) -> Result<(), Flaw> {
    for index in 0..guest.work.queues {
        guest.session.enable_queue(index, enabled)?;
    }
    Ok(guest.session.settle()?)
}

fn start_without_kick(trial: &Trial) -> Seen {
    negotiable(trial)?;
    let mut guest = Guest::connect(trial)?;
    set_up(&mut guest)?;
    guest.add(2)?;
    guest.queue().publish()?;
    for (index, queue) in (0..).zip(&guest.queues) {
        place(&mut guest.session, index, queue, 0)?;
        set_kick(&mut guest.session, index, queue)?;
        guest.session.enable_queue(index, true)?;
    }
    guest.finish()?;
    Ok("2 requests are done".into())
}

fn start_on_enable(trial: &Trial) -> Seen {
    negotiable(trial)?;
    let mut guest = Guest::connect(trial)?;
    set_up(&mut guest)?;
    for (index, queue) in (0..).zip(&guest.queues) {
        place(&mut guest.session, index, queue, 0)?;
        set_kick(&mut guest.session, index, queue)?;
    }
    guest.add(2)?;
    guest.queue().publish()?;
    guest.queue().kick()?;
    // The kick is taken, if the backend takes it: there is nothing to wait for.
    std::thread::sleep(QUIET);
    enable(&mut guest, true)?;
    guest.finish()?;
    Ok("2 requests are done".into())
}

fn disable_enable(trial: &Trial) -> Seen {
    negotiable(trial)?;
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    enable(&mut guest, false)?;
    enable(&mut guest, true)?;
    guest.work(2)?;
    Ok("it goes on".into())
}

fn base(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(5)?;
    let ring = guest.work.ring;
    let body = [ring, 0].map(u32::to_ne_bytes).concat();
    let request = FrontendReq::GET_VRING_BASE;
    let reply = guest.session.call(request, &body, &[])?.body;
    let number = |at: usize| {
        let bytes = reply.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    match (number(0), number(4), reply.len()) {
        (Some(index), Some(5), 8) if index == ring => Ok("5 after 5 requests".into()),
        (Some(index), Some(base), 8) => fails(format!(
            "{base:#x} of virtqueue {index} after 5 requests of virtqueue {ring}"
        )),
        (.., size) => fails(format!("it is answered with {size} bytes")),
    }
}

fn stopped(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    guest.stop_queues()?;
    let (used, notified) = (guest.queue().used_index()?, guest.queue().notifications()?);
    guest.add(1)?;
    guest.queue().publish()?;
    guest.queue().kick()?;
    let before = contents(&guest.memory)?;
    let call = Deadline::after(STILL).ready(guest.queue().call_fd(), PollFlags::IN)?;
    match (guest.queue().used_index()? == used, call) {
        (true, false) => {}
        (false, _) => return fails("the request is done"),
        (true, true) => return fails("the driver is notified"),
    }
    if contents(&guest.memory)? != before {
        return fails("the guest's memory is written");
    }
    let memory = guest.memory.clone();
    let _started = guest.leave();
    std::thread::sleep(QUIET);
    match contents(&memory)? == before {
        true => Ok(format!("quiet; notified {notified} times before")),
        false => fails("the guest's memory is written at the end of the connection"),
    }
}

/// All that lies in the guest's memory.
fn contents(memory: &Memory) -> frontend::Result<Vec<u8>> {
    let mut contents = Vec::new();
    for region in memory.regions() {
        let mut bytes = vec![0; region.size as usize];
        memory.read(region.guest_address, &mut bytes)?;
        contents.append(&mut bytes);
    }
    Ok(contents)
}

fn resume(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(3)?;
    let mut bases = Vec::new();
    for index in 0..guest.work.queues {
        bases.push(guest.session.stop_queue(index)?);
    }
    // Requests that came while it was stopped.
    guest.add(2)?;
    guest.queue().publish()?;
    for ((index, queue), base) in (0..).zip(&guest.queues).zip(bases) {
        place(&mut guest.session, index, queue, base)?;
        set_kick(&mut guest.session, index, queue)?;
    }
    if guest.features & PROTOCOL_FEATURES != 0 {
        enable(&mut guest, true)?;
    }
    guest.queue().kick()?;
    guest.finish()?;
    guest.work(1)?;
    // Time for a request that is done twice.
    std::thread::sleep(QUIET);
    match guest.queue().used_index()? {
        6 => Ok("6 requests are done, each once".into()),
        used => fails(format!("{used} of 6 requests are done")),
    }
}

fn driver_restart(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(3)?;
    guest.stop_queues()?;
    guest.begin_anew()?;
    guest.run()?;
    guest.work(2)?;
    Ok("the new driver is served".into())
}

fn reset_device(trial: &Trial) -> Seen {
    let wanted = Session::usual_protocol_features() | Protocol::RESET_DEVICE;
    let mut guest = Guest::connect_with(trial, crate::guest::QUEUE_SIZE, |session| {
        Ok(session.negotiate(wanted)?)
    })?;
    guest.run()?;
    guest.work(3)?;
    guest.stop_queues()?;
    guest.session.request(FrontendReq::RESET_DEVICE, &[], &[])?;
    guest.begin_anew()?;
    guest.run()?;
    guest.work(2)?;
    // Once more, with virtqueues that run.
    guest.session.request(FrontendReq::RESET_DEVICE, &[], &[])?;
    guest.session.settle()?;
    if is_served(&mut guest)? {
        return fails("a virtqueue that ran is served after RESET_DEVICE");
    }
    guest.begin_anew()?;
    guest.run()?;
    guest.work(2)?;
    Ok("the new driver is served, and not the virtqueues of the one before".into())
}

/// Whether a request is done within a while.
fn is_served(guest: &mut Guest) -> Result<bool, Flaw> {
    let used = guest.queue().used_index()?;
    guest.add(1)?;
    guest.queue().publish()?;
    guest.queue().kick()?;
    std::thread::sleep(QUIET);
    Ok(guest.queue().used_index()? != used)
}

fn disabled(trial: &Trial) -> Seen {
    negotiable(trial)?;
    if trial.facts.device_type == Some(DeviceType::Net) {
        return not_tried("a disabled virtqueue of a network device has its frames discarded");
    }
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    enable(&mut guest, false)?;
    if is_served(&mut guest)? {
        return fails("the request is done");
    }
    enable(&mut guest, true)?;
    guest.finish()?;
    Ok("a request waits until the virtqueue is enabled".into())
}

fn event() -> Result<OwnedFd, Flaw> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn kick_replaced(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let kick = event()?;
    let ring = guest.work.ring;
    let request = FrontendReq::SET_VRING_KICK;
    guest
        .session
        .set_vring_fd(request, ring, Some(kick.as_fd()))?;
    guest.session.get_u64(FrontendReq::GET_FEATURES)?;
    for _ in 0..2 {
        guest.add(1)?;
        guest.queue().publish()?;
        rustix::io::write(&kick, &1_u64.to_ne_bytes())?;
        guest.finish()?;
    }
    Ok("the new one is heard".into())
}

fn call_replaced(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let call = event()?;
    let ring = guest.work.ring;
    let request = FrontendReq::SET_VRING_CALL;
    guest
        .session
        .set_vring_fd(request, ring, Some(call.as_fd()))?;
    guest.session.get_u64(FrontendReq::GET_FEATURES)?;
    guest.add(1)?;
    guest.queue().submit()?;
    match trial.deadline.ready(&call, PollFlags::IN)? {
        true => Ok("the new one is signalled".into()),
        false => fails("the new one is not signalled"),
    }
}

fn queue_sizes(trial: &Trial) -> Seen {
    for size in [4, 128] {
        let mut guest = Guest::connect_with(trial, size, |session| {
            Ok(session.negotiate(Session::usual_protocol_features())?)
        })?;
        guest.run()?;
        for _ in 0..6 {
            guest.work(1)?;
        }
        drop(guest);
    }
    Ok("4 and 128 entries".into())
}

/// A guest that takes one more feature.
fn with_feature(trial: &Trial, feature: u64, name: &str) -> Result<Guest, Flaw> {
    trial.form()?;
    if trial.facts.features & feature == 0 {
        return not_tried(format!("not offered: {name}"));
    }
    let mut guest = Guest::connect(trial)?;
    guest.features |= feature;
    if feature == EVENT_IDX {
        for queue in &mut guest.queues {
            *queue = Queue::new(&guest.memory, queue.size(), true)?;
        }
    }
    guest.run()?;
    Ok(guest)
}

fn indirect(trial: &Trial) -> Seen {
    let mut guest = with_feature(trial, INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC")?;
    for _ in 0..3 {
        guest.add_indirect()?;
        guest.queue().submit()?;
        guest.finish()?;
    }
    Ok("3 requests are done".into())
}

fn event_idx(trial: &Trial) -> Seen {
    let mut guest = with_feature(trial, EVENT_IDX, "VIRTIO_F_EVENT_IDX")?;
    for _ in 0..4 {
        let next = guest.queue().used_index()?;
        guest.queue().set_used_event(next)?;
        guest.queue().notifications()?;
        guest.add(1)?;
        guest.queue().submit()?;
        if !trial
            .deadline
            .ready(guest.queue().call_fd(), PollFlags::IN)?
        {
            return fails(format!("no notification as the used index passes {next}"));
        }
        guest.finish()?;
    }
    guest.work(5)?;
    Ok("9 requests are done, with kicks and notifications as told".into())
}
