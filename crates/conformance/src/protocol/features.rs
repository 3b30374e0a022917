// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Feature bits and protocol features.

use conventions::DeviceType;
use frontend::features::{PROTOCOL_FEATURES, VERSION_1};
use frontend::{FrontendReq, Offer, VhostUserProtocolFeatures as Protocol};

use crate::guest::{Guest, QUEUE_SIZE};
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::Trial;
use crate::work::Work;

const TYPES: &str = "vhost-user.rst, Front-end message types";

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/get-features",
        TYPES,
        "GET_FEATURES is answered with a number of 64 bits, the same each time.",
        get_features,
    ),
    Point::recommended(
        "protocol/version-1",
        "virtio 1.2, 6.2",
        "VIRTIO_F_VERSION_1 is offered: no driver of a modern device starts without it.",
        version_1,
    ),
    Point::required(
        "protocol/protocol-features-early",
        TYPES,
        "A backend that offers protocol features answers GET_PROTOCOL_FEATURES and takes SET_PROTOCOL_FEATURES before \
         SET_FEATURES.",
        early,
    ),
    Point::recommended(
        "protocol/mq",
        "vhost-user.rst, Multiple queue support",
        "The protocol feature MQ is offered, also by a device with a fixed number of virtqueues.",
        mq,
    ),
    Point::required(
        "protocol/queue-num",
        "vhost-user.rst, Multiple queue support",
        "GET_QUEUE_NUM tells at least as many virtqueues as a driver of the device sets up.",
        queue_num,
    )
    .offering(Protocol::MQ),
    Point::required(
        "protocol/without-protocol-features",
        "vhost-user.rst, Ring states",
        "When SET_FEATURES leaves out the bit of protocol features, all virtqueues are enabled at once, without \
         SET_VRING_ENABLE.",
        without,
    ),
    Point::recommended(
        "protocol/reset-owner",
        TYPES,
        "The deprecated RESET_OWNER does not end the connection or forget its state.",
        reset_owner,
    ),
];

fn get_features(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let session = &mut served.session;
    let [first, second] = [0, 1].map(|_| session.get_u64(FrontendReq::GET_FEATURES));
    let (first, second) = (first?, second?);
    match first == second {
        true => Ok(format!("{first:#x}")),
        false => fails(format!("first {first:#x}, then {second:#x}")),
    }
}

fn version_1(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let session = &mut served.session;
    match session.get_u64(FrontendReq::GET_FEATURES)? {
        features if features & VERSION_1 != 0 => Ok(format!("{features:#x}")),
        features => fails(format!("{features:#x}")),
    }
}

fn early(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let session = &mut served.session;
    if session.get_u64(FrontendReq::GET_FEATURES)? & PROTOCOL_FEATURES == 0 {
        return not_tried("it offers no protocol features");
    }
    let bits = session.get_u64(FrontendReq::GET_PROTOCOL_FEATURES)?;
    session.set_protocol_features(Protocol::from_bits_truncate(bits) & Protocol::MQ)?;
    session.get_u64(FrontendReq::GET_FEATURES)?;
    let names = Protocol::from_bits_truncate(bits);
    let names: Vec<_> = names.iter_names().map(|(name, _)| name).collect();
    Ok(names.join(", "))
}

fn mq(trial: &Trial) -> Seen {
    let facts = &trial.facts;
    trial.form()?;
    match facts.protocol_features.contains(Protocol::MQ) {
        true => Ok("offered".into()),
        false if facts.features & PROTOCOL_FEATURES == 0 => {
            not_tried("it offers no protocol features")
        }
        false => fails("not offered"),
    }
}

fn queue_num(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    let session = &mut served.session;
    session.get_u64(FrontendReq::GET_FEATURES)?;
    session.set_protocol_features(Protocol::MQ)?;
    let told = session.get_u64(FrontendReq::GET_QUEUE_NUM)?;
    let least = match trial.facts.device_type {
        // DPDK counts a network device's virtqueues in pairs, and QEMU compares its pairs with the answer.
        Some(DeviceType::Net) | None => 1,
        Some(device_type) => Work::of(device_type).map_or(1, |work| u64::from(work.queues)),
    };
    match told >= least {
        true => Ok(told.to_string()),
        false => fails(format!("{told}, and a driver sets up {least}")),
    }
}

fn without(trial: &Trial) -> Seen {
    let mut guest = Guest::connect_with(trial, QUEUE_SIZE, |session| {
        let features = session.get_u64(FrontendReq::GET_FEATURES)?;
        session.request(FrontendReq::SET_OWNER, &[], &[])?;
        Ok(Offer {
            features,
            protocol_features: Protocol::empty(),
            queues: 1,
        })
    })?;
    guest.features &= !PROTOCOL_FEATURES;
    guest.run()?;
    guest.work(2)?;
    Ok("2 requests are done".into())
}

fn reset_owner(trial: &Trial) -> Seen {
    let mut guest = Guest::connect(trial)?;
    guest.session.acknowledge = false;
    guest.session.request(FrontendReq::RESET_OWNER, &[], &[])?;
    guest.session.get_u64(FrontendReq::GET_FEATURES)?;
    guest.run()?;
    guest.work(1)?;
    Ok("the connection goes on".into())
}

/// That a backend offers protocol features: the rest depends on it.
pub(super) fn negotiable(trial: &Trial) -> Result<(), Flaw> {
    trial.form()?;
    match trial.facts.features & PROTOCOL_FEATURES {
        0 => not_tried("it offers no protocol features"),
        _ => Ok(()),
    }
}
