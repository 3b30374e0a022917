// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The hardening of the units, under a real systemd: each directive, isolation between VMs, limits, and the
//! programs' own sandbox inside.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[cfg(target_arch = "x86_64")]
use crate::common::inject;
use crate::common::{Backing, Pieces, guest_memory, ok};
use anyhow::{Context as _, ensure};
use frontend::Session;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use harness::staging;
use harness::systemd::Sandbox;

/// A socket counts its starts for this long (TriggerLimitIntervalSec=), over a stop too.
const TRIGGER_LIMIT: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(60);
const GPU: &str = "vhost-user-gpu@vm1.service";
const INPUT: &str = "vhost-user-input@vm1:kbd.service";
const VNC: &str = "vhost-vnc@vm1.service";
const SLICE: &str = "system-vhost\\x2duser.slice";

/// Connects to a VM's GPU, whose socket is started.
fn gpu(host: &Sandbox, vm: &str) -> anyhow::Result<(Gpu, DisplayThread)> {
    host.systemctl(&["start", &format!("vhost-user-gpu@{vm}.socket")])?;
    let path = host.path(&format!("/run/vhost-user/gpu/{vm}.sock"));
    let stream = UnixStream::connect(&path).context("cannot connect")?;
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    let gpu = Gpu::start(
        Session::new(stream),
        &guest_memory(),
        Some(socket),
        GpuOptions::default(),
    )?;
    Ok((gpu, display))
}

/// The units with what their drop-ins add, and the most that systemd-analyze may give each.
pub(crate) fn exposure(host: &Sandbox, unit: &str) -> anyhow::Result<f64> {
    let said = host.exec(["systemd-analyze", "security", "--no-pager", unit])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let level = said
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let level = level.and_then(|line| line.rsplit(": ").next()?.split(' ').next()?.parse().ok());
    level.context(said)
}

/// A property's words. Of several, systemd keeps no order.
fn sorted(host: &Sandbox, unit: &str, property: &str) -> anyhow::Result<String> {
    let value = host.property(unit, property)?;
    let mut words: Vec<_> = value.split(' ').collect();
    words.sort_unstable();
    Ok(words.join(" "))
}

#[test]
fn systemd_analyze_finds_little_exposure() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    host.drop_in(
        INPUT,
        "[Service]\nEnvironment=EVDEV_PATH=/dev/input/event0\nDeviceAllow=/dev/null rw\nUser=vu-kbd\n",
    )?;
    let link = "mkdir -p /run/systemd/system/vhost-user-gpu@gl.service.d && \
                ln -s /usr/lib/systemd/system/vhost-user-gpu-virgl.conf \
                /run/systemd/system/vhost-user-gpu@gl.service.d/";
    ensure!(host.exec(["sh", "-c", link])?.status.success());
    host.systemctl(&["daemon-reload"])?;
    const GL: &str = "vhost-user-gpu@gl.service";
    for (unit, most) in [(GPU, 1.5), (INPUT, 1.5), (GL, 2.5), (VNC, 1.5)] {
        let exposure = exposure(&host, unit)?;
        assert!(exposure <= most, "{unit}: {exposure}");
        // Each wall by its name: the figure would bear the loss of one.
        for (property, value) in [
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("AmbientCapabilities", ""),
            ("DynamicUser", "yes"),
            // The console tells by name who looks.
            ("PrivateUsers", if unit == VNC { "no" } else { "yes" }),
            ("PrivateNetwork", "yes"),
            ("RestrictAddressFamilies", "AF_UNIX"),
            ("PrivateTmp", "yes"),
            ("PrivateMounts", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("ProtectProc", "invisible"),
            ("ProcSubset", "pid"),
            ("ProtectClock", "yes"),
            ("ProtectControlGroups", "yes"),
            ("ProtectHostname", "yes"),
            ("ProtectKernelLogs", "yes"),
            ("ProtectKernelModules", "yes"),
            ("ProtectKernelTunables", "yes"),
            ("RestrictRealtime", "yes"),
            ("RestrictSUIDSGID", "yes"),
            ("RestrictNamespaces", "yes"),
            ("LockPersonality", "yes"),
            ("KeyringMode", "private"),
            ("RemoveIPC", "yes"),
            ("DevicePolicy", "closed"),
            ("SystemCallArchitectures", "native"),
            ("UMask", "0077"),
            ("IPAddressDeny", "0.0.0.0/0 ::/0"),
            ("SystemCallErrorNumber", "1"),
            // What is shown is memory of the console's own: it leaves no core dump at all.
            ("CoredumpFilter", if unit == VNC { "0x33" } else { "0x31" }),
            ("NotifyAccess", "main"),
            ("Slice", SLICE),
            ("TimeoutStartUSec", "20s"),
            ("TimeoutStopUSec", "5s"),
            ("StartLimitIntervalUSec", "30s"),
            ("StartLimitBurst", "20"),
            (
                "SupplementaryGroups",
                if unit == INPUT { "input" } else { "" },
            ),
            ("PrivateDevices", if unit == INPUT { "no" } else { "yes" }),
            // Only OpenGL keeps anything.
            (
                "CacheDirectoryMode",
                if unit == GL { "0700" } else { "0755" },
            ),
            (
                "MemoryDenyWriteExecute",
                if unit == GL { "no" } else { "yes" },
            ),
        ] {
            let is = sorted(&host, unit, property)?;
            assert_eq!(is, value, "{unit}: {property}");
        }
        if unit == VNC {
            assert_eq!(host.property(unit, "LimitCORE")?, "0");
        }
        let calls = host.property(unit, "SystemCallFilter")?;
        let allows = |call: &str| calls.split(' ').any(|allowed| allowed == call);
        assert!(allows("landlock_restrict_self") && allows("seccomp"));
        for call in ["mount", "reboot", "chroot", "capset", "setpriority", "bpf"] {
            assert!(!allows(call), "{unit}: {call}");
        }
        let memory: u64 = host.property(unit, "MemoryMax")?.parse()?;
        let tasks: u64 = host.property(unit, "TasksMax")?.parse()?;
        let (most_memory, most_tasks) = match unit {
            GL => (8 << 30, 512),
            INPUT => (64 << 20, 16),
            VNC => (1 << 30, 8),
            _ => (1 << 30, 16),
        };
        assert_eq!((memory, tasks), (most_memory, most_tasks), "{unit}");
    }
    Ok(())
}

