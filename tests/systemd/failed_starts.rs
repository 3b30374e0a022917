// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Failing starts, under a real systemd: the front-end is told at once, the number of starts is limited,
//! and the socket serves again later by itself.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::Session;
use harness::staging;
use harness::systemd::Sandbox;

/// For what takes a moment, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);
/// For what waits half a minute by itself.
const LATER: Duration = Duration::from_secs(150);
/// Long enough for a start that nobody wants to be seen: it needs a tenth of that.
const QUIET: Duration = Duration::from_secs(2);
/// StartLimitBurst= of the units.
const LIMIT: usize = 20;
/// Of "unit_starting", as in `systemd.journal-catalog`.
const STARTING: &str = "MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5";

struct Host(Sandbox);

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        Ok(Self(Sandbox::start(&[staging.path()])?))
    }

    /// Starts the socket of an instance.
    fn listen(&self, instance: &str) -> anyhow::Result<()> {
        let socket = format!("{instance}.socket");
        self.0.systemctl(&["start", &socket]).map(drop)
    }

    fn drop_in(&self, instance: &str, setting: &str) -> anyhow::Result<()> {
        let service = format!("{instance}.service");
        self.0.drop_in(&service, &format!("[Service]\n{setting}\n"))
    }

    fn connect(&self, instance: &str) -> anyhow::Result<UnixStream> {
        let (template, name) = instance.split_once('@').context("no instance")?;
        let folder = match template {
            "vhost-user-gpu" => "gpu",
            "vhost-user-input" => "input",
            _ => "backend",
        };
        let path = self
            .0
            .path(&format!("/run/vhost-user/{folder}/{name}.sock"));
        UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))
    }

    /// How often systemd started the service.
    fn starts(&self, instance: &str) -> anyhow::Result<usize> {
        let unit = format!("UNIT={instance}.service");
        let lines = self.0.journal(&["--output=cat", &unit, STARTING])?;
        Ok(lines.lines().count())
    }

    fn log(&self, instance: &str) -> anyhow::Result<String> {
        let unit = format!("--unit={instance}.service");
        self.0.journal(&[&unit, "--output=cat"])
    }

    fn wait(&self, unit: &str, property: &str, value: &str) -> anyhow::Result<()> {
        self.0.wait_property(unit, property, value, SOON)
    }
}

/// Waits until the other end closes the connection, without a word.
fn wait_refused(stream: &UnixStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    match (&*stream).read(&mut [0]) {
        Ok(0) => Ok(()),
        // The socket was closed with the connection in its queue.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => anyhow::bail!("the connection is not closed: {other:?}"),
    }
}

