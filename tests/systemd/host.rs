// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The backends among the other services of a host: at boot, at shutdown, during package upgrades.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::Session;
use harness::mock::{KEYBOARD, MockInput};
use harness::packages;
use harness::staging;
use harness::systemd::Sandbox;
use rfb::client::Client;

const SOON: Duration = Duration::from_secs(60);

/// One service of each kind, and where it is connected to.
const BACKENDS: [(&str, &str); 3] = [
    ("vhost-user-gpu@vm1", "gpu/vm1"),
    ("vhost-user-input@vm1:kbd", "input/vm1:kbd"),
    ("vhost-user@vm1:data", "backend/vm1:data"),
];

/// The console of a VM.
const CONSOLE: &str = "vhost-vnc@vm1";

/// The names of the backends and of the console, without a suffix.
fn instances() -> Vec<&'static str> {
    let backends = BACKENDS.iter().map(|(instance, _)| *instance);
    backends.chain([CONSOLE]).collect()
}

/// A backend of each kind that runs, with its front-end, and a console with its viewer.
struct Backends {
    host: Sandbox,
    _mock: MockInput,
    sessions: Vec<Session>,
    viewer: Option<Client<UnixStream>>,
}

impl Backends {
    fn listen(staging: &[&std::path::Path]) -> anyhow::Result<Self> {
        let host = Sandbox::start(staging)?;
        let mock = MockInput::start_in(&host, &[KEYBOARD])?;
        let [_, (kbd, _), (data, _)] = BACKENDS;
        let settings = format!(
            "{}Environment=EVDEV_PATH={}\nUser=vu-kbd\n",
            mock.drop_in(),
            mock.path(0)
        );
        host.drop_in(&format!("{kbd}.service"), &settings)?;
        host.drop_in(
            &format!("{data}.service"),
            "[Service]\nUser=vu-data\nExecStart=\nExecStart=/usr/bin/vhost-user-gpu --fd=3\n",
        )?;
        for instance in instances() {
            host.systemctl(&["start", &format!("{instance}.socket")])?;
        }
        Ok(Self {
            host,
            _mock: mock,
            sessions: Vec::new(),
            viewer: None,
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        for (instance, socket) in BACKENDS {
            let path = self.host.path(&format!("/run/vhost-user/{socket}.sock"));
            let mut session = Session::new(UnixStream::connect(path)?);
            session
                .negotiate(Session::usual_protocol_features())
                .with_context(|| format!("{instance} does not serve"))?;
            self.sessions.push(session);
        }
        let path = self.host.path("/run/vhost-user/vnc/vm1.sock");
        self.viewer = Some(Client::connect(UnixStream::connect(path)?, SOON)?);
        Ok(())
    }
}

/// The units of libvirt-guests as libvirt installs them, as far as order goes. What it does when it starts
/// and stops is
/// written down: the states of the backends, one in each line.
fn write_guests(host: &Sandbox) -> anyhow::Result<()> {
    let names: Vec<_> = instances()
        .iter()
        .map(|instance| format!("'{instance}.service'"))
        .collect();
    let names = names.join(" ");
    host.write(
        "/run/systemd/system/virt-guest-shutdown.target",
        "[Unit]\nDescription=Libvirt guests shutdown\n",
    )?;
    // Guests take a moment to shut down, in which a backend that is to stop would have stopped.
    let text = format!(
        "[Unit]\nRequires=virt-guest-shutdown.target\nAfter=network.target virt-guest-shutdown.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'systemctl start {names} && systemctl is-active {names} >/run/booted'\n\
         ExecStop=/bin/sh -c 'sleep 2; systemctl is-active {names} >/run/stopped; :'\n"
    );
    host.write("/run/systemd/system/libvirt-guests.service", &text)?;
    host.systemctl(&["daemon-reload"]).map(drop)
}

#[test]
fn backends_and_consoles_outlive_the_guests_at_shutdown() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let mut backends = Backends::listen(&[staging.path()])?;
    write_guests(&backends.host)?;
    backends.connect()?;
    let host = &backends.host;
    host.systemctl(&["start", "libvirt-guests.service"])?;
    // All stop in one transaction, as at shutdown, but for what the target holds: D-Bus.
    host.systemctl(&["isolate", "harness.target"])?;
    host.wait_property("libvirt-guests.service", "ActiveState", "inactive", SOON)?;
    let states = fs::read_to_string(host.path("/run/stopped"))?;
    ensure!(states == "active\n".repeat(4), "{states:?}");
    for instance in instances() {
        host.wait_property(
            &format!("{instance}.service"),
            "ActiveState",
            "inactive",
            SOON,
        )?;
    }
    Ok(())
}

/// A guest that is started at boot has its backends: nothing waits for something that waits for it.
#[test]
fn backends_start_while_guests_start_at_boot() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let backends = Backends::listen(&[staging.path()])?;
    let host = &backends.host;
    write_guests(host)?;
    for instance in instances() {
        host.systemctl(&["stop", &format!("{instance}.socket")])?;
        host.systemctl(&["enable", &format!("{instance}.socket")])?;
    }
    // As at boot: sockets, then what libvirt starts, in one transaction.
    host.write(
        "/run/systemd/system/boot.target",
        "[Unit]\nRequires=sockets.target libvirt-guests.service\nAfter=sockets.target libvirt-guests.service\n",
    )?;
    host.systemctl(&["daemon-reload"])?;
    host.systemctl(&["start", "boot.target"])?;
    let states = fs::read_to_string(host.path("/run/booted"))?;
    ensure!(states == "active\n".repeat(4), "{states:?}");
    Ok(())
}

