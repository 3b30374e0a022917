// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtual machine with the test guest in it.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::artifacts::Artifacts;
use crate::console::{Console, Running};
use crate::guarded::Guard;
use crate::image::Image;
use crate::initramfs::Archive;
use crate::qmp::Qmp;

/// For what should take no time at all.
const QMP_TIMEOUT: Duration = Duration::from_secs(60);
/// For a guest on an emulated processor of a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(150);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
/// Kernel option that has the guest take the second output for connected: QEMU connects
/// it only once somebody looks at it.
pub const SECOND_OUTPUT: &str = "video=Virtual-2:640x480e";
/// Memory of a guest, unless told otherwise.
const MEMORY: &str = "384M";

/// How a virtual machine is made.
#[derive(Debug)]
pub struct Builder<'a> {
    artifacts: &'a Artifacts,
    devices: Vec<String>,
    kernel_options: String,
    /// Programs and files of the host, and where they go.
    programs: Vec<(PathBuf, String)>,
    files: Vec<PathBuf>,
    /// Libraries of packages that are not installed: below which folder, and where they go.
    unpacked: Vec<(PathBuf, String)>,
    memory: String,
    boot_timeout: Duration,
}

impl<'a> Builder<'a> {
    /// Adds a vhost-user-gpu whose backend listens at `socket`, with the id `gpu`.
    #[must_use]
    pub fn gpu_socket(self, socket: &Path) -> Self {
        self.gpu_socket_with(socket, "")
    }

    /// As [`gpu_socket`](Self::gpu_socket), with further properties of the device, for
    /// instance `max_outputs=2`.
    #[must_use]
    pub fn gpu_socket_with(self, socket: &Path, properties: &str) -> Self {
        self.vhost_user("vhost-user-gpu-pci", "gpu", socket, properties)
    }

    /// Adds a vhost-user-input whose backend listens at `socket`.
    #[must_use]
    pub fn input_socket(self, socket: &Path) -> Self {
        let id = format!("input{}", self.devices.len());
        self.vhost_user("vhost-user-input-pci", &id, socket, "")
    }

