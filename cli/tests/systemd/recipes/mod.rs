// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What docs/console.md says of looking from elsewhere, done as written, with the programs of Debian's packages: ssh with
//! its server, TLS by stunnel, a port, and a browser. The guest is played, the viewers are real.

mod browser;
mod ssh;
mod tcp;
mod tls;

use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::gpu::{Format, Gpu, GpuOptions, Rect, ResponseKind};
use frontend::input::{Input, InputOptions};
use frontend::{Memory, Session};
use harness::image::Image;
use harness::packages;
use harness::staging::stage;
use harness::systemd::Sandbox;
use harness::viewers::XServer;

use crate::common::host::Host;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/vhost-user/vnc/vm1.sock";
/// The size of the guest's screen.
const SIZE: (u32, u32) = (640, 400);
/// Linux's code of the key that is typed, which X11 calls "a".
const KEY_A: u16 = 30;

/// A machine with a running VM that has a console, and with what the recipes install; it is its own other machine,
/// `host`.
struct Recipe {
    host: Host,
    card: Image,
    guest: Guest,
}

/// A guest that has drawn, and waits for keys.
struct Guest {
    keyboard: Input,
    _gpu: Gpu,
    _tablet: Input,
}

impl Recipe {
    fn prepare() -> anyhow::Result<Self> {
        let staging = stage()?;
        let packages = packages::ways_to_a_console()?;
        let sandbox = Sandbox::start(&[&packages, staging.path()])?;
        let host = Host {
            sandbox,
            mock: None,
        };
        host.sandbox
            .write("/etc/hosts", "127.0.0.1 localhost host\n")?;
        host.ok(&["add", "console", "vm1", "--now"])?;

        let card = Image::test_card(SIZE.0, SIZE.1);
        let memory = Memory::with_size(4 << 20)?;
        let connect = |socket: &str| -> anyhow::Result<Session> {
            let path = host.sandbox.path(&format!("/run/vhost-user/{socket}.sock"));
            Ok(Session::new(UnixStream::connect(path)?))
        };
        let gpu = connect("gpu/vm1")?;
        let mut gpu = Gpu::start(gpu, &memory, None::<UnixStream>, GpuOptions::default())?;
        draw(&mut gpu, &memory, &card)?;
        let input = |name: &str| -> anyhow::Result<Input> {
            let memory = Memory::with_size(1 << 20)?;
            let session = connect(&format!("input/vm1:{name}"))?;
            Ok(Input::start(session, &memory, InputOptions::default())?)
        };
        let (keyboard, tablet) = (input("keyboard")?, input("tablet")?);
        let guest = Guest {
            keyboard,
            _gpu: gpu,
            _tablet: tablet,
        };
        Ok(Self { host, card, guest })
    }

    /// Runs a line as root's shell does in its folder, whatever comes of it.
    fn run(&self, line: &str) -> anyhow::Result<Output> {
        let script = format!("cd /root && {line}");
        self.host.sandbox.exec(["bash", "-c", &script])
    }

    /// A line as a user's shell runs it where a display is, to be ended by us.
    fn on(&self, display: &XServer, line: &str) -> Command {
        let script = format!(
            "cd /root && export DISPLAY={}; exec {line}",
            display.display()
        );
        self.host.sandbox.command(["bash", "-c", &script])
    }

    /// Runs lines that have to succeed.
    fn shell(&self, lines: &str) -> anyhow::Result<String> {
        let output = self.run(&format!("set -e\n{lines}"))?;
        let journal = || self.host.sandbox.journal(&["--lines=40"]);
        ensure!(
            output.status.success(),
            "{lines}: {}: {}{}",
            output.status,
            stderr(&output),
            journal().unwrap_or_default()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Guest {
    /// Has somebody press and release the key "a", and the guest get that.
    fn gets_key(&mut self, press: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        press()?;
        for value in [1, 0] {
            let report = self.keyboard.next_report()?;
            let key = report.iter().find(|event| event.kind == 1);
            let key = key.with_context(|| format!("no key: {report:?}"))?;
            ensure!(
                (key.code, key.value) == (KEY_A, value),
                "{report:?}, not {value}"
            );
        }
        Ok(())
    }
}

fn draw(gpu: &mut Gpu, memory: &Memory, card: &Image) -> anyhow::Result<()> {
    let length = card.width * card.height * 4;
    let backing = memory.alloc(length.into(), 4096)?;
    let pixels: Vec<u8> = card.pixels.iter().flat_map(|p| p.to_le_bytes()).collect();
    memory.write(backing, &pixels)?;
    let whole = Rect::sized(card.width, card.height);
    for response in [
        gpu.create_2d(1, Format::B8G8R8X8, card.width, card.height),
        gpu.attach_backing(1, &[(backing, length)]),
        gpu.set_scanout(0, 1, whole),
        gpu.transfer_to_host_2d(1, whole, 0),
        gpu.flush(1, whole),
    ] {
        response?.expect("drawing", ResponseKind::OkNodata)?;
    }
    Ok(())
}
