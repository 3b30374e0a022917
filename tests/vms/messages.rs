// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What docs/troubleshooting.md quotes of QEMU, the guest and libvirt, provoked.

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::SocketForm;
use harness::artifacts::{Artifacts, Qemu};
use harness::libvirt::{DomainParts, Libvirt};
use harness::qemu::Vm;
use harness::staging;
use harness::systemd::Sandbox;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::gpu_command;

const SOON: Duration = Duration::from_secs(60);

/// What a QEMU says that ends at its start.
fn complaint(qemu: &Qemu, chardev: &str, display: &str) -> anyhow::Result<String> {
    let mut process = qemu
        .command()
        .args(["-nodefaults", "-no-user-config", "-S"])
        .args([
            "-object",
            "memory-backend-memfd,id=memory,size=64M,share=on",
        ])
        .args(["-machine", "q35,accel=tcg,memory-backend=memory"])
        .args(["-m", "64M"])
        .args(["-chardev", &format!("socket,id=gpu,{chardev}")])
        .args(["-device", "vhost-user-gpu-pci,chardev=gpu"])
        .args(display.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + SOON;
    while process.try_wait()?.is_none() {
        if Instant::now() > deadline {
            process.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = process.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    Ok(said)
}

#[test]
fn qemu_that_cannot_start_says_why() -> anyhow::Result<()> {
    let qemu = Artifacts::obtain(&mut |step| eprintln!("{step}"))?.qemu;
    let folder = tempfile::tempdir()?;
    let gpu = gpu_command(SocketForm::Path).spawn()?;
    gpu.wait_stderr("serving on")?;
    let gpu = format!("path={}", gpu.socket_path().display());
    let vnc = format!("-vnc unix:{}", folder.path().join("vnc").display());
    let missing = folder.path().join("missing").display().to_string();

    // A backend that ends after the first message.
    let ends = folder.path().join("ends");
    let listener = UnixListener::bind(&ends)?;
    let ender = thread::spawn(move || {
        let (mut connection, _) = listener.accept()?;
        connection.read_exact(&mut [0; 12])
    });

    // A backend that QEMU says nothing to.
    let quiet = folder.path().join("quiet");
    let _quiet = UnixListener::bind(&quiet)?;

    let none = "-display none";
    for (chardev, display, messages) in [
        (
            &gpu,
            vnc.as_str(),
            &["The console requires display DMABUF support."][..],
        ),
        (
            &format!("{gpu},reconnect=1"),
            none,
            &[
                "Failed to set msg fds.",
                "vhost_backend_init failed: Protocol error",
            ],
        ),
        (
            &format!("path={}", quiet.display()),
            "-display none -m 32M",
            &["Machine memory size does not match the size of the memory backend"],
        ),
        (
            &format!("path={missing}"),
            none,
            &[&format!(
                "Failed to connect to '{missing}': No such file or directory"
            )],
        ),
        (
            &format!("path={}", ends.display()),
            none,
            &["Failed to read msg header. Read 0 instead of 12. Original request 1."],
        ),
    ] {
        let said = complaint(&qemu, chardev, display).with_context(|| chardev.clone())?;
        for message in messages {
            ensure!(said.contains(message), "{chardev}: {said}");
        }
    }
    ender.join().expect("the thread does not panic")?;
    Ok(())
}

#[test]
fn memory_that_is_not_shared_is_named() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let program = gpu_command(SocketForm::Path).spawn()?;
    program.wait_stderr("serving on")?;
    let private = [
        "-object",
        "memory-backend-ram,id=private,size=384M",
        "-machine",
        "memory-backend=private",
    ];
    let mut vm = Vm::builder(&artifacts)
        .memory("384M")
        .gpu_socket(program.socket_path())
        .arguments(&private.map(str::to_owned))
        .start()?;
    // QEMU says one of these, by what it did when the program refused.
    let messages = [
        "vhost VQ 1 ring restore failed: -22: Invalid argument (22)",
        "Failed to write msg. Wrote -1 instead of 20.",
    ];
    let deadline = Instant::now() + SOON;
    let is_said = |vm: &Vm| messages.iter().any(|said| vm.qemu_log().contains(said));
    while !is_said(&vm) {
        ensure!(
            Instant::now() < deadline,
            "QEMU says: {}\nprogram: {}",
            vm.qemu_log(),
            program.stderr()
        );
        thread::sleep(Duration::from_millis(100));
    }
    program
        .wait_stderr("cannot serve a vhost-user message of the front-end: invalid parameters")?;
    // Its guest goes on, without a GPU.
    vm.wait_ready()?;
    Ok(())
}

#[test]
fn guest_without_memory_for_its_pictures_says_so() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let program = gpu_command(SocketForm::Path)
        .arg("--max-hostmem=1M")
        .spawn()?;
    program.wait_stderr("serving on")?;
    let mut vm = Vm::builder(&artifacts)
        .gpu_socket(program.socket_path())
        .boot()
        .with_context(|| program.stderr())?;
    // The driver does not fail for it.
    let _ = vm.command("testcard 1280x800");
    let message = "*ERROR* response 0x1201 (command 0x101)";
    let deadline = Instant::now() + SOON;
    while !vm.kernel_log().contains(message) {
        ensure!(Instant::now() < deadline, "{}", vm.kernel_log());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn libvirt_without_a_descriptor_says_so() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    Libvirt::install(&host, &artifacts)?;
    // An empty file hides the installed one.
    let folder = Path::new("/etc/qemu/vhost-user");
    for name in ["40-vhost-user-gpu.json", "50-qemu-gpu.json"] {
        host.write(&folder.join(name).display().to_string(), "")?;
    }
    let mut libvirt = Libvirt::start(&host)?;
    let parts = DomainParts {
        devices: "<video><driver name='vhostuser'/><model type='virtio' heads='1'/></video>",
        ..DomainParts::default()
    };
    let refused = libvirt.boot(&artifacts, parts).err();
    let refused = refused.context("the domain starts")?;
    let message = "Unable to find a satisfying vhost-user-gpu";
    ensure!(format!("{refused:#}").contains(message), "{refused:#}");
    Ok(())
}

#[test]
fn backend_that_ends_under_a_vm_is_named() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let mut program = gpu_command(SocketForm::Path).spawn()?;
    program.wait_stderr("serving on")?;
    let mut vm = Vm::builder(&artifacts)
        .gpu_socket(program.socket_path())
        .boot()?;
    // As `vhostctl remove` does.
    program.signal(Signal::TERM)?;
    program.wait_exit(SOON)?;
    // QEMU stops the device, and starts it again.
    vm.qmp("stop", Value::Null)?;
    vm.qmp("cont", Value::Null)?;
    for message in [
        "ring restore failed: -22: Invalid argument (22)",
        "Failed to set msg fds.",
    ] {
        let deadline = Instant::now() + SOON;
        while !vm.qemu_log().contains(message) {
            ensure!(Instant::now() < deadline, "{message}: {}", vm.qemu_log());
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}
