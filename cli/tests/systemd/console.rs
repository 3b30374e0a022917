// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `add console` and what the other verbs make of a console, under a real systemd with real backends.

use anyhow::Context as _;
use harness::mock::MOUSE;
use serde_json::{Value, json};

use crate::common::host::{FILES, Host};
use crate::common::stderr;

/// All sockets of a console of vm1.
const SOCKETS: [&str; 7] = [
    "vhost-user-gpu@vm1.socket",
    "vhost-user-display@vm1.socket",
    "vhost-user-input@vm1:keyboard.socket",
    "vhost-user-events@vm1:keyboard.socket",
    "vhost-user-input@vm1:tablet.socket",
    "vhost-user-events@vm1:tablet.socket",
    "vhost-vnc@vm1.socket",
];
const GPU: &str = "/run/vhost-user/gpu/vm1.sock";
const DISPLAY: &str = "vhost-user-display@vm1.socket";

fn states(host: &Host) -> anyhow::Result<Vec<String>> {
    SOCKETS.iter().map(|unit| host.state(unit)).collect()
}

fn enabled(host: &Host) -> anyhow::Result<Vec<bool>> {
    SOCKETS.iter().map(|unit| host.is_enabled(unit)).collect()
}

/// The names of our files and links among those of systemd's administrator.
fn left_files(host: &Host) -> anyhow::Result<String> {
    let find = format!("find {FILES} -name 'vhost-*' -print");
    let output = host.sandbox.exec(["sh", "-c", &find])?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn console_is_added_started_and_removed() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let said = host.ok(&["add", "console", "vm1"])?;
    assert!(
        said.contains("To start it now: vhostctl start vm1\n"),
        "{said}"
    );
    assert!(said.contains("Only root may view it."), "{said}");
    assert_eq!(enabled(&host)?, [true; 7]);
    assert_eq!(states(&host)?, ["inactive"; 7]);
    let text = host.file("vhost-user-input@vm1:keyboard.service")?;
    for line in [
        "Environment=OPTIONS=--virtual=keyboard\n",
        "User=vu-input-vm1-keyboard\n",
        "PrivateDevices=yes\n",
        "SupplementaryGroups=\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(
        !host.file("vhost-user-gpu@vm1.service")?.contains("OPTIONS"),
        "the defaults are the program's"
    );

    host.ok(&["start", "vm1"])?;
    assert_eq!(states(&host)?, ["active"; 7]);
    let list = host.list()?;
    let columns = |key: &str| list.iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(columns("name"), ["gpu", "keyboard", "tablet", "vnc"]);
    assert_eq!(columns("type"), ["gpu", "input", "input", "vnc"]);
    assert_eq!(columns("state"), ["listening"; 4]);
    assert_eq!(
        columns("socket")[3],
        "/run/vhost-user/vnc/vm1.sock",
        "{list:?}"
    );
    // The other names of its units mean the same.
    let one = host.ok(&["list", "--no-legend", DISPLAY])?;
    assert!(one.contains(" gpu ") && one.lines().count() == 1, "{one}");

    let one = host.ok(&["list", "--no-legend", "--type=vnc"])?;
    assert!(
        one.starts_with("vm1 vnc ") && one.lines().count() == 1,
        "{one}"
    );
    host.ok(&["add", "gpu", "vm2"])?;
    let complete = host.sandbox.exec([
        "env",
        "VHOSTCTL_COMPLETE=bash",
        "_CLAP_COMPLETE_INDEX=2",
        "vhostctl",
        "--",
        "vhostctl",
        "view",
        "v",
    ])?;
    assert_eq!(String::from_utf8_lossy(&complete.stdout), "vm1");
    host.ok(&["remove", "vm2"])?;

    let status = host.ok(&["status", "vm1", "-n0"])?;
    for line in [
        "Units: vhost-user-gpu@vm1.socket, vhost-user-display@vm1.socket, vhost-user-gpu@vm1.service\n",
        "Console: /run/vhost-user-console/vm1/display.sock (listening)\n",
        "Console: /run/vhost-user-console/vm1:tablet/events.sock (listening)\n",
        "Viewers: none\n",
        "● vm1:vnc - VNC Server of Virtual Machine vm1\n",
        "Access: root:root, mode 0600\n",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let json: Value = serde_json::from_slice(&host.run(&["status", "vm1", "-j"])?.stdout)?;
    assert_eq!(json[0]["console"]["unit"], DISPLAY);
    assert_eq!(json[0]["console"]["enabled"], "enabled");
    assert_eq!(json[3]["console"], Value::Null);
    assert_eq!(json[3]["viewers"], 0);
    assert_eq!(json[3]["front_end"], Value::Null);

    // A VMM and a console are served by one process each.
    let session = host.connect(GPU)?;
    assert_eq!(host.state("vhost-user-gpu@vm1.service")?, "active");
    assert_eq!(host.state(DISPLAY)?, "active");
    let said = host.fails(&["stop", "vm1"], 1)?;
    assert!(said.contains("vm1:gpu has a front-end connected"), "{said}");
    assert_eq!(states(&host)?, ["active"; 7]);
    drop(session);
    host.ok(&["stop", "vm1", "--force"])?;
    assert_eq!(states(&host)?, ["inactive"; 7]);
    host.ok(&["disable", "vm1"])?;
    assert_eq!(enabled(&host)?, [false; 7]);
    // What is neither enabled nor loaded is known by its settings.
    host.sandbox.systemctl(&["daemon-reload"])?;
    host.ok(&["enable", "--now", "vm1"])?;
    assert_eq!(enabled(&host)?, [true; 7]);
    assert_eq!(states(&host)?, ["active"; 7]);
    host.ok(&["restart", "vm1"])?;
    assert_eq!(states(&host)?, ["active"; 7]);

    // Added again, nothing changes.
    let said = host.ok(&["add", "console", "vm1", "--now"])?;
    assert!(
        !said.contains("Created") && !said.contains("Replaced"),
        "{said}"
    );
    // One of its devices has both of its sockets.
    host.ok(&["stop", "vm1:keyboard"])?;
    let mut expected = ["active"; 7];
    expected[2..4].fill("inactive");
    assert_eq!(states(&host)?, expected);

    host.ok(&["remove", "vm1"])?;
    assert_eq!(host.list()?, Vec::<Value>::new());
    assert_eq!(enabled(&host)?, [false; 7]);
    assert_eq!(left_files(&host)?, "");
    Ok(())
}

#[test]
fn existing_gpu_is_kept_and_gets_what_it_lacks() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let gpu = "vhost-user-gpu@vm1.service";
    host.ok(&[
        "add",
        "gpu",
        "vm1",
        "--max-hostmem=64M",
        "--socket-user=root",
    ])?;
    let before = host.file(gpu)?;
    host.ok(&["add", "console", "vm1", "--now"])?;
    assert_eq!(host.file(gpu)?, before);
    assert!(
        host.file("vhost-user-gpu@vm1.socket")?
            .contains("SocketUser=root\n")
    );
    assert_eq!(states(&host)?, ["active"; 7]);

    // A size is added; another one replaces it only if told so.
    let said = host.ok(&["add", "console", "vm1", "--resolution=1920x1080"])?;
    assert!(
        said.contains("vm1:gpu is already listening. The new settings take effect"),
        "{said}"
    );
    assert!(
        host.file(gpu)?
            .contains("Environment=\"OPTIONS=--max-hostmem=64M --resolution=1920x1080\"\n"),
    );
    let said = host.fails(&["add", "console", "vm1", "--resolution=800x600"], 1)?;
    assert!(said.contains("has other settings already"), "{said}");
    host.ok(&["add", "console", "vm1", "--resolution=800x600", "--force"])?;
    assert!(host.file(gpu)?.contains("--resolution=800x600\"\n"));
    // Resizing is added to what is there.
    host.ok(&["add", "console", "vm1", "--allow-resize"])?;
    assert!(
        host.file(gpu)?
            .contains("OPTIONS=--max-hostmem=64M --resolution=800x600 --allow-resize\"\n"),
    );
    // The GPU outlives its console's server.
    host.ok(&["remove", "vm1:vnc", "vm1:keyboard", "vm1:tablet"])?;
    let names: Vec<_> = host.list()?.iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["gpu"]);

    // A GPU that somebody started without settings of ours.
    host.sandbox
        .systemctl(&["start", "vhost-user-gpu@vm2.socket"])?;
    host.ok(&["add", "console", "vm2", "--now"])?;
    assert_eq!(host.state("vhost-user-display@vm2.socket")?, "active");
    // What is named is there.
    let said = host.fails(&["add", "console", "vm2", "--heads=2", "--now"], 1)?;
    assert!(
        said.starts_with("vhost-vnc@vm2.socket has other settings already, those of its template."),
        "{said}"
    );
    Ok(())
}

