// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection of a front-end over the death of the process that serves it, with the library's example, whose device
//! has no state of its own.

use frontend::{
    Buffer, DEFAULT_LIMIT, FrontendReq, Memory, Notification, Queue, Session,
    VhostUserProtocolFeatures,
};

use frontend::manager::{Service, ServiceOptions};
use rustix::process::Signal;

use crate::common::*;

/// VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 30;
const QUEUE_SIZE: u16 = 16;
const LENGTH: u32 = 32;
/// Descriptors that the service manager keeps for a program.
const STORE: usize = 8;
pub(super) const KEPT: [&str; 4] = ["state", "images", "locker-in", "locker-out"];

pub(super) fn rng() -> ServiceOptions {
    ServiceOptions::new(rng_program())
        .sockets(&["vhost-user"])
        .store(STORE)
}

/// The driver's side of the device (virtio 1.2, 5.4).
pub(super) struct Driver {
    pub(super) session: Session,
    memory: Memory,
    queue: Queue,
}

impl Driver {
    pub(super) fn start(mut session: Session) -> Self {
        session
            .negotiate(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
            .unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        session.set_features(FEATURES).unwrap();
        session.set_memory(&memory).unwrap();
        Self::on(session, memory)
    }

    /// On a session that shares `memory`.
    fn on(mut session: Session, memory: Memory) -> Self {
        let queue = Queue::new(&memory, QUEUE_SIZE, true).unwrap();
        session.start_queue(0, &queue).unwrap();
        session.enable_queue(0, true).unwrap();
        Self {
            session,
            memory,
            queue,
        }
    }

    /// Sends a message with a descriptor, which has to be kept.
    pub(super) fn renew_call(&mut self) {
        let call = Some(self.queue.call_fd());
        let request = FrontendReq::SET_VRING_CALL;
        self.session.set_vring_fd(request, 0, call).unwrap();
    }

    fn ask(&mut self) {
        let place = self.memory.alloc(u64::from(LENGTH), 8).unwrap();
        self.queue.add(&[Buffer::writable(place, LENGTH)]).unwrap();
        self.queue.submit().unwrap();
    }

    pub(super) fn draw(&mut self) {
        self.ask();
        let used = self.queue.wait_used(DEFAULT_LIMIT).unwrap();
        assert_eq!(used.len, LENGTH);
    }
}

#[test]
fn front_end_does_not_notice_that_processes_die() {
    let mut service = rng().start().unwrap();
    service.wait_ready().unwrap();
    service.wait_kept(&KEPT).unwrap();
    let mut driver = Driver::start(service.session().unwrap());
    driver.draw();
    for round in 0..10_u64 {
        if round % 3 == 2 {
            assert!(Service::is_success(service.restart().unwrap()));
        } else {
            service.kill_and_start().unwrap();
        }
        for _ in 0..=round {
            driver.draw();
        }
        // A message, too.
        driver.session.get_u64(FrontendReq::GET_FEATURES).unwrap();
    }
    // A request that is made while no process is there.
    service.kill().unwrap();
    driver.ask();
    service.start().unwrap();
    driver.queue.wait_used(DEFAULT_LIMIT).unwrap();
    let took_over = "took over from the process before this one";
    service.wait_ready().unwrap();
    let says_so = |n: &&Notification| n.name == "STATUS" && n.value.contains(took_over);
    assert_eq!(service.notifications().iter().filter(says_so).count(), 11);
    drop(driver);
    let (status, again) = service.settle().unwrap();
    assert_eq!(
        (status.code(), again),
        (Some(0), false),
        "{}",
        service.log()
    );
}

/// As many as a front-end may share, with the limit on open files that most processes have. A process that takes over is
/// ready once it has all of them.
#[test]
fn all_memory_slots_are_carried_over_before_the_next_process_is_ready() {
    const SLOTS: u64 = 509;
    let limited = ["-c", "ulimit -Sn 1024 && exec \"$0\""];
    let mut service = ServiceOptions::new("/bin/sh")
        .args(limited)
        .arg(rng_program())
        .store(STORE)
        .start()
        .unwrap();
    let regions: Vec<_> = (0..SLOTS).map(|slot| (slot << 24, 0x10000)).collect();
    let memory = Memory::new(&regions).unwrap();
    let mut session = service.session().unwrap();
    let wanted =
        Session::usual_protocol_features() | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    session.negotiate(wanted).unwrap();
    session.set_features(FEATURES).unwrap();
    for region in memory.regions() {
        session.add_region(&region).unwrap();
    }
    let mut driver = Driver::on(session, memory);
    driver.draw();
    let mapped = |service: &Service| {
        let maps = format!("/proc/{}/maps", service.pid().unwrap());
        let maps = std::fs::read_to_string(maps).unwrap();
        let of_guest = |line: &&str| line.contains("/memfd:guest");
        maps.lines().filter(of_guest).count()
    };
    let before = mapped(&service);
    assert!(before >= SLOTS as usize, "{before}");
    for _ in 0..3 {
        service.kill_and_start().unwrap();
        service.signal(Signal::STOP).unwrap();
        assert_eq!(mapped(&service), before);
        service.signal(Signal::CONT).unwrap();
        driver.draw();
    }
    let log = service.log();
    assert!(!log.contains("warn:"), "{log}");
}

/// The bytes of a message.
fn message(request: FrontendReq, payload: &[u8]) -> Vec<u8> {
    let header = [request as u32, 1, payload.len() as u32].map(u32::to_ne_bytes);
    [header.as_flattened(), payload].concat()
}

/// Messages that a front-end sends by one call, the first with descriptors.
#[test]
fn messages_of_one_call_have_their_descriptors_in_each_process() {
    let mut service = rng().start().unwrap();
    let mut driver = Driver::start(service.session().unwrap());
    driver.draw();
    for _ in 0..3 {
        for (request, fd) in [
            (FrontendReq::SET_VRING_KICK, driver.queue.kick_fd()),
            (FrontendReq::SET_VRING_CALL, driver.queue.call_fd()),
        ] {
            let enable = [0_u32, 1].map(u32::to_ne_bytes).concat();
            let both = [
                message(request, &0_u64.to_ne_bytes()),
                message(FrontendReq::SET_VRING_ENABLE, &enable),
            ];
            let channel = &driver.session.channel;
            channel.send_bytes(&both.concat(), &[fd]).unwrap();
        }
        driver.session.get_u64(FrontendReq::GET_FEATURES).unwrap();
        driver.draw();
        service.kill_and_start().unwrap();
        driver.draw();
    }
}

/// No program can know which message such descriptors are for; the first one gets them, as everywhere.
#[test]
fn descriptors_of_the_second_message_of_a_call_end_the_connection() {
    let mut service = rng().start().unwrap();
    let driver = Driver::start(service.session().unwrap());
    let both = [
        message(FrontendReq::SET_FEATURES, &FEATURES.to_ne_bytes()),
        message(FrontendReq::SET_VRING_CALL, &0_u64.to_ne_bytes()),
    ];
    let call = driver.queue.call_fd();
    let channel = &driver.session.channel;
    channel.send_bytes(&both.concat(), &[call]).unwrap();
    let (status, _) = service.settle().unwrap();
    let log = service.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let refused = "cannot serve a vhost-user message of the front-end";
    assert!(log.contains(refused), "{log}");
}
