// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replies: those that a message has, and acknowledgements.

use std::os::fd::AsFd as _;

use frontend::{FrontendReq, Message, Session, VhostUserProtocolFeatures as Protocol};
use rustix::event::{EventfdFlags, eventfd};

use super::features::negotiable;
use crate::guest::{Guest, QUEUE_SIZE};
use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::trial::{Served, Trial};

const HEADER: &str = "vhost-user.rst, Header";
const REPLY_ACK: &str = "vhost-user.rst, VHOST_USER_PROTOCOL_F_REPLY_ACK";
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/reply-header",
        HEADER,
        "A reply has the number of its request, version 1 and the reply flag.",
        header,
    ),
    Point::required(
        "protocol/reply-ack",
        REPLY_ACK,
        "With REPLY_ACK negotiated each message with need_reply that has no reply of its own is answered with a number, 0 \
         for success.",
        acknowledged,
    )
    .offering(Protocol::REPLY_ACK),
    Point::required(
        "protocol/reply-ack-own",
        REPLY_ACK,
        "A message that has a reply of its own is answered by that alone, also with need_reply.",
        own,
    )
    .offering(Protocol::REPLY_ACK),
    Point::required(
        "protocol/reply-ack-error",
        REPLY_ACK,
        "With REPLY_ACK negotiated a message that cannot be executed is answered with a number other than 0, or ends the \
         connection: the front-end relies on what is acknowledged.",
        error,
    )
    .offering(Protocol::REPLY_ACK),
    Point::required(
        "protocol/reply-ack-unasked",
        REPLY_ACK,
        "A message without need_reply that has no reply of its own is not answered.",
        unasked,
    ),
];

fn header(trial: &Trial) -> Seen {
    let served = trial.serve()?;
    let session = &served.session;
    session
        .channel
        .send(FrontendReq::GET_FEATURES.into(), VERSION, &[], &[])?;
    let reply = session.channel.receive()?;
    let (request, flags) = (reply.request, reply.flags);
    match is_reply(&reply, FrontendReq::GET_FEATURES, 8) {
        true => Ok(format!("flags {flags:#x}")),
        false => {
            let size = reply.body.len();
            fails(format!("request {request}, flags {flags:#x}, {size} bytes"))
        }
    }
}

/// Whether this is a reply to the request, with so many bytes: QEMU ends the connection for any other flags.
pub(super) fn is_reply(reply: &Message, request: FrontendReq, size: usize) -> bool {
    let is_right = reply.request == u32::from(request) && reply.flags == VERSION | REPLY;
    is_right && reply.body.len() == size
}

/// All messages by which a driver begins.
fn acknowledged(trial: &Trial) -> Seen {
    let mut guest = Guest::connect(trial)?;
    guest.session.acknowledge = true;
    guest.run()?;
    guest.work(1)?;
    Ok("features, memory and virtqueues are acknowledged".into())
}

/// A front-end that has negotiated, without a driver: this can be tried of every type.
fn negotiated(trial: &Trial) -> Result<Served, Flaw> {
    negotiable(trial)?;
    let mut served = trial.serve()?;
    served
        .session
        .negotiate(Session::usual_protocol_features())?;
    Ok(served)
}

fn own(trial: &Trial) -> Seen {
    let served = negotiated(trial)?;
    let channel = &served.session.channel;
    for request in [
        FrontendReq::GET_FEATURES,
        FrontendReq::GET_PROTOCOL_FEATURES,
    ] {
        channel.send(request.into(), VERSION | NEED_REPLY, &[], &[])?;
    }
    for expected in [
        FrontendReq::GET_FEATURES,
        FrontendReq::GET_PROTOCOL_FEATURES,
    ] {
        let mut reply = channel.receive()?;
        // libvhost-user leaves the flag of the question in the answer; no document forbids it.
        reply.flags &= !NEED_REPLY;
        if !is_reply(&reply, expected, 8) {
            return fails(format!(
                "request {} with flags {:#x} and {} bytes is the answer to {expected:?}",
                reply.request,
                reply.flags,
                reply.body.len()
            ));
        }
    }
    Ok("one reply each".into())
}

fn error(trial: &Trial) -> Seen {
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    let enable = [200_u32, 1].map(u32::to_ne_bytes).concat();
    let region = [0_u64, 1 << 16, 0x7000_0000_0000, 0].map(u64::to_ne_bytes);
    let table = [&1_u64.to_ne_bytes()[..], &region.concat()].concat();
    let cases = [
        (
            "SET_VRING_ENABLE of virtqueue 200",
            FrontendReq::SET_VRING_ENABLE,
            enable,
            None,
        ),
        (
            "SET_MEM_TABLE with an eventfd",
            FrontendReq::SET_MEM_TABLE,
            table,
            Some(event.as_fd()),
        ),
    ];
    let mut answers = Vec::new();
    for (what, request, body, fd) in cases {
        let mut served = negotiated(trial)?;
        let channel = &served.session.channel;
        channel.send(request.into(), VERSION | NEED_REPLY, &body, fd.as_slice())?;
        answers.push(match channel.receive() {
            Ok(reply) if reply.body == 0_u64.to_ne_bytes() => {
                return fails(format!("{what} is acknowledged with 0"));
            }
            Ok(reply) if !is_reply(&reply, request, 8) => {
                return fails(format!(
                    "{what} is answered by request {}, flags {:#x}, {} bytes",
                    reply.request,
                    reply.flags,
                    reply.body.len()
                ));
            }
            Ok(_) => "an error",
            Err(error) if error.is_closed() => {
                served.started.not_crashed(trial, what)?;
                "the end of the connection"
            }
            Err(error) => return fails(format!("{what}: {error}")),
        });
    }
    answers.dedup();
    Ok(format!("answered with {}", answers.join(", ")))
}

fn unasked(trial: &Trial) -> Seen {
    negotiable(trial)?;
    let mut guest = Guest::connect_with(trial, QUEUE_SIZE, |session| {
        session.acknowledge = false;
        Ok(session.negotiate(Session::usual_protocol_features())?)
    })?;
    guest.run()?;
    // A stray reply would come first.
    guest.session.get_u64(FrontendReq::GET_FEATURES)?;
    Ok("no message but GET_FEATURES is answered".into())
}
