// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest uses a shared folder, a disk and the network through backends of other projects, each added by
//! one command.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::packages;
use harness::qemu::Vm;
use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
/// The capabilities that virtiofsd keeps while it serves: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID,
/// MKNOD and SETFCAP, as in capabilities(7).
const FILE_CAPABILITIES: &str = "00000000880000db";
const MIB: u64 = 1 << 20;
/// What udhcpc(8) runs when it has an address.
const DHCP: &str = "printf '%s\\n' '#!/bin/sh' 'test \"$1\" = bound || exit 0' \
                    'ip addr add $ip/$mask dev $interface' 'ip route add default via $router' >/tmp/dhcp; \
                    chmod 755 /tmp/dhcp";

/// A host with backends of others, and what it was asked to do for vm1.
struct Host(Sandbox);

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = stage()?;
        let packages = [
            packages::virtiofsd()?,
            packages::storage_daemon()?,
            packages::passt()?,
        ];
        let folders = packages.iter().map(PathBuf::as_path);
        let folders: Vec<_> = folders.chain([staging.path()]).collect();
        Ok(Self(Sandbox::start(&folders)?))
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.0.exec(words)?;
        let said = stderr(&output);
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn shell(&self, script: &str) -> anyhow::Result<String> {
        self.run(&["sh", "-c", script])
    }

    fn add(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run(&[&["vhostctl", "add"], words].concat())
    }

    /// A file of the host.
    fn path(&self, path: &str) -> PathBuf {
        self.0.path(path)
    }

    /// vm1 as `vhostctl qemu-args` says.
    fn vm(&self, artifacts: &Artifacts) -> anyhow::Result<Vm> {
        let line = self.run(&["vhostctl", "qemu-args", "vm1", "--memory=384M"])?;
        let mut words = self.0.words_outside(&line)?;
        // More processors than a backend has queues of its own accord.
        words.extend(["-smp".to_owned(), "2".to_owned()]);
        let vm = Vm::builder(artifacts).arguments(&words).boot();
        vm.with_context(|| self.0.journal(&["--lines=40"]).unwrap_or_default())
    }

    /// What `/proc` says of each process of a service, by the label of the line.
    fn processes(&self, service: &str, label: &str) -> anyhow::Result<Vec<String>> {
        let group = self.0.property(service, "ControlGroup")?;
        let script = format!(
            "for pid in $(cat '/sys/fs/cgroup{group}/cgroup.procs'); do sed -n 's/^{label}:[[:space:]]*//p' \
             /proc/$pid/status; done"
        );
        Ok(self.shell(&script)?.lines().map(str::to_owned).collect())
    }

    fn wait_success(&self, service: &str) -> anyhow::Result<()> {
        self.0
            .wait_property(service, "ActiveState", "inactive", SOON)?;
        assert_eq!(self.0.property(service, "Result")?, "success", "{service}");
        Ok(())
    }
}

/// Runs words of the guest's shell; what they print.
fn guest(vm: &mut Vm, script: &str) -> anyhow::Result<String> {
    let lines = vm.command(&format!("shell {script}"));
    Ok(lines.with_context(|| script.to_owned())?.join("\n"))
}

