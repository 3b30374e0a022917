// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtual keyboard: set-up, typing in pieces of any size, LEDs, a driver that is loaded again.

use frontend::events::EventsClient;
use frontend::input::{Event, Input, InputOptions};
use frontend::manager::ServiceOptions;
use frontend::{Memory, Result};
use harness::mock::codes::*;

use super::scenario::{Paths, Scenario, Seen};
use crate::common::input_program;

pub(super) const TYPING: Scenario = Scenario {
    name: "typing",
    options,
    play,
};

pub(super) fn options() -> ServiceOptions {
    ServiceOptions::new(input_program())
        .arg("--virtual=keyboard")
        .sockets(&["vhost-user", "events"])
}

pub(super) fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

/// A key pressed and released, each in a report.
pub(super) fn tap(code: u16) -> [Event; 4] {
    [key(code, 1), Event::report(), key(code, 0), Event::report()]
}

pub(super) fn bytes(events: &[Event]) -> Vec<u8> {
    let bytes = events.iter().map(|event| {
        let mut bytes = Vec::with_capacity(8);
        bytes.extend_from_slice(&event.kind.to_le_bytes());
        bytes.extend_from_slice(&event.code.to_le_bytes());
        bytes.extend_from_slice(&event.value.to_le_bytes());
        bytes
    });
    bytes.flatten().collect()
}

/// The guest gets these reports and nothing between them.
pub(super) fn expect(seen: &mut Seen, input: &mut Input, count: usize) -> Result<()> {
    for _ in 0..count {
        let report = input.next_report()?;
        let events = report.iter().map(|event| {
            let Event { kind, code, value } = *event;
            format!("{kind}:{code}:{value}")
        });
        seen.add(format!("guest: {}", events.collect::<Vec<_>>().join(" ")));
    }
    Ok(())
}

/// The console is told these LEDs. One that was told before may be told again.
pub(super) fn expect_leds(client: &mut EventsClient, on: [i32; 3]) -> Result<()> {
    let leds = (0..).zip(on).map(|(code, on)| Event::new(EV_LED, code, on));
    let wanted: Vec<_> = leds.chain([Event::report()]).collect();
    while client.next_report()? != wanted {}
    Ok(())
}

fn play(paths: &Paths, seen: &mut Seen) -> Result<()> {
    let session = seen.connect(&paths.vhost_user)?;
    let memory = Memory::with_size(1 << 20)?;
    let mut input = Input::connect(session, &memory, InputOptions::default())?;
    seen.add(input.name()?);
    seen.add(format!("{:?}", input.devids()?));
    seen.add(format!("LEDs {:?}", input.codes(EV_LED)?));
    input.run()?;
    let mut client = EventsClient::connect(&paths.events)?;
    expect_leds(&mut client, [0, 0, 0])?;

    // One at a time.
    for code in 2..8 {
        client.send(&[key(code, 1), Event::report()])?;
        expect(seen, &mut input, 1)?;
        client.send(&[key(code, 0), Event::report()])?;
        expect(seen, &mut input, 1)?;
    }
    // Many at once, in pieces that end within events.
    let many: Vec<_> = (16..28).flat_map(tap).collect();
    for piece in bytes(&many).chunks(37) {
        client.send_bytes(piece)?;
    }
    expect(seen, &mut input, 24)?;

    // The guest sets an LED while keys are typed.
    client.send(&tap(58))?;
    input.send_status(&[Event::new(EV_LED, 1, 1), Event::report()])?;
    expect_leds(&mut client, [0, 1, 0])?;
    expect(seen, &mut input, 2)?;
    let mut other = EventsClient::connect(&paths.events)?;
    expect_leds(&mut other, [0, 1, 0])?;

    // Its driver is loaded again, with a key down: it is told of that, and the LED is off.
    other.send(&[key(42, 1), Event::report()])?;
    expect(seen, &mut input, 1)?;
    // Where the events stop: see `setup::PAUSED`.
    input.session.stop_queue(0)?;
    seen.add(format!("stopped at {}", input.session.stop_queue(1)?));
    expect_leds(&mut client, [0, 0, 0])?;
    input.restart()?;
    expect(seen, &mut input, 1)?;
    client.send(&tap(30))?;
    expect(seen, &mut input, 2)?;
    input.send_status(&[Event::new(EV_LED, 0, 1), Event::report()])?;
    expect_leds(&mut client, [1, 0, 0])?;
    // A console that leaves lets its keys go.
    drop(other);
    expect(seen, &mut input, 1)?;
    client.send(&tap(31))?;
    expect(seen, &mut input, 2)?;
    seen.add(format!(
        "used: {}, {}; on their way: {}, {}",
        input.events.used_index()?,
        input.status.used_index()?,
        input.events.outstanding(),
        input.status.outstanding()
    ));
    seen.leave();
    drop(input);
    Ok(())
}