/// What a drop-in takes away, takes nothing else along: some walls imply others.
#[test]
fn drop_in_that_lifts_one_directive_keeps_the_others() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    // The user, and what a GPU of the host takes.
    const LESS: &str = "[Service]\nDynamicUser=no\nUser=root\nPrivateDevices=no\n\
        MemoryDenyWriteExecute=no\nRestrictNamespaces=no\nSystemCallFilter=\n";
    for unit in [GPU, INPUT, VNC] {
        host.drop_in(unit, LESS)?;
        for (property, value) in [
            ("NoNewPrivileges", "yes"),
            ("RestrictSUIDSGID", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateTmp", "yes"),
            ("PrivateMounts", "yes"),
            ("RemoveIPC", "yes"),
            ("DevicePolicy", "closed"),
        ] {
            let is = host.property(unit, property)?;
            assert_eq!(is, value, "{unit}: {property}");
        }
    }
    Ok(())
}

/// A file server as root is bound by this much.
#[test]
fn template_for_other_backends_is_confined_as_well() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    const ORDINARY: &str = "vhost-user@vm1:data.service";
    assert_eq!(host.property(ORDINARY, "DynamicUser")?, "yes");
    const ROOT: &str = "vhost-user@vm2:data.service";
    host.drop_in(ROOT, "[Service]\nDynamicUser=no\nUser=root\n")?;
    for (property, value) in [
        ("UMask", "0077"),
        ("NoNewPrivileges", "yes"),
        ("DevicePolicy", "closed"),
        ("PrivateMounts", "yes"),
        ("PrivateNetwork", "yes"),
        ("RestrictAddressFamilies", "AF_NETLINK AF_UNIX"),
        ("IPAddressDeny", "0.0.0.0/0 ::/0"),
        ("ProtectClock", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("RestrictRealtime", "yes"),
        ("KeyringMode", "private"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("SystemCallArchitectures", "native"),
        ("CoredumpFilter", "0x31"),
        ("Slice", SLICE),
        ("TimeoutStartUSec", "20s"),
        ("TimeoutStopUSec", "10s"),
        ("StartLimitIntervalUSec", "30s"),
        ("StartLimitBurst", "20"),
    ] {
        assert_eq!(sorted(&host, ROOT, property)?, value, "{property}");
    }
    Ok(())
}

#[test]
fn programs_close_their_sandbox_within_the_unit() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    const WITHOUT: &str = "vhost-user-gpu@vm2.service";
    host.drop_in(WITHOUT, "[Service]\nEnvironment=OPTIONS=--sandbox=off\n")?;
    let held = (gpu(&host, "vm1")?, gpu(&host, "vm2")?);
    let filters = |unit: &str| -> anyhow::Result<Vec<u32>> {
        let pid = host.property(unit, "MainPID")?;
        let tasks = fs::read_dir(host.path(&format!("/proc/{pid}/task")))?;
        let filters = tasks.map(|task| {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let filters = status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp_filters:"));
            Ok(filters.context("no filters")?.trim().parse()?)
        });
        filters.collect()
    };
    // The unit's own, and one of the program's, in each thread.
    let unit = filters(WITHOUT)?;
    let most = unit.iter().copied().max().context("no thread")?;
    let program = filters(GPU)?;
    ensure!(program.len() == unit.len() && most > 0, "{unit:?}");
    ensure!(
        program.iter().all(|n| *n == most + 1),
        "{program:?}, {unit:?}"
    );
    // Which systemd tells of a service that runs only.
    assert_eq!(host.property(GPU, "WatchdogUSec")?, "30s");
    drop(held);
    let journal = host.journal(&["--unit", GPU, "--output=cat"])?;
    ensure!(!journal.contains("landlock"), "{journal}");
    Ok(())
}