    /// Adds any device, in the words of QEMU's `-device`.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.devices
            .extend(["-device".to_owned(), device.to_owned()]);
        self
    }

    /// Adds words to QEMU's command line, after all that is there: in what can be said only once, they count.
    #[must_use]
    pub fn arguments(mut self, words: &[String]) -> Self {
        self.devices.extend_from_slice(words);
        self
    }

    /// Adds a program of the host, as `/usr/bin/NAME` with the libraries it needs.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let target = format!("/usr/bin/{name}");
        self.programs.push((program.to_owned(), target));
        self
    }

    /// Adds a shared library of the host at the same path, with the libraries it needs: one that is
    /// loaded by name.
    #[must_use]
    pub fn library(mut self, library: &Path) -> Self {
        let target = library.display().to_string();
        self.programs.push((library.to_owned(), target));
        self
    }

    /// Adds the shared library `path` of packages that are unpacked below `root`, with those that
    /// it needs; they are used in place of the host's.
    #[must_use]
    pub fn unpacked_library(mut self, root: &Path, path: &str) -> Self {
        self.unpacked.push((root.to_owned(), path.to_owned()));
        self
    }

    /// Adds a file of the host at the same path.
    #[must_use]
    pub fn file(mut self, file: &Path) -> Self {
        self.files.push(file.to_owned());
        self
    }

    /// The guest's root file system with the further programs.
    fn initramfs(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        if self.programs.is_empty() && self.files.is_empty() && self.unpacked.is_empty() {
            return Ok(self.artifacts.initramfs.clone());
        }
        let mut more = Archive::default();
        // The first of two files at one path counts.
        for (root, path) in &self.unpacked {
            more.unpacked_library(root, path)?;
        }
        for (program, target) in &self.programs {
            more.program(program, target)?;
        }
        for file in &self.files {
            more.copy(file, &file.display().to_string())?;
        }
        // The kernel unpacks one archive after the other.
        let mut bytes = fs::read(&self.artifacts.initramfs).context("cannot read the initramfs")?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(more.finish()?);
        let path = folder.join("initramfs");
        fs::write(&path, bytes).context("cannot write the initramfs")?;
        Ok(path)
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn kernel_options(mut self, options: &str) -> Self {
        self.kernel_options.push(' ');
        self.kernel_options += options;
        self
    }

    /// How much memory the guest has, in QEMU's words.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// How long the guest may take to come up.
    #[must_use]
    pub fn boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = timeout;
        self
    }

    fn vhost_user(mut self, device: &str, id: &str, socket: &Path, properties: &str) -> Self {
        // A comma in a value is doubled.
        let path = socket.display().to_string().replace(',', ",,");
        self.devices.extend([
            "-chardev".to_owned(),
            format!("socket,id={id}-socket,path={path}"),
        ]);
        let separator = if properties.is_empty() { "" } else { "," };
        self.device(&format!(
            "{device},id={id},chardev={id}-socket{separator}{properties}"
        ))
    }

    /// Starts QEMU and waits until the guest's agent is ready.
    ///
    /// # Errors
    ///
    /// If QEMU refuses, or the guest does not come up in time; the message has what
    /// both said.
    pub fn boot(self) -> anyhow::Result<Vm> {
        let vm = self.start()?;
        vm.console
            .wait_ready(self.boot_timeout)
            .map_err(|error| vm.explain(error))?;
        Ok(vm)
    }

    /// Starts QEMU and does not wait for the guest: see [`Vm::wait_ready`].
    ///
    /// # Errors
    ///
    /// If QEMU refuses; the message has what it said.
    pub fn start(&self) -> anyhow::Result<Vm> {
        let folder = tempfile::tempdir().context("cannot create a folder for QEMU")?;
        let path = |name: &str| folder.path().join(name);
        let listen = |name: &str| {
            UnixListener::bind(path(name)).with_context(|| format!("cannot listen for {name}"))
        };
        // QEMU connects to us, so there is no moment to wait for in which it listens.
        let (qmp, agent) = (listen("qmp")?, listen("agent")?);
        let log = File::create(path("qemu.log")).context("cannot create QEMU's log")?;
        let Artifacts {
            board, accelerator, ..
        } = *self.artifacts;
        let options = format!(
            "{} quiet loglevel=5 panic=-1 mitigations=off drm_kms_helper.fbdev_emulation=0{}",
            board.kernel_options(),
            self.kernel_options
        );
        let machine = format!("{},memory-backend=memory", board.machine());
        let child = self
            .artifacts
            .qemu
            .command()
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-vga",
                "none",
            ])
            .args([
                "-accel",
                accelerator.name(),
                "-cpu",
                board.cpu(accelerator),
                "-m",
                &self.memory,
            ])
            .args([
                "-object",
                &format!(
                    "memory-backend-memfd,id=memory,size={},share=on",
                    self.memory
                ),
            ])
            .args(["-machine", &machine])
            .arg("-kernel")
            .arg(&self.artifacts.kernel)
            .arg("-initrd")
            .arg(self.initramfs(folder.path())?)
            .args(["-append", &options])
            .args([
                "-serial",
                &format!("file:{}", path("console.log").display()),
            ])
            .args([
                "-chardev",
                &format!("socket,id=agent,path={}", path("agent").display()),
            ])
            .args(["-serial", "chardev:agent"])
            .args([
                "-chardev",
                &format!("socket,id=qmp,path={}", path("qmp").display()),
            ])
            .args(["-mon", "chardev=qmp,mode=control"])
            .args(&self.devices)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.artifacts.qemu.program.display()))?;
        let guard = Guard::of(&child);
        let mut process = Process {
            child,
            guard: None,
            folder,
        };
        process.guard = Some(guard?);
        let deadline = Instant::now() + QMP_TIMEOUT;
        let connected = (|| {
            let agent = process.accept(&agent, deadline)?;
            let qmp = process.accept(&qmp, deadline)?;
            anyhow::Ok((Console::new(agent)?, Qmp::new(qmp, QMP_TIMEOUT)?))
        })();
        let (console, qmp) = connected.map_err(|error| process.explain(error))?;
        Ok(Vm {
            console,
            qmp,
            process,
        })
    }
}

/// A running QEMU; dropping it ends it.
#[derive(Debug)]
struct Process {
    child: Child,
    guard: Option<Guard>,
    folder: TempDir,
}

