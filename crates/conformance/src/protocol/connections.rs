// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connections and the stream of messages.

use std::time::Duration;

use frontend::{FrontendReq, Session, VhostUserProtocolFeatures as Protocol};

use super::replies::is_reply;
use crate::guest::{Guest, QUEUE_SIZE};
use crate::outcome::{Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::Trial;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/messages-together",
        "vhost-user.rst, Header",
        "Messages that come in one piece of the stream are executed one after the other.",
        together,
    ),
    Point::recommended(
        "protocol/message-in-pieces",
        "vhost-user.rst, Header",
        "A message that comes in several pieces of the stream is put together.",
        in_pieces,
    ),
    Point::recommended(
        "protocol/second-connection",
        "vhost-user.rst, Communication",
        "A second front-end that connects does not disturb the first.",
        second,
    ),
    Point::required(
        "protocol/inflight",
        "vhost-user.rst, Inflight I/O tracking",
        "A backend that offers INFLIGHT_SHMFD answers GET_INFLIGHT_FD with a file of the size that it tells, and takes it \
         back by SET_INFLIGHT_FD.",
        inflight,
    )
    .offering(Protocol::INFLIGHT_SHMFD),
];

fn together(trial: &Trial) -> Seen {
    let served = trial.serve()?;
    let session = &served.session;
    let message = [1_u32, 1, 0].map(u32::to_ne_bytes).concat();
    session.channel.send_bytes(&message.repeat(3), &[])?;
    for number in 1..=3 {
        let reply = session.channel.receive()?;
        if !is_reply(&reply, FrontendReq::GET_FEATURES, 8) {
            return fails(format!("reply {number} is to request {}", reply.request));
        }
    }
    Ok("3 of 3 are answered".into())
}

fn in_pieces(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let session = &mut served.session;
    let features = session.get_u64(FrontendReq::GET_FEATURES)?;
    let set = [
        [2_u32, 1, 8].map(u32::to_ne_bytes).concat(),
        features.to_ne_bytes().to_vec(),
    ];
    let ask = [1_u32, 1, 0].map(u32::to_ne_bytes).concat();
    for piece in [set.concat(), ask].concat().chunks(6) {
        session.channel.send_bytes(piece, &[])?;
        // So that no read takes two of them.
        std::thread::sleep(Duration::from_millis(20));
    }
    let reply = session.channel.receive()?;
    match is_reply(&reply, FrontendReq::GET_FEATURES, 8) {
        true => Ok("messages in pieces of 6 bytes are executed".into()),
        false => fails(format!("the reply is to request {}", reply.request)),
    }
}

fn second(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    guest.work(1)?;
    if !guest.started.can_connect_again() {
        return not_tried("it is served by a connected socket only");
    }
    let path = crate::trial::sockets_beside(&trial.socket_path());
    let Some(path) = path.first() else {
        return Ok("nobody can connect any more".into());
    };
    let Ok(stream) = crate::trial::connect_now(path) else {
        return Ok("nobody can connect any more".into());
    };
    let mut other = Session::new(stream);
    other.channel.limit = Duration::from_millis(200);
    let turned_away = match other.get_u64(FrontendReq::GET_FEATURES) {
        Ok(_) => "served as well",
        Err(error) if error.is_timeout() => "kept waiting",
        Err(_) => "turned away",
    };
    guest.session.get_u64(FrontendReq::GET_FEATURES)?;
    guest.work(1)?;
    drop(other);
    guest.work(1)?;
    Ok(format!("the first goes on; the second is {turned_away}"))
}

fn inflight(trial: &Trial) -> Seen {
    let wanted = Session::usual_protocol_features() | Protocol::INFLIGHT_SHMFD;
    let mut guest =
        Guest::connect_with(trial, QUEUE_SIZE, |session| Ok(session.negotiate(wanted)?))?;
    guest.session.set_features(guest.features)?;
    let queues = guest.work.queues as u16;
    let mut body = vec![0; 16];
    body.extend(queues.to_ne_bytes());
    body.extend(QUEUE_SIZE.to_ne_bytes());
    // The structure ends at a multiple of 8 bytes.
    body.resize(24, 0);
    let mut reply = guest.session.call(FrontendReq::GET_INFLIGHT_FD, &body, &[]);
    if reply.is_err() {
        // Some take no padding.
        return fails(format!("GET_INFLIGHT_FD: {:?}", reply.err()));
    }
    let Ok(reply) = &mut reply else {
        return not_tried("no reply");
    };
    let number = |at: usize| {
        let bytes = reply.body.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (Some(size), Some(offset)) = (number(0), number(8)) else {
        return fails(format!("the reply has {} bytes", reply.body.len()));
    };
    let Some(fd) = reply.fds.pop() else {
        return fails("the reply has no descriptor");
    };
    let length = rustix::fs::fstat(&fd)?.st_size as u64;
    if size == 0 || offset.checked_add(size).is_none_or(|end| end > length) {
        return fails(format!("{size} bytes at {offset} of a file of {length}"));
    }
    let fds = [std::os::fd::AsFd::as_fd(&fd)];
    let body = reply.body.clone();
    guest
        .session
        .request(FrontendReq::SET_INFLIGHT_FD, &body, &fds)?;
    guest.session.set_memory(&guest.memory)?;
    guest.start_queues()?;
    guest.work(2)?;
    Ok(format!("{size} bytes"))
}
