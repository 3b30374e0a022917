// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The render server beside a GPU with Vulkan, under a real systemd. Stand-ins play virglrenderer's server and its client,
//! which Debian 12 has too old: those of sid are in `tests/vulkan`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::staging;
use harness::systemd::Sandbox;
use tempfile::TempDir;

use crate::confined::exposure;

const SOON: Duration = Duration::from_secs(60);
const GPU: &str = "vhost-user-gpu@vm1.service";
const SERVER: &str = "vhost-render-server@vm1.service";
const SOCKET: &str = "vhost-render-server@vm1.socket";
/// Says what it gets, and ends with its connection, as the real one does.
const STAND_IN: &str = "#!/bin/sh\n\
    echo \"$* got $(dd bs=64 count=1 status=none <&3) as $(id -u)\"\ncat <&3\nexit 255\n";
/// Says which sockets it reaches (`incoming` is systemd's own, for mounts), and holds its connection.
const CLIENT: &str = "\
import os, socket, signal
print(sorted(os.listdir('/run')), sorted({*os.listdir('/run/systemd')} - {'incoming'}), flush=True)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect('/run/vhost-render/render.sock')
server.send(b'work')
signal.pause()
";

struct Host {
    sandbox: Sandbox,
    _staging: [TempDir; 2],
}

impl Host {
    /// With the drop-in as its recipe has it, and the stand-ins.
    fn start() -> anyhow::Result<Self> {
        let staging = [staging::stage()?, tempfile::tempdir()?];
        let server = staging[1].path().join("usr/libexec/virgl_render_server");
        fs::create_dir_all(server.parent().unwrap_or(staging[1].path()))?;
        fs::set_permissions(staging[1].path(), fs::Permissions::from_mode(0o755))?;
        fs::write(&server, STAND_IN)?;
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755))?;
        let sandbox = Sandbox::start(&[staging[0].path(), staging[1].path()])?;
        let link = "mkdir -p /run/systemd/system/vhost-user-gpu@vm1.service.d && \
                    ln -s /usr/lib/systemd/system/vhost-user-gpu-vulkan.conf \
                    /run/systemd/system/vhost-user-gpu@vm1.service.d/vulkan.conf";
        ensure!(sandbox.exec(["sh", "-c", link])?.status.success());
        sandbox.write("/usr/local/lib/client.py", CLIENT)?;
        sandbox.drop_in(
            GPU,
            "[Service]\nType=exec\nWatchdogSec=0\nExecStart=\n\
             ExecStart=/usr/bin/python3 /usr/local/lib/client.py\n",
        )?;
        Ok(Self {
            sandbox,
            _staging: staging,
        })
    }

    fn state(&self, unit: &str) -> anyhow::Result<String> {
        self.sandbox.property(unit, "ActiveState")
    }

    fn wait(&self, unit: &str, state: &str) -> anyhow::Result<()> {
        self.sandbox
            .wait_property(unit, "ActiveState", state, SOON)
            .map(drop)
    }
}

#[test]
fn render_server_lives_as_long_as_its_gpu() -> anyhow::Result<()> {
    let host = Host::start()?;
    ensure!(host.state(SOCKET)? == "inactive");
    let journal = |unit| host.sandbox.journal(&["--unit", unit, "--output=cat"]);
    let got = "--socket-fd=3 got work as ";
    let ends = [&["stop"][..], &["kill", "--signal=KILL"]];
    for (before, end) in ends.into_iter().enumerate() {
        host.sandbox.systemctl(&["start", GPU])?;
        host.wait(SERVER, "active")?;
        // It is active before its program has begun.
        let asked = Instant::now();
        while journal(SERVER)?.matches(got).count() == before {
            ensure!(asked.elapsed() < SOON, "{}", journal(SERVER)?);
            thread::sleep(Duration::from_millis(20));
        }
        let folder = fs::metadata(host.sandbox.path("/run/vhost-user-render"))?;
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        host.sandbox.systemctl(&[end, &[GPU]].concat())?;
        // The socket goes too: nobody needs it any more.
        for unit in [SERVER, SOCKET] {
            host.wait(unit, "inactive")?;
        }
        assert_eq!(host.sandbox.property(SERVER, "Result")?, "success");
        let path = host.sandbox.path("/run/vhost-user-render/vm1/render.sock");
        assert!(!path.exists());
        host.sandbox.systemctl(&["reset-failed"])?;
    }
    let said = journal(SERVER)?;
    assert_eq!(said.matches(got).count(), 2, "{said}");
    assert!(!said.contains("work as 0\n"), "{said}");
    let said = journal(GPU)?;
    assert!(
        said.contains("['systemd', 'vhost-render'] ['journal', 'notify']"),
        "{said}"
    );
    Ok(())
}

