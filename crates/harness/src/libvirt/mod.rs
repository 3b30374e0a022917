// SPDX-License-Identifier: Apache-2.0 OR MIT
//! libvirt in a private systemd: with the driver that is embedded in virsh ([`Libvirt`]), and with its daemon ([`Daemon`]).

mod daemon;
mod domain;

pub use daemon::Daemon;
pub use domain::DomainParts;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::artifacts::Artifacts;
use crate::console::Console;
use crate::image::Image;
use crate::systemd::Sandbox;

/// For what libvirt does, and for a guest that boots.
const LIMIT: Duration = Duration::from_secs(150);
/// Where the embedded driver has its files, and domains have their consoles.
const ROOT: &str = "/run/libvirt-embedded";
const AGENT: &str = "/run/libvirt-embedded/agent";
const SCREEN: &str = "/run/libvirt-embedded/screen.png";
const LOG: &str = "/run/virsh.log";
const EMULATOR: &str = "/usr/local/bin/emulator";

/// Neither a security driver, nor cgroups, nor namespaces of libvirt's own, nor its log daemon.
const CONFIGURATION: &str = "security_driver = \"none\"\ncgroup_controllers = []\n\
                             namespaces = []\nstdio_handler = \"file\"\n";
/// As Debian's package of the daemon does.
const USER: &str = "getent group libvirt-qemu || groupadd --system libvirt-qemu; \
     id libvirt-qemu || { getent group kvm || groupadd --system kvm; useradd --system --gid kvm --groups libvirt-qemu libvirt-qemu; }";

/// virsh with its embedded driver: domains live as long as it does.
#[derive(Debug)]
pub struct Libvirt<'a> {
    host: &'a Sandbox,
    process: Child,
    input: ChildStdin,
}

impl<'a> Libvirt<'a> {
    /// Leaves a machine as libvirt's package does, with QEMU and the test guest.
    ///
    /// # Errors
    ///
    /// If something of it fails.
    pub fn install(host: &Sandbox, artifacts: &Artifacts) -> anyhow::Result<()> {
        // An installed one is inside already.
        if let Some(root) = &artifacts.qemu.root {
            host.bring(root)?;
        }
        host.bring(&artifacts.kernel)?;
        host.bring(&artifacts.initramfs)?;
        let user = host.exec(["sh", "-c", USER])?;
        ensure!(user.status.success(), "{USER}: {user:?}");
        host.write(&format!("{ROOT}/etc/qemu.conf"), CONFIGURATION)?;
        host.write(EMULATOR, &artifacts.qemu.script())?;
        let mode = |path: &str, mode| {
            fs::set_permissions(host.path(path), fs::Permissions::from_mode(mode))
        };
        mode(EMULATOR, 0o755)?;
        mode(ROOT, 0o777)?;
        Ok(())
    }

    /// Starts virsh on such a machine.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start(host: &'a Sandbox) -> anyhow::Result<Self> {
        let log = fs::File::create(host.path(LOG))?;
        let mut process = host
            .command(["virsh", "-c", &format!("qemu:///embed?root={ROOT}")])
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start virsh")?;
        let input = process.stdin.take().context("virsh takes no commands")?;
        Ok(Self {
            host,
            process,
            input,
        })
    }

    /// Gives it a command and waits until it answers with `answer`.
    ///
    /// # Errors
    ///
    /// If it says that something failed, or does not answer.
    pub fn run(&mut self, command: &str, answer: &str) -> anyhow::Result<()> {
        let log = self.host.path(LOG);
        let before = fs::read_to_string(&log)?.len();
        writeln!(self.input, "{command}")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let said = fs::read_to_string(&log)?.split_off(before);
            if said.contains(answer) {
                return Ok(());
            }
            let running = self.process.try_wait()?.is_none();
            ensure!(
                running && !said.contains("error:") && Instant::now() < deadline,
                "virsh {command}: {said}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Creates the domain `vm`, which is the test guest with these devices, and waits until it has booted.
    ///
    /// # Errors
    ///
    /// If libvirt refuses it, or it does not boot.
    pub fn boot(&mut self, artifacts: &Artifacts, parts: DomainParts) -> anyhow::Result<Console> {
        let file = format!("{ROOT}/vm.xml");
        self.host.write(&file, &parts.xml("vm", artifacts))?;
        self.run(&format!("create {file}"), "Domain 'vm' created")?;
        let guest = Console::new(UnixStream::connect(self.host.path(AGENT))?)?;
        guest.wait_ready(LIMIT)?;
        Ok(guest)
    }

    /// Waits until `virsh screenshot` shows this.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_screenshot(&mut self, expected: &Image, timeout: Duration) -> anyhow::Result<()> {
        let host = self.host;
        wait_screenshot(expected, timeout, || {
            self.run(&format!("screenshot vm {SCREEN}"), "Screenshot saved")?;
            Ok(fs::read(host.path(SCREEN))?)
        })
    }

    /// Switches the domain off.
    ///
    /// # Errors
    ///
    /// If libvirt says so.
    pub fn destroy(&mut self) -> anyhow::Result<()> {
        self.run("destroy vm", "Domain 'vm' destroyed")
    }
}

impl Drop for Libvirt<'_> {
    fn drop(&mut self) {
        // Fails only if it has ended; what it started ends with the private systemd.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until what `take` returns, a PNG file, shows `expected`.
fn wait_screenshot(
    expected: &Image,
    timeout: Duration,
    mut take: impl FnMut() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let difference = match Image::from_png(&take()?) {
            Ok(screen) => screen.difference(expected),
            Err(error) => Some(format!("{error:#}")),
        };
        let Some(difference) = difference else {
            return Ok(());
        };
        ensure!(Instant::now() < deadline, "wrong picture: {difference}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
