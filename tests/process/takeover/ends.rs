// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When no other process goes on: the connection closes, and the next front-end is served.

use std::os::unix::fs::FileExt as _;

use frontend::FrontendReq;
use frontend::Notification;
use frontend::manager::{Service, ServiceOptions, fill_locker};

use super::handover::{Driver, KEPT, rng};
use crate::common::gpu_program;

/// Offsets in the state (`src/backend/continuity/layout.rs`): its version, why it ended, the program's name, and a number for
/// each kind of work, with the deaths in it.
const VERSION: u64 = 8;
const ENDED: u64 = 12;
const NAME: u64 = 64;
const WORKS: u64 = 128;
/// To take over.
const START: u64 = WORKS;
/// In such a number: the work is under way.
const UNDER_WAY: u32 = 1 << 31;

fn served() -> (Service, Driver) {
    let mut service = rng().start().unwrap();
    service.wait_ready().unwrap();
    let mut driver = Driver::start(service.session().unwrap());
    driver.draw();
    (service, driver)
}

/// The state.
fn state(service: &Service) -> std::fs::File {
    service.kept_fd("state").unwrap().into()
}

/// How many processes of the service died in the same work, which none got done.
pub(super) fn deaths(service: &Service) -> u32 {
    let mut works = [0; 128];
    state(service).read_exact_at(&mut works, WORKS).unwrap();
    let works = works.chunks_exact(4).map(|work| {
        let work = work.try_into().unwrap();
        u32::from_ne_bytes(work) & !UNDER_WAY
    });
    works.max().unwrap_or_default()
}

#[test]
fn state_that_cannot_be_used_is_closed_and_the_next_front_end_served() {
    type Damage = fn(&std::fs::File) -> std::io::Result<()>;
    let damages: [(&str, Damage); 4] = [
        ("no more file descriptors can be kept", |state| {
            state.write_all_at(&3_u32.to_ne_bytes(), ENDED)
        }),
        ("its version is 99", |state| {
            state.write_all_at(&99_u32.to_ne_bytes(), VERSION)
        }),
        ("it is of another program", |state| {
            state.write_all_at(b"vhost-user-other", NAME)
        }),
        ("19 processes died while they did the same", |state| {
            state.write_all_at(&(UNDER_WAY | 18).to_ne_bytes(), START)
        }),
    ];
    for (message, damage) in damages {
        let (mut service, driver) = served();
        service.kill().unwrap();
        damage(&state(&service)).unwrap();
        service.start().unwrap();
        service.wait_ready().unwrap();
        driver.session.channel.wait_closed().unwrap();
        let log = service.log();
        let lines = log.lines().filter(|line| line.contains(message));
        assert_eq!(lines.count(), 1, "{message}: {log}");
        // A new state is kept, and the next front-end is served, from process to process.
        service.wait_kept(&KEPT).unwrap();
        let mut next = Driver::start(service.session().unwrap());
        next.draw();
        service.kill_and_start().unwrap();
        next.draw();
    }
}

#[test]
fn front_end_that_left_while_no_process_was_there_ends_the_service() {
    let (mut service, driver) = served();
    service.kill().unwrap();
    drop(driver);
    service.start().unwrap();
    let (status, again) = service.settle().unwrap();
    let log = service.log();
    assert_eq!((status.code(), again), (Some(0), false), "{log}");
    // Each process said that it was ready: systemd takes another end for a failed start.
    let said = service.notifications();
    let ready = said.iter().filter(|n| n.name == "READY").count();
    assert_eq!(ready, 2);
}