#[test]
fn device_of_the_host_keeps_its_name() -> anyhow::Result<()> {
    let host = Host::new(&[MOUSE])?;
    host.ok(&["add", "input", "vm1", "mouse", "--name=tablet"])?;
    let before = left_files(&host)?;
    let said = host.fails(&["add", "console", "vm1", "--now"], 1)?;
    assert!(
        said.contains("vm1:tablet is /dev/input/") && said.contains("vhostctl remove vm1:tablet"),
        "{said}"
    );
    assert_eq!(left_files(&host)?, before);
    host.ok(&["add", "console", "vm1", "--force"])?;
    let text = host.file("vhost-user-input@vm1:tablet.service")?;
    assert!(
        text.contains("--virtual=tablet") && !text.contains("EVDEV_PATH"),
        "{text}"
    );
    Ok(())
}

#[test]
fn console_that_does_not_start_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let before = left_files(&host)?;
    host.sandbox.drop_in(
        "vhost-vnc@.socket",
        "[Socket]\nExecStartPre=/bin/sh -c 'echo out of luck; exit 3'\n",
    )?;
    let said = host.fails(&["add", "console", "vm1", "--now"], 1)?;
    assert!(
        said.contains("Failed to start vhost-vnc@vm1.socket") && said.contains("out of luck"),
        "{said}"
    );
    assert_eq!(left_files(&host)?, before);
    let mut expected = ["inactive"; 7];
    expected[0] = "active";
    assert_eq!(states(&host)?, expected, "the GPU was there before");
    let mut expected = [false; 7];
    expected[0] = true;
    assert_eq!(enabled(&host)?, expected);
    // Nothing fails for ever.
    host.sandbox.drop_in("vhost-vnc@.socket", "")?;
    host.ok(&["add", "console", "vm1", "--now"])?;
    assert_eq!(states(&host)?, ["active"; 7]);

    // A unit that is masked is known before anything is written.
    host.sandbox
        .systemctl(&["mask", "vhost-user-events@vm2:tablet.socket"])?;
    let said = host.fails(&["add", "console", "vm2"], 6)?;
    assert!(said.contains("masked"), "{said}");
    assert!(!host.has_folder("vhost-user-gpu@vm2.service"));
    Ok(())
}

