// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl list` against a private bus, with and without a mock of systemd. The real systemd is tested
//! with the units.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use zbus::blocking::connection::{Builder, Connection};
use zbus::interface;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

use crate::common::{have, run, stderr, stdout, vhostctl};

/// A D-Bus daemon with nobody on it; gone when dropped.
struct Bus {
    daemon: Child,
    address: String,
    folder: TempDir,
}

impl Bus {
    fn new() -> Option<Self> {
        if !have("dbus-daemon", "package dbus-daemon") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("bus.conf");
        let text = format!(
            r#"<busconfig><listen>unix:dir={}</listen><policy context="default"><allow send_destination="*"/>
            <allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>"#,
            folder.path().display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon");
        let mut address = String::new();
        let out = daemon.stdout.take().expect("its output");
        BufReader::new(out)
            .read_line(&mut address)
            .expect("its address");
        Some(Self {
            daemon,
            address: address.trim().to_owned(),
            folder,
        })
    }

    fn vhostctl(&self) -> Command {
        let mut command = vhostctl();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        command
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// Answers what `list` asks of systemd's manager.
struct Manager {
    units: Vec<Listed>,
    unit_path: Vec<String>,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<Listed> {
        assert!(states.is_empty());
        let matches = |name: &str| {
            patterns.iter().any(|pattern| {
                let (start, end) = pattern.split_once('*').expect("a pattern");
                name.starts_with(start) && name.ends_with(end)
            })
        };
        self.units
            .iter()
            .filter(|unit| matches(&unit.0))
            .cloned()
            .collect()
    }

    #[zbus(property)]
    fn unit_path(&self) -> Vec<String> {
        self.unit_path.clone()
    }
}

struct Socket(&'static str);

#[interface(name = "org.freedesktop.systemd1.Socket")]
impl Socket {
    #[zbus(property)]
    fn listen(&self) -> Vec<(String, String)> {
        vec![("Stream".to_owned(), self.0.to_owned())]
    }
}

struct Service(u32);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.0
    }
}

fn object(name: &str) -> OwnedObjectPath {
    ObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{name}"))
        .expect("a path")
        .into()
}

fn unit(name: &str, load: &str, active: &str, sub: &str, path: &str) -> Listed {
    let text = str::to_owned;
    let none = ObjectPath::try_from("/").expect("a path").into();
    (
        text(name),
        text(""),
        text(load),
        text(active),
        text(sub),
        text(""),
        object(path),
        0,
        text(""),
        none,
    )
}

/// Two VMs, a unit that is only mentioned, one of somebody else's, and one that is only configured.
fn systemd(bus: &Bus) -> Connection {
    let folder = bus.folder.path().join("etc");
    fs::create_dir_all(folder.join("vhost-user-input@vm2:mouse.service.d")).expect("a drop-in");
    let manager = Manager {
        units: vec![
            unit(
                "vhost-user-input@vm1:kbd.socket",
                "loaded",
                "active",
                "listening",
                "kbds",
            ),
            unit(
                "vhost-user-input@vm1:kbd.service",
                "loaded",
                "failed",
                "failed",
                "kbd",
            ),
            unit(
                "vhost-user-gpu@vm1.socket",
                "loaded",
                "active",
                "running",
                "gpu1s",
            ),
            unit(
                "vhost-user-gpu@vm1.service",
                "loaded",
                "active",
                "running",
                "gpu1",
            ),
            unit(
                r"vhost-user-gpu@my\x20vm.socket",
                "loaded",
                "failed",
                "failed",
                "gpu2s",
            ),
            unit(
                "vhost-user-gpu@only-mentioned.service",
                "not-found",
                "inactive",
                "dead",
                "no",
            ),
            // Gone between the list and the question where it listens.
            unit(
                "vhost-user-gpu@gone.socket",
                "loaded",
                "inactive",
                "dead",
                "gone",
            ),
            unit("dbus.socket", "loaded", "active", "running", "dbus"),
        ],
        unit_path: vec![folder.display().to_string(), "/nonexistent".to_owned()],
    };
    let serve = || {
        Builder::address(bus.address.as_str())?
            .serve_at("/org/freedesktop/systemd1", manager)?
            // A file that every machine has: a socket that was removed is another state.
            .serve_at(object("kbds"), Socket("/dev/null"))?
            .serve_at(object("gpu1s"), Socket("/run/vhost-user/gpu/vm1.sock"))?
            .serve_at(object("gpu1"), Service(4321))?
            .serve_at(
                object("gpu2s"),
                Socket(r"/run/vhost-user/gpu/my\\x20vm.sock"),
            )?
            // Not loaded: systemd loads it once its object is asked for, without a question before that.
            .serve_at(
                object("vhost_2duser_2dinput_40vm2_3amouse_2esocket"),
                Socket("/run/vhost-user/input/vm2:mouse.sock"),
            )?
            .name("org.freedesktop.systemd1")?
            .build()
    };
    serve().expect("a bus connection")
}

const TABLE: &str = r"VM       NAME  TYPE  STATE     SOCKET                                PID
gone     gpu   gpu   inactive  -                                       -
my\x20vm gpu   gpu   failed    /run/vhost-user/gpu/my\x20vm.sock       -
vm1      gpu   gpu   running   /run/vhost-user/gpu/vm1.sock         4321
vm1      kbd   input listening /dev/null                               -
vm2      mouse input inactive  /run/vhost-user/input/vm2:mouse.sock    -

5 backends listed.
";

#[test]
fn backends_are_listed_by_vm() {
    let Some(bus) = Bus::new() else { return };
    let _systemd = systemd(&bus);
    assert_eq!(stdout(bus.vhostctl().arg("list")), TABLE);
    assert_eq!(stdout(&mut bus.vhostctl()), TABLE, "the default verb");
}

#[test]
fn json_has_every_field() {
    let Some(bus) = Bus::new() else { return };
    let _systemd = systemd(&bus);
    let text = stdout(bus.vhostctl().args(["list", "--json=short"]));
    let backends: Vec<Value> = serde_json::from_str(&text).expect("an array");
    assert_eq!(backends.len(), 5);
    assert_eq!(
        backends[2],
        json!({
            "vm": "vm1", "name": "gpu", "type": "gpu", "state": "running", "released": false,
            "socket": "/run/vhost-user/gpu/vm1.sock", "device": null, "pid": 4321,
            "socket_unit": "vhost-user-gpu@vm1.socket", "service_unit": "vhost-user-gpu@vm1.service",
            "socket_state": "running", "service_state": "running",
        })
    );
    assert_eq!(
        backends[3],
        json!({
            "vm": "vm1", "name": "kbd", "type": "input", "state": "listening", "released": false,
            "socket": "/dev/null", "device": null, "pid": null,
            "socket_unit": "vhost-user-input@vm1:kbd.socket",
            "service_unit": "vhost-user-input@vm1:kbd.service",
            "socket_state": "listening", "service_state": "failed",
        })
    );
    assert_eq!(backends[4]["socket_state"], Value::Null);
}

#[test]
fn empty_list_is_no_error() {
    let Some(bus) = Bus::new() else { return };
    let manager = Manager {
        units: Vec::new(),
        unit_path: Vec::new(),
    };
    let serve = || {
        Builder::address(bus.address.as_str())?
            .serve_at("/org/freedesktop/systemd1", manager)?
            .name("org.freedesktop.systemd1")?
            .build()
    };
    let _systemd = serve().expect("a bus connection");
    assert_eq!(stdout(&mut bus.vhostctl()), "No backends.\n");
    assert_eq!(stdout(bus.vhostctl().arg("-q")), "");
    assert_eq!(stdout(bus.vhostctl().arg("-j")), "[]\n");
}

#[test]
fn bus_without_systemd_is_reported() {
    let Some(bus) = Bus::new() else { return };
    let output = run(&mut bus.vhostctl());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    assert!(
        stderr(&output).starts_with("systemd does not answer on the system bus: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn missing_bus_is_reported_with_its_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("unix:path={}", folder.path().join("no-bus").display());
    let output = run(vhostctl().env("DBUS_SYSTEM_BUS_ADDRESS", &address));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let text = stderr(&output);
    assert!(
        text.starts_with("The system bus cannot be reached: "),
        "{text}"
    );
    assert!(text.contains(&address), "{text}");
}

#[test]
fn verbs_that_change_something_name_what_is_missing() {
    let Some(bus) = Bus::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = format!("unix:path={}", folder.path().join("no-bus").display());
    for verb in [
        &["start", "vm1"][..],
        &["stop", "vm1"],
        &["restart", "vm1"],
        &["enable", "vm1"],
        &["disable", "vm1"],
        &["remove", "vm1"],
        &["add", "gpu", "vm1"],
        &["qemu-args", "vm1"],
        &["libvirt-xml", "vm1"],
    ] {
        let units = folder.path().display().to_string();
        let output = run(bus.vhostctl().args(verb).env("SYSTEMD_UNIT_PATH", &units));
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(
            stderr(&output).starts_with("systemd does not answer on the system bus: "),
            "{verb:?}: {}",
            stderr(&output)
        );
        let output = run(vhostctl()
            .args(verb)
            .env("SYSTEMD_UNIT_PATH", &units)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &nowhere));
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(
            stderr(&output).starts_with("The system bus cannot be reached: "),
            "{verb:?}: {}",
            stderr(&output)
        );
    }
    let left: Vec<_> = folder.path().read_dir().expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
