//! libvirt finds vhost-user-gpu by its descriptor and starts it itself, for a guest that draws.
//!
//! The driver is libvirt's own, embedded in virsh: no daemon runs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::{Accelerator, Artifacts};
use harness::console::Console;
use harness::image::Image;
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(150);

/// Where libvirt's embedded driver has its files.
const ROOT: &str = "/run/libvirt-embedded";
const AGENT: &str = "/run/libvirt-embedded/agent";
const SCREEN: &str = "/run/libvirt-embedded/screen.png";

/// Neither a security driver, nor cgroups, nor namespaces of libvirt's own, nor its log daemon.
const CONFIGURATION: &str = "security_driver = \"none\"\ncgroup_controllers = []\n\
                             namespaces = []\nstdio_handler = \"file\"\n";

/// virsh with its embedded driver: domains live as long as it does.
struct Virsh {
    process: Child,
    input: ChildStdin,
}

impl Virsh {
    fn start(host: &Sandbox) -> anyhow::Result<Self> {
        let log = fs::File::create(host.path("/run/virsh.log"))?;
        let mut process = host
            .command(["virsh", "-c", &format!("qemu:///embed?root={ROOT}")])
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start virsh")?;
        let input = process.stdin.take().context("virsh takes no commands")?;
        Ok(Self { process, input })
    }

    /// Gives it a command and waits until it says `answer`.
    fn run(&mut self, host: &Sandbox, command: &str, answer: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{command}")?;
        let deadline = Instant::now() + BOOT;
        loop {
            let said = fs::read_to_string(host.path("/run/virsh.log"))?;
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
}

impl Drop for Virsh {
    fn drop(&mut self) {
        // Fails only if it has ended; what it started ends with the private systemd.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn domain(artifacts: &Artifacts) -> String {
    let kind = match artifacts.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "qemu",
    };
    format!(
        "<domain type='{kind}'>
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
    <emulator>/usr/local/bin/emulator</emulator>
    <serial type='file'><source path='{ROOT}/console.log'/></serial>
    <serial type='unix'><source mode='bind' path='{AGENT}'/><target port='1'/></serial>
    <video><driver name='vhostuser'/><model type='virtio' heads='1'/></video>
  </devices>
</domain>
",
        artifacts.kernel.display(),
        artifacts.initramfs.display(),
    )
}

#[test]
fn domain_with_a_vhostuser_video_has_our_gpu() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    // An installed one is inside already.
    if let Some(root) = &artifacts.qemu.root {
        host.bring(root)?;
    }
    host.bring(&artifacts.kernel)?;
    host.bring(&artifacts.initramfs)?;
    let shell = |script: &str| -> anyhow::Result<String> {
        let output = host.exec(["sh", "-c", script])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{script}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // As Debian's package of the daemon does; QEMU's own descriptors would come after ours.
    shell(
        "getent group libvirt-qemu || groupadd --system libvirt-qemu; \
         id libvirt-qemu || useradd --system --gid libvirt-qemu libvirt-qemu",
    )?;
    host.write(&format!("{ROOT}/etc/qemu.conf"), CONFIGURATION)?;
    host.write("/usr/local/bin/emulator", &artifacts.qemu.script())?;
    host.write(&format!("{ROOT}/vm.xml"), &domain(&artifacts))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.path("/usr/local/bin/emulator"), executable)?;
    shell(&format!("chmod 777 {ROOT}"))?;

    let mut virsh = Virsh::start(&host)?;
    virsh.run(
        &host,
        &format!("create {ROOT}/vm.xml"),
        "Domain 'vm' created",
    )?;
    let backend = shell("ps -o user:20=,args= -C vhost-user-gpu")?;
    assert!(backend.starts_with("libvirt-qemu "), "{backend}");
    assert!(
        backend.contains("/usr/bin/vhost-user-gpu --fd="),
        "{backend}"
    );

    let mut guest = Console::new(UnixStream::connect(host.path(AGENT))?)?;
    guest.wait_ready(BOOT)?;
    guest.start("testcard 800x600")?.finish(SOON)?;
    let card = Image::test_card(800, 600);
    let deadline = Instant::now() + SOON;
    loop {
        virsh.run(
            &host,
            &format!("screenshot vm {SCREEN}"),
            "Screenshot saved",
        )?;
        let difference = match fs::read(host.path(SCREEN)).map(|png| Image::from_png(&png)) {
            Ok(Ok(screen)) => screen.difference(&card),
            other => Some(format!("{other:?}")),
        };
        match difference {
            None => break,
            Some(difference) => ensure!(Instant::now() < deadline, "wrong picture: {difference}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    virsh.run(&host, "destroy vm", "Domain 'vm' destroyed")?;
    // libvirt ends it by SIGTERM, and by SIGKILL after ten seconds.
    let deadline = Instant::now() + SOON;
    while host
        .exec(["pgrep", "-x", "vhost-user-gpu"])?
        .status
        .success()
    {
        ensure!(Instant::now() < deadline, "the backend is there still");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
