// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::Timespec;

use super::*;

const PURPOSE: &str = "answers a test";

/// The next message; none at the end.
fn next(socket: &OwnedFd) -> Vec<u8> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "nothing came");
    let mut message = [MaybeUninit::uninit(); 256];
    let ((message, _), _) = recv(socket, &mut message, RecvFlags::empty()).expect("a message");
    message.to_vec()
}

fn say(socket: &OwnedFd, message: &str) {
    send(socket, message.as_bytes(), SendFlags::NOSIGNAL).expect("the other end is there");
}

fn prepared() -> io::Result<()> {
    Ok(())
}

/// Answers each message with what it finds, until the program ends.
fn answer(_: (), socket: OwnedFd) {
    loop {
        let question = next(&socket);
        let answer = match question.as_slice() {
            [] => return,
            b"descriptors" => format!("{:?}", (3..256).filter(is_open).collect::<Vec<_>>()),
            path => match fs::read_to_string(String::from_utf8_lossy(path).as_ref()) {
                Ok(text) => text,
                Err(error) => format!("{:?}", error.kind()),
            },
        };
        say(&socket, &answer);
    }
}

fn is_open(fd: &RawFd) -> bool {
    // SAFETY: only asks whether the descriptor is open.
    unsafe { libc::fcntl(*fd, libc::F_GETFD) >= 0 }
}

#[test]
fn helper_has_no_descriptor_of_the_program_and_ends_with_its_socket() {
    let (mut left, right) = UnixStream::pair().expect("a pair");
    let helper = start_helper(
        c"helper",
        PURPOSE,
        SandboxMode::Off,
        SandboxPolicy::default(),
        prepared,
        answer,
    )
    .expect("a helper");
    say(&helper, "descriptors");
    assert_eq!(next(&helper), b"[3]");
    // Only this process has the other end, which a copy would keep open.
    drop(right);
    assert_eq!(left.read(&mut [0]).expect("the end"), 0);
    rustix::net::shutdown(&helper, rustix::net::Shutdown::Write).expect("a socket");
    assert_eq!(next(&helper), b"");
}

#[test]
fn helper_that_cannot_prepare_says_why() {
    let prepare = || Err::<(), _>(io::ErrorKind::NotADirectory.into());
    let error = start_helper(
        c"helper",
        PURPOSE,
        SandboxMode::Off,
        SandboxPolicy::default(),
        prepare,
        answer,
    )
    .expect_err("it cannot");
    let error = error.to_string();
    assert_eq!(
        error,
        "the process that answers a test ended at once: not a directory"
    );
}

#[test]
fn helper_opens_what_its_sandbox_allows() {
    let folder = tempfile::tempdir().expect("a folder");
    let [open, closed] = ["open", "closed"].map(|name| folder.path().join(name));
    for path in [&open, &closed] {
        fs::create_dir(path).expect("a folder");
        fs::write(path.join("file"), "text").expect("a file");
    }
    let policy = SandboxPolicy {
        read: vec![open.clone()],
        ..SandboxPolicy::default()
    };
    let helper = start_helper(
        c"helper",
        PURPOSE,
        SandboxMode::On,
        policy,
        prepared,
        answer,
    )
    .expect("a helper");
    for (path, answer) in [(&open, "text"), (&closed, "PermissionDenied")] {
        say(&helper, &path.join("file").display().to_string());
        assert_eq!(next(&helper), answer.as_bytes(), "{}", path.display());
    }
    // This process is not restricted.
    fs::read(closed.join("file")).expect("it can be read");
}
