// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `add`, `remove` and everything between, under a real systemd with real backends.

use anyhow::Context as _;
use harness::mock::{KEYBOARD, MOUSE};
use harness::systemd::Sandbox;
use serde_json::{Value, json};

use crate::common::host::{FILES, Host};
use crate::common::stderr;

const GPU: &str = "vhost-user-gpu@vm1";

#[test]
fn gpu_is_added_and_removed() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let (socket, service) = (format!("{GPU}.socket"), format!("{GPU}.service"));
    let said = host.ok(&["add", "gpu", "vm1"])?;
    assert!(said.contains("vhostctl start vm1:gpu"), "{said}");
    assert!(host.is_enabled(&socket)?);
    assert_eq!(host.state(&socket)?, "inactive");
    let text = host.sandbox.systemctl(&["cat", &service])?;
    assert!(
        text.contains("50-vhostctl.conf") && text.contains("Written by \"vhostctl add\""),
        "{text}"
    );

    host.ok(&["start", "vm1"])?;
    assert_eq!(host.state(&socket)?, "active");
    let session = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    assert_eq!(host.state(&service)?, "active");
    // It runs as a user of its own.
    assert_eq!(host.sandbox.property(&service, "User")?, "vu-gpu-vm1");

    host.ok(&["restart", "vm1:gpu", "--cold", "--force"])?;
    assert_eq!(host.state(&socket)?, "active");
    assert_eq!(host.state(&service)?, "inactive", "nobody is connected now");
    drop(session);
    host.ok(&["disable", "vm1"])?;
    assert!(!host.is_enabled(&socket)?);
    assert_eq!(host.state(&socket)?, "active");
    host.ok(&["enable", "--now", "vm1"])?;
    assert!(host.is_enabled(&socket)?);
    host.ok(&["disable", "--now", "vm1"])?;
    assert_eq!(host.state(&socket)?, "inactive");
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    assert_eq!(
        host.state(&socket)?,
        "active",
        "what is added again is as it was"
    );

    // While a VMM is connected.
    let session = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    host.ok(&["remove", "vm1", "--force"])?;
    session.channel.wait_closed()?;
    assert_eq!(host.list()?, Vec::<Value>::new());
    assert!(!host.is_enabled(&socket)?);
    assert!(!host.has_folder(&service));
    assert!(!host.sandbox.path("/run/vhost-user/gpu/vm1.sock").exists());
    let said = host.fails(&["remove", "vm1"], 5)?;
    assert!(said.contains("No such backend: vm1."), "{said}");
    assert!(host.fails(&["start", "vm1"], 5)?.contains("vhostctl add"));
    Ok(())
}

