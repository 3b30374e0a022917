// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use super::*;
use crate::DEFAULT_LIMIT;

/// A service whose process waits for ever, and the program's end of `NOTIFY_SOCKET`.
fn idle(limit: usize) -> (Service, UnixDatagram) {
    let script = "exec sleep 600";
    let mut service = ServiceOptions::new("/bin/sh")
        .args(["-c", script])
        .store(limit)
        .create()
        .unwrap();
    service.start().unwrap();
    let program = UnixDatagram::unbound().unwrap();
    program.connect(service.manager().path()).unwrap();
    (service, program)
}

impl Service {
    fn barrier(&self) {
        self.manager().barrier().unwrap();
    }
}

fn tell(program: &UnixDatagram, text: &str, fds: &[&OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let bytes = [IoSlice::new(text.as_bytes())];
    sendmsg(program, &bytes, &mut control, SendFlags::NOSIGNAL).unwrap();
}

fn pair() -> (OwnedFd, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    other.set_read_timeout(Some(DEFAULT_LIMIT)).unwrap();
    (one.into(), other)
}

fn memfd() -> OwnedFd {
    rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

/// Whether the other end was closed by all that had it.
fn is_closed(mut other: &UnixStream) -> bool {
    other.read(&mut [0]).unwrap() == 0
}

#[test]
fn descriptors_are_kept_by_name_newest_first() {
    let (service, program) = idle(8);
    let one = memfd();
    tell(&program, "FDSTORE=1\nFDNAME=state\n", &[&one]);
    tell(&program, "FDSTORE=1\nFDNAME=locker", &[&pair().0, &memfd()]);
    tell(&program, "FDSTORE=1", &[&memfd()]);
    service.barrier();
    // An end of a pair whose other end is closed is not kept for long.
    service.wait_kept(&["state", "locker", "stored"]).unwrap();
    assert_eq!(service.kept(), ["stored", "locker", "state"]);
    let kept = service.kept_fd("state").unwrap();
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&kept), inode(&one));
    assert_eq!(service.warnings(), [""; 0]);
}

#[test]
fn same_open_file_is_kept_once_under_its_first_name() {
    let (service, program) = idle(8);
    let (one, _other) = pair();
    let again = one.try_clone().unwrap();
    tell(&program, "FDSTORE=1\nFDNAME=a", &[&one]);
    tell(&program, "FDSTORE=1\nFDNAME=b", &[&again]);
    // Another open file description of the same file is another one.
    let file = memfd();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let other: OwnedFd = std::fs::File::open(path).unwrap().into();
    tell(&program, "FDSTORE=1\nFDNAME=c", &[&file, &other]);
    service.barrier();
    assert_eq!(service.kept(), ["c", "c", "a"]);
}

#[test]
fn full_store_closes_what_comes() {
    let (service, program) = idle(2);
    let pairs = [(); 4].map(|()| pair());
    let fds = [0, 1, 2].map(|n: usize| &pairs[n].0);
    tell(&program, "FDSTORE=1\nFDNAME=a", &fds);
    tell(&program, "FDSTORE=1\nFDNAME=b", &[&pairs[3].0]);
    service.barrier();
    assert_eq!(service.kept(), ["a", "a"]);
    assert_eq!(
        service.warnings(),
        ["more descriptors than FileDescriptorStoreMax="; 2]
    );
    let others = pairs.map(|(fd, other)| {
        drop(fd);
        other
    });
    assert!(is_closed(&others[2]) && is_closed(&others[3]));
    others[0].set_nonblocking(true).unwrap();
    let still = (&others[0]).read(&mut [0]).unwrap_err();
    assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock);
    // Without a limit there is no store, and the program is not told of one.
    let (service, program) = idle(0);
    tell(&program, "FDSTORE=1\nFDNAME=a", &[&memfd()]);
    service.barrier();
    assert_eq!(service.kept(), [""; 0]);
}

