// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The private systemd: it boots, is isolated and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);
/// Tells a test that it runs on the root that it has made.
const IN_OVERLAY: &str = "HARNESS_IN_OVERLAY";

#[test]
fn unit_of_a_staging_folder_runs_and_is_logged() -> anyhow::Result<()> {
    let staging = tempfile::tempdir()?;
    let units = staging.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    fs::write(
        units.join("hello@.service"),
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nDynamicUser=yes\nPrivateNetwork=yes\n\
         ExecStart=/bin/echo hello %i\n",
    )?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    sandbox.drop_in("hello@.service", "[Service]\nEnvironment=A=1\n")?;
    sandbox.systemctl(&["start", "hello@you.service"])?;
    assert_eq!(
        sandbox.property("hello@you.service", "ActiveState")?,
        "active"
    );
    assert!(
        sandbox
            .property("hello@you.service", "Environment")?
            .contains("A=1")
    );
    let journal = sandbox.journal(&["--unit=hello@you.service", "--output=cat"])?;
    assert!(journal.contains("hello you"), "{journal}");
    sandbox.systemctl(&["stop", "hello@you.service"])?;
    sandbox.wait_property("hello@you.service", "ActiveState", "inactive", SOON)?;
    assert!(
        !Path::new("/usr/lib/systemd/system/hello@.service").exists(),
        "on the host"
    );

    let error = sandbox
        .systemctl(&["start", "nothing.service"])
        .expect_err("no such unit");
    assert!(
        format!("{error:#}").contains("nothing.service"),
        "{error:#}"
    );
    Ok(())
}

#[test]
fn devices_are_denied_as_a_unit_says() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(&[])?;
    let node = "mkdir -p /dev/input && mknod -m 666 /dev/input/event7 c 13 71";
    assert!(sandbox.exec(["sh", "-c", node])?.status.success());
    let open = |allow: &str| {
        let script = "exec 3</dev/input/event7";
        let arguments = [
            "systemd-run",
            "--wait",
            "--pipe",
            "--quiet",
            "-p",
            "DevicePolicy=closed",
        ];
        let output = sandbox.exec(
            arguments
                .into_iter()
                .chain(["-p", allow, "bash", "-c", script]),
        )?;
        anyhow::Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // There is no such device: whoever gets as far as the kernel's driver hears that.
    assert!(open("DeviceAllow=char-input r")?.contains("No such device"));
    assert!(open("DeviceAllow=/dev/null r")?.contains("Operation not permitted"));
    Ok(())
}

/// As a systemd that reboots does it.
#[test]
fn command_outlasts_a_stop_of_all_processes() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(&[])?;
    let stop = "while ! pidof sleep; do :; done; kill -STOP -1; kill -CONT -1";
    let (done, are_done) = mpsc::channel();
    thread::scope(|scope| {
        let commands: [Vec<&str>; 2] = [vec!["sleep", "1"], vec!["bash", "-c", stop]];
        for command in commands {
            let (done, sandbox) = (done.clone(), &sandbox);
            scope.spawn(move || done.send(sandbox.exec(command)));
        }
        for _ in 0..2 {
            let Ok(output) = are_done.recv_timeout(SOON) else {
                // Or the scope would wait for ever.
                Command::new("pkill").args(["-CONT", "nsenter"]).status()?;
                bail!("a command was not continued");
            };
            let output = output?;
            ensure!(output.status.success(), "{output:?}");
        }
        Ok(())
    })
}

/// Keeps the mounts that follow from others, in a chroot too, where / may be no mount point.
const KEEP_MOUNTS: &str = "mount --make-rslave / 2>/dev/null ||
    nsenter --mount=/proc/self/ns/mnt mount --make-rslave /";

/// Run again in a chroot, it boots there: nobody inside sees more of the machine than below its root.
#[test]
fn systemd_boots_in_a_chroot() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let script = format!(
        r#"{KEEP_MOUNTS}
        mount --rbind / "$1" && shift && exec chroot "$@""#
    );
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "unchanged",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(folder.path())
        .arg(folder.path())
        .arg(std::env::current_exe()?)
        .args([
            "--exact",
            "sandbox::unit_of_a_staging_folder_runs_and_is_logged",
        ])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    Ok(())
}

/// What this machine has installed and configured is no part of a test.
#[test]
fn sandbox_hides_descriptors_and_settings_of_the_host() -> anyhow::Result<()> {
    const HOST: [&str; 5] = [
        "/etc/qemu/vhost-user/10-host.json",
        "/usr/share/qemu/vhost-user/10-host.json",
        "/root/.config/qemu/vhost-user/10-host.json",
        "/etc/systemd/system/vhost-user-gpu@vm1.service.d/host.conf",
        "/usr/local/lib/systemd/system/vhost-user-gpu@.service",
    ];
    let folder = tempfile::tempdir()?;
    // The test runs again on a root that has all of it.
    if std::env::var_os(IN_OVERLAY).is_some() {
        let sandbox = Sandbox::start(&[])?;
        for path in HOST {
            assert!(Path::new(path).exists(), "{path} on the host");
            assert!(!sandbox.path(path).exists(), "{path} inside");
        }
        return Ok(());
    }
    let script = r#"set -eu; folder=$1; shift
        mount -t tmpfs overlay "$folder"
        mkdir "$folder/upper" "$folder/work" "$folder/root"
        mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
        for part in proc sys dev tmp; do mount --rbind "/$part" "$folder/root/$part"; done
        program=$1; shift
        mkdir -p "$folder/root${program%/*}"
        cp "$program" "$folder/root$program"
        while [ "$1" != -- ]; do
            mkdir -p "$folder/root${1%/*}"; echo >"$folder/root$1"; shift
        done
        shift; exec chroot "$folder/root" "$program" "$@""#;
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "unchanged",
            "sh",
            "-c",
            &format!("{KEEP_MOUNTS}\n{script}"),
            "sh",
        ])
        .arg(folder.path())
        .arg(std::env::current_exe()?)
        .args(HOST)
        .args([
            "--",
            "--exact",
            "sandbox::sandbox_hides_descriptors_and_settings_of_the_host",
        ])
        .env(IN_OVERLAY, "1")
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("1 passed"), "{said}");
    Ok(())
}

#[test]
fn sandboxes_are_separate_and_leave_nothing() -> anyhow::Result<()> {
    let (first, second) = (Sandbox::start(&[])?, Sandbox::start(&[])?);
    first.write("/run/mine", "first")?;
    assert!(!second.path("/run/mine").exists());
    assert!(!Path::new("/run/mine").exists(), "on the host");
    let names = Command::new("busctl")
        .arg(format!("--address={}", first.bus_address()))
        .args(["--no-pager", "list"])
        .output()?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(names.contains("org.freedesktop.systemd1"), "{names}");

    let (pids, cgroups) = (
        [first.pid(), second.pid()],
        [first.cgroup().to_owned(), second.cgroup().to_owned()],
    );
    assert!(cgroups.iter().all(|cgroup| cgroup.exists()));
    drop((first, second));
    assert!(
        pids.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    );
    assert!(cgroups.iter().all(|cgroup| !cgroup.exists()));
    // Of others' mounts, which come and go, ours are told by their names.
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let ours = |line: &&str| {
        cgroups.iter().any(|cgroup| {
            let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
            line.contains(&*name)
        })
    };
    assert_eq!(mounts.lines().find(ours), None);
    Ok(())
}