/// Debian's needrestart, after a library that all backends have mapped was replaced: it restarts those whose VM does not
/// notice it, and no other.
#[test]
fn needrestart_restarts_what_vms_do_not_notice() -> anyhow::Result<()> {
    let tools = [
        "needrestart",
        "libintl-perl",
        "libmodule-find-perl",
        "libproc-processtable-perl",
        "libsort-naturally-perl",
        "libterm-readkey-perl",
    ];
    let tools = packages::unpacked_together("needrestart", &tools)?;
    let staging = staging::stage()?;
    let mut backends = Backends::listen(&[&tools, staging.path()])?;
    // One that it does restart, to see that it looks.
    backends.host.write(
        "/run/systemd/system/other.service",
        "[Service]\nExecStart=/usr/bin/vhost-user-gpu --socket-path=/run/other\n",
    )?;
    backends.host.systemctl(&["daemon-reload"])?;
    backends.host.systemctl(&["start", "other.service"])?;
    backends.connect()?;
    let host = &backends.host;
    let services = instances().into_iter();
    let services: Vec<_> = services
        .map(|instance| format!("{instance}.service"))
        .collect();
    let pids = || -> anyhow::Result<Vec<String>> {
        let pid = |service: &String| host.property(service, "MainPID");
        services.iter().map(pid).collect()
    };
    let before = pids()?;
    let other = host.property("other.service", "MainPID")?;
    let upgrade = "for f in /usr/bin/vhost-user-gpu /usr/bin/vhost-user-input /usr/bin/vhost-vnc; do \
                   cp $f $f.new && mv $f.new $f; done";
    ensure!(host.exec(["sh", "-c", upgrade])?.status.success());
    let restart = [
        "needrestart",
        "-r",
        "a",
        "-l",
        "-u",
        "NeedRestart::UI::stdio",
    ];
    let run = host.exec(restart)?;
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    ensure!(run.status.success(), "{said}");
    ensure!(
        host.property("other.service", "MainPID")? != other,
        "it restarts nothing: {said}"
    );
    for ((service, before), now) in services.iter().zip(&before).zip(pids()?) {
        let is_kept = ["vhost-user-gpu@", "vhost-user-input@"]
            .iter()
            .any(|template| service.starts_with(template));
        ensure!((*before != now) == is_kept, "{service}: {said}");
        ensure!(said.contains(service.as_str()), "{service}: {said}");
    }
    for session in &mut backends.sessions {
        session.config(0, 8)?;
    }

    // A keyboard whose settings were changed: its program cannot go on with the VM.
    let before = pids()?;
    let [gpu, (keyboard, _), _] = BACKENDS;
    let keyboard = format!("{keyboard}.service");
    host.write(
        &format!("/run/systemd/system/{keyboard}.d/other.conf"),
        "[Service]\nEnvironment=OPTIONS=--no-grab\n",
    )?;
    host.systemctl(&["daemon-reload"])?;
    ensure!(host.exec(["sh", "-c", upgrade])?.status.success());
    let run = host.exec(restart)?;
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    ensure!(run.status.success(), "{said}");
    for ((service, before), now) in services.iter().zip(&before).zip(pids()?) {
        let is_restarted = service.starts_with(gpu.0);
        ensure!((*before != now) == is_restarted, "{service}: {said}");
        ensure!(said.contains(service.as_str()), "{service}: {said}");
    }

    // A GPU whose state the new program does not understand.
    let before = pids()?;
    let program = host.path("/usr/bin/vhost-user-gpu");
    let new = program.with_extension("new");
    staging::program_of_next_state(&program, &new)?;
    fs::rename(new, program)?;
    let run = host.exec(restart)?;
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    ensure!(run.status.success(), "{said}");
    ensure!(said.contains("vhost-user-gpu@vm1.service"), "{said}");
    ensure!(pids()? == before, "{said}");
    for session in &mut backends.sessions {
        session.config(0, 8)?;
    }
    Ok(())
}
