// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sandbox closed around a process of the tests' own, which then does what is rare.

use std::alloc::Layout;
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use landlock::{ABI, Access as _, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};

use super::{SandboxMode, SandboxPolicy};

const INSIDE: &str = "SANDBOX_TEST";

/// Runs the test `name` again in a process of its own, which finds itself there by [`is_inside`].
fn run_inside(name: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("backend::sandbox::tests::{name}"))
        .env(INSIDE, "1")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

/// Closes the sandbox where this is the process of [`run_inside`].
fn is_inside() -> bool {
    let inside = std::env::var_os(INSIDE).is_some();
    if inside {
        close();
    }
    inside
}

fn close() {
    let sandbox = SandboxMode::On
        .sandbox(SandboxPolicy::default(), None)
        .unwrap();
    sandbox.restrict_files().unwrap();
    sandbox.restrict_syscalls().unwrap();
}

#[test]
fn panic_is_reported_without_files_for_its_backtrace() {
    if is_inside() {
        panic!("on purpose");
    }
    let ended = run_inside("panic_is_reported_without_files_for_its_backtrace");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code().is_some(), "{}: {stderr}", ended.status);
    assert!(!ended.status.success());
    assert!(stderr.contains("on purpose"), "{stderr}");
    assert!(stderr.contains("stack backtrace"), "{stderr}");
}

#[test]
fn running_out_of_memory_is_reported() {
    if is_inside() {
        std::alloc::handle_alloc_error(Layout::new::<u64>());
    }
    let ended = run_inside("running_out_of_memory_is_reported");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{stderr}");
    assert!(stderr.contains("memory allocation of 8 bytes"), "{stderr}");
}

/// As the journal takes it: in a sealed memfd.
#[test]
fn large_message_can_be_logged() {
    if std::env::var_os(INSIDE).is_none() {
        let ended = run_inside("large_message_can_be_logged");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {stderr}", ended.status);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    let log = UnixDatagram::unbound().unwrap();
    close();
    let memory = memfd_create("log", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&memory, b"MESSAGE=large\n").unwrap(), 14);
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::GROW;
    fcntl_add_seals(&memory, seals).unwrap();
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [memory.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let address = SocketAddrUnix::new(&path).unwrap();
    sendmsg_addr(&log, &address, &[], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(journal.recv(&mut [0; 8]).unwrap(), 0);
    // The folder cannot be removed any more.
    std::mem::forget(folder);
}

/// Files are closed by landlock too, without the system calls' list.
#[test]
fn landlock_restricts_files_by_itself() {
    if std::env::var_os(INSIDE).is_none() {
        let ended = run_inside("landlock_restricts_files_by_itself");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {stderr}", ended.status);
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sandbox = SandboxMode::On.sandbox(SandboxPolicy::default(), None);
    sandbox.unwrap().restrict_files().unwrap();
    let denied = std::io::ErrorKind::PermissionDenied;
    let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == denied;
    assert!(refused(std::fs::File::open("/etc/passwd").map(drop)));
    assert!(refused(std::fs::read_dir("/").map(drop)));
    assert!(refused(std::fs::write("/tmp/vhost-user", "")));
    // In a thread that is made afterwards, too; the network, where the kernel can (Linux 6.7).
    let elsewhere = std::thread::spawn(|| std::fs::File::open("/etc/passwd").map(drop));
    assert!(refused(elsewhere.join().unwrap()));
    assert!(refused(std::net::TcpStream::connect(address).map(drop)));
}

/// Linux 6.12 and later: an older kernel is not asked for it.
#[test]
fn landlock_forbids_signals_to_others_and_their_abstract_sockets() {
    if std::env::var_os(INSIDE).is_none() {
        let name = "landlock_forbids_signals_to_others_and_their_abstract_sockets";
        let ended = run_inside(name);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {stderr}", ended.status);
        return;
    }
    let demanding = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if demanding.scope(Scope::from_all(ABI::V6)).is_err() {
        eprintln!("this kernel's landlock has no scopes");
        return;
    }
    let name = |what: &str| {
        let name = format!("vhost-user-{what}-{}", std::process::id());
        SocketAddr::from_abstract_name(name).unwrap()
    };
    let denied = std::io::ErrorKind::PermissionDenied;
    let parent = rustix::process::getppid().unwrap();
    let (before, afterwards) = (name("before"), name("afterwards"));
    let _others = UnixListener::bind_addr(&before).unwrap();
    // Each is possible without.
    rustix::process::test_kill_process(parent).unwrap();
    UnixStream::connect_addr(&before).unwrap();

    let sandbox = SandboxMode::On.sandbox(SandboxPolicy::default(), None);
    sandbox.unwrap().restrict_files().unwrap();
    let signalled = rustix::process::test_kill_process(parent);
    assert_eq!(signalled, Err(rustix::io::Errno::PERM));
    let connected = UnixStream::connect_addr(&before);
    assert_eq!(connected.unwrap_err().kind(), denied);
    // Not from oneself: the proxy and the daemon meet at such a socket.
    rustix::process::test_kill_process(rustix::process::getpid()).unwrap();
    let _ours = UnixListener::bind_addr(&afterwards).unwrap();
    UnixStream::connect_addr(&afterwards).unwrap();
}
