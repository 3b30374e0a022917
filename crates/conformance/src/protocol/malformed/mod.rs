// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages and virtqueues that no front-end sends: the backend may refuse them and end the connection, but not crash,
//! hang or leak. A VMM that a guest has taken over sends what it likes.

mod leaks;
mod messages;
mod tables;
mod virtqueues;

use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};

use frontend::{FrontendReq as Req, Session, VhostUserProtocolFeatures as Protocol};
use rustix::event::{EventfdFlags, eventfd};

use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::trial::{Served, Started, Trial};

pub(in crate::protocol) use leaks::resources;

const HEADER: &str = "vhost-user.rst, Header";
const COMMUNICATION: &str = "vhost-user.rst, Communication";
const VERSION: u32 = 1;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/malformed-request",
        HEADER,
        "A request that does not exist is refused or ends the connection; it does not crash or hang the backend.",
        messages::requests,
    ),
    Point::required(
        "protocol/malformed-version",
        HEADER,
        "A message of another version, or with the flag of a reply, does not crash or hang the backend.",
        messages::versions,
    ),
    Point::required(
        "protocol/malformed-size",
        HEADER,
        "A message that is shorter or longer than its request's, or says so, does not crash or hang the backend.",
        messages::sizes,
    ),
    Point::required(
        "protocol/malformed-descriptors",
        COMMUNICATION,
        "A message with missing, surplus or unfit descriptors does not crash or hang the backend.",
        tables::descriptors,
    ),
    Point::required(
        "protocol/malformed-index",
        "vhost-user.rst, Front-end message types",
        "A message about a virtqueue that does not exist does not crash or hang the backend.",
        virtqueues::indices,
    ),
    Point::required(
        "protocol/malformed-queue-size",
        "virtio 1.2, 2.7",
        "A virtqueue of 0, 3 or more than 32768 entries does not crash or hang the backend.",
        virtqueues::queue_sizes,
    ),
    Point::required(
        "protocol/malformed-memory",
        "vhost-user.rst, VHOST_USER_SET_MEM_TABLE",
        "A memory table with too many regions, or with regions that are empty, overlap, or lie beyond their file or the \
         address space, does not crash or hang the backend.",
        tables::memory,
    ),
    Point::required(
        "protocol/malformed-addresses",
        "vhost-user.rst, VHOST_USER_SET_VRING_ADDR",
        "A virtqueue that lies outside the memory, or has no place, does not crash or hang the backend when it is started \
         and kicked.",
        virtqueues::addresses,
    ),
    Point::required(
        "protocol/malformed-config",
        "vhost-user.rst, VHOST_USER_SET_CONFIG",
        "GET_CONFIG and SET_CONFIG whose size is not that of their payload, or that reach beyond the configuration, do not \
         crash or hang the backend.",
        messages::config,
    )
    .offering(Protocol::CONFIG),
    Point::required(
        "protocol/malformed-ring",
        "virtio 1.2, 2.7",
        "A virtqueue with an available index far ahead, heads and chains that do not exist, loops, and buffers outside the \
         memory do not crash or hang the backend.",
        virtqueues::rings,
    ),
    Point::required(
        "protocol/leak-descriptors",
        COMMUNICATION,
        "Descriptors that come with a message that takes none are closed.",
        leaks::leaked_descriptors,
    ),
    Point::required(
        "protocol/leak-connections",
        COMMUNICATION,
        "A connection that ended leaves no descriptors and mappings behind in a backend that serves the next one.",
        leaks::leaked_connections,
    ),
    Point::required(
        "protocol/leak-memory",
        COMMUNICATION,
        "A connection that ended leaves no memory behind in a backend that serves the next one.",
        leaks::leaked_memory,
    ),
    Point::required(
        "protocol/leak-drivers",
        "vhost-user.rst, Ring states",
        "Drivers that begin anew, as those of a guest that boots again and again, leave no descriptors, mappings and memory \
         behind.",
        leaks::leaked_drivers,
    ),
];

/// That the backend has not crashed, and answers, or has ended the connection.
pub(super) fn survived(trial: &Trial, served: &mut Served, what: &str) -> Result<(), Flaw> {
    let Served { session, started } = served;
    alive(trial, session, started, what)
}

fn alive(
    trial: &Trial,
    session: &mut Session,
    started: &mut Started,
    what: &str,
) -> Result<(), Flaw> {
    session.channel.limit = trial.left();
    let answer = session
        .channel
        .send(Req::GET_FEATURES.into(), VERSION, &[], &[]);
    let answer = answer.and_then(|()| {
        // An acknowledgement, or the answer to what was malformed, may come before: but not for ever, as no message is
        // received after the trial's end.
        loop {
            if session.channel.receive()?.request == u32::from(Req::GET_FEATURES) {
                return Ok(());
            }
        }
    });
    match answer {
        Ok(()) => {}
        Err(error) if error.is_timeout() => return fails(format!("{what}: it hangs")),
        // The connection is over, in whatever way.
        Err(_) => started.not_crashed(trial, what)?,
    }
    Ok(())
}

/// Sends each message to a program of its own; it may leave the stream in the middle of a message, so that nothing is
/// asked on this connection any more.
fn try_each<'a>(
    trial: &Trial,
    cases: impl IntoIterator<Item = (String, Vec<u8>, Vec<BorrowedFd<'a>>)>,
) -> Seen {
    let mut count = 0;
    for (what, bytes, fds) in cases {
        let mut served = trial.serve()?;
        served.session.negotiate(everything())?;
        // A backend that has enough closes the socket under the message.
        match served.session.channel.send_bytes(&bytes, &fds) {
            Err(error) if error.is_timeout() => return fails(format!("{what}: it reads no more")),
            _ => {}
        }
        let Served {
            session,
            mut started,
        } = served;
        // What it still answers is not to meet a closed socket: that is another matter. It fails if the backend has
        // closed its end.
        let _ = session.channel.socket().shutdown(Shutdown::Write);
        started
            .left(trial, false)
            .map_err(|flaw| named(flaw, &what))?;
        count += 1;
    }
    Ok(format!("{count} cases"))
}

fn named(flaw: Flaw, what: &str) -> Flaw {
    match flaw {
        Flaw::Fails(seen) => Flaw::Fails(format!("{what}: {seen}")),
        other => other,
    }
}

fn everything() -> Protocol {
    Session::usual_protocol_features()
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::INFLIGHT_SHMFD
        | Protocol::BACKEND_REQ
        | Protocol::RESET_DEVICE
}

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, body.len() as u32]
        .map(u32::to_ne_bytes)
        .concat();
    [&header, body].concat()
}

fn event() -> Result<OwnedFd, Flaw> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}