#[test]
fn guest_shares_files_with_their_owners() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let host = Host::boot()?;
    host.shell(
        "mkdir -p '/srv/share d' && cd '/srv/share d' && echo from the host >host && chown 1234:5678 host && \
         chmod 640 host && echo secret >/srv/outside && mkdir /srv/fixed && echo fixed >/srv/fixed/file",
    )?;
    let added = host.add(&[
        "fs",
        "vm1",
        "--backend=virtiofsd",
        "--name=data",
        "--shared-dir=/srv/share d",
        "--now",
    ])?;
    assert_eq!(added, "");
    host.add(&[
        "fs",
        "vm1",
        "--backend=virtiofsd",
        "--name=fixed",
        "--shared-dir=/srv/fixed",
        "--read-only",
        "--now",
    ])?;

    let mut vm = host.vm(&artifacts)?;
    guest(
        &mut vm,
        "mkdir /mnt /fixed; mount -t virtiofs data /mnt; mount -t virtiofs fixed /fixed",
    )?;
    assert_eq!(guest(&mut vm, "cat /mnt/host")?, "from the host");
    assert_eq!(
        guest(&mut vm, "stat -c '%u:%g %a' /mnt/host")?,
        "1234:5678 640"
    );
    guest(
        &mut vm,
        "cd /mnt; echo from the guest >new; chown 4321:8765 new; chmod 4751 new; mkfifo pipe; ln -s /srv/outside link",
    )?;
    let new = host.path("/srv/share d/new");
    assert_eq!(fs::read_to_string(&new)?, "from the guest\n");
    let data = fs::metadata(&new)?;
    assert_eq!((data.uid(), data.gid()), (4321, 8765));
    assert_eq!(data.mode() & 0o7777, 0o4751);

    // The host's devices are not the guest's: mknod is told so.
    assert!(guest(&mut vm, "mknod /mnt/disk b 8 0").is_err());
    assert_eq!(guest(&mut vm, "cat /fixed/file")?, "fixed");
    let error = format!(
        "{:#}",
        guest(&mut vm, "touch /fixed/new").expect_err("read-only")
    );
    assert!(error.contains("Read-only file system"), "{error}");

    // As confined as by its own sandbox: it sees the folder alone, in namespaces of its own, with the
    // capabilities for files and none that it could get.
    let service = "vhost-user@vm1:data.service";
    let effective = host.processes(service, "CapEff")?;
    assert!(
        effective.iter().any(|it| it == FILE_CAPABILITIES),
        "{effective:?}"
    );
    for capabilities in effective {
        let known = [FILE_CAPABILITIES, "0000000000000000"];
        assert!(known.contains(&capabilities.as_str()), "{capabilities}");
    }
    for label in ["NoNewPrivs", "Seccomp", "Uid"] {
        let expected = match label {
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            _ => "0\t0\t0\t0",
        };
        let values = host.processes(service, label)?;
        assert!(
            values.iter().all(|value| value == expected),
            "{label}: {values:?}"
        );
    }
    // And from its first moment on it could get no others than these and what its sandbox takes.
    let bounds = host.0.property(service, "CapabilityBoundingSet")?;
    assert_eq!(
        bounds,
        "cap_chown cap_dac_override cap_fowner cap_fsetid cap_setgid cap_setuid cap_setpcap cap_sys_admin cap_mknod \
         cap_setfcap"
    );
    assert_eq!(host.0.property(service, "ProtectSystem")?, "strict");
    let root = host.shell(&format!(
        "ls /proc/$(tail -n 1 '/sys/fs/cgroup{}/cgroup.procs')/root",
        host.0.property(service, "ControlGroup")?
    ))?;
    let mut root: Vec<_> = root.lines().collect();
    root.sort_unstable();
    assert_eq!(root, ["host", "link", "new", "pipe"]);

    guest(&mut vm, "cd /; umount /mnt; umount /fixed")?;
    drop(vm);
    host.wait_success(service)
}

#[test]
fn guest_reads_and_writes_a_disk() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let host = Host::boot()?;
    host.shell(
        "mkdir -m 711 /srv/disks && cd /srv/disks && truncate -s 16M disk,1.raw && echo from the host | \
         dd of=disk,1.raw conv=notrunc status=none && chmod 600 disk,1.raw",
    )?;
    let words = [
        "block",
        "vm1",
        "--backend=qemu-storage-daemon",
        "--blk-file=/srv/disks/disk,1.raw",
        "--now",
    ];
    // Nobody but its owner can open it, and that is said before the guest misses its disk.
    let refused = host.add(&words).expect_err("not accessible").to_string();
    assert!(
        refused.contains("--run-as=root runs the backend as its owner"),
        "{refused}"
    );
    host.add(&[&words[..], &["--run-as=root"]].concat())?;

    let mut vm = host.vm(&artifacts)?;
    assert_eq!(guest(&mut vm, "head -n 1 /dev/vda")?, "from the host");
    assert_eq!(guest(&mut vm, "cat /sys/block/vda/size")?, "32768");
    assert_eq!(guest(&mut vm, "ls /sys/block/vda/mq | wc -l")?, "2");
    guest(
        &mut vm,
        "echo from the guest | dd of=/dev/vda bs=1M seek=8 conv=fsync status=none",
    )?;
    let mut bytes = [0; 15];
    let disk = fs::File::open(host.path("/srv/disks/disk,1.raw"))?;
    disk.read_exact_at(&mut bytes, 8 * MIB)?;
    assert_eq!(&bytes, b"from the guest\n");

    // Root in name only.
    let service = "vhost-user@vm1:disk.service";
    assert_eq!(host.processes(service, "CapEff")?, ["0000000000000000"]);
    assert_eq!(host.processes(service, "CapBnd")?, ["0000000000000000"]);
    Ok(())
}