#[cfg(target_arch = "x86_64")]
#[test]
fn forbidden_call_ends_the_program_and_the_next_one_goes_on() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let (mut gpu, _display) = gpu(&host, "vm1")?;
    let process = host.pid_of(&host.property(GPU, "MainPID")?)?;
    let family = inject::Word::Number(libc::AF_INET.into());
    let ended = inject::inject(process, libc::SYS_socket, &[family])?;
    let inject::Outcome::Ended(signal) = ended else {
        anyhow::bail!("{ended:?}");
    };
    assert_eq!(signal as i32, libc::SIGSYS);
    host.wait_property(GPU, "NRestarts", "1", SOON)?;
    let journal = host.journal(&["--unit", GPU, "--output=cat"])?;
    assert!(journal.contains("code=killed, status=31/SYS"), "{journal}");
    ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
    Ok(())
}

#[test]
fn missing_seccomp_fails_the_start_and_missing_landlock_warns() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    host.drop_in(
        GPU,
        "[Service]\nSystemCallFilter=~landlock_create_ruleset:EOPNOTSUPP\n",
    )?;
    drop(gpu(&host, "vm1")?);
    host.wait_property(GPU, "ActiveState", "inactive", SOON)?;
    assert_eq!(host.property(GPU, "Result")?, "success");
    let journal = host.journal(&["--unit", GPU, "--output=cat"])?;
    assert_eq!(
        journal.matches("this kernel has no landlock").count(),
        1,
        "{journal}"
    );

    host.drop_in(GPU, "[Service]\nSystemCallFilter=~seccomp:EINVAL\n")?;
    assert!(gpu(&host, "vm1").is_err());
    host.wait_property(GPU, "Result", "exit-code", SOON)?;
    let journal = host.journal(&["--unit", GPU, "--output=cat"])?;
    assert!(
        journal.contains("seccomp") && journal.contains("--sandbox=off starts without it"),
        "{journal}"
    );
    // And so it does.
    host.systemctl(&["stop", "vhost-user-gpu@vm1.socket"])?;
    std::thread::sleep(TRIGGER_LIMIT);
    host.drop_in(
        GPU,
        "[Service]\nSystemCallFilter=~seccomp:EINVAL\nEnvironment=OPTIONS=--sandbox=off\n",
    )?;
    drop(gpu(&host, "vm1")?);
    Ok(())
}

#[test]
fn vms_cannot_reach_each_other() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let _held = (gpu(&host, "vm1")?, gpu(&host, "vm2")?);
    let of = |vm: &str| -> anyhow::Result<(String, String)> {
        let pid = host.property(&format!("vhost-user-gpu@{vm}.service"), "MainPID")?;
        let status = fs::read_to_string(host.path(&format!("/proc/{pid}/status")))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let uid = uid.and_then(|ids| ids.split_whitespace().next());
        Ok((pid, uid.context("no user")?.to_owned()))
    };
    let ((pid1, user1), (pid2, user2)) = (of("vm1")?, of("vm2")?);
    assert_ne!(user1, user2);
    assert!(user1 != "0" && user2 != "0");

    // Whether a command of this user works on the second VM's process.
    let works = |user: &str, command: &[&str]| -> anyhow::Result<bool> {
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let mut line = vec!["setpriv", &ids[0], &ids[1], "--clear-groups"];
        line.extend(command);
        Ok(host.exec(line)?.status.success())
    };
    // Signals; the last column: whether its own user may.
    let memory = format!("/proc/{pid2}/mem");
    let [environ, maps, fds, root] =
        ["environ", "maps", "fd", "root"].map(|file| format!("/proc/{pid2}/{file}"));
    let socket = "/run/vhost-user/gpu/vm2.sock";
    let cases: [(&[&str], bool); 7] = [
        (&["kill", "-0", &pid2], true),
        // What may not be read may not be traced either: the kernel asks the same question. The
        // sandbox keeps that from the same user, too.
        (&["head", "-c0", &memory], false),
        (&["head", "-c1", &environ], false),
        (&["head", "-c1", &maps], false),
        (&["ls", &fds], false),
        (&["ls", &root], false),
        (&["test", "-w", socket], false),
    ];
    for (command, own) in cases {
        assert!(!works(&user1, command)?, "{command:?} by the other VM");
        assert_eq!(works(&user2, command)?, own, "{command:?} by its own user");
        assert!(works("0", command)?, "{command:?} by root");
    }
    // In its own place, the other one is not even there.
    let inside = |user: &str| -> anyhow::Result<bool> {
        let there = format!("/proc/{pid2}");
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let target = format!("--target={pid1}");
        let line = ["nsenter", &target, "--mount", "--"];
        let line = line.into_iter().chain(["setpriv", &ids[0], &ids[1]]);
        let line = line.chain(["--clear-groups", "test", "-e", &there]);
        Ok(host.exec(line)?.status.success())
    };
    assert!(!inside(&user1)?);
    assert!(inside("0")?);
    Ok(())
}