#[test]
fn status_and_log_of_a_vm_show_its_render_server() -> anyhow::Result<()> {
    let host = Host::start()?;
    let run = |words: &[&str]| -> anyhow::Result<String> {
        let output = host.sandbox.exec(words)?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let server = || -> anyhow::Result<serde_json::Value> {
        let said = run(&["vhostctl", "status", "vm1", "--json=short"])?;
        let reports: serde_json::Value = serde_json::from_str(&said)?;
        Ok(reports[0]["render_server"].clone())
    };
    let text = || run(&["vhostctl", "status", "vm1"]);
    let idle = server()?;
    assert_eq!(idle["unit"], SERVER, "{idle}");
    assert_eq!(idle["state"], "dead", "{idle}");
    ensure!(idle["memory"].is_null(), "{idle}");

    host.sandbox.systemctl(&["start", GPU])?;
    host.wait(SERVER, "active")?;
    let runs = server()?;
    assert_eq!(runs["state"], "running", "{runs}");
    let shown = text()?;
    // With what it uses, where systemd counts that.
    let line = format!("Renderer: {SERVER} (running");
    ensure!(shown.contains(&line), "{shown}");

    host.sandbox.systemctl(&["kill", "--signal=KILL", SERVER])?;
    host.wait(SERVER, "failed")?;
    let shown = text()?;
    let line = format!("Renderer: {SERVER} (failed, result: signal)");
    ensure!(shown.contains(&line), "{shown}");
    for shown in [shown, run(&["vhostctl", "log", "vm1"])?] {
        ensure!(shown.contains("status=9/KILL"), "{shown}");
    }
    // A GPU without Vulkan has none.
    host.sandbox.systemctl(&["stop", GPU])?;
    run(&[
        "rm",
        "-r",
        "/run/systemd/system/vhost-user-gpu@vm1.service.d",
    ])?;
    host.sandbox.systemctl(&["daemon-reload"])?;
    ensure!(server()?.is_null());
    Ok(())
}

#[test]
fn gpu_cannot_start_without_its_render_server() -> anyhow::Result<()> {
    let host = Host::start()?;
    host.sandbox.drop_in(SERVER, "[Service]\nUser=vu.rnd\n")?;
    // systemd cannot confine the server: the connection is closed, and the GPU's next start tries again.
    host.sandbox.write(
        "/usr/local/lib/client.py",
        &CLIENT.replace("signal.pause()", "server.recv(1)\nraise SystemExit(1)"),
    )?;
    for _ in 0..2 {
        host.sandbox.systemctl(&["start", GPU])?;
        host.wait(GPU, "failed")?;
        host.wait(SOCKET, "failed")?;
        let result = host.sandbox.property(SOCKET, "Result")?;
        assert!(result.ends_with("-limit-hit"), "{result}");
        // Which forgets the starts as well.
        host.sandbox.systemctl(&["reset-failed"])?;
    }
    Ok(())
}

#[test]
fn render_server_is_confined() -> anyhow::Result<()> {
    let host = Host::start()?;
    let exposure = exposure(&host.sandbox, SERVER)?;
    assert!(exposure <= 2.5, "{exposure}");
    for (unit, property, value) in [
        (SERVER, "NoNewPrivileges", "yes"),
        (SERVER, "CapabilityBoundingSet", ""),
        (SERVER, "DynamicUser", "yes"),
        (SERVER, "PrivateUsers", "yes"),
        (SERVER, "PrivateNetwork", "yes"),
        (SERVER, "RestrictAddressFamilies", "AF_UNIX"),
        (SERVER, "ProtectSystem", "strict"),
        (SERVER, "ProtectProc", "invisible"),
        (SERVER, "RestrictNamespaces", "yes"),
        (SERVER, "DevicePolicy", "closed"),
        (SERVER, "SystemCallArchitectures", "native"),
        (SERVER, "MemoryMax", "8589934592"),
        (SERVER, "CoredumpFilter", "0x31"),
        // The driver is not in the GPU's process.
        (GPU, "MemoryDenyWriteExecute", "yes"),
        (GPU, "PrivateDevices", "yes"),
        (GPU, "Restart", "no"),
    ] {
        assert_eq!(host.sandbox.property(unit, property)?, value, "{property}");
    }
    Ok(())
}