#[test]
fn ended_descriptor_goes_unless_it_is_not_polled() {
    let (service, program) = idle(8);
    let [(one, other), (silent, silent_other), (half, half_other)] = [(); 3].map(|()| pair());
    tell(&program, "FDSTORE=1\nFDNAME=polled", &[&one]);
    tell(&program, "FDSTORE=1\nFDPOLL=0\nFDNAME=silent", &[&silent]);
    tell(&program, "FDSTORE=1\nFDNAME=half", &[&half]);
    tell(&program, "FDSTORE=1\nFDNAME=memory", &[&memfd()]);
    service.barrier();
    assert_eq!(service.kept(), ["memory", "half", "silent", "polled"]);
    drop(other);
    drop(silent_other);
    // Half closed is no end.
    half_other.shutdown(std::net::Shutdown::Write).unwrap();
    service.wait_kept(&["silent", "half", "memory"]).unwrap();
    drop(half_other);
    service.wait_kept(&["silent", "memory"]).unwrap();
}

#[test]
fn descriptors_are_removed_by_name() {
    let (service, program) = idle(8);
    let (one, other) = pair();
    tell(&program, "FDSTORE=1\nFDNAME=a", &[&one, &memfd()]);
    tell(&program, "FDSTORE=1\nFDNAME=b", &[&memfd()]);
    // Also if both are asked for, and whatever descriptors come along.
    tell(
        &program,
        "FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a",
        &[&memfd()],
    );
    tell(&program, "FDSTOREREMOVE=1", &[]);
    tell(&program, "FDSTOREREMOVE=1\nFDNAME=b:c", &[]);
    service.barrier();
    assert_eq!(service.kept(), ["b"]);
    drop(one);
    assert!(is_closed(&other));
    assert_eq!(
        service.warnings(),
        ["FDSTOREREMOVE=1 without a valid FDNAME="; 2]
    );
}

#[test]
fn invalid_names_become_the_default() {
    let (service, program) = idle(8);
    let long = "x".repeat(255);
    let names = ["", &long, "a b"];
    let wrong = [&format!("{long}x"), "a:b", "\u{fc}"];
    for name in names.into_iter().chain(wrong) {
        tell(&program, &format!("FDSTORE=1\nFDNAME={name}"), &[&memfd()]);
    }
    service.barrier();
    let kept = service.kept();
    assert_eq!(kept, ["stored", "stored", "stored", "a b", &long, ""]);
}

#[test]
fn barrier_is_closed_once_all_before_it_is_done() {
    let (service, program) = idle(200);
    for _ in 0..100 {
        tell(&program, "FDSTORE=1\nFDNAME=a", &[&memfd()]);
    }
    let (barrier, waiting) = pair();
    tell(&program, "BARRIER=1", &[&barrier]);
    drop(barrier);
    assert!(is_closed(&waiting));
    assert_eq!(service.kept().len(), 100);
    // With other assignments, these are ignored.
    let (barrier, waiting) = pair();
    tell(
        &program,
        "BARRIER=1\nFDSTOREREMOVE=1\nFDNAME=a",
        &[&barrier],
    );
    drop(barrier);
    assert!(is_closed(&waiting));
    assert_eq!(service.kept().len(), 100);
    assert_eq!(
        service.warnings(),
        ["BARRIER=1 with other assignments, which are ignored"]
    );
}

#[test]
fn malformed_messages_are_ignored() {
    let (service, program) = idle(8);
    let (one, other) = pair();
    let long = format!("FDSTORE=1\nFDNAME=a\nX={}", "x".repeat(4096));
    tell(&program, &long, &[&one]);
    tell(&program, "FDSTORE=1\0\nFDNAME=a", &[&one]);
    tell(&program, "STATUS=fine\0", &[]);
    service.barrier();
    drop(one);
    assert!(is_closed(&other));
    assert_eq!(service.kept(), [""; 0]);
    let seen = service.notifications();
    assert_eq!(seen.len(), 1);
    assert_eq!((&*seen[0].name, &*seen[0].value), ("STATUS", "fine"));
}

/// What each start says that it got.
const REPORT: &str = "ready() { echo \"$LISTEN_FDS $LISTEN_FDNAMES ${FDSTORE:-none}\"; \
    [ $LISTEN_PID = $$ ] || echo \"not $$: $LISTEN_PID\"; \
    for n in 3 4 5 6; do readlink /proc/$$/fd/$n; done; echo complete; }; ready; exec sleep 60";

