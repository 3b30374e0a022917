// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console of a VM by its units, under a real systemd: all sockets by hand, a front-end that plays the VMM and its
//! guest, and viewers.

mod access;
mod failures;
mod lifetime;
mod limits;
mod screen;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::gpu::{Format, Gpu, GpuOptions, Rect};
use frontend::input::{Input, InputOptions};
use frontend::{Memory, Session};
use harness::staging;
use harness::systemd::Sandbox;
use rfb::client::Client;
use rfb::{Encoding, Frame};

use crate::common::{Backing, Pieces, guest_memory, ok, picture};

/// For what takes a moment, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);
/// Of "unit_starting", as in `systemd.journal-catalog`.
const STARTING: &str = "MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5";
/// The virtual devices of a console.
const DEVICES: [&str; 2] = ["keyboard", "tablet"];
/// What a viewer takes beside raw pixels.
const PSEUDO: [Encoding; 4] = [
    Encoding::DESKTOP_SIZE,
    Encoding::EXTENDED_DESKTOP_SIZE,
    Encoding::QEMU_EXTENDED_KEY_EVENT,
    Encoding::QEMU_LED_STATE,
];

type Viewer = Client<UnixStream>;

/// A host with the units and programs installed.
struct Host(Sandbox);

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        Ok(Self(Sandbox::start(&[staging.path()])?))
    }

    /// Writes what the drop-ins of a VM's console have to say, as `systemctl edit` does.
    fn write_console(&self, vm: &str) -> anyhow::Result<()> {
        for device in DEVICES {
            let settings = format!(
                "[Service]\nEnvironment=OPTIONS=--virtual={device}\nUser=vu-input-{vm}-{device}\n\
                 PrivateDevices=yes\nSupplementaryGroups=\n"
            );
            let service = format!("vhost-user-input@{vm}:{device}.service");
            self.0.drop_in(&service, &settings)?;
        }
        Ok(())
    }

    /// Writes a VM's console and starts its sockets.
    fn add_console(&self, vm: &str) -> anyhow::Result<()> {
        self.write_console(vm)?;
        self.start(&sockets(vm))
    }

    fn start(&self, units: &[String]) -> anyhow::Result<()> {
        let units = units.iter().map(String::as_str);
        let line: Vec<_> = ["start"].into_iter().chain(units).collect();
        self.0.systemctl(&line).map(drop)
    }

    fn connect(&self, socket: &str) -> anyhow::Result<UnixStream> {
        let path = self.0.path(&format!("/run/vhost-user/{socket}.sock"));
        UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))
    }

    /// A viewer at a socket in `/run/vhost-user/vnc`.
    fn view(&self, socket: &str) -> anyhow::Result<Viewer> {
        let stream = self.connect(&format!("vnc/{socket}"))?;
        let mut viewer = Client::connect(stream, SOON)
            .with_context(|| self.log(&format!("vhost-vnc@{socket}.service")))?;
        viewer.set_encodings(&PSEUDO)?;
        Ok(viewer)
    }

    /// A VMM whose guest runs.
    fn run_vm(&self, vm: &str) -> anyhow::Result<Vm> {
        let gpu = Gpu::start(
            Session::new(self.connect(&format!("gpu/{vm}"))?),
            &guest_memory(),
            None::<UnixStream>,
            GpuOptions::default(),
        );
        let gpu = gpu.with_context(|| self.log(&format!("vhost-user-gpu@{vm}.service")))?;
        let [keyboard, tablet] = DEVICES.map(|device| {
            let session = Session::new(self.connect(&format!("input/{vm}:{device}"))?);
            let memory = Memory::with_size(1 << 20)?;
            let input = Input::start(session, &memory, InputOptions::default());
            let service = format!("vhost-user-input@{vm}:{device}.service");
            input.with_context(|| self.log(&service))
        });
        Ok(Vm {
            gpu,
            keyboard: keyboard?,
            tablet: tablet?,
            next: 1,
        })
    }

    fn log(&self, service: &str) -> String {
        let unit = format!("--unit={service}");
        let log = self.0.journal(&[&unit, "--output=cat"]);
        log.unwrap_or_else(|e| format!("{e:#}"))
    }

    /// How often systemd started a service.
    fn starts(&self, service: &str) -> anyhow::Result<usize> {
        let unit = format!("UNIT={service}");
        let lines = self.0.journal(&["--output=cat", &unit, STARTING])?;
        Ok(lines.lines().count())
    }

    fn state(&self, unit: &str) -> anyhow::Result<String> {
        self.0.property(unit, "ActiveState")
    }

    fn wait(&self, unit: &str, property: &str, value: &str) -> anyhow::Result<()> {
        self.0.wait_property(unit, property, value, SOON)
    }

    /// Waits until a service ended well.
    fn wait_end(&self, service: &str) -> anyhow::Result<()> {
        self.wait(service, "ActiveState", "inactive")?;
        let result = self.0.property(service, "Result")?;
        ensure!(result == "success", "{service}: {result}");
        Ok(())
    }

    fn is_idle(&self, vm: &str) -> anyhow::Result<()> {
        for service in services(vm) {
            let state = self.state(&service)?;
            ensure!(state == "inactive", "{service} is {state}");
        }
        Ok(())
    }

    /// The user and the process of a service that runs, inside.
    fn process(&self, service: &str) -> anyhow::Result<(String, String)> {
        let pid = self.0.property(service, "MainPID")?;
        let status = std::fs::read_to_string(self.0.path(&format!("/proc/{pid}/status")))?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let user = user.and_then(|ids| ids.split_whitespace().next());
        Ok((user.context("no user")?.to_owned(), pid))
    }
}