#[test]
fn vms_share_the_input_devices_of_a_host() -> anyhow::Result<()> {
    let host = Host::new(&[KEYBOARD, KEYBOARD, MOUSE])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let said = host.ok(&["add", "input", "vm1", "/dev/input/event0", "--now"])?;
    assert!(said.contains("no stable name"), "{said}");
    let service = "vhost-user-input@vm1:kbd.service";
    let text = host.file(service)?;
    for line in [
        "Environment=EVDEV_PATH=/dev/input/event0\n",
        "DeviceAllow=/dev/input/event0 rw\n",
        "User=vu-input-vm1-kbd\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // Another VM cannot have it, and one keyboard is left to the host.
    let said = host.fails(&["add", "input", "vm2", "/dev/input/event0"], 1)?;
    assert!(
        said.contains("vm1:kbd") && said.contains("--force"),
        "{said}"
    );
    let said = host.fails(&["add", "input", "vm2", "/dev/input/event1"], 1)?;
    assert!(said.contains("last keyboard of seat0"), "{said}");
    let said = host.fails(&["add", "input", "vm2", "keyboard"], 1)?;
    assert!(
        said.contains("/dev/input/event0") && said.contains("/dev/input/event1"),
        "{said}"
    );
    assert!(!host.has_folder("vhost-user-input@vm2:kbd.service"));
    host.ok(&[
        "add",
        "input",
        "vm2",
        "/dev/input/event1",
        "--no-grab",
        "--name=keys",
    ])?;
    assert!(
        host.file("vhost-user-input@vm2:keys.service")?
            .contains("Environment=OPTIONS=--no-grab\n")
    );
    host.ok(&["add", "input", "vm2", "mouse", "--now"])?;

    let devices: Vec<Value> = serde_json::from_slice(&host.run(&["list-devices", "-j"])?.stdout)?;
    let users: Vec<_> = devices
        .iter()
        .map(|device| device["used_by"].clone())
        .collect();
    assert_eq!(
        users,
        [
            json!(["vm1:kbd"]),
            json!(["vm2:keys"]),
            json!(["vm2:mouse"])
        ]
    );

    // What others set beside our file counts.
    let edit = format!("{FILES}/vhost-user-input@vm2:mouse.service.d/override.conf");
    host.sandbox.write(
        &edit,
        "[Service]\nEnvironment=EVDEV_PATH=/dev/input/event7\n",
    )?;
    host.ok(&["add", "input", "vm1", "/dev/input/event2"])?;
    let said = host.ok(&["remove", "vm2:mouse"])?;
    assert!(said.contains("Kept "), "{said}");
    assert!(host.sandbox.path(&edit).exists());

    // The other VM does not notice.
    host.ok(&["stop", "vm2"])?;
    assert_eq!(host.state("vhost-user-input@vm1:kbd.socket")?, "active");
    host.ok(&["remove", "vm1:kbd"])?;
    let left: Vec<_> = host
        .list()?
        .iter()
        .map(|b| format!("{} {}", b["vm"], b["name"]))
        .collect();
    assert_eq!(
        left,
        [
            "\"vm1\" \"gpu\"",
            "\"vm1\" \"mouse\"",
            "\"vm2\" \"keys\"",
            "\"vm2\" \"mouse\""
        ]
    );
    Ok(())
}

#[test]
fn concurrent_adds_assign_a_device_once() -> anyhow::Result<()> {
    let host = Host::new(&[MOUSE])?;
    let words: Vec<_> = (1..=8)
        .map(|number| host.words(&["add", "input", &format!("vm{number}"), "mouse"]))
        .collect();
    let sandbox = &host.sandbox;
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let start = |words| scope.spawn(move || sandbox.exec(words));
        let threads: Vec<_> = words.iter().map(start).collect();
        let end = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(end).collect()
    });
    let mut added = 0;
    for output in outputs {
        let output = output?;
        let said = stderr(&output);
        if output.status.success() {
            added += 1;
        } else {
            assert!(said.contains("use --force to share it"), "{said}");
        }
    }
    assert_eq!(added, 1);
    assert_eq!(host.list()?.len(), 1);
    Ok(())
}

#[test]
fn added_keyboard_serves_a_vmm() -> anyhow::Result<()> {
    let host = Host::new(&[KEYBOARD])?;
    host.ok(&[
        "add",
        "input",
        "web.example-1",
        "event0",
        "--force",
        "--now",
    ])
    .expect_err("no part of a name");
    host.ok(&[
        "add",
        "input",
        "web.example-1",
        "/dev/input/event0",
        "--force",
    ])?;
    let service = "vhost-user-input@web.example-1:kbd.service";
    let mock = host.mock.as_ref().context("no devices")?;
    host.sandbox.drop_in(service, &mock.drop_in())?;
    host.ok(&["start", "web.example-1:kbd"])?;
    let session = host.connect("/run/vhost-user/input/web.example-1:kbd.sock")?;
    assert_eq!(host.state(service)?, "active");
    let user = host.sandbox.property(service, "User")?;
    assert!(user.len() <= 31 && user.starts_with("vu-input-"), "{user}");
    let pid = host.sandbox.property(service, "MainPID")?;
    let owner = host.sandbox.exec(["ps", "-o", "user:40=", "-p", &pid])?;
    assert_eq!(String::from_utf8_lossy(&owner.stdout).trim(), user);
    drop(session);
    Ok(())
}

