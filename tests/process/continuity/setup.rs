// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All messages of a front-end, acknowledged or not, with typing between them.

use frontend::events::EventsClient;
use frontend::input::{Event, Input, InputOptions, Select};
use frontend::{FrontendReq, Memory, Queue, Result, Session, VhostUserProtocolFeatures};

use super::input::{expect, expect_leds, key, options};
use super::scenario::{Paths, Scenario, Seen};

/// As QEMU, which asks for few acknowledgements.
pub(super) const UNACKNOWLEDGED: Scenario = Scenario {
    name: "set-up",
    options,
    play: |paths, seen| play(paths, seen, false),
};

/// With an acknowledgement of each message.
pub(super) const ACKNOWLEDGED: Scenario = Scenario {
    name: "acknowledged set-up",
    options,
    play: |paths, seen| play(paths, seen, true),
};

/// The VM pauses while a key is down: the stop of a ring that is carried out again finds a driver that was told again
/// what is pressed.
pub(super) const PAUSED: Scenario = Scenario {
    name: "pause with a key down",
    options,
    play: |paths, seen| {
        let (mut input, mut client) = start(paths, seen, true)?;
        client.send(&[key(7, 1), Event::report()])?;
        expect(seen, &mut input, 1)?;
        for _ in 0..2 {
            pause(seen, &mut input)?;
            // It is told again what is pressed.
            expect(seen, &mut input, 1)?;
            press(seen, &mut input, &mut client, 8)?;
        }
        client.send(&[key(7, 0), Event::report()])?;
        expect(seen, &mut input, 1)?;
        seen.leave();
        drop(input);
        Ok(())
    },
};

/// Starts a ring where it was stopped, as after a pause of the VM.
fn resume(session: &mut Session, index: u32, queue: &Queue, base: u16) -> Result<()> {
    let size = queue.size().into();
    session.set_vring_state(FrontendReq::SET_VRING_NUM, index, size)?;
    session.set_vring_state(FrontendReq::SET_VRING_BASE, index, base.into())?;
    let [descriptors, available, used] = queue
        .addresses()
        .map(|address| queue.memory().user_address(address));
    session.set_vring_addresses(index, descriptors, available, used)?;
    session.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(queue.call_fd()))?;
    session.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(queue.kick_fd()))?;
    session.enable_queue(index, true)
}

/// A guest whose driver runs, and a console.
fn start(paths: &Paths, seen: &mut Seen, acknowledge: bool) -> Result<(Input, EventsClient)> {
    let mut session = seen.connect(&paths.vhost_user)?;
    session.acknowledge = acknowledge;
    let wanted =
        Session::usual_protocol_features() | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let offer = session.negotiate(wanted)?;
    seen.add(format!("{:#x} {}", offer.features, offer.queues));
    seen.add(format!("{:?}", offer.protocol_features));
    let slots = session.get_u64(FrontendReq::GET_MAX_MEM_SLOTS)?;
    seen.add(format!("{slots} slots"));
    let memory = Memory::with_size(1 << 20)?;
    let further = Memory::new(&[(4 << 30, 1 << 20)])?;
    let further = further.regions()[0];
    let mut input = Input::on(session, offer, &memory, InputOptions::default())?;
    input.session.set_memory(&memory)?;
    input.session.add_region(&further)?;
    for queue in 0..2 {
        let error = memory_event()?;
        let error = std::os::fd::AsFd::as_fd(&error);
        input
            .session
            .set_vring_fd(FrontendReq::SET_VRING_ERR, queue, Some(error))?;
    }
    input.run()?;
    let mut client = EventsClient::connect(&paths.events)?;
    expect_leds(&mut client, [0, 0, 0])?;
    Ok((input, client))
}

/// All rings stop, and start where they were.
fn pause(seen: &mut Seen, input: &mut Input) -> Result<()> {
    let bases = [0, 1].map(|queue| input.session.stop_queue(queue));
    let [events, status] = bases;
    let (events, status) = (events?, status?);
    seen.add(format!("stopped at {events} and {status}"));
    let memory = input.events.memory().clone();
    let Input {
        session,
        events: events_queue,
        status: status_queue,
        ..
    } = input;
    session.set_memory(&memory)?;
    resume(session, 0, events_queue, events)?;
    resume(session, 1, status_queue, status)
}

fn play(paths: &Paths, seen: &mut Seen, acknowledge: bool) -> Result<()> {
    let (mut input, mut client) = start(paths, seen, acknowledge)?;
    let memory = input.events.memory().clone();
    let further = Memory::new(&[(4 << 30, 1 << 20)])?;
    let further = further.regions()[0];
    synchronize(&mut input)?;
    press(seen, &mut input, &mut client, 2)?;

    // The memory changes while rings run.
    for _ in 0..2 {
        input.session.add_region(&further)?;
        synchronize(&mut input)?;
        press(seen, &mut input, &mut client, 3)?;
        input.session.remove_region(&further)?;
        synchronize(&mut input)?;
        press(seen, &mut input, &mut client, 4)?;
    }
    input.session.set_memory(&memory)?;
    seen.add(format!("{:?}", input.config(Select::EvBits, 17)?));

    // Interrupts are masked and unmasked.
    let Input {
        session, events, ..
    } = &mut input;
    session.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, None)?;
    session.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(events.call_fd()))?;
    synchronize(&mut input)?;
    press(seen, &mut input, &mut client, 5)?;

    // A ring is disabled and enabled.
    input.session.enable_queue(0, false)?;
    seen.add(input.name()?);
    input.session.enable_queue(0, true)?;
    synchronize(&mut input)?;
    press(seen, &mut input, &mut client, 6)?;

    // The VM pauses, with an LED on.
    input.send_status(&[Event::new(17, 1, 1), Event::report()])?;
    expect_leds(&mut client, [0, 1, 0])?;
    for _ in 0..2 {
        pause(seen, &mut input)?;
        press(seen, &mut input, &mut client, 8)?;
    }
    let features = input.session.get_u64(FrontendReq::GET_FEATURES)?;
    seen.add(format!("{features:#x}"));
    seen.leave();
    drop(input);
    Ok(())
}

/// Types a key. The release waits for the press: a device whose worker has not seen yet that rings run tells a driver
/// what is pressed, and nothing that has been released.
fn press(seen: &mut Seen, input: &mut Input, client: &mut EventsClient, code: u16) -> Result<()> {
    for value in [1, 0] {
        client.send(&[key(code, value), Event::report()])?;
        expect(seen, input, 1)?;
    }
    Ok(())
}

/// Waits until all that was sent is done: what is typed before would be told in another way.
fn synchronize(input: &mut Input) -> Result<()> {
    input.session.get_u64(FrontendReq::GET_FEATURES).map(drop)
}

/// A descriptor that nobody writes to.
fn memory_event() -> Result<std::os::fd::OwnedFd> {
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    rustix::event::eventfd(0, flags).map_err(|e| frontend::Error::Io {
        what: "an eventfd".into(),
        source: e.into(),
    })
}