#[test]
fn guest_gets_an_address_and_an_answer_by_passt() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let host = Host::boot()?;
    host.0.write("/srv/www/answer", "from the host\n")?;
    host.run(&[
        "systemd-run",
        "--quiet",
        "--unit=www",
        "--",
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        "/srv/www",
        "8080",
    ])?;
    let deadline = Instant::now() + SOON;
    while host
        .run(&["bash", "-c", ": </dev/tcp/127.0.0.1/8080"])
        .is_err()
    {
        ensure!(
            Instant::now() < deadline,
            "no server: {}",
            host.0.journal(&["-u", "www"])?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // The only way to the host's loopback; the gateway is none.
    let loopback = "--map-host-loopback=10.77.0.1";
    host.add(&["net", "vm1", "--backend=passt", "--now", "--", loopback])?;

    let mut vm = host.vm(&artifacts)?;
    guest(&mut vm, DHCP)?;
    guest(
        &mut vm,
        "ip link set eth0 up; udhcpc -i eth0 -n -q -s /tmp/dhcp",
    )?;
    let address = guest(&mut vm, "ip -4 -o addr show dev eth0")?;
    // The one that passt gives where the host has no network, as the private systemd has none.
    assert!(address.contains("inet 169.254.2.1/16"), "{address}");
    let gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p')";
    let fetch = |address: &str| format!("timeout 20 wget -q -O - http://{address}:8080/answer");
    assert_eq!(guest(&mut vm, &fetch("10.77.0.1"))?, "from the host");
    let refused = format!("{} 2>&1 || echo refused", fetch(gateway));
    let refused = guest(&mut vm, &refused)?;
    assert!(refused.ends_with("refused"), "{refused}");

    // As a user of its own, in its own sandbox, with nothing of the host's files.
    let service = "vhost-user@vm1:net.service";
    assert_eq!(host.processes(service, "CapEff")?, ["0000000000000000"]);
    let log = host.0.journal(&["--unit", service, "--output=short"])?;
    assert!(log.contains(" passt["), "{log}");
    let pid = host.0.property(service, "MainPID")?;
    assert_eq!(host.shell(&format!("ls -A /proc/{pid}/root"))?, "");
    drop(vm);
    host.wait_success(service)
}

#[test]
fn guest_reads_random_numbers_of_a_program_with_its_own_socket() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let host = Host::boot()?;
    let program =
        packages::vhost_device_rng().context("vhost-device-rng is not built: make peers")?;
    fs::copy(program, host.path("/usr/local/bin/vhost-device-rng"))?;
    host.0
        .write("/srv/numbers", &"not random ".repeat(100_000))?;
    host.add(&[
        "rng",
        "vm1",
        "--backend=vhost-device-rng",
        "--now",
        "--",
        "--rng-source=/srv/numbers",
    ])?;
    let mut vm = host.vm(&artifacts)?;
    assert_eq!(
        guest(&mut vm, "cat /sys/class/misc/hw_random/rng_current")?,
        "virtio_rng.0"
    );
    // The kernel's own reader has taken the first ones.
    let numbers = guest(&mut vm, "dd if=/dev/hwrng bs=64 count=1 2>/dev/null")?;
    assert!(numbers.contains("not random not random"), "{numbers}");
    let service = "vhost-user@vm1:rng.service";
    drop(vm);
    host.wait_success(service)
}