/// Also those of further heads, and of a port.
#[test]
fn status_has_every_socket() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "console", "vm1", "--heads=2"])?;
    let unit = "vhost-vnc@vm1.socket";
    host.sandbox
        .drop_in(unit, "[Socket]\nListenStream=127.0.0.1:5971\n")?;
    host.ok(&["start", "vm1"])?;
    let status = host.ok(&["status", "vm1:vnc", "-n0"])?;
    for line in [
        "     Socket: /run/vhost-user/vnc/vm1.sock",
        "             /run/vhost-user/vnc/vm1:1.sock",
        "             127.0.0.1:5971 (TCP: open to whoever reaches it)",
    ] {
        assert!(status.lines().any(|said| said == line), "{line}: {status}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&host.ok(&["status", "vm1:vnc", "-n0", "-j"])?)?;
    assert_eq!(json[0]["socket"], "/run/vhost-user/vnc/vm1.sock");
    assert_eq!(
        json[0]["sockets"].as_array().map(Vec::len),
        Some(3),
        "{json}"
    );
    Ok(())
}

#[test]
fn console_of_a_running_vm_comes_with_its_next_start() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let session = host.connect(GPU)?;
    let before = left_files(&host)?;
    let said = host.fails(&["add", "console", "vm1", "--now"], 1)?;
    assert!(
        said.contains("vm1:gpu serves a VM without a socket for the console")
            && said.contains("Shut the VM down first"),
        "{said}"
    );
    assert_eq!(left_files(&host)?, before);
    let said = host.ok(&["add", "console", "vm1"])?;
    assert!(
        said.contains("with that VM's next start") && said.contains("vhostctl start vm1\n"),
        "{said}"
    );
    let said = host.fails(&["start", "vm1"], 1)?;
    assert!(
        said.contains("vm1:gpu serves a VM without vhost-user-display@vm1.socket"),
        "{said}"
    );
    assert_eq!(
        host.state("vhost-vnc@vm1.socket")?,
        "active",
        "the others go on"
    );
    drop(session);
    let timeout = std::time::Duration::from_secs(60);
    let service = "vhost-user-gpu@vm1.service";
    host.sandbox
        .wait_property(service, "ActiveState", "inactive", timeout)?;
    // It is enabled: the VM brings it, or the administrator does before.
    host.ok(&["start", "vm1:gpu"])?;
    assert_eq!(states(&host)?, ["active"; 7]);
    Ok(())
}

