// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real systemd of our own, with D-Bus and a journal, in namespaces.
//!
//! It runs on a throw-away overlay of the host's root: nothing on the host is touched,
//! several may run at once, and all of it goes when the [`Sandbox`] is dropped, or when
//! the process that made it dies.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::run::{is_installed, run};

const SCRIPT: &str = include_str!("sandbox.sh");
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// For commands run inside: systemd itself gives up on units earlier.
const EXEC_SECONDS: &str = "90";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the sandbox is made with.
const PROGRAMS: [&str; 6] = ["unshare", "nsenter", "setpriv", "bash", "awk", "tar"];

/// Why a private systemd cannot run here; `None` if it can.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a private systemd needs root".to_owned());
    }
    if let Some(program) = PROGRAMS.into_iter().find(|program| !is_installed(program)) {
        return Some(format!("a private systemd needs {program}"));
    }
    for (file, package) in [
        ("/lib/systemd/systemd", "systemd"),
        ("/usr/bin/dbus-daemon", "dbus"),
    ] {
        if !Path::new(file).exists() {
            return Some(format!("a private systemd needs the package {package}"));
        }
    }
    cgroup_root().err().map(|error| format!("{error:#}"))
}

/// Where the unified cgroup hierarchy is mounted.
fn cgroup_root() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .context("no cgroup2 file system is mounted")
}

/// A running systemd; dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    keeper: Child,
    /// Closing it is what ends the keeper.
    lifeline: Option<ChildStdin>,
    stderr: Option<ChildStderr>,
    cgroup: PathBuf,
    pid: u32,
    _mountpoint: TempDir,
}

impl Sandbox {
    /// Starts a systemd on the host's root with the files of `staging` folders (laid
    /// out as `make install DESTDIR=` does) on top, and waits until it has booted.
    ///
    /// # Errors
    ///
    /// If it cannot run here or does not come up.
    pub fn start(staging: &[&Path]) -> anyhow::Result<Self> {
        Self::boot(Path::new("/"), staging, "")
    }

    /// As [`Sandbox::start`], on another root than the host's, such as [`debian_root`](crate::debian_root) makes. It
    /// has to have systemd and D-Bus.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::start`].
    pub fn start_on(root: &Path, staging: &[&Path]) -> anyhow::Result<Self> {
        Self::boot(root, staging, "")
    }

    /// As [`Sandbox::start`], and the limits of units (`MemoryMax=`, `TasksMax=`) take effect.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::start`].
    pub fn start_with_limits(staging: &[&Path]) -> anyhow::Result<Self> {
        Self::boot(Path::new("/"), staging, "limits")
    }