#[test]
fn unit_that_does_not_start_says_why_and_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.sandbox
        .drop_in("vhost-user-gpu@.socket", "[Socket]\nSocketGroup=nobodys\n")?;
    let said = host.fails(&["add", "gpu", "vm1", "--now"], 1)?;
    assert!(
        said.contains("Failed to start vhost-user-gpu@vm1.socket: it needs group nobodys"),
        "{said}"
    );
    assert!(
        said.contains("systemctl edit vhost-user-gpu@.socket"),
        "{said}"
    );
    assert!(!host.has_folder("vhost-user-gpu@vm1.service"), "undone");
    assert!(!host.is_enabled("vhost-user-gpu@vm1.socket")?);
    assert_eq!(host.list()?, Vec::<Value>::new());

    // What is no reason known to us is in the log.
    host.ok(&["add", "gpu", "vm2"])?;
    host.sandbox.drop_in(
        "vhost-user-gpu@.socket",
        "[Socket]\nSocketGroup=kvm\nExecStartPre=/bin/sh -c 'echo out of luck; exit 3'\n",
    )?;
    let said = host.fails(&["start", "vm2"], 1)?;
    assert!(
        said.contains("Failed to start vhost-user-gpu@vm2.socket: its result is 'exit-code'"),
        "{said}"
    );
    assert!(said.contains("out of luck"), "{said}");

    // A service that cannot be loaded.
    host.sandbox
        .drop_in("vhost-user-gpu@.socket", "[Socket]\nSocketGroup=kvm\n")?;
    host.sandbox
        .drop_in("vhost-user-gpu@vm2.service", "[Service]\nExecStart=\n")?;
    let said = host.fails(&["start", "vm2"], 1)?;
    assert!(said.contains("vhost-user-gpu@vm2.service"), "{said}");

    // A unit that is masked.
    host.ok(&["add", "gpu", "vm3"])?;
    host.sandbox
        .systemctl(&["mask", "vhost-user-gpu@vm3.socket"])?;
    let said = host.fails(&["start", "vm3"], 6)?;
    assert!(said.contains("masked"), "{said}");
    Ok(())
}

#[test]
fn names_and_usage_are_checked_before_anything_is_done() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let long = "v".repeat(100);
    for (arguments, word) in [
        (&["add", "gpu", "my vm"][..], "A-Z a-z 0-9"),
        (&["add", "gpu", "vm:1"], "A-Z a-z 0-9"),
        (&["add", "gpu", r"vm\x2d"], "A-Z a-z 0-9"),
        (&["add", "gpu", ""], "empty"),
        (&["add", "gpu", "-v"], "-v"),
        (&["add", "gpu", &long], "107"),
        (&["add", "gpu", "vm1", "--name=a"], "which has no name"),
        (&["add", "gpu", "vm1", "--no-grab"], "--no-grab"),
        (
            &["add", "gpu", "vm1", "--render-node=/dev/null"],
            "No such device: /dev/null. See",
        ),
        (
            &["add", "gpu", "vm1", "--render-node=auto"],
            "This host has no render node.",
        ),
        (&["add", "input", "vm1"], "Which input device?"),
        (
            &["add", "input", "vm1", "no-such-device"],
            "No such device: no-such-device. See",
        ),
        (&["add", "input", "vm1", "x", "--virgl"], "--virgl"),
        (
            &["add", "input", "vm1", "x", "--max-hostmem=1G"],
            "--max-hostmem",
        ),
        (&["add", "gpu", "vm1", "--max-hostmem=lots"], "K, M, G or T"),
        (&["add", "gpu", "vm1", "--max-hostmem=0G"], "must not be 0"),
        (&["add", "fs", "vm1"], "--backend"),
        (
            &["add", "fs", "vm1", "--backend=nothing"],
            "No usable backend 'nothing' of type fs",
        ),
        (&["add", "tpu", "vm1"], "tpu"),
        (&["add", "gpu", "vm1", "--", "x"], "--backend"),
        (&["add", "gpu", "."], "'.'"),
        (&["add", "input", "..", "x"], "'..'"),
        (&["add", "input", "vm1", "x", "--name=.."], "'..'"),
        (&["qemu-args", "vm1", "--memory=2GB"], "2G"),
    ] {
        let said = host.fails(arguments, 1)?;
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let files = host
        .sandbox
        .exec(["sh", "-c", "ls -d /etc/systemd/system/vhost*"])?;
    assert_eq!(String::from_utf8_lossy(&files.stdout), "");
    // Names that are odd, and good.
    for vm in ["web.example.com", "_", "9-", &"v".repeat(79)] {
        host.ok(&["add", "gpu", vm, "--now"])?;
        assert_eq!(
            host.state(&format!("vhost-user-gpu@{vm}.socket"))?,
            "active"
        );
        // Seen from here, a path is longer.
        if vm.len() < 20 {
            drop(host.connect(&format!("/run/vhost-user/gpu/{vm}.sock"))?);
        }
    }
    Ok(())
}