/// As where sockets may take little memory.
#[test]
fn state_that_ends_while_a_front_end_is_connected_is_forgotten_and_warned_of() {
    let (mut service, mut driver) = served();
    service.wait_kept(&KEPT).unwrap();
    fill_locker(service.kept_fd("locker-out").unwrap()).unwrap();
    driver.renew_call();
    service.wait_kept(&[]).unwrap();
    let says_so = |n: &Notification| {
        n.name == "STATUS"
            && n.value.starts_with("a front-end is connected: ")
            && n.value
                .contains("a restart ends the connection, because no more")
    };
    service.wait_for("the status", says_so).unwrap();
    // All goes on, and nothing is said twice.
    for _ in 0..3 {
        driver.renew_call();
        driver.draw();
    }
    let log = service.log();
    let warned = log.lines().filter(|line| line.contains("warn:"));
    let warned: Vec<_> = warned.collect();
    assert!(
        warned.len() == 1 && warned[0].contains("the VM loses this device when"),
        "{log}"
    );
    // As without a service manager; the next front-end is kept again.
    service.kill_and_start().unwrap();
    driver.session.channel.wait_closed().unwrap();
    service.wait_kept(&KEPT).unwrap();
    let mut next = Driver::start(service.session().unwrap());
    next.draw();
    service.kill_and_start().unwrap();
    next.draw();
}

#[test]
fn stopped_service_leaves_nobody_connected() {
    let (mut service, driver) = served();
    service.kill_and_start().unwrap();
    assert!(Service::is_success(service.stop().unwrap()));
    driver.session.channel.wait_closed().unwrap();
}

#[test]
fn front_end_that_is_refused_is_refused_once() {
    let (mut service, driver) = served();
    // A header that is no request's.
    driver.session.channel.send_bytes(&[0xff; 64], &[]).unwrap();
    let (status, _) = service.settle().unwrap();
    assert_eq!(status.code(), Some(1), "{}", service.log());
    driver.session.channel.wait_closed().unwrap();
    service.wait_ready().unwrap();
    Driver::start(service.session().unwrap()).draw();
    let log = service.log();
    assert!(!log.contains("took over"), "{log}");
}

/// As a process leaves it that died while it gave the descriptors away.
#[test]
fn part_of_a_state_is_forgotten() {
    let mut service = rng().create().unwrap();
    for name in &KEPT[..3] {
        let left = std::fs::File::open("/dev/null").unwrap();
        service.keep(name, left.into());
    }
    service.start().unwrap();
    service.wait_ready().unwrap();
    service.wait_kept(&KEPT).unwrap();
    let mut driver = Driver::start(service.session().unwrap());
    driver.draw();
    service.kill_and_start().unwrap();
    driver.draw();
    assert_eq!(service.warnings(), [""; 0]);
}

#[test]
fn second_front_end_waits_from_process_to_process() {
    let (mut service, mut driver) = served();
    let mut second = service.session().unwrap();
    let with_second = [&KEPT[..], &["front-end"]].concat();
    service.wait_kept(&with_second).unwrap();
    for _ in 0..3 {
        service.kill_and_start().unwrap();
        driver.draw();
        let says_so = |n: &Notification| n.name == "STATUS" && n.value.contains("another waits");
        service.wait_for("the second front-end", says_so).unwrap();
    }
    drop(driver);
    let (status, again) = service.settle().unwrap();
    assert_eq!(
        (status.code(), again),
        (Some(75), true),
        "{}",
        service.log()
    );
    second.get_u64(FrontendReq::GET_FEATURES).unwrap();
    let mut driver = Driver::start(second);
    driver.draw();
    service.kill_and_start().unwrap();
    driver.draw();
    service.wait_kept(&KEPT).unwrap();
}

/// The memory of images is in much more address space than they may take.
#[test]
fn gpu_without_address_space_for_its_images_keeps_nothing_and_serves() {
    let mut service = ServiceOptions::new(gpu_program())
        .arg("--max-hostmem=16T")
        .start()
        .unwrap();
    let log = service.log();
    assert!(log.contains("no address space for images"), "{log}");
    assert_eq!(service.kept(), Vec::<String>::new());
    let mut session = service.session().unwrap();
    session.get_u64(FrontendReq::GET_FEATURES).unwrap();
    // As without a service manager.
    service.kill_and_start().unwrap();
    session.channel.wait_closed().unwrap();
    let mut next = service.session().unwrap();
    next.get_u64(FrontendReq::GET_FEATURES).unwrap();
}
