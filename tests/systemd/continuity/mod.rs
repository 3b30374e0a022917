// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that outlive their programs, under a real systemd: front-ends that draw and type while the programs end in
//! every way that a host knows.

mod ends;
mod host;
mod upgrade;
mod window;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::events::EventsClient;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Memory, Session};
use harness::staging;
use harness::systemd::Sandbox;

use crate::common::{Backing, Pieces, guest_memory, ok, picture};

const SOON: Duration = Duration::from_secs(60);
const FORMAT: Format = Format::B8G8R8X8;
const SIZE: (u32, u32) = (320, 200);
/// The resource that is shown.
const SCREEN: u32 = 1;
const KEY_A: u16 = 30;

/// A host with the units installed.
struct Host(Sandbox);

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        let host = Self(Sandbox::start(&[staging.path()])?);
        host.0.drop_in(
            "vhost-user-input@.service",
            "[Service]\nEnvironment=OPTIONS=--virtual=keyboard\nPrivateDevices=yes\nSupplementaryGroups=\n",
        )?;
        Ok(host)
    }

    fn connect(&self, socket: &str) -> anyhow::Result<Session> {
        let path = self.0.path(&format!("/run/vhost-user/{socket}.sock"));
        let stream = UnixStream::connect(&path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        Ok(Session::new(stream))
    }

    /// A VM that runs, with its sockets started.
    fn run_vm(&self, name: &str) -> anyhow::Result<Vm> {
        let services = [
            format!("vhost-user-gpu@{name}.service"),
            format!("vhost-user-input@{name}:keyboard.service"),
        ];
        let sockets = ["vhost-user-gpu@", "vhost-user-input@", "vhost-user-events@"];
        let instances = [
            name.to_owned(),
            format!("{name}:keyboard"),
            format!("{name}:keyboard"),
        ];
        for (template, instance) in sockets.iter().zip(&instances) {
            self.0
                .systemctl(&["start", &format!("{template}{instance}.socket")])?;
        }
        let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
        let session = self.connect(&format!("gpu/{name}"))?;
        let mut gpu = Gpu::start(
            session,
            &guest_memory(),
            Some(socket),
            GpuOptions::default(),
        )
        .with_context(|| self.said(&services[0]))?;
        ok(gpu.create_2d(SCREEN, FORMAT, SIZE.0, SIZE.1));
        let backing = Backing::new(gpu.memory(), SIZE.0 * SIZE.1 * 4, Pieces::Pages);
        ok(gpu.attach_backing(SCREEN, &backing.entries));
        ok(gpu.set_scanout(0, SCREEN, Rect::sized(SIZE.0, SIZE.1)));
        let session = self.connect(&format!("input/{name}:keyboard"))?;
        let memory = Memory::with_size(1 << 20)?;
        let keyboard = Input::start(session, &memory, InputOptions::default())
            .with_context(|| self.said(&services[1]))?;
        let events = format!("/run/vhost-user-console/{name}:keyboard/events.sock");
        Ok(Vm {
            services,
            gpu,
            display,
            backing,
            keyboard,
            client: EventsClient::connect(&self.0.path(&events))?,
            drawn: 0,
        })
    }

    fn said(&self, service: &str) -> String {
        let journal =
            self.0
                .journal(&["--unit", service, "--lines=40", "--output=short-monotonic"]);
        journal.unwrap_or_else(|error| error.to_string())
    }

    fn pid(&self, service: &str) -> anyhow::Result<String> {
        self.0.property(service, "MainPID")
    }

    /// Waits until another process than `before` serves.
    fn wait_replaced(&self, service: &str, before: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let (pid, state) = (self.pid(service)?, self.0.property(service, "SubState")?);
            if state == "running" && pid != "0" && pid != before {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{service} is {state}, process {pid}: {}",
                self.said(service)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has systemd count the starts of all units anew: what is tested here is not the limit.
    fn reset_limits(&self) -> anyhow::Result<()> {
        self.0.systemctl(&["reset-failed"]).map(drop)
    }
}

/// A VM with a screen and a keyboard.
struct Vm {
    services: [String; 2],
    gpu: Gpu,
    display: DisplayThread,
    backing: Backing,
    keyboard: Input,
    client: EventsClient,
    drawn: u32,
}

impl Vm {
    /// The devices work: what is drawn is shown, resources live on, and a key arrives once.
    fn works(&mut self) -> anyhow::Result<()> {
        self.drawn += 1;
        let n = self.drawn;
        let color = move |x: u32, y: u32| [(x ^ n) as u8, (y + n) as u8, (n * 7) as u8];
        self.backing.write(0, &picture(FORMAT, SIZE, color));
        let whole = Rect::sized(SIZE.0, SIZE.1);
        // Made once and destroyed once: what a dead process did is not done again.
        ok(self.gpu.create_2d(SCREEN + n, FORMAT, 16, 16));
        ok(self.gpu.transfer_to_host_2d(SCREEN, whole, 0));
        ok(self.gpu.flush(SCREEN, whole));
        ok(self.gpu.unref(SCREEN + n));
        self.display.wait("the picture", |display| {
            let surface = display.surface(0).ok()?;
            let places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
            let mut places = places.step_by(97);
            places
                .all(|(x, y)| surface.rgb(x, y) == Some(color(x, y)))
                .then_some(())
        })?;
        for value in [1, 0] {
            let report = [Event::new(1, KEY_A, value), Event::report()];
            self.client.send(&report)?;
            let seen = self.keyboard.next_report()?;
            ensure!(seen == report, "{seen:?} instead of {report:?}");
        }
        Ok(())
    }

    /// Ends it; the services end well.
    fn end(self, host: &Host) -> anyhow::Result<()> {
        let Self {
            services,
            gpu,
            display,
            keyboard,
            client,
            ..
        } = self;
        display.check()?;
        drop((gpu, keyboard, client));
        for service in services {
            host.0
                .wait_property(&service, "ActiveState", "inactive", SOON)?;
            ensure!(host.0.property(&service, "Result")? == "success");
            // Nothing is kept for nobody.
            host.0
                .wait_property(&service, "NFileDescriptorStore", "0", SOON)?;
        }
        Ok(())
    }
}