    fn boot(root: &Path, staging: &[&Path], limits: &str) -> anyhow::Result<Self> {
        if let Some(reason) = missing() {
            bail!(reason);
        }
        let mountpoint = tempfile::Builder::new()
            .prefix("vhost-harness-")
            .tempdir()
            .context("cannot create a mount point")?;
        // Not by our process ID, which others have in other namespaces.
        let name = mountpoint.path().file_name();
        let cgroup = cgroup_root()?.join(name.context("the mount point has no name")?);
        // A session of its own: what interrupts us must not interrupt its cleaning up.
        let mut keeper = Command::new("setsid")
            .args(["bash", "-c", SCRIPT, "sandbox"])
            .arg(mountpoint.path())
            .arg(&cgroup)
            .arg(limits)
            .arg(root)
            .args(staging)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start setsid")?;
        let lifeline = keeper.stdin.take();
        let stdout = keeper.stdout.take().context("no output of the sandbox")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot read from the sandbox")?;
        let stderr = keeper.stderr.take();
        let pid = line
            .trim()
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok());
        let mut sandbox = Self {
            keeper,
            lifeline,
            stderr,
            cgroup,
            pid: pid.unwrap_or_default(),
            _mountpoint: mountpoint,
        };
        if pid.is_none() {
            let said = sandbox.stop();
            bail!("the private systemd does not start: {}", said.trim());
        }
        sandbox.wait_booted()?;
        Ok(sandbox)
    }

    /// Shuts it down and boots it again: with the same `staging` folders, and with `/etc` as it is. All else that was written is
    /// lost.
    ///
    /// # Errors
    ///
    /// If it does not shut down, or as [`Sandbox::start`].
    pub fn reboot(self, staging: &[&Path]) -> anyhow::Result<Self> {
        let disk = tempfile::tempdir().context("cannot create a folder for /etc")?;
        run(Command::new("cp")
            .arg("-a")
            .arg(self.path("/etc"))
            .arg(disk.path()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        // The answer may get lost as systemd ends.
        let _ = self.exec(["systemctl", "--no-block", "start", "poweroff.target"])?;
        while Path::new(&format!("/proc/{}", self.pid)).exists() {
            ensure!(
                Instant::now() < deadline,
                "the private systemd does not shut down: {}",
                self.journal(&[])?
            );
            thread::sleep(Duration::from_millis(20));
        }
        drop(self);
        Self::start(&[staging, &[disk.path()]].concat())
    }

    fn wait_booted(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // Before its socket is there, systemctl has nobody to ask.
            if self.path("/run/systemd/private").exists() {
                let state = self.exec(["systemctl", "is-system-running"])?;
                match String::from_utf8_lossy(&state.stdout).trim() {
                    "running" | "degraded" => return Ok(()),
                    _ => {}
                }
            }
            ensure!(
                Path::new(&format!("/proc/{}", self.pid)).exists(),
                "the private systemd has ended at once"
            );
            if Instant::now() > deadline {
                bail!(
                    "the private systemd is not up in {START_TIMEOUT:?}: {}",
                    self.journal(&[])?
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file of the sandbox by a path for the host: its sockets can be connected to
    /// and its files read and written there.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The words of `line`, as a shell splits it, for a program outside: there the sockets of `vhostctl qemu-args` have
    /// other paths.
    ///
    /// # Errors
    /// If the shell does not run or takes the line for wrong.
    pub fn words_outside(&self, line: &str) -> anyhow::Result<Vec<String>> {
        let script = format!("eval 'printf \"%s\\n\"' {line}");
        let output = Command::new("sh").args(["-c", &script]).output()?;
        ensure!(output.status.success(), "sh cannot split {line}");
        let root = self.path("/run/vhost-user").display().to_string();
        Ok(String::from_utf8(output.stdout)?
            .lines()
            .map(|word| word.replace("/run/vhost-user", &root))
            .collect())
    }

    /// The address of its system bus, for `DBUS_SYSTEM_BUS_ADDRESS`.
    #[must_use]
    pub fn bus_address(&self) -> String {
        format!(
            "unix:path={}",
            self.path("/run/dbus/system_bus_socket").display()
        )
    }

    /// A command that runs inside when it is spawned, with a clean environment.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.enter(&[]);
        command.args(arguments);
        command
    }

    /// What enters the sandbox, for a program that is to come. It is a process of the sandbox; with `--no-fork` of nsenter only
    /// what it starts is.
    fn enter(&self, options: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .args([
                "-c",
                r#"mkdir -p "$0" && echo $$ >"$0/cgroup.procs" && exec "$@""#,
            ])
            .arg(self.cgroup.join("exec"))
            .args(["nsenter", "--target", &self.pid.to_string()])
            .args(options)
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/",
            ])
            .args([
                "env",
                "-i",
                "HOME=/root",
                "LANG=C.UTF-8",
                "TERM=dumb",
                "SYSTEMD_COLORS=0",
            ])
            .args(["SYSTEMD_PAGER=", &format!("PATH={PATH}")]);
        command
    }

    /// A program of this machine, with its files and its environment, that only has the network of the inside.
    #[must_use]
    pub fn command_in_network(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net", "--", program]);
        command
    }

    /// Runs a command inside to its end, whatever its exit status. It is killed after a
    /// minute and a half.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn exec<I, S>(&self, arguments: I) -> anyhow::Result<Output>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.limited(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot enter the sandbox")
    }

    fn limited<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        // A systemd that reboots stops all processes of the sandbox for a moment before it kills them. An nsenter that has
        // forked stops itself then, and nobody has it go on.
        let mut command = self.enter(&["--no-fork"]);
        command.args(["timeout", "--kill-after=5", EXEC_SECONDS]);
        command.args(arguments);
        command
    }

    /// Runs `systemctl`, which has to succeed, and returns its output.
    ///
    /// # Errors
    ///
    /// If it fails; the message has what the journal says of late.
    pub fn systemctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = run(self.limited(["systemctl"]).args(arguments));
        let output = output.map_err(|error| match self.journal(&["--lines=30"]) {
            Ok(journal) => error.context(format!("the journal ends with:\n{journal}")),
            Err(_) => error,
        })?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// One property of a unit, as `systemctl show` tells it.
    ///
    /// # Errors
    ///
    /// If systemd does not answer.
    pub fn property(&self, unit: &str, property: &str) -> anyhow::Result<String> {
        self.systemctl(&["show", "--value", "--property", property, unit])
    }

    /// Waits until a property of a unit has that value.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_property(
        &self,
        unit: &str,
        property: &str,
        value: &str,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let is = self.property(unit, property)?;
            if is == value {
                return Ok(());
            }
            if Instant::now() > deadline {
                let journal = self.journal(&["--unit", unit])?;
                bail!("{unit}: {property} is {is:?}, not {value:?}; its journal:\n{journal}");
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// What `journalctl` prints with these further arguments.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn journal(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.limited(["journalctl", "--no-pager", "--quiet"]);
        Ok(String::from_utf8_lossy(&run(command.args(arguments))?.stdout).into_owned())
    }

    /// Writes a file inside, and the folders above it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, inside: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path(inside);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Has a file or folder of the host inside at the same path: copied, where the host's root does
    /// not bring it along, as what lies below `/tmp` or on another file system.
    ///
    /// # Errors
    ///
    /// If it cannot be copied.
    pub fn bring(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.to_str().context("the path is no text")?;
        let inside = self.path(name);
        if inside.exists() {
            return Ok(());
        }
        if let Some(folder) = inside.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        run(Command::new("cp").arg("-a").arg(path).arg(inside)).map(drop)
    }

    /// Adds a drop-in to a unit and makes systemd read it.
    ///
    /// # Errors
    ///
    /// If it cannot be written or systemd does not answer.
    pub fn drop_in(&self, unit: &str, content: &str) -> anyhow::Result<()> {
        self.write(
            &format!("/run/systemd/system/{unit}.d/harness.conf"),
            content,
        )?;
        self.systemctl(&["daemon-reload"]).map(drop)
    }

    /// The host's number of its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The host's number of the process that it knows as `inside`.
    ///
    /// # Errors
    /// If there is none.
    pub fn pid_of(&self, inside: &str) -> anyhow::Result<i32> {
        let space = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let wanted = space(&self.pid.to_string());
        for process in fs::read_dir("/proc")? {
            let number = process?.file_name().to_string_lossy().into_owned();
            let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
            let known = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let known = known.and_then(|all| all.split_whitespace().next_back());
            if known == Some(inside) && space(&number) == wanted {
                return Ok(number.parse()?);
            }
        }
        bail!("process {inside} is not to be found")
    }

    /// Its cgroup as the host sees it; gone when the sandbox is.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Ends it and returns what its keeper complained about.
    fn stop(&mut self) -> String {
        drop(self.lifeline.take());
        let mut said = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            // Ends with the last process that could write there.
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = self.keeper.wait();
        said
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let said = self.stop();
        if !said.trim().is_empty() {
            eprintln!("private systemd: {}", said.trim());
        }
    }
}