/// Puts the GPU's program there.
fn install(host: &Host, inside: &str) -> anyhow::Result<()> {
    let program = host.0.path(inside);
    fs::copy(host.0.path("/usr/bin/vhost-user-gpu"), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Our programs tell a front-end that they do not start, by closing its connection.
#[test]
fn failed_start_of_a_program_is_one_start_and_is_reported() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let missing = "Environment=EVDEV_PATH=/dev/input/by-id/usb-None-event-kbd";
    let cases = [
        ("vhost-user-input@vm1:away", missing, "usb-None-event-kbd"),
        ("vhost-user-input@vm1:unset", "", "set EVDEV_PATH="),
        (
            "vhost-user-gpu@vm1",
            "Environment=OPTIONS=--render-node=/dev/dri/renderD191",
            "renderD191",
        ),
        ("vhost-user-gpu@vm2", "Environment=OPTIONS=--none", "--none"),
        ("vhost-user-gpu@vm3", "LimitNOFILE=12", "open files"),
    ];
    for (instance, setting, word) in cases {
        let user = instance
            .replace(['@', ':'], "-")
            .replace("vhost-user", "vu");
        host.drop_in(instance, &format!("User={user}\n{setting}"))?;
        host.listen(instance)?;
        for round in 1..=2 {
            let stream = host.connect(instance)?;
            wait_refused(&stream).context(instance)?;
            host.wait(&format!("{instance}.service"), "ActiveState", "failed")?;
            ensure!(host.starts(instance)? == round, "{}", host.log(instance)?);
        }
        let log = host.log(instance)?;
        ensure!(log.contains(word), "{word:?} is not in {log}");
        // One that comes and goes at once leaves nothing behind.
        drop(host.connect(instance)?);
        thread::sleep(QUIET);
        host.wait(&format!("{instance}.service"), "ActiveState", "failed")?;
        ensure!(host.starts(instance)? == 3, "{}", host.log(instance)?);
        host.wait(&format!("{instance}.socket"), "SubState", "listening")?;
    }
    Ok(())
}

/// What never runs cannot tell anybody: systemd starts it a few times, then gives up the socket, which
/// tells, and makes it listen again. What does not take the connection before it fails is the same.
#[test]
fn program_that_cannot_run_is_retried_a_few_times_and_serves_once_fixed() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let cases = [
        // 203/EXEC, 217/USER, 226/NAMESPACE.
        (
            "vhost-user-gpu@exec",
            "ExecStart=\nExecStart=/usr/bin/not-there-yet --fd=3",
        ),
        ("vhost-user-gpu@user", "DynamicUser=no\nUser=not-there"),
        ("vhost-user-gpu@sandbox", "ReadWritePaths=/not/there"),
        (
            "vhost-user@vm1:fails",
            "User=vu-fails\nExecStart=\nExecStart=/bin/false",
        ),
        (
            "vhost-user@vm1:ends",
            "User=vu-ends\nExecStart=\nExecStart=/bin/true",
        ),
        ("vhost-user@vm1:unset", "User=vu-unset"),
    ];
    // All before the first start: systemd 252 forgets the starts that it counted when it reloads.
    for (instance, setting) in cases {
        host.drop_in(instance, setting)?;
    }
    for (instance, _) in cases {
        host.listen(instance)?;
        // One that goes at once is served as often as one that stays, or less.
        let stream = host.connect(instance)?;
        if instance.ends_with("exec") {
            drop(stream);
        } else {
            wait_refused(&stream).with_context(|| host.log(instance).unwrap_or_default())?;
        }
    }
    for (instance, _) in cases {
        let socket = format!("{instance}.socket");
        host.wait(&socket, "ActiveState", "failed")?;
        let result = host.0.property(&socket, "Result")?;
        ensure!(result.ends_with("-limit-hit"), "{instance}: {result}");
        let starts = host.starts(instance)?;
        ensure!(starts <= LIMIT, "{instance} was started {starts} times");
    }
    // What was amiss is mended; nobody tells systemd to start anything.
    install(&host, "/usr/bin/not-there-yet")?;
    for (instance, _) in &cases[1..3] {
        host.drop_in(instance, "")?;
    }
    for (instance, _) in cases {
        let socket = format!("{instance}.socket");
        host.0
            .wait_property(&socket, "SubState", "listening", LATER)?;
    }
    for (instance, _) in &cases[..3] {
        let mut session = Session::new(host.connect(instance)?);
        session.negotiate(Session::usual_protocol_features())?;
    }
    Ok(())
}

#[test]
fn stopped_socket_does_not_listen_again() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let instance = "vhost-user@vm1:fails";
    let socket = format!("{instance}.socket");
    let retry = format!("vhost-user-retry@{socket}.service");
    host.drop_in("vhost-user-retry@", "ExecStart=\nExecStart=/bin/sleep 120")?;
    host.drop_in(instance, "User=vu-fails\nExecStart=\nExecStart=/bin/false")?;
    host.listen(instance)?;
    wait_refused(&host.connect(instance)?)?;
    host.wait(&retry, "ActiveState", "activating")?;
    host.0.systemctl(&["stop", &socket])?;
    let begun = Instant::now();
    while host.0.property(&retry, "ActiveState")? == "activating" {
        ensure!(begun.elapsed() < SOON, "it waits on");
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(QUIET);
    ensure!(host.0.property(&socket, "ActiveState")? != "active");
    // And one that is started meanwhile is left alone.
    host.0.systemctl(&["start", &socket])?;
    ensure!(host.0.property(&socket, "SubState")? == "listening");
    Ok(())
}

