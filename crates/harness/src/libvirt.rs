//! libvirt with the driver that is embedded in virsh, in a private systemd: no daemon runs.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::artifacts::{Accelerator, Artifacts};
use crate::console::Console;
use crate::image::Image;
use crate::systemd::Sandbox;

/// For what libvirt does, and for a guest that boots.
const LIMIT: Duration = Duration::from_secs(150);
/// Where the driver has its files.
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

/// What a domain has beside the test guest.
#[derive(Debug, Clone, Copy, Default)]
pub struct DomainParts<'a> {
    /// Attributes of `<domain>`.
    pub attributes: &'a str,
    /// Elements in `<devices>`.
    pub devices: &'a str,
    /// Elements right below `<domain>`.
    pub elements: &'a str,
}

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
        self.host.write(&file, &domain(artifacts, parts))?;
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
        let deadline = Instant::now() + timeout;
        loop {
            self.run(&format!("screenshot vm {SCREEN}"), "Screenshot saved")?;
            let png = fs::read(self.host.path(SCREEN))?;
            let difference = match Image::from_png(&png) {
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

fn domain(artifacts: &Artifacts, parts: DomainParts) -> String {
    let kind = match artifacts.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    let DomainParts {
        attributes,
        devices,
        elements,
    } = parts;
    format!(
        "<domain type='{kind}' {attributes}>
  <name>vm</name>
  <memory unit='MiB'>384</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <features><acpi/></features>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{}</kernel>
    <initrd>{}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 drm_kms_helper.fbdev_emulation=0</cmdline>
  </os>
  <devices>
    <emulator>{EMULATOR}</emulator>
    <serial type='file'><source path='{ROOT}/console.log'/></serial>
    <serial type='unix'><source mode='bind' path='{AGENT}'/><target port='1'/></serial>
    {devices}
  </devices>
  {elements}
</domain>
",
        artifacts.kernel.display(),
        artifacts.initramfs.display(),
    )
}