#[test]
fn gpu_beyond_its_memory_limit_is_killed_and_another_one_serves() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start_with_limits(&[staging.path()])?;
    let hungry = || -> anyhow::Result<bool> {
        let (mut gpu, _display) = gpu(&host, "vm1")?;
        for id in 1..=4 {
            let size = 2048;
            ok(gpu.create_2d(id, Format::B8G8R8X8, size, size));
            let backing = Backing::new(gpu.memory(), 4 * size * 8, Pieces::Whole);
            // Zeros would take no memory. Each 8 rows come from the same of the guest's.
            backing.write(0, &vec![0x55; 4 * size as usize * 8]);
            ok(gpu.attach_backing(id, &backing.entries.repeat(256)));
            let whole = Rect::sized(size, size);
            match gpu.transfer_to_host_2d(id, whole, 0) {
                Err(_) => return Ok(false),
                drawn => ok(drawn),
            };
        }
        Ok(true)
    };
    // 64 MiB of pictures: the unit's own limit bears that.
    ensure!(hungry()?, "they cannot be drawn at all");
    host.wait_property(GPU, "ActiveState", "inactive", SOON)?;
    host.drop_in(GPU, "[Service]\nMemoryMax=40M\nMemorySwapMax=0\n")?;
    // Its VM may go on: what is kept counts for the slice once the program is gone, and --max-hostmem= limits that.
    let goes_on = hungry()?;
    let journal = host.journal(&["--unit", GPU, "--output=cat"])?;
    eprintln!("the VM goes on: {goes_on}");
    // Of groups of the first version, systemd cannot tell who sent the signal.
    assert!(
        journal.contains("status=9/KILL") || journal.contains("oom-kill"),
        "the limit was not enforced: {journal}"
    );
    let (mut gpu, _display) = gpu(&host, "vm1")?;
    ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
    assert_eq!(host.property(GPU, "ActiveState")?, "active");
    Ok(())
}

/// The units' comments say so of their limit.
#[test]
fn untouched_guest_memory_is_charged_to_its_reader() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start_with_limits(&[staging.path()])?;
    host.drop_in(GPU, "[Service]\nMemoryMax=64M\nMemorySwapMax=0\n")?;
    // The image takes as much as the guest's pages, 16 MiB.
    let shown = |written: bool| -> anyhow::Result<bool> {
        let (mut gpu, _display) = gpu(&host, "vm1")?;
        let size = 2048;
        let backing = Backing::new(gpu.memory(), 4 * size * size, Pieces::Whole);
        if written {
            backing.write(0, &vec![0; 4 * size as usize * size as usize]);
        }
        let whole = Rect::sized(size, size);
        ok(gpu.create_2d(1, Format::B8G8R8X8, size, size));
        ok(gpu.attach_backing(1, &backing.entries));
        ok(gpu.transfer_to_host_2d(1, whole, 0));
        let current: u64 = host.property(GPU, "MemoryCurrent")?.parse()?;
        Ok(current > 28 << 20)
    };
    assert!(!shown(true)?);
    host.wait_property(GPU, "ActiveState", "inactive", SOON)?;
    assert!(shown(false)?);
    Ok(())
}

#[test]
fn unit_cannot_exceed_its_task_limit() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start_with_limits(&[staging.path()])?;
    host.drop_in(GPU, "[Service]\nTasksMax=1\n")?;
    assert!(gpu(&host, "vm1").is_err(), "it has four threads");
    host.wait_property(GPU, "ActiveState", "failed", SOON)?;
    host.systemctl(&["stop", "vhost-user-gpu@vm1.socket"])?;
    host.drop_in(GPU, "[Service]\n")?;
    std::thread::sleep(TRIGGER_LIMIT);
    // The service counts for longer.
    host.systemctl(&["reset-failed", GPU])?;
    drop(gpu(&host, "vm1")?);
    Ok(())
}