#[test]
fn each_start_gets_sockets_and_then_what_is_kept() {
    let mut service = ServiceOptions::new("/bin/sh")
        .args(["-c", REPORT])
        .sockets(&["vhost-user", "events"])
        .store(3)
        .create()
        .unwrap();
    let program = UnixDatagram::unbound().unwrap();
    program.connect(service.manager().path()).unwrap();
    let (connection, other) = pair();
    service.start().unwrap();
    tell(&program, "FDSTORE=1\nFDNAME=state", &[&memfd()]);
    tell(&program, "FDSTORE=1\nFDNAME=front-end", &[&connection]);
    drop(connection);
    let lines = |service: &Service, complete: usize| {
        let deadline = Deadline::default();
        let log = deadline.until("the reports", || {
            let log = service.log();
            Ok((log.matches("complete\n").count() == complete).then_some(log))
        });
        let log = log.unwrap();
        let last = log.split("complete\n").nth(complete - 1).unwrap();
        last.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&service, 1)[0], "2 vhost-user:events 3");
    service.kill().unwrap();
    assert_eq!(service.kept(), ["front-end", "state"]);
    service.start().unwrap();
    let second = lines(&service, 2);
    assert_eq!(second[0], "4 vhost-user:events:front-end:state 3");
    assert!(second[1].starts_with("socket:") && second[3].starts_with("socket:"));
    assert_eq!(second[4], "/memfd:test (deleted)");
    assert_eq!(second.len(), 5, "{second:?}");
    // SIGTERM ends the process, and a restart keeps all.
    service.signal(Signal::TERM).unwrap();
    service.wait_exit().unwrap();
    assert_eq!(service.kept(), ["front-end", "state"]);
    service.start().unwrap();
    assert_eq!(lines(&service, 3)[0], second[0]);
    assert_eq!(service.starts(), 3);
    // A stop does not.
    service.stop().unwrap();
    assert_eq!(service.kept(), [""; 0]);
    assert!(is_closed(&other));
    service.start().unwrap();
    assert_eq!(lines(&service, 4)[0], "2 vhost-user:events 3");
}

#[test]
fn failure_is_started_again_and_success_is_not() {
    let script = "read -r status < \"$0\"; exit $status";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("status");
    let mut service = ServiceOptions::new("/bin/sh")
        .args(["-c", script])
        .arg(&file)
        .create()
        .unwrap();
    let program = UnixDatagram::unbound().unwrap();
    program.connect(service.manager().path()).unwrap();
    std::fs::write(&file, "75\n").unwrap();
    service.start().unwrap();
    tell(&program, "FDSTORE=1\nFDNAME=state", &[&memfd()]);
    let (status, again) = service.settle().unwrap();
    assert_eq!((status.code(), again), (Some(75), true));
    assert_eq!(service.kept(), ["state"]);
    std::fs::write(&file, "0\n").unwrap();
    // The one that was started meanwhile may have read either.
    while service.settle().unwrap().1 {}
    assert_eq!(service.kept(), [""; 0]);
    assert!(service.pid().is_err());
}

#[test]
fn stopped_start_runs_once_it_is_continued() {
    let mut service = ServiceOptions::new("/bin/echo")
        .arg("ran")
        .create()
        .unwrap();
    service.start_stopped().unwrap();
    let stat = format!("/proc/{}/stat", service.pid().unwrap());
    let stopped = Deadline::default().until("SIGSTOP", || {
        let stat = std::fs::read_to_string(&stat).map_err(Error::io("stat"))?;
        Ok(stat.contains(") T ").then_some(()))
    });
    stopped.unwrap();
    assert_eq!(service.log(), "");
    service.signal(Signal::CONT).unwrap();
    assert!(service.wait_exit().unwrap().success());
    assert_eq!(service.log(), "ran\n");
}

#[test]
fn end_before_ready_is_told_at_once() {
    let begun = Instant::now();
    let mut service = ServiceOptions::new("/bin/sh")
        .args(["-c", "echo broken; exit 1"])
        .create()
        .unwrap();
    service.start().unwrap();
    let error = service.wait_ready().unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(begun.elapsed() < DEFAULT_LIMIT);
}