#[test]
fn missing_unit_is_named() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    for half in ["service", "socket"] {
        for folder in ["/lib", "/usr/lib"] {
            let path = format!("{folder}/systemd/system/vhost-user-gpu@.{half}");
            host.sandbox.exec(["rm", "-f", &path])?;
        }
    }
    host.sandbox.systemctl(&["daemon-reload"])?;
    let said = host.fails(&["add", "gpu", "vm1"], 5)?;
    assert!(
        said.contains("vhost-user-gpu@vm1.service is not installed"),
        "{said}"
    );
    assert!(!host.has_folder("vhost-user-gpu@vm1.service"));
    Ok(())
}

#[test]
fn existing_settings_are_not_replaced_unasked() -> anyhow::Result<()> {
    let host = Host::new(&[KEYBOARD, MOUSE])?;
    host.ok(&["add", "input", "vm1", "mouse", "--name=a"])?;
    let before = host.file("vhost-user-input@vm1:a.service")?;
    let said = host.fails(
        &["add", "input", "vm1", "mouse", "--name=a", "--no-grab"],
        1,
    )?;
    assert!(
        said.contains("other settings") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(host.file("vhost-user-input@vm1:a.service")?, before);
    host.ok(&[
        "add",
        "input",
        "vm1",
        "mouse",
        "--name=a",
        "--no-grab",
        "--force",
    ])?;
    assert_ne!(host.file("vhost-user-input@vm1:a.service")?, before);
    // The name is made up so that it is free, and the same device has the same one.
    let said = host.ok(&["add", "input", "vm1", "mouse", "--no-grab"])?;
    assert!(said.contains("vhost-user-input@vm1:a.service.d"), "{said}");
    Ok(())
}

#[test]
fn front_end_arguments_name_all_devices() -> anyhow::Result<()> {
    let host = Host::new(&[MOUSE])?;
    host.ok(&["add", "gpu", "vm1"])?;
    host.ok(&["add", "input", "vm1", "mouse"])?;
    let line = host.ok(&["qemu-args", "vm1", "--memory=1G"])?;
    assert_eq!(
        line,
        "-m 1G -object memory-backend-memfd,id=vhost-user-memory,size=1G,share=on \
         -machine memory-backend=vhost-user-memory \
         -chardev socket,id=gpu-socket,path=/run/vhost-user/gpu/vm1.sock \
         -device vhost-user-gpu-pci,id=gpu,chardev=gpu-socket -vga none -display none \
         -chardev socket,id=input-mouse-socket,path=/run/vhost-user/input/vm1:mouse.sock \
         -device vhost-user-input-pci,id=input-mouse,chardev=input-mouse-socket\n"
    );
    let words: Vec<String> =
        serde_json::from_str(&host.ok(&["qemu-args", "vm1", "--memory=none", "-j"])?)?;
    assert_eq!(words[0], "-chardev");
    let xml = host.ok(&["libvirt-xml", "vm1"])?;
    for part in [
        "<access mode='shared'/>",
        "<model type='none'/>",
        r#"<qemu:arg value='{"driver":"vhost-user-gpu-pci","id":"gpu","chardev":"gpu-socket"}'/>"#,
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    assert!(host.fails(&["qemu-args", "vm2"], 5)?.contains("vm2"));
    Ok(())
}

/// A program that stands for vhost-user-gpu where it can do 3D, or not.
fn gpu_program(sandbox: &Sandbox, features: &str) -> anyhow::Result<()> {
    let path = "/usr/local/bin/gpu";
    let script = format!("#!/bin/sh\necho '{{\"type\": \"gpu\", \"features\": [{features}]}}'\n");
    sandbox.write(path, &script)?;
    sandbox.exec(["chmod", "755", path])?;
    sandbox.drop_in(
        "vhost-user-gpu@.service",
        &format!("[Service]\nExecStart=\nExecStart={path}\n"),
    )
}

#[test]
fn gpu_gets_its_render_node() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let run = |arguments: &[&str]| host.run_on_laptop(arguments);
    let said = stderr(&run(&["add", "gpu", "vm1", "--render-node=auto"])?);
    assert!(
        said.contains("Its render node is /dev/dri/by-path/pci-0000:00:02.0-render."),
        "{said}"
    );
    let text = host.file("vhost-user-gpu@vm1.service")?;
    for line in [
        "PrivateDevices=no\n",
        "SupplementaryGroups=render\n",
        "Environment=OPTIONS=--render-node=/dev/dri/by-path/pci-0000:00:02.0-render\n",
        "DeviceAllow=/dev/dri/by-path/pci-0000:00:02.0-render rw\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // A render node is for many.
    let output = run(&[
        "add",
        "gpu",
        "vm2",
        "--render-node=/dev/dri/renderD128",
        "--max-hostmem=1G",
    ])?;
    assert!(output.status.success(), "{}", stderr(&output));
    let text = host.file("vhost-user-gpu@vm2.service")?;
    assert!(text.contains(" --max-hostmem=1G\"\n"), "{text}");
    let most = host
        .sandbox
        .property("vhost-user-gpu@vm2.service", "MemoryMax")?;
    assert_eq!(most, (1536_u64 << 20).to_string(), "it has to fit");
    let output = run(&["list-devices", "--type=gpu", "--no-legend"])?;
    assert!(String::from_utf8_lossy(&output.stdout).contains(" vm1:gpu,vm2:gpu "));

    gpu_program(&host.sandbox, "")?;
    let output = run(&["add", "gpu", "vm3", "--virgl"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/usr/local/bin/gpu does not support OpenGL"),
        "{}",
        stderr(&output)
    );
    gpu_program(&host.sandbox, "\"virgl\"")?;
    let output = run(&["add", "gpu", "vm3", "--virgl"])?;
    assert!(output.status.success(), "{}", stderr(&output));
    let text = host.file("vhost-user-gpu@vm3.service")?;
    assert!(text.contains("render --virgl\"\n"), "{text}");
    let environment = host
        .sandbox
        .property("vhost-user-gpu@vm3.service", "Environment")?;
    assert!(
        environment.contains("--virgl"),
        "systemd reads it so: {environment}"
    );
    Ok(())
}

#[test]
fn template_opens_no_device_but_the_one_assigned() -> anyhow::Result<()> {
    let host = Host::new(&[KEYBOARD])?;
    // The nodes of a machine with two keyboards that its kernel lacks: whoever may open one hears of that.
    let nodes = "mkdir -p /dev/input && cd /dev/input && for n in 0 1; do mknod -m 660 event$n c 13 $((64 + n)); \
                 chgrp input event$n; done";
    let made = host.sandbox.exec(["sh", "-c", nodes])?;
    assert!(made.status.success(), "{}", stderr(&made));
    host.ok(&["add", "input", "vm1", "/dev/input/event0", "--force"])?;
    let service = "vhost-user-input@vm1:kbd.service";
    for (node, error) in [
        ("event0", "No such device"),
        ("event1", "Operation not permitted"),
    ] {
        let program = format!("/bin/sh -c 'exec 3<>/dev/input/{node}'");
        host.sandbox.drop_in(
            service,
            &format!(
                "[Service]\nType=oneshot\nRestartForceExitStatus=\nExecStartPre=\nExecStart=\nExecStart={program}\n"
            ),
        )?;
        host.sandbox.exec(["systemctl", "start", service])?;
        let journal = host.sandbox.journal(&["--unit", service, "--lines=10"])?;
        assert!(journal.contains(error), "{node}: {journal}");
    }
    Ok(())
}
