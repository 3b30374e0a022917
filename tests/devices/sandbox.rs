// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs' sandbox, tested from within: what a guest could do that has taken over a program.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
#[cfg(feature = "virgl")]
use std::path::Path;
use std::process;

use crate::common::evdev::HostDevice;
use crate::common::inject::Outcome::{Ended, Returned};
use crate::common::inject::Word::{Number, Text};
use crate::common::inject::{Outcome, Word, inject, threads};
use crate::common::*;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions};
use frontend::input::{Input, InputOptions};
use frontend::{Command, DEFAULT_LIMIT, Memory, Program, SocketForm};
use harness::mock::KEYBOARD;
use nix::sys::signal::Signal;
use rustix::io::Errno;

/// A program that serves, and what keeps it serving.
struct Served {
    program: Program,
    _rest: Box<dyn std::any::Any>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gpu2d,
    #[cfg(feature = "virgl")]
    Virgl,
    Input,
}

#[cfg(feature = "virgl")]
const KINDS: [Kind; 3] = [Kind::Gpu2d, Kind::Virgl, Kind::Input];
#[cfg(not(feature = "virgl"))]
const KINDS: [Kind; 2] = [Kind::Gpu2d, Kind::Input];

fn gpu(command: Command, options: GpuOptions) -> Served {
    let mut program = command.spawn().unwrap();
    let session = program.session().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut gpu = Gpu::start(session, &guest_memory(), Some(socket), options).unwrap();
    ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
    Served {
        program,
        _rest: Box::new((gpu, display)),
    }
}

fn input(arguments: &[&str]) -> Served {
    let device = HostDevice::new(KEYBOARD);
    let command = device.command(input_program()).args(arguments);
    let mut program = command.socket(SocketForm::Connected(7)).spawn().unwrap();
    let session = program.session().unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let input = Input::start(session, &memory, InputOptions::default()).unwrap();
    Served {
        program,
        _rest: Box::new((input, device)),
    }
}

/// A program of this kind at work, with further arguments.
fn serve(kind: Kind, arguments: &[&str]) -> Served {
    let command = || gpu_command(SocketForm::Connected(7)).args(arguments);
    match kind {
        Kind::Gpu2d => gpu(command(), GpuOptions::default()),
        #[cfg(feature = "virgl")]
        Kind::Virgl => gpu(
            command().arg("--virgl").env("LIBGL_ALWAYS_SOFTWARE", "1"),
            GpuOptions::virgl(),
        ),
        Kind::Input => input(arguments),
    }
}

impl Served {
    /// Has the thread `n`, counted from the first, make a system call.
    fn does(&self, n: usize, number: i64, words: &[Word<'_>]) -> Outcome {
        let threads = threads(self.program.pid()).unwrap();
        let (thread, _) = threads[n % threads.len()];
        inject(thread, number, words).unwrap()
    }

    /// Has all threads open a file, which has to end in the same way for all, but for the descriptor.
    fn opens(&self, path: &str, flags: i32) -> Outcome {
        let words = [
            Number(i64::from(libc::AT_FDCWD)),
            Text(path),
            Number(flags.into()),
            Number(0o600),
        ];
        let count = threads(self.program.pid()).unwrap().len();
        let outcomes = (0..count).map(|n| match self.does(n, libc::SYS_openat, &words) {
            Returned(0..) => Returned(0),
            other => other,
        });
        let outcomes: Vec<_> = outcomes.collect();
        assert!(outcomes.iter().all(|o| *o == outcomes[0]), "{outcomes:?}");
        outcomes[0]
    }

    fn status(&self, thread: i32) -> String {
        fs::read_to_string(format!("/proc/{}/task/{thread}/status", self.program.pid())).unwrap()
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}

fn fails(errno: Errno) -> Outcome {
    Returned(-i64::from(errno.raw_os_error()))
}

#[track_caller]
fn assert_works(outcome: Outcome) {
    assert!(matches!(outcome, Returned(0..)), "{outcome:?}");
}

#[test]
fn every_thread_of_every_program_is_sandboxed() {
    for kind in KINDS {
        let served = serve(kind, &[]);
        let threads = threads(served.program.pid()).unwrap();
        assert!(threads.len() >= 3, "{kind:?}: {threads:?}");
        for (thread, name) in threads {
            let status = served.status(thread);
            let who = format!("{kind:?}, {name}");
            assert_eq!(field(&status, "Seccomp:"), "2", "{who}");
            let filters = field(&status, "Seccomp_filters:");
            assert!(filters.parse::<u32>().unwrap() >= 1, "{who}");
            assert_eq!(field(&status, "NoNewPrivs:"), "1", "{who}");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(field(&status, set), "0000000000000000", "{who}: {set}");
            }
        }
    }
}

/// The process that opens an unplugged device again.
fn opener(program: &Program) -> u32 {
    let pid = program.pid();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(children).unwrap();
    let children: Vec<_> = children.split_whitespace().collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0].parse().unwrap()
}