#[test]
fn heads_and_viewers_are_those_that_were_named() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&[
        "add",
        "console",
        "vm1",
        "--heads=3",
        "--resolution=1920x1080,800x600",
        "--allow-resize",
        "--keyboard-layout=de",
        "--viewer-user=daemon",
        "--viewer-group=daemon",
        "--now",
    ])?;
    let text = host.file("vhost-user-gpu@vm1.service")?;
    assert!(
        text.contains(
            "Environment=\"OPTIONS=--resolution=1920x1080,800x600,800x600 --allow-resize\"\n"
        ),
        "{text}"
    );
    let text = host.file("vhost-vnc@vm1.socket")?;
    assert!(
        text.ends_with(
            "[Socket]\nListenStream=/run/vhost-user/vnc/vm1:1.sock\nListenStream=/run/vhost-user/vnc/vm1:2.sock\n\
             SocketUser=daemon\nSocketGroup=daemon\nSocketMode=0660\n"
        ),
        "{text}"
    );
    let text = host.file("vhost-vnc@vm1.service")?;
    assert!(
        text.contains("Environment=OPTIONS=--keyboard-layout=de\n"),
        "{text}"
    );
    for head in ["vm1", "vm1:1", "vm1:2"] {
        let path = format!("/run/vhost-user/vnc/{head}.sock");
        let output = host.sandbox.exec(["stat", "-c", "%U:%G %a", &path])?;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "daemon:daemon 660\n",
            "{}",
            stderr(&output)
        );
    }
    let words = host.ok(&["qemu-args", "vm1", "--memory=none"])?;
    assert_eq!(
        words,
        "-chardev socket,id=gpu-socket,path=/run/vhost-user/gpu/vm1.sock \
         -device vhost-user-gpu-pci,id=gpu,chardev=gpu-socket,max_outputs=3,xres=1920,yres=1080 -vga none -display none \
         -chardev socket,id=input-keyboard-socket,path=/run/vhost-user/input/vm1:keyboard.sock \
         -device vhost-user-input-pci,id=input-keyboard,chardev=input-keyboard-socket \
         -chardev socket,id=input-tablet-socket,path=/run/vhost-user/input/vm1:tablet.sock \
         -device vhost-user-input-pci,id=input-tablet,chardev=input-tablet-socket\n"
    );
    let xml: Value = serde_json::from_slice(&host.run(&["libvirt-xml", "vm1", "-j"])?.stdout)?;
    let arguments = xml[0]["arguments"].as_array().context("no arguments")?;
    let devices = arguments.iter().filter_map(Value::as_str);
    let devices: Vec<_> = devices.filter(|word| word.contains("-pci\"")).collect();
    assert_eq!(devices.len(), 3, "{xml}");
    assert!(
        devices[0].ends_with(r#""max_outputs":3,"xres":1920,"yres":1080}"#),
        "{xml}"
    );

    // Fewer heads, and other viewers.
    let said = host.fails(&["add", "console", "vm1", "--heads=1", "--force"], 1)?;
    assert!(
        said.contains("--heads=1 is fewer than the 3 sizes"),
        "{said}"
    );
    let said = host.ok(&[
        "add",
        "console",
        "vm1",
        "--resolution=640x480",
        "--viewer-group=daemon",
        "--force",
    ])?;
    assert!(said.contains("the new access takes effect now"), "{said}");
    let left = host
        .sandbox
        .exec(["ls", "-g", "-o", "/run/vhost-user/vnc"])?;
    let left = String::from_utf8(left.stdout)?;
    assert!(
        left.contains("vm1.sock") && !left.contains("vm1:1"),
        "{left}"
    );
    Ok(())
}

