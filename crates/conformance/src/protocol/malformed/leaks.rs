// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What messages, connections and drivers leave behind.

use std::os::fd::AsFd as _;
use std::time::Duration;

use frontend::{FrontendReq as Req, VhostUserProtocolFeatures as Protocol};

use super::{VERSION, event};
use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::process::{Backend, Resources};
use crate::trial::{Served, Trial};

/// How often something is done before it is counted: the first times fill what is kept for the next.
const FIRST: usize = 8;
/// How often it is done then.
const TIMES: usize = 32;
/// What each time may leave behind, in KiB: allocators give back late.
const MEMORY: usize = 24;

pub(in crate::protocol) fn resources(backend: &Backend) -> Result<Resources, Flaw> {
    match backend.resources() {
        Ok(resources) => Ok(resources),
        Err(error) => not_tried(format!("its resources cannot be seen: {error}")),
    }
}

pub(super) fn leaked_descriptors(trial: &Trial) -> Seen {
    const TIMES: usize = 40;
    let mut served = trial.serve()?;
    let offer = served.session.negotiate(Protocol::empty())?;
    let features = offer.features.to_ne_bytes();
    let event = event()?;
    let count = |served: &mut Served| -> Result<Option<usize>, Flaw> {
        match served.session.get_u64(Req::GET_FEATURES) {
            Ok(_) => Ok(Some(resources(&served.started.backend)?.descriptors)),
            Err(error) if error.is_timeout() => fails("it hangs"),
            // It ends the connection: nothing is left of that.
            Err(_) => Ok(None),
        }
    };
    let Some(before) = count(&mut served)? else {
        return fails("GET_FEATURES ends the connection");
    };
    for _ in 0..TIMES {
        let fds = [event.as_fd(); 3];
        if served
            .session
            .channel
            .send(Req::SET_FEATURES.into(), VERSION, &features, &fds)
            .is_err()
        {
            break;
        }
    }
    let Some(after) = count(&mut served)? else {
        served
            .started
            .not_crashed(trial, "descriptors with SET_FEATURES")?;
        return Ok("they end the connection".into());
    };
    match after < before + TIMES {
        true => Ok(format!(
            "{before} descriptors before, {after} after {TIMES} times 3"
        )),
        false => fails(format!(
            "{before} descriptors before, {after} after {TIMES} times 3"
        )),
    }
}

/// What a program holds after some connections, and after many more; none if it ends with its front-end.
fn connections(trial: &Trial) -> Result<Option<[Resources; 2]>, Flaw> {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    if !guest.started.can_connect_again() {
        return not_tried("it is served by a connected socket only");
    }
    let mut before = None;
    for number in 1..=FIRST + TIMES {
        let Guest {
            session,
            mut started,
            ..
        } = guest;
        drop(session);
        // One that ends does so at its first one.
        let moment = Duration::from_millis(if number == 1 { 300 } else { 0 });
        let end = started
            .backend
            .wait_end(&frontend::Deadline::after(moment))?;
        match end {
            None => {}
            Some(_) if number == 1 => return Ok(None),
            Some(end) => {
                started.not_crashed(trial, &format!("connection {number}"))?;
                return fails(format!("after {number} connections it ends with {end}"));
            }
        }
        let session = started.session(trial)?;
        guest = Guest::on(trial, Served { session, started })?;
        guest.run()?;
        guest.work(1)?;
        if number == FIRST {
            before = Some(resources(&guest.started.backend)?);
        }
    }
    let after = resources(&guest.started.backend)?;
    Ok(before.map(|before| [before, after]))
}

const ENDS: &str = "it ends with its front-end";

pub(super) fn leaked_connections(trial: &Trial) -> Seen {
    match connections(trial)? {
        None => Ok(ENDS.into()),
        Some([before, after]) => descriptors(before, after, "connections"),
    }
}

pub(super) fn leaked_memory(trial: &Trial) -> Seen {
    match connections(trial)? {
        None => Ok(ENDS.into()),
        Some([before, after]) => memory(before, after, "connections"),
    }
}

/// A guest that boots again and again.
pub(super) fn leaked_drivers(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    let mut again = || -> Result<Resources, Flaw> {
        guest.stop_queues()?;
        guest.begin_anew()?;
        guest.run()?;
        guest.work(1)?;
        resources(&guest.started.backend)
    };
    if let Err(Flaw::Fails(seen)) = again() {
        return not_tried(format!("the second driver is not served: {seen}"));
    }
    let mut before = again()?;
    for _ in 0..FIRST {
        before = again()?;
    }
    let mut after = before;
    for _ in 0..TIMES {
        after = again()?;
    }
    let seen = descriptors(before, after, "drivers")?;
    Ok(format!("{seen}; {}", memory(before, after, "drivers")?))
}

fn descriptors(before: Resources, after: Resources, of: &str) -> Seen {
    for (what, before, after) in [
        ("descriptors", before.descriptors, after.descriptors),
        ("mappings", before.mappings, after.mappings),
    ] {
        if after >= before + TIMES / 2 {
            return fails(format!("{before} {what}, {after} after {TIMES} more {of}"));
        }
    }
    let (before, after) = (before.descriptors, after.descriptors);
    Ok(format!(
        "{before} descriptors, {after} after {TIMES} more {of}"
    ))
}

fn memory(before: Resources, after: Resources, of: &str) -> Seen {
    let (before, after) = (before.memory, after.memory);
    let seen = format!("{before} KiB, {after} KiB after {TIMES} more {of}");
    match after < before + TIMES * MEMORY {
        true => Ok(seen),
        false => fails(seen),
    }
}