/// All sockets of a VM with a console.
fn sockets(vm: &str) -> Vec<String> {
    let units = ["vhost-user-gpu", "vhost-user-display", "vhost-vnc"];
    let mut names: Vec<_> = units
        .iter()
        .map(|unit| format!("{unit}@{vm}.socket"))
        .collect();
    for device in DEVICES {
        names.push(format!("vhost-user-input@{vm}:{device}.socket"));
        names.push(format!("vhost-user-events@{vm}:{device}.socket"));
    }
    names
}

/// The services that they start, that of the console first.
fn services(vm: &str) -> [String; 4] {
    let [keyboard, tablet] =
        DEVICES.map(|device| format!("vhost-user-input@{vm}:{device}.service"));
    [
        format!("vhost-vnc@{vm}.service"),
        format!("vhost-user-gpu@{vm}.service"),
        keyboard,
        tablet,
    ]
}

/// A VMM and its guest.
struct Vm {
    gpu: Gpu,
    keyboard: Input,
    tablet: Input,
    /// The next resource.
    next: u32,
}

impl Vm {
    /// Draws a picture on a screen of its size.
    fn show(
        &mut self,
        scanout: u32,
        (width, height): (u32, u32),
        color: impl Fn(u32, u32) -> [u8; 3],
    ) {
        let id = self.next;
        self.next += 1;
        let format = Format::B8G8R8X8;
        ok(self.gpu.create_2d(id, format, width, height));
        let backing = Backing::new(self.gpu.memory(), width * height * 4, Pieces::Whole);
        ok(self.gpu.attach_backing(id, &backing.entries));
        backing.write(0, &picture(format, (width, height), color));
        let whole = Rect::sized(width, height);
        ok(self.gpu.transfer_to_host_2d(id, whole, 0));
        ok(self.gpu.set_scanout(scanout, id, whole));
        ok(self.gpu.flush(id, whole));
    }
}

/// Whether the viewer sees exactly this picture.
fn sees(frame: &Frame, (width, height): (u32, u32), color: impl Fn(u32, u32) -> [u8; 3]) -> bool {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    (u32::from(frame.width()), u32::from(frame.height())) == (width, height)
        && places
            .zip(frame.bytes().chunks_exact(4))
            .all(|((x, y), pixel)| {
                let [red, green, blue] = color(x, y);
                pixel[..3] == [blue, green, red]
            })
}

/// Whether there is anything on it: a text, or a picture.
fn shows_something(frame: &Frame) -> bool {
    let mut pixels = frame.bytes().chunks_exact(4).map(|pixel| &pixel[..3]);
    let first = pixels.next();
    pixels.any(|pixel| Some(pixel) != first)
}

/// Waits until the server closes the connection.
fn wait_closed(viewer: &mut Viewer) -> anyhow::Result<()> {
    use std::io::Read as _;
    let stream = viewer.connection();
    stream.set_read_timeout(Some(SOON))?;
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(e) => Err(e).context("the connection is not closed"),
    }
}