impl Process {
    /// The connection that QEMU makes to `listener`.
    fn accept(&mut self, listener: &UnixListener, deadline: Instant) -> anyhow::Result<UnixStream> {
        let step = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        loop {
            let mut waiting = [PollFd::new(listener, PollFlags::IN)];
            if poll(&mut waiting, Some(&step))? > 0 {
                return Ok(listener.accept()?.0);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("QEMU ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("QEMU does not connect to its sockets");
            }
        }
    }

    /// Adds what QEMU and the guest's kernel said to an error.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let tail = |name: &str| {
            let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        let (qemu, kernel) = (tail("qemu.log"), tail("console.log"));
        error.context(format!(
            "virtual machine failed\nQEMU says:\n{qemu}\nguest says:\n{kernel}\n"
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // First, while the number is still QEMU's.
        drop(self.guard.take());
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A booted virtual machine; dropping it ends QEMU.
#[derive(Debug)]
pub struct Vm {
    console: Console,
    qmp: Qmp,
    process: Process,
}

impl Vm {
    /// A machine without devices so far.
    #[must_use]
    pub fn builder(artifacts: &Artifacts) -> Builder<'_> {
        Builder {
            artifacts,
            devices: Vec::new(),
            kernel_options: String::new(),
            programs: Vec::new(),
            files: Vec::new(),
            unpacked: Vec::new(),
            memory: MEMORY.to_owned(),
            boot_timeout: BOOT_TIMEOUT,
        }
    }

    /// Runs a command of the guest's agent and returns its output.
    ///
    /// # Errors
    ///
    /// If it fails or hangs; see [`command_within`](Self::command_within).
    pub fn command(&mut self, command: &str) -> anyhow::Result<Vec<String>> {
        self.command_within(command, COMMAND_TIMEOUT)
    }

    /// As [`command`](Self::command), with a limit of its own.
    ///
    /// # Errors
    ///
    /// If it fails or hangs. The message has what QEMU and the kernel said.
    pub fn command_within(
        &mut self,
        command: &str,
        timeout: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let result = self
            .console
            .start(command)
            .and_then(|running| running.finish(timeout));
        result.map_err(|error| self.explain(error))
    }

    /// Starts a command that goes on while others run.
    ///
    /// # Errors
    ///
    /// If QEMU has ended.
    pub fn start(&mut self, command: &str) -> anyhow::Result<Running> {
        self.console.start(command)
    }

    /// Begins to report `count` events of the input device `name`, and returns once the
    /// guest listens.
    ///
    /// # Errors
    ///
    /// If the guest has no such device.
    pub fn listen(&mut self, count: usize, name: &str) -> anyhow::Result<Running> {
        let running = self.console.start(&format!("keys {count} {name}"))?;
        running
            .expect("listening", COMMAND_TIMEOUT)
            .map_err(|error| self.explain(error))?;
        Ok(running)
    }

    /// Sends a QMP command with arguments and returns its answer.
    ///
    /// # Errors
    ///
    /// If QEMU refuses it or does not answer.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut request = json!({"execute": command});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        self.qmp.execute(&request, QMP_TIMEOUT)
    }

    /// Waits for a QMP event.
    ///
    /// # Errors
    ///
    /// If it does not come in time.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> anyhow::Result<Value> {
        self.qmp.wait_event(name, timeout)
    }

    /// What the device `gpu` shows on its first output.
    ///
    /// # Errors
    ///
    /// If QEMU cannot tell.
    pub fn screendump(&mut self) -> anyhow::Result<Image> {
        self.screendump_of("gpu", 0)
    }

    /// What an output (`head`) of a display device shows.
    ///
    /// # Errors
    ///
    /// If QEMU cannot tell.
    pub fn screendump_of(&mut self, device: &str, head: u32) -> anyhow::Result<Image> {
        let path = self.process.folder.path().join("screen.ppm");
        let arguments = json!({"filename": path, "device": device, "head": head});
        self.qmp("screendump", arguments)?;
        Image::from_ppm(&fs::read(&path).context("QEMU wrote no picture")?)
    }

    /// Waits until the first output of `gpu` shows `expected`: what a guest has flushed
    /// takes a moment to go through the backend.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`; the message tells the difference.
    pub fn wait_screen(&mut self, expected: &Image, timeout: Duration) -> anyhow::Result<Image> {
        self.wait_screen_of("gpu", 0, expected, timeout)
    }

    /// As [`wait_screen`](Self::wait_screen), for any output of any display device.
    ///
    /// # Errors
    ///
    /// As for [`wait_screen`](Self::wait_screen).
    pub fn wait_screen_of(
        &mut self,
        device: &str,
        head: u32,
        expected: &Image,
        timeout: Duration,
    ) -> anyhow::Result<Image> {
        let deadline = Instant::now() + timeout;
        loop {
            let screen = self.screendump_of(device, head)?;
            match screen.difference(expected) {
                None => return Ok(screen),
                Some(difference) if Instant::now() > deadline => {
                    let error = anyhow::anyhow!("{device}, output {head}: {difference}");
                    return Err(self.explain(error));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits until the guest's agent is ready.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.console
            .wait_ready(BOOT_TIMEOUT)
            .map_err(|error| self.explain(error))
    }

    /// Restarts the guest from inside and waits until it is up again.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        // The answer is the next boot.
        self.console.start("reboot")?;
        self.wait_ready()
    }

    /// Presses the reset button and waits until the guest is up again.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.qmp("system_reset", Value::Null)?;
        self.wait_ready()
    }

    /// What the guest's kernel has said so far.
    #[must_use]
    pub fn kernel_log(&self) -> String {
        let bytes = fs::read(self.path("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What QEMU has said so far.
    #[must_use]
    pub fn qemu_log(&self) -> String {
        let bytes = fs::read(self.path("qemu.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// QEMU's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.process.folder.path().join(name)
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        self.process.explain(error)
    }
}