/// Who mends what was amiss does not have to wait.
#[test]
fn vhostctl_start_resets_the_start_limit() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let instance = "vhost-user-gpu@vm1";
    let setting = "ExecStart=\nExecStart=/usr/bin/not-there-yet --fd=3";
    host.drop_in(instance, setting)?;
    host.listen(instance)?;
    wait_refused(&host.connect(instance)?)?;
    host.wait(&format!("{instance}.socket"), "ActiveState", "failed")?;
    install(&host, "/usr/bin/not-there-yet")?;
    // The trigger limit of a socket (TriggerLimitIntervalSec=) counts for that long, over a start too.
    thread::sleep(Duration::from_secs(3));
    let started = host.0.exec(["vhostctl", "start", "vm1"])?;
    ensure!(started.status.success(), "{started:?}");
    let mut session = Session::new(host.connect(instance)?);
    session.negotiate(Session::usual_protocol_features())?;
    Ok(())
}

/// A socket that cannot be made is not tried again and again.
#[test]
fn socket_failed_for_another_reason_stays_failed() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let socket = "vhost-user-gpu@vm1.socket";
    let retry = format!("vhost-user-retry@{socket}.service");
    host.0
        .drop_in(socket, "[Socket]\nSocketGroup=not-there\n")?;
    ensure!(host.0.systemctl(&["start", socket]).is_err());
    let begun = Instant::now();
    let log = || {
        host.0
            .journal(&["--output=cat", &format!("--unit={retry}")])
    };
    while !log()?.contains("is left failed") {
        ensure!(begun.elapsed() < SOON, "{}", log()?);
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(QUIET);
    let failures = host
        .0
        .journal(&["--output=cat", &format!("--unit={socket}")])?;
    ensure!(
        failures.matches("Failed with result").count() == 1,
        "{failures}"
    );
    Ok(())
}

/// It is named while it waits, and served once the first one has gone, by a start of its own.
#[test]
fn second_front_end_is_reported_once_and_served_next() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let instance = "vhost-user-gpu@vm1";
    host.listen(instance)?;
    let service = format!("{instance}.service");
    let negotiate = |stream: UnixStream| -> anyhow::Result<Session> {
        let mut session = Session::new(stream);
        session.negotiate(Session::usual_protocol_features())?;
        session.config(0, 16)?;
        Ok(session)
    };
    let mut served = negotiate(host.connect(instance)?)?;
    for round in 1..=3 {
        let pid = host.0.property(&service, "MainPID")?;
        let next = host.connect(instance)?;
        let report = "another front-end waits until this one disconnects: pid ";
        let begun = Instant::now();
        while host.log(instance)?.matches(report).count() < round {
            ensure!(begun.elapsed() < SOON, "{}", host.log(instance)?);
            thread::sleep(Duration::from_millis(50));
        }
        drop(served);
        served = negotiate(next).with_context(|| host.log(instance).unwrap_or_default())?;
        ensure!(host.0.property(&service, "MainPID")? != pid);
        ensure!(host.log(instance)?.matches(report).count() == round);
        ensure!(
            host.starts(instance)? == round + 1,
            "{}",
            host.log(instance)?
        );
    }
    drop(served);
    host.wait(&service, "ActiveState", "inactive")?;
    ensure!(host.0.property(&service, "Result")? == "success");
    // Nobody waits: nothing is started for nobody.
    thread::sleep(QUIET);
    ensure!(host.0.property(&service, "ActiveState")? == "inactive");
    // It is closed with the first one where the service is stopped.
    let first = negotiate(host.connect(instance)?)?;
    let second = host.connect(instance)?;
    host.0
        .wait_property(&service, "SubState", "running", SOON)?;
    host.0
        .systemctl(&["stop", &format!("{instance}.socket"), &service])?;
    wait_refused(&second)?;
    drop(first);
    Ok(())
}
