// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The orders in which VMMs set a device up.

use conventions::DeviceType;
use frontend::VhostUserProtocolFeatures as Protocol;
use frontend::vmm::FrontEnd;

use super::features::negotiable;
use crate::guest::Guest;
use crate::outcome::{Flaw, Seen};
use crate::point::Point;
use crate::trial::Trial;

const MESSAGES: &str = "vhost-user.rst, Front-end message types; the VMM's source";

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "protocol/order-qemu-7.2",
        MESSAGES,
        "A device set up, reset and set up again by the messages of QEMU 7.2 serves its driver.",
        |trial| order(trial, FrontEnd::Qemu7),
    ),
    Point::required(
        "protocol/order-qemu-10",
        MESSAGES,
        "A device set up, reset and set up again by the messages of QEMU 10.0 to 11.1 serves its driver.",
        |trial| order(trial, FrontEnd::Qemu10),
    ),
    Point::recommended(
        "protocol/order-libkrun",
        MESSAGES,
        "A device set up by the messages of libkrun, which asks for features and configuration before SET_OWNER, serves \
         its driver.",
        |trial| order(trial, FrontEnd::Libkrun),
    ),
    Point::recommended(
        "protocol/order-cloud-hypervisor",
        MESSAGES,
        "A device set up, reset and set up again by the messages of Cloud Hypervisor, which sets addresses before the \
         base, serves its driver.",
        |trial| order(trial, FrontEnd::CloudHypervisor),
    ),
    Point::recommended(
        "protocol/order-openvmm",
        MESSAGES,
        "A device set up, reset and set up again by the messages of openvmm, whose addresses lie beyond 2^52, serves its \
         driver.",
        |trial| order(trial, FrontEnd::OpenVmm),
    ),
    Point::recommended(
        "protocol/order-crosvm",
        MESSAGES,
        "A device set up, reset and set up again by the messages of crosvm, whose virtqueues may have 32768 entries, \
         serves its driver.",
        |trial| order(trial, FrontEnd::Crosvm),
    ),
];

fn order(trial: &Trial, vmm: FrontEnd) -> Seen {
    negotiable(trial)?;
    let device_type = trial.device_type()?;
    let queues = Guest::queues_of(trial)?;
    let mut guest = Guest::connect_with(trial, vmm.queue_size(), |session| {
        let offer = vmm.connect(session, queues)?;
        let has_config = super::config::TYPES.contains(&device_type)
            && offer.protocol_features.contains(Protocol::CONFIG);
        if vmm == FrontEnd::Libkrun && has_config {
            // Before SET_OWNER.
            session.config(0, 8)?;
        }
        Ok(offer)
    })?;
    for again in [false, true] {
        if again {
            vmm.reset(&mut guest.session, queues)?;
            if vmm == FrontEnd::Libkrun {
                // Its reset stops no virtqueue, and a driver that begins anew is more than most backends notice.
                return Ok("served".into());
            }
            guest.begin_anew()?;
        }
        let all: Vec<_> = guest.queues.iter().collect();
        let is_qemu = matches!(vmm, FrontEnd::Qemu7 | FrontEnd::Qemu10);
        if is_qemu && device_type == DeviceType::Block {
            vmm.share_inflight(&mut guest.session, guest.features, &all)?;
        }
        vmm.start(
            &mut guest.session,
            (&guest.memory, guest.features),
            &all,
            again,
        )?;
        // A guest's driver takes longer than a VMM.
        guest.session.settle()?;
        // One by one: a virtqueue of QEMU 10 may have 4 entries.
        let worked = guest.work(1).and_then(|()| guest.work(1));
        worked.map_err(|flaw| match flaw {
            Flaw::Fails(seen) if again => Flaw::Fails(format!("after the reset: {seen}")),
            other => other,
        })?;
    }
    Ok("served, reset and served again".into())
}