#[test]
fn virtual_device_is_added_alone() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&[
        "add",
        "input",
        "vm1",
        "--virtual=tablet",
        "--name=pen",
        "--now",
    ])?;
    assert_eq!(host.state("vhost-user-events@vm1:pen.socket")?, "active");
    let session = host.connect("/run/vhost-user/input/vm1:pen.sock")?;
    assert_eq!(host.state("vhost-user-input@vm1:pen.service")?, "active");
    drop(session);
    host.ok(&["remove", "vm1", "--force"])?;
    assert_eq!(left_files(&host)?, "");
    Ok(())
}

#[test]
fn usage_is_checked_before_anything_is_done() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let long = "v".repeat(70);
    for (arguments, word) in [
        (&["add", "console", "vm1", "x"][..], "DEVICE does not apply"),
        (&["add", "console", "vm1", "--name=a"], "--name"),
        (&["add", "console", "vm1", "--no-grab"], "--no-grab"),
        (&["add", "console", "vm1", "--virtual=tablet"], "--virtual"),
        (&["add", "console", "vm1", "--heads=0"], "1 to 16 heads"),
        (&["add", "console", "vm1", "--heads=17"], "1 to 16 heads"),
        (&["add", "console", "vm1", "--resolution=big"], "1920x1080"),
        (
            &["add", "console", "vm1", "--keyboard-layout=d e"],
            "such as us",
        ),
        (
            &["add", "console", "vm1", "--viewer-user=nobodys"],
            "there is no user 'nobodys'",
        ),
        (
            &["add", "console", "vm1", "--viewer-group=nobodys"],
            "there is no group 'nobodys'",
        ),
        (&["add", "console", &long], "107"),
        (
            &["add", "gpu", "vm1", "--keyboard-layout=us"],
            "does not apply to a GPU",
        ),
        (
            &["add", "gpu", "vm1", "--virtual=tablet"],
            "does not apply to a GPU",
        ),
        (
            &["add", "input", "vm1", "x", "--heads=2"],
            "does not apply to an input device",
        ),
        (
            &["add", "input", "vm1", "x", "--virtual=tablet"],
            "DEVICE does not apply to a virtual input device",
        ),
        (&["add", "input", "vm1", "--virtual=piano"], "keyboard"),
        (
            &["add", "fs", "vm1", "--backend=x", "--viewer-user=root"],
            "does not apply to --backend",
        ),
        (
            &["add", "fs", "vm1", "--backend=x", "--name=vnc"],
            "No usable backend",
        ),
        (
            &["add", "input", "vm1", "--virtual=tablet", "--name=vnc"],
            "is the VNC server of the VM",
        ),
    ] {
        let said = host.fails(arguments, 1)?;
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(left_files(&host)?, "");
    Ok(())
}

#[test]
fn units_that_are_not_installed_are_named() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    for folder in ["/lib", "/usr/lib"] {
        let path = format!("{folder}/systemd/system/vhost-vnc@.service");
        host.sandbox.exec(["rm", "-f", &path])?;
    }
    host.sandbox.systemctl(&["daemon-reload"])?;
    let said = host.fails(&["add", "console", "vm1"], 5)?;
    assert!(
        said.contains("vhost-vnc@vm1.service is not installed"),
        "{said}"
    );
    assert_eq!(left_files(&host)?, "");
    assert_eq!(json!(host.list()?), json!([]));
    Ok(())
}
