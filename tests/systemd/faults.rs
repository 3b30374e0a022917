// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Faults of a service, under a real systemd: it ends or recovers, restarts where that helps, and the next
//! VM starts.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use crate::common::{guest_memory, ok};
use anyhow::{Context as _, ensure};
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use frontend::input::{Input, InputOptions};
use frontend::{Memory, Session};
use harness::mock::{KEYBOARD, MockInput};
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);
const SERVICE: &str = "vhost-user-gpu@vm1.service";
const SOCKET: &str = "vhost-user-gpu@vm1.socket";
const XRGB: Format = Format::B8G8R8X8;

struct Host(Sandbox);

impl Host {
    /// With the units installed, and the GPU's socket there.
    fn boot(drop_in: &str) -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        let host = Self(Sandbox::start(&[staging.path()])?);
        if !drop_in.is_empty() {
            host.0.drop_in(SERVICE, drop_in)?;
        }
        host.0.systemctl(&["start", SOCKET])?;
        Ok(host)
    }

    fn connect(&self) -> anyhow::Result<Session> {
        let path = self.0.path("/run/vhost-user/gpu/vm1.sock");
        let stream = UnixStream::connect(&path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        Ok(Session::new(stream))
    }

    fn vm(&self, display: DisplayOptions) -> anyhow::Result<(Gpu, DisplayThread)> {
        let (display, socket) = DisplayThread::start(display)?;
        let options = GpuOptions::default();
        let gpu = Gpu::start(self.connect()?, &guest_memory(), Some(socket), options)?;
        Ok((gpu, display))
    }

    /// The next VM starts, draws and goes.
    fn next_vm_works(&self) -> anyhow::Result<()> {
        let (mut gpu, display) = self.vm(DisplayOptions::default())?;
        ok(gpu.create_2d(1, XRGB, 64, 64));
        ok(gpu.set_scanout(0, 1, Rect::sized(64, 64)));
        ok(gpu.flush(1, Rect::sized(64, 64)));
        display.wait_count(frontend::gpu::Request::Update, 1)?;
        drop((gpu, display));
        self.0
            .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
        ensure!(self.0.property(SERVICE, "Result")? == "success");
        self.0.wait_property(SOCKET, "SubState", "listening", SOON)
    }

    /// Kills the program, and waits until another one serves.
    fn replace(&self) -> anyhow::Result<()> {
        let before = self.0.property(SERVICE, "MainPID")?;
        self.kill()?;
        let deadline = Instant::now() + SOON;
        loop {
            let pid = self.0.property(SERVICE, "MainPID")?;
            if pid != before && self.0.property(SERVICE, "SubState")? == "running" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "nobody serves: {pid}");
        }
    }

    fn kill(&self) -> anyhow::Result<()> {
        self.0
            .systemctl(&["kill", "--signal=KILL", SERVICE])
            .map(drop)
    }
}

#[test]
fn stopped_journal_does_not_block_the_vm() -> anyhow::Result<()> {
    const JOURNALD: &str = "systemd-journald.service";
    let host = Host::boot("")?;
    let (mut gpu, display) = host.vm(DisplayOptions::default())?;
    host.0.systemctl(&["kill", "--signal=STOP", JOURNALD])?;
    let journal = host.0.path("/run/systemd/journal/socket");
    let filler = UnixDatagram::unbound()?;
    filler.set_nonblocking(true)?;
    while filler.send_to(b"MESSAGE=full\n", &journal).is_ok() {}
    ok(gpu.create_2d(1, XRGB, 64, 64));
    // Which it says in the log.
    drop((gpu, display));
    host.0
        .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
    ensure!(host.0.property(SERVICE, "Result")? == "success");
    host.0.systemctl(&["kill", "--signal=CONT", JOURNALD])?;
    host.next_vm_works()
}

#[test]
fn backend_killed_at_any_moment_serves_its_vm_or_the_next_one() -> anyhow::Result<()> {
    let host = Host::boot("")?;
    // Before it is ready: the connection that waits starts it again.
    for milliseconds in [0, 2, 5, 10, 20] {
        let session = host.connect()?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may not be there yet, or any more.
        let _ = host.kill();
        drop(session);
        host.next_vm_works()
            .with_context(|| format!("killed after {milliseconds} ms"))?;
    }
    // Connected: its VM goes on.
    let (mut gpu, display) = host.vm(DisplayOptions::default())?;
    host.replace()?;
    ok(gpu.create_2d(1, XRGB, 64, 64));
    drop((gpu, display));
    host.0
        .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
    host.next_vm_works()
}

