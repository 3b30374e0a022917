// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Front-ends of several kinds set a device up, use it, stop it and begin again, while its processes die at any moment.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use frontend::manager::Service;
use frontend::{
    Buffer, DEFAULT_LIMIT, Deadline, FrontendReq, Memory, Queue, Session, VhostUserProtocolFeatures,
};

use super::ends::deaths;
use super::handover::rng;

/// VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 30;
const LENGTH: u32 = 16;
const ROUNDS: usize = 20;

/// A kind of front-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrontEnd {
    /// Memory by slots, eventfds before the virtqueues; stops by GET_VRING_BASE.
    Qemu,
    /// GET_FEATURES before SET_OWNER, memory before features; owns the device with each driver, and stops it by
    /// SET_VRING_ENABLE alone.
    Libkrun,
    /// Acknowledged messages, a table of memory.
    CloudHypervisor,
}

fn start(kind: FrontEnd, session: &mut Session, memory: &Memory, queue: &Queue, again: bool) {
    let regions = memory.regions();
    match kind {
        FrontEnd::Qemu => {
            session.set_features(FEATURES).unwrap();
            if !again {
                session.acknowledge = true;
                for region in &regions {
                    session.add_region(region).unwrap();
                }
                session.acknowledge = false;
            }
        }
        FrontEnd::Libkrun => {
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
            session.set_regions(&regions).unwrap();
            session.set_features(FEATURES).unwrap();
        }
        FrontEnd::CloudHypervisor => {
            session.acknowledge = true;
            session.set_features(FEATURES).unwrap();
            session.set_regions(&regions).unwrap();
        }
    }
    session.start_queue(0, queue).unwrap();
}

fn stop(kind: FrontEnd, session: &mut Session, used: u16) {
    session.enable_queue(0, false).unwrap();
    if kind != FrontEnd::Libkrun {
        assert_eq!(session.stop_queue(0).unwrap(), used, "{kind:?}");
    }
}

fn live(kind: FrontEnd, session: &mut Session) {
    let wanted =
        Session::usual_protocol_features() | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    if kind == FrontEnd::Libkrun {
        session.get_u64(FrontendReq::GET_FEATURES).unwrap();
        session
            .set_protocol_features(
                VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ,
            )
            .unwrap();
    } else {
        session.negotiate(wanted).unwrap();
    }
    let memory = Memory::with_size(1 << 20).unwrap();
    for round in 0..ROUNDS {
        let mut queue = Queue::new(&memory, 16, true).unwrap();
        start(kind, session, &memory, &queue, round > 0);
        for _ in 0..40 {
            let place = memory.alloc(u64::from(LENGTH), 8).unwrap();
            queue.add(&[Buffer::writable(place, LENGTH)]).unwrap();
            queue.submit().unwrap();
            let used = queue.wait_used(DEFAULT_LIMIT).unwrap();
            assert_eq!(used.len, LENGTH, "{kind:?}");
            assert!(queue.take_used().unwrap().is_none(), "{kind:?}");
        }
        let used = queue.used_index().unwrap();
        assert_eq!(used, 40, "{kind:?}");
        stop(kind, session, used);
    }
}

/// Kills one process after the other while `live` runs. Returns how many died.
fn kill_while(mut service: Service, session: &mut Session, kind: FrontEnd) -> (usize, Service) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut pause = 1_u64;
            while !over.load(Ordering::Relaxed) {
                // At another moment each time.
                pause = pause * 7 % 61;
                thread::sleep(Duration::from_millis(pause));
                // Ten that got nowhere are followed by one that gets somewhere: the twentieth gives the front-end up.
                if deaths(&service) > 10 {
                    let got_somewhere = || Ok((deaths(&service) == 0).then_some(()));
                    let limit = Deadline::after(DEFAULT_LIMIT);
                    limit.until("the program to serve", got_somewhere).unwrap();
                }
                service.kill_and_start().unwrap();
            }
            service
        });
        let lived = catch_unwind(AssertUnwindSafe(|| live(kind, session)));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = lived {
            resume_unwind(panic);
        }
        let service = killer.join().unwrap();
        (service.starts() - 1, service)
    })
}

#[test]
fn each_front_end_gets_through_its_life_over_many_deaths() {
    for kind in [FrontEnd::Qemu, FrontEnd::Libkrun, FrontEnd::CloudHypervisor] {
        let mut service = rng().start().unwrap();
        service.wait_ready().unwrap();
        let mut session = service.session().unwrap();
        // From the first answer on the connection is kept.
        session.get_u64(FrontendReq::GET_FEATURES).unwrap();
        let (deaths, service) = kill_while(service, &mut session, kind);
        eprintln!("{kind:?}: {deaths} deaths");
        assert!(deaths > 0, "{kind:?}");
        let log = service.log();
        for trouble in ["warn:", "error:"] {
            assert!(!log.contains(trouble), "{kind:?}: {log}");
        }
    }
}