#[test]
fn opener_has_a_sandbox_and_no_descriptor_of_the_program() {
    let served = serve(Kind::Input, &[]);
    let opener = opener(&served.program);
    let threads = threads(opener).unwrap();
    let [(thread, name)] = threads.as_slice() else {
        panic!("{threads:?}");
    };
    assert_eq!(name, "evdev-opener");
    let status = fs::read_to_string(format!("/proc/{opener}/status")).unwrap();
    for (field_name, value) in [
        ("Seccomp:", "2"),
        ("NoNewPrivs:", "1"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
    ] {
        assert_eq!(field(&status, field_name), value, "{field_name}");
    }
    let descriptors = fs::read_dir(format!("/proc/{opener}/fd")).unwrap();
    let mut targets: Vec<_> = descriptors
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let socket = targets.pop().unwrap();
    assert!(socket.starts_with("socket:["), "{socket}");
    assert_eq!(
        targets,
        ["/dev/null", "/dev/null", "/dev/null", "anon_inode:inotify"]
    );
    let opens = |path| {
        let words = [Number(libc::AT_FDCWD.into()), Text(path), Number(0)];
        inject(*thread, libc::SYS_openat, &words).unwrap()
    };
    for path in ["/etc/passwd", "/dev/null", "/proc/self/status"] {
        assert_eq!(opens(path), fails(Errno::ACCESS), "{path}");
    }
    // It has nothing to do with the network, and the program serves on without it.
    let socket = [
        Number(libc::AF_UNIX.into()),
        Number(libc::SOCK_STREAM.into()),
    ];
    let ended = inject(*thread, libc::SYS_socket, &socket).unwrap();
    assert_eq!(ended, Ended(Signal::SIGSYS));
    served
        .program
        .wait_stderr("will not be noticed when it comes back")
        .unwrap();
    let status = served.status(served.program.pid() as i32);
    assert_eq!(field(&status, "Seccomp:"), "2");
}

#[test]
fn opener_ends_with_its_program() {
    let mut served = serve(Kind::Input, &[]);
    let opener = opener(&served.program);
    served
        .program
        .signal(rustix::process::Signal::KILL)
        .unwrap();
    served.program.wait_exit(DEFAULT_LIMIT).unwrap();
    let deadline = std::time::Instant::now() + DEFAULT_LIMIT;
    let is_there = || {
        let status = fs::read_to_string(format!("/proc/{opener}/status"));
        status.is_ok_and(|status| !field(&status, "State:").starts_with('Z'))
    };
    while is_there() {
        assert!(std::time::Instant::now() < deadline, "it is there still");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn disabled_sandbox_is_reported_loudly() {
    let served = serve(Kind::Gpu2d, &["--sandbox=off"]);
    let stderr = served.program.stderr();
    assert!(stderr.contains("warn: --sandbox=off"), "{stderr}");
    let status = served.status(served.program.pid() as i32);
    assert_eq!(field(&status, "Seccomp:"), "0");
    assert_eq!(field(&status, "NoNewPrivs:"), "0");
    // And the next tests would see what it keeps from happening.
    assert_works(served.opens("/etc/passwd", libc::O_RDONLY));
    let socket = [
        Number(libc::AF_INET.into()),
        Number(libc::SOCK_DGRAM.into()),
    ];
    assert_works(served.does(1, libc::SYS_socket, &socket));

    let served = serve(Kind::Gpu2d, &["--sandbox=on"]);
    assert!(!served.program.stderr().contains("sandbox"));
}

/// A call that is not on the list is done; one that the sandbox refuses is refused still.
#[test]
fn logging_sandbox_ends_no_program() {
    for kind in KINDS {
        let served = serve(kind, &["--sandbox=log"]);
        let stderr = served.program.stderr();
        let warnings = stderr.matches("warn: --sandbox=log").count();
        assert_eq!(warnings, 1, "{stderr}");
        let status = served.status(served.program.pid() as i32);
        assert_eq!(field(&status, "Seccomp:"), "2", "{kind:?}");
        assert_eq!(field(&status, "CapEff:"), "0000000000000000", "{kind:?}");
        let socket = [
            Number(libc::AF_UNIX.into()),
            Number(libc::SOCK_STREAM.into()),
        ];
        assert_works(served.does(1, libc::SYS_socket, &socket));
        assert_eq!(
            served.opens("/etc/shadow", libc::O_RDONLY),
            fails(Errno::ACCESS),
            "{kind:?}"
        );
    }
    // The process that opens an unplugged device again has the same.
    let served = serve(Kind::Input, &["--sandbox=log"]);
    let opener = threads(opener(&served.program)).unwrap()[0].0;
    let socket = [
        Number(libc::AF_UNIX.into()),
        Number(libc::SOCK_STREAM.into()),
    ];
    assert_works(inject(opener, libc::SYS_socket, &socket).unwrap());
}

/// What no program may do, by name.
fn forbidden(pid: i64) -> Vec<(&'static str, i64, Vec<Word<'static>>)> {
    let shell = "/bin/sh";
    let anywhere = Number(0);
    let page = Number(4096);
    let clone = |flags: i32| vec![Number(flags.into()), anywhere];
    let socket = |family: i32, kind: i32| vec![Number(family.into()), Number(kind.into())];
    let ioctl = |request: u64| vec![anywhere, Number(request as i64)];
    vec![
        // Become or make another program.
        ("execve", libc::SYS_execve, vec![Text(shell)]),
        (
            "execveat",
            libc::SYS_execveat,
            vec![Number(libc::AT_FDCWD.into()), Text(shell)],
        ),
        ("fork", libc::SYS_fork, vec![]),
        ("vfork", libc::SYS_vfork, vec![]),
        ("clone", libc::SYS_clone, clone(libc::SIGCHLD)),
        (
            "clone into a namespace",
            libc::SYS_clone,
            clone(libc::CLONE_NEWUSER | libc::SIGCHLD),
        ),
        ("unshare", libc::SYS_unshare, clone(libc::CLONE_NEWUSER)),
        ("setns", libc::SYS_setns, vec![anywhere]),
        // Reach other processes.
        ("ptrace", libc::SYS_ptrace, vec![Number(16), Number(1)]),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            vec![Number(1)],
        ),
        (
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            vec![Number(1)],
        ),
        ("pidfd_open", libc::SYS_pidfd_open, vec![Number(1)]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, vec![Number(1)]),
        ("kill init", libc::SYS_kill, vec![Number(1), Number(0)]),
        ("kill", libc::SYS_kill, vec![Number(pid), Number(0)]),
        (
            "tgkill of another",
            libc::SYS_tgkill,
            vec![Number(1), Number(1), Number(0)],
        ),
        ("prlimit64", libc::SYS_prlimit64, vec![Number(1)]),
        (
            "F_SETOWN",
            libc::SYS_fcntl,
            vec![anywhere, Number(libc::F_SETOWN.into()), Number(1)],
        ),
        // Reach others over sockets.
        (
            "socket(AF_INET)",
            libc::SYS_socket,
            socket(libc::AF_INET, libc::SOCK_STREAM),
        ),
        (
            "socket(AF_NETLINK)",
            libc::SYS_socket,
            socket(libc::AF_NETLINK, libc::SOCK_RAW),
        ),
        (
            "socket(AF_UNIX)",
            libc::SYS_socket,
            socket(libc::AF_UNIX, libc::SOCK_STREAM),
        ),
        (
            "socketpair",
            libc::SYS_socketpair,
            socket(libc::AF_UNIX, libc::SOCK_STREAM),
        ),
        ("connect", libc::SYS_connect, vec![anywhere]),
        ("bind", libc::SYS_bind, vec![anywhere]),
        ("listen", libc::SYS_listen, vec![anywhere]),
        // Change files by name.
        ("chmod", libc::SYS_chmod, vec![Text("/tmp")]),
        ("chown", libc::SYS_chown, vec![Text("/tmp")]),
        ("link", libc::SYS_link, vec![Text("/a"), Text("/b")]),
        ("symlink", libc::SYS_symlink, vec![Text("/a"), Text("/b")]),
        ("mknod", libc::SYS_mknod, vec![Text("/tmp/x")]),
        ("truncate", libc::SYS_truncate, vec![Text("/tmp/x")]),
        ("chroot", libc::SYS_chroot, vec![Text("/")]),
        ("chdir", libc::SYS_chdir, vec![Text("/")]),
        ("mount", libc::SYS_mount, vec![Text("a"), Text("/b")]),
        ("umount2", libc::SYS_umount2, vec![Text("/proc")]),
        // Get privileges back, or leave the sandbox.
        ("setuid", libc::SYS_setuid, vec![anywhere]),
        ("setresuid", libc::SYS_setresuid, vec![anywhere]),
        ("setgroups", libc::SYS_setgroups, vec![anywhere]),
        ("capset", libc::SYS_capset, vec![anywhere]),
        (
            "prctl(PR_SET_DUMPABLE)",
            libc::SYS_prctl,
            vec![Number(libc::PR_SET_DUMPABLE.into()), Number(1)],
        ),
        (
            "prctl(PR_SET_PTRACER)",
            libc::SYS_prctl,
            vec![Number(libc::PR_SET_PTRACER.into()), Number(-1)],
        ),
        ("seccomp", libc::SYS_seccomp, vec![Number(1)]),
        ("personality", libc::SYS_personality, vec![anywhere]),
        // The kernel's wider surfaces.
        ("io_uring_setup", libc::SYS_io_uring_setup, vec![Number(1)]),
        ("bpf", libc::SYS_bpf, vec![anywhere]),
        ("userfaultfd", libc::SYS_userfaultfd, vec![anywhere]),
        ("perf_event_open", libc::SYS_perf_event_open, vec![anywhere]),
        ("keyctl", libc::SYS_keyctl, vec![anywhere]),
        ("add_key", libc::SYS_add_key, vec![anywhere]),
        ("init_module", libc::SYS_init_module, vec![anywhere]),
        ("kexec_load", libc::SYS_kexec_load, vec![anywhere]),
        ("reboot", libc::SYS_reboot, vec![anywhere]),
        ("iopl", libc::SYS_iopl, vec![Number(3)]),
        ("inotify_init1", libc::SYS_inotify_init1, vec![anywhere]),
        ("shmget", libc::SYS_shmget, vec![anywhere, page]),
        ("msgget", libc::SYS_msgget, vec![anywhere]),
        ("TIOCSTI", libc::SYS_ioctl, ioctl(libc::TIOCSTI)),
        ("TIOCLINUX", libc::SYS_ioctl, ioctl(libc::TIOCLINUX)),
        // The newest that is known.
        ("file_setattr", 469, vec![anywhere]),
        ("x32's getpid", 0x4000_0000 | libc::SYS_getpid, vec![]),
    ]
}

/// What only OpenGL may do besides.
fn forbidden_without_gl() -> Vec<(&'static str, i64, Vec<Word<'static>>)> {
    let anywhere = Number(0);
    let page = Number(4096);
    let code = Number((libc::PROT_READ | libc::PROT_EXEC).into());
    let private = Number((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into());
    vec![
        (
            "mmap(PROT_EXEC)",
            libc::SYS_mmap,
            vec![anywhere, page, code, private, Number(-1), anywhere],
        ),
        (
            "mprotect(PROT_EXEC)",
            libc::SYS_mprotect,
            vec![anywhere, page, code],
        ),
        (
            "clone of a thread",
            libc::SYS_clone,
            vec![Number(libc::CLONE_THREAD.into())],
        ),
        ("clone3", libc::SYS_clone3, vec![anywhere, page]),
        ("unlink", libc::SYS_unlink, vec![Text("/nothing")]),
        ("rename", libc::SYS_rename, vec![Text("/a"), Text("/b")]),
        ("mkdir", libc::SYS_mkdir, vec![Text("/nothing/nothing")]),
        ("getdents64", libc::SYS_getdents64, vec![anywhere]),
        ("kcmp", libc::SYS_kcmp, vec![Number(1), Number(1)]),
        ("setpriority", libc::SYS_setpriority, vec![anywhere; 3]),
        (
            "sched_setaffinity",
            libc::SYS_sched_setaffinity,
            vec![anywhere; 3],
        ),
        (
            "DRM_IOCTL_VERSION",
            libc::SYS_ioctl,
            vec![anywhere, Number(0xc040_6400)],
        ),
    ]
}

fn assert_ended_for_each(kind: Kind, calls: &[(&str, i64, Vec<Word<'_>>)]) {
    // The next thread each time: all of them are held by the same list.
    for (n, (name, number, words)) in calls.iter().enumerate() {
        let served = serve(kind, &[]);
        let outcome = served.does(n, *number, words);
        assert_eq!(outcome, Ended(Signal::SIGSYS), "{kind:?}: {name}");
    }
}

#[test]
fn gpu_in_2d_is_killed_for_forbidden_calls() {
    let pid = i64::from(process::id());
    assert_ended_for_each(Kind::Gpu2d, &forbidden(pid));
    assert_ended_for_each(Kind::Gpu2d, &forbidden_without_gl());
}

#[test]
fn input_is_killed_for_forbidden_calls() {
    // Its list is the gpu's and a few requests to evdev.
    assert_ended_for_each(Kind::Input, &forbidden_without_gl());
    let request = |request: u32| vec![Number(0), Number(request.into())];
    let requests = [
        ("EVIOCSKEYCODE", libc::SYS_ioctl, request(0x4008_4504)),
        ("EVIOCSREP", libc::SYS_ioctl, request(0x4008_4503)),
        ("EVIOCRMFF", libc::SYS_ioctl, request(0x4004_4581)),
        ("EVIOCREVOKE", libc::SYS_ioctl, request(0x4004_4591)),
        ("UI_DEV_CREATE", libc::SYS_ioctl, request(0x5501)),
        ("TIOCSTI", libc::SYS_ioctl, request(0x5412)),
    ];
    assert_ended_for_each(Kind::Input, &requests);
    let served = serve(Kind::Input, &[]);
    for allowed in [0x4004_4590_u32, 0x8060_4518, 0x8018_4540, 0x8018_457f] {
        let words = [Number(-1), Number(allowed.into())];
        let outcome = served.does(1, libc::SYS_ioctl, &words);
        assert_eq!(outcome, fails(Errno::BADF), "{allowed:#x}");
    }
}

#[cfg(feature = "virgl")]
#[test]
fn gpu_with_virgl_is_killed_for_forbidden_calls() {
    let pid = i64::from(process::id());
    assert_ended_for_each(Kind::Virgl, &forbidden(pid));
}

/// What libraries try, and can do without.
#[test]
fn some_calls_fail_and_the_program_continues() {
    let stderr = Number(2);
    let request = |request: u64| vec![stderr, Number(request as i64)];
    let query = vec![Number(-1), Number(1027), Number(-1)];
    for kind in KINDS {
        let served = serve(kind, &[]);
        let calls = [
            (
                "TCGETS",
                libc::SYS_ioctl,
                request(libc::TCGETS),
                Errno::NOTTY,
            ),
            (
                "TCGETS2",
                libc::SYS_ioctl,
                request(0x802c_542a),
                Errno::NOTTY,
            ),
            ("F_DUPFD_QUERY", libc::SYS_fcntl, query.clone(), Errno::BADF),
            ("a newer call", 470, vec![], Errno::NOSYS),
            ("a much newer call", 0x3fff_ffff, vec![], Errno::NOSYS),
        ];
        for (n, (name, number, words, errno)) in calls.iter().enumerate() {
            let outcome = served.does(n, *number, words);
            assert_eq!(outcome, fails(*errno), "{kind:?}: {name}");
        }
    }
}

/// Which one user's processes, all VMs of libvirt, could do to each other.
#[cfg(feature = "virgl")]
#[test]
fn opengl_cannot_query_the_scheduling_of_others() {
    let served = serve(Kind::Virgl, &[]);
    let own = Number(served.program.pid().into());
    let mut sleep = process::Command::new("sleep").arg("60").spawn().unwrap();
    let other = Number(sleep.id().into());
    for pid in [Number(0), own, other] {
        let calls = [
            (libc::SYS_sched_setaffinity, vec![pid, Number(8), Text("x")]),
            (libc::SYS_sched_setscheduler, vec![pid, Number(0), Text("")]),
            (libc::SYS_setpriority, vec![Number(0), pid, Number(19)]),
        ];
        for (n, (number, words)) in calls.iter().enumerate() {
            let outcome = served.does(n, *number, words);
            assert_eq!(outcome, fails(Errno::PERM), "{number} of {pid:?}");
        }
    }
    sleep.kill().unwrap();
    sleep.wait().unwrap();
}

#[test]
fn file_access_fails_and_the_program_continues() {
    for kind in [Kind::Gpu2d, Kind::Input] {
        let served = serve(kind, &[]);
        for path in ["/etc/passwd", "/dev/null", "/usr/bin/env", "."] {
            assert_eq!(
                served.opens(path, libc::O_RDONLY),
                fails(Errno::ACCESS),
                "{kind:?}: {path}"
            );
        }
        let words = [Text("/proc/self/exe"), Number(0), Number(0)];
        assert_eq!(
            served.does(0, libc::SYS_readlink, &words),
            fails(Errno::ACCESS)
        );
        assert_eq!(
            served.does(1, libc::SYS_getpid, &[]),
            Returned(served.program.pid().into())
        );
    }
}

#[cfg(feature = "virgl")]
#[test]
fn opengl_opens_its_libraries_and_its_shaders_and_nothing_else() {
    let cache = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "").unwrap();
    let secret = secret.to_str().unwrap();
    let command = gpu_command(SocketForm::Connected(7))
        .arg("--virgl")
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .env("MESA_SHADER_CACHE_DIR", cache.path());
    let served = gpu(command, GpuOptions::virgl());

    let inside = cache.path().join("shader");
    let inside = inside.to_str().unwrap();
    assert_works(served.opens(inside, libc::O_CREAT | libc::O_RDWR));
    assert_works(served.opens(inside, libc::O_RDWR | libc::O_TRUNC));
    assert_works(served.opens("/usr/bin/env", libc::O_RDONLY));
    assert_works(served.opens("/proc/self/maps", libc::O_RDONLY));
    let refused = fails(Errno::ACCESS);
    assert_eq!(served.opens("/usr/bin/env", libc::O_RDWR), refused);
    for path in [
        "/etc/passwd",
        "/etc/shadow",
        "/root",
        "/home",
        "/var",
        "/run",
        "/tmp",
        "/proc/1/status",
        "/proc/sys/kernel/hostname",
        "/dev/zero",
        secret,
    ] {
        assert_eq!(served.opens(path, libc::O_RDONLY), refused, "{path}");
    }
    let created = elsewhere.path().join("new");
    let outcome = served.opens(created.to_str().unwrap(), libc::O_CREAT | libc::O_RDWR);
    assert_eq!(outcome, refused);
    assert_eq!(served.does(0, libc::SYS_unlink, &[Text(secret)]), refused);
    // Nor does it become a program, or move a secret to where it may read.
    let moved = cache.path().join("moved");
    let words = [Text(secret), Text(moved.to_str().unwrap())];
    assert!(matches!(
        served.does(0, libc::SYS_rename, &words),
        Returned(..0)
    ));
    assert!(Path::new(secret).exists());
    // The C library makes threads by clone.
    let clone3 = served.does(1, libc::SYS_clone3, &[Number(0), Number(0)]);
    assert_eq!(clone3, fails(Errno::NOSYS));
}

#[test]
fn program_with_its_own_socket_removes_files_there_and_nowhere_else() {
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("file");
    fs::write(&file, "").unwrap();
    let served = gpu(gpu_command(SocketForm::Path), GpuOptions::default());
    let outcome = served.does(1, libc::SYS_unlink, &[Text(file.to_str().unwrap())]);
    assert_eq!(outcome, fails(Errno::ACCESS));
    assert!(file.exists());
    let socket = served.program.socket_path().to_str().unwrap().to_owned();
    assert_eq!(served.opens(&socket, libc::O_RDONLY), fails(Errno::ACCESS));
    assert_works(served.does(1, libc::SYS_unlink, &[Text(&socket)]));
}

#[test]
fn program_may_abort() {
    let served = serve(Kind::Gpu2d, &[]);
    let pid = i64::from(served.program.pid());
    let (thread, _) = threads(served.program.pid()).unwrap()[1];
    let words = [
        Number(pid),
        Number(thread.into()),
        Number(libc::SIGABRT.into()),
    ];
    assert_eq!(
        inject(thread, libc::SYS_tgkill, &words).unwrap(),
        Returned(0)
    );
    let mut program = served.program;
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    assert!(!status.core_dumped());
}

/// Another process of the same user, which could otherwise read the guest's memory.
#[test]
fn processes_of_the_same_user_cannot_trace_the_program() {
    const USER: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    let as_user = |program: &str| {
        let user = format!("--reuid={USER}");
        let mut command = process::Command::new("setpriv");
        command.args([&user, "--clear-groups", "--inh-caps=-all", program]);
        command
    };
    // Where the user may execute it.
    let copy = folder.path().join("vhost-user-gpu");
    fs::copy(gpu_program(), &copy).unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let user = format!("--reuid={USER}");
    for (switch, closed) in [("on", true), ("off", false)] {
        let command = Command::new("setpriv")
            .args([&user, "--clear-groups", "--inh-caps=-all"])
            .arg(&copy)
            .arg(format!("--sandbox={switch}"))
            .arg("--fd=3");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let command = command.descriptor(theirs);
        let program = command.spawn().unwrap();
        program.wait_stderr("front-end is connected").unwrap();
        let process = format!("/proc/{}", program.pid());
        let owner = fs::metadata(format!("{process}/environ")).unwrap().uid();
        assert_eq!(owner, if closed { 0 } else { USER });
        for file in ["environ", "maps", "mem", "fd/0"] {
            let path = format!("{process}/{file}");
            let mut read = as_user("head");
            let read = read.args(["-c0", &path]).output().unwrap();
            assert_eq!(read.status.success(), !closed, "{switch}: {file}");
        }
        drop(ours);
    }
}