#[test]
fn descriptor_shortage_ends_one_service_with_a_message() -> anyhow::Result<()> {
    let host = Host::boot("[Service]\nLimitNOFILE=12\n")?;
    let _ = host
        .vm(DisplayOptions::default())
        .and_then(|(mut gpu, _display)| Ok(gpu.create_2d(1, XRGB, 8, 8)?));
    host.0.wait_property(SERVICE, "Result", "exit-code", SOON)?;
    let journal = host.0.journal(&["--unit", SERVICE, "--output=cat"])?;
    ensure!(
        journal.contains("open files") || journal.contains("RLIMIT_NOFILE"),
        "{journal}"
    );
    host.0.drop_in(SERVICE, "[Service]\nLimitNOFILE=1024\n")?;
    host.0.systemctl(&["stop", SOCKET])?;
    host.0.systemctl(&["reset-failed"])?;
    host.0.systemctl(&["start", SOCKET])?;
    host.next_vm_works()
}

#[test]
fn unplugged_input_device_is_waited_for_also_by_the_next_start() -> anyhow::Result<()> {
    let host = Host::boot("")?.0;
    let mut mock = MockInput::start_in(&host, &[KEYBOARD])?;
    let service = "vhost-user-input@vm1:kbd.service";
    let drop_in = format!(
        "{}Environment=EVDEV_PATH={}\nUser=vu-vm1-kbd\n",
        mock.drop_in(),
        mock.path(0)
    );
    host.drop_in(service, &drop_in)?;
    host.systemctl(&["start", "vhost-user-input@vm1:kbd.socket"])?;
    let connect = || -> anyhow::Result<Session> {
        let path = host.path("/run/vhost-user/input/vm1:kbd.sock");
        Ok(Session::new(UnixStream::connect(path)?))
    };
    let memory = Memory::with_size(1 << 20)?;
    let input = Input::start(connect()?, &memory, InputOptions::default())?;
    mock.wait_grab(0, true, SOON)?;
    mock.unplug(0)?;
    let says = |text: &str| -> anyhow::Result<()> {
        let told = Instant::now();
        loop {
            let status = host.property(service, "StatusText")?;
            if status.contains(text) {
                return Ok(());
            }
            ensure!(told.elapsed() < SOON, "{status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    says("waiting for /dev/input/event0 (")?;
    let journal = || host.journal(&["--unit", service, "--output=cat"]);
    ensure!(journal()?.contains("was unplugged"), "{}", journal()?);
    // It goes on until the VMM leaves.
    ensure!(host.property(service, "ActiveState")? == "active");
    drop(input);
    host.wait_property(service, "ActiveState", "inactive", SOON)?;
    ensure!(host.property(service, "Result")? == "success");
    // The next VM starts, and sees the keyboard as it was. The mock's library ends the opener of its folder of nodes.
    drop(mock);
    let mut input = Input::start(connect()?, &memory, InputOptions::default())
        .with_context(|| journal().unwrap_or_default())?;
    ensure!(input.name()? == "Harness Keyboard");
    says("waiting for /dev/input/event0 (")?;
    drop(input);
    host.wait_property(service, "ActiveState", "inactive", SOON)?;
    ensure!(host.property(service, "Result")? == "success");
    // But not if nobody knows what it was.
    host.systemctl(&["clean", "--what=state", service])?;
    let _next = connect()?;
    let told = Instant::now();
    while !journal()?.contains("no start has found it") {
        ensure!(told.elapsed() < SOON, "{}", journal()?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A node of any number can be opened in the unit, if its drop-in allows all input devices.
#[test]
fn device_of_another_number_is_within_reach_of_its_service() -> anyhow::Result<()> {
    const LINK: &str = "/dev/input/by-id/usb-Test-event-kbd";
    const STATE: &str = "/var/lib/private/vhost-user-input/vm1:kbd";
    let host = Host::boot("")?.0;
    let service = "vhost-user-input@vm1:kbd.service";
    let description = format!(
        r#"{{"form":1,"path":"{LINK}","name":"Test","serial":"","bus":3,"vendor":1,"product":2,"version":3,
            "properties":[],"codes":{{"1":[30]}},"axes":{{}}}}"#
    );
    let ok = |script: &str| -> anyhow::Result<()> {
        let output = host.exec(["sh", "-c", script])?;
        ensure!(output.status.success(), "{script}: {output:?}");
        Ok(())
    };
    // The kernel has no such device: what may be opened fails by ENXIO.
    for (allowed, answer) in [
        ("char-input rw", "No such device or address"),
        ("/dev/null rw", "no permission to open"),
    ] {
        let drop_in = format!(
            "[Service]\nEnvironment=EVDEV_PATH={LINK}\nDeviceAllow=\nDeviceAllow={allowed}\nUser=vu-vm1-kbd\n"
        );
        host.drop_in(service, &drop_in)?;
        ok(&format!(
            "rm -rf /dev/input {STATE} && mkdir -p {STATE} && chmod 700 /var/lib/private"
        ))?;
        host.write(&format!("{STATE}/device.json"), &description)?;
        host.systemctl(&["start", "vhost-user-input@vm1:kbd.socket"])?;
        let path = host.path("/run/vhost-user/input/vm1:kbd.sock");
        let memory = Memory::with_size(1 << 20)?;
        let session = Session::new(UnixStream::connect(path)?);
        let mut input = Input::start(session, &memory, InputOptions::default())?;
        ensure!(input.name()? == "Test");
        ok(
            "mkdir -p /dev/input/by-id && mknod -m 666 /dev/input/event7 c 13 71 && \
            ln -s ../event7 /dev/input/by-id/usb-Test-event-kbd",
        )?;
        let told = Instant::now();
        loop {
            let status = host.property(service, "StatusText")?;
            if status.contains(answer) {
                break;
            }
            ensure!(told.elapsed() < SOON, "{allowed}: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(input);
        host.wait_property(service, "ActiveState", "inactive", SOON)?;
    }
    Ok(())
}

/// The folder for compiled shaders is full: they are compiled again, and drawn.
#[cfg(feature = "virgl")]
#[test]
fn full_disk_stops_neither_shaders_nor_drawing() -> anyhow::Result<()> {
    use crate::common::triangle;

    let staging = staging::stage()?;
    let host = Host(Sandbox::start(&[staging.path()])?);
    let prepare = "mkdir -p /run/systemd/system/vhost-user-gpu@vm1.service.d /var/cache/private && \
                   ln -s /usr/lib/systemd/system/vhost-user-gpu-virgl.conf \
                   /run/systemd/system/vhost-user-gpu@vm1.service.d/virgl.conf && \
                   mount -t tmpfs -o size=4k,mode=0700 tmpfs /var/cache/private && \
                   head -c 4096 /dev/zero >/var/cache/private/full";
    let prepared = host.0.exec(["sh", "-c", prepare])?;
    ensure!(prepared.status.success(), "{prepared:?}");
    host.0.systemctl(&["daemon-reload"])?;
    host.0.systemctl(&["start", SOCKET])?;
    for _ in 0..2 {
        let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
        let memory = guest_memory();
        let gpu = Gpu::start(host.connect()?, &memory, Some(socket), GpuOptions::virgl());
        let mut gpu = gpu.with_context(|| {
            let journal = host.0.journal(&["--unit", SERVICE, "--output=cat"]);
            journal.unwrap_or_default()
        })?;
        let stream = triangle(&mut gpu);
        let drawn = gpu.submit_3d(1, &stream);
        ok(Ok(drawn.with_context(|| {
            let journal = host.0.journal(&["--unit", SERVICE, "--output=cat"]);
            journal.unwrap_or_default()
        })?));
        ok(gpu.set_scanout(0, 1, Rect::sized(64, 64)));
        ok(gpu.flush(1, Rect::sized(64, 64)));
        display.wait_count(frontend::gpu::Request::Update, 1)?;
        assert_eq!(display.lock().surface(0)?.rgb(32, 60), Some([255, 0, 0]));
        drop((gpu, display));
        host.0
            .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
        ensure!(host.0.property(SERVICE, "Result")? == "success");
    }
    Ok(())
}
