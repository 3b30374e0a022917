// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The measured programs: ours, and the peers with their sources.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use frontend::manager::{Service, ServiceOptions};
use frontend::{Command, Deadline, Program, Session, SocketForm};
use harness::apt::{PrivateApt, Suite};
use harness::paths;
use tempfile::TempDir;

/// How a program takes its socket and its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// The conventions of QEMU's `docs/interop/vhost-user.rst`.
    Conventions,
    /// As a service whose manager keeps descriptors: the program keeps its state for a successor.
    Kept,
    /// rust-vmm's `vhost-device-input`: a number is put behind the socket's path.
    VhostDevice,
    /// No backend at all: see [`crate::baseline`].
    Baseline,
    /// Several programs of ours with a VNC server: see [`crate::console`].
    Console,
    /// A QEMU with its own devices and VNC server: see [`crate::console`].
    Qemu,
    /// Our GPU with OpenGL, in a QEMU with a window: see [`crate::window`].
    Backend,
    /// A QEMU with its own GPU with OpenGL, in a window.
    OwnGpu,
}

/// A program that is measured.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredProgram {
    /// Its column's name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// How it is started.
    pub style: Style,
}

/// A process of a measured program.
#[derive(Debug)]
pub(crate) enum Process {
    /// One that was started as a VMM does.
    Program(Program),
    /// A service.
    Service(Service),
}

impl Process {
    /// Its process id.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        Ok(match self {
            Self::Program(program) => program.pid(),
            Self::Service(service) => service.pid()?,
        })
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        match self {
            Self::Program(program) => program.stderr(),
            Self::Service(service) => service.log(),
        }
    }
}

/// A program that was started, and the connection to it.
#[derive(Debug)]
pub(crate) struct Started {
    /// The program.
    pub program: Process,
    /// The connection.
    pub session: Session,
    /// Where its socket lies, if it is not in the program's own.
    pub folder: Option<TempDir>,
}

impl MeasuredProgram {
    /// Ours, as built with this program.
    ///
    /// # Errors
    /// If it has not been built.
    pub(crate) fn ours(program: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: "ours".into(),
            path: paths::program(program)?,
            style: Style::Conventions,
        })
    }

    /// The same program, as a service that keeps its state.
    pub(crate) fn kept(&self) -> Self {
        Self {
            name: format!("{}, kept", self.name),
            style: Style::Kept,
            ..self.clone()
        }
    }

    /// Programs that are found where they are started.
    pub(crate) fn part(name: &str, style: Style) -> Self {
        Self {
            name: name.into(),
            path: PathBuf::new(),
            style,
        }
    }

    /// From `NAME=PATH` of the command line.
    ///
    /// # Errors
    /// If it has not that form, or there is no such file.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, path) = text.split_once('=').context("expected NAME=PATH")?;
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "there is no program {}", path.display());
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let style = if file.starts_with("vhost-device-") {
            Style::VhostDevice
        } else {
            Style::Conventions
        };
        Ok(Self {
            name: name.into(),
            path,
            style,
        })
    }

    /// Starts it with `args` after those that its style needs, and `env`.
    ///
    /// # Errors
    /// If it does not start or ends at once, with what it says.
    pub(crate) fn start(&self, args: &[String], env: &[(&str, String)]) -> anyhow::Result<Started> {
        if self.style == Style::Kept {
            let mut options = ServiceOptions::new(&self.path).args(args);
            for (name, value) in env {
                options = options.env(name, value);
            }
            let service = options.start()?;
            return Ok(Started {
                session: service.session()?,
                program: Process::Service(service),
                folder: None,
            });
        }
        let mut command = Command::new(&self.path);
        for (name, value) in env {
            command = command.env(name, value);
        }
        if self.style == Style::VhostDevice {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("socket");
            let mut program = command
                .arg(format!("--socket-path={}", path.display()))
                .args(args)
                .spawn()?;
            let stream = connect(&mut program, &path.with_file_name("socket0"))?;
            return Ok(Started {
                program: Process::Program(program),
                session: Session::new(stream),
                folder: Some(folder),
            });
        }
        let command = command.socket(SocketForm::Connected(0));
        let mut program = command.args(args).spawn()?;
        let session = program.session()?;
        Ok(Started {
            program: Process::Program(program),
            session,
            folder: None,
        })
    }
}

/// Connects as soon as somebody listens.
fn connect(program: &mut Program, path: &Path) -> anyhow::Result<UnixStream> {
    let deadline = Deadline::default();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(e) => {
                if let Some(status) = program.try_exit()? {
                    bail!("it ended with {status}: {}", program.stderr());
                }
                if deadline.passed() {
                    return Err(e).context("it does not listen");
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

/// The package of Debian's that has the C program, and where in it.
const PACKAGE: &str = "qemu-system-gui";
const PROGRAM: &str = "usr/lib/qemu/vhost-user-gpu";

/// Debian's vhost-user-gpu: the release's own and that of the backports. What cannot be had is told
/// to `trouble`.
pub(crate) fn debian_gpus(trouble: &mut dyn FnMut(String)) -> Vec<MeasuredProgram> {
    let folder = paths::build_dir().join("peers");
    let mut apt = None;
    let mut found = Vec::new();
    for (name, backports) in [("C, release", false), ("C, backports", true)] {
        let root = folder.join(if backports { "backports" } else { "release" });
        let path = root.join(PROGRAM);
        let fetched = if path.is_file() {
            Ok(())
        } else {
            fetch(&mut apt, backports, &root)
        };
        if let Err(e) = fetched {
            trouble(format!("{name}: {e:#}"));
            continue;
        }
        if path.is_file() {
            found.push(MeasuredProgram {
                name: name.into(),
                path,
                style: Style::Conventions,
            });
        } else {
            trouble(format!("{name}: {PACKAGE} has no {PROGRAM}"));
        }
    }
    found
}

fn fetch(apt: &mut Option<PrivateApt>, backports: bool, root: &Path) -> anyhow::Result<()> {
    let apt = match apt {
        Some(apt) => apt,
        None => apt.insert(PrivateApt::open(&paths::build_dir().join("apt"))?),
    };
    let suite = if backports {
        let backports = apt.backports();
        backports.context("this release has no backports")?
    } else {
        Suite::Release
    };
    apt.unpack(&[&suite.package(PACKAGE)], root)
}

/// rust-vmm's vhost-device-input, where it was installed for this.
pub(crate) fn vhost_device_input() -> Option<MeasuredProgram> {
    let path = paths::build_dir().join("peers/bin/vhost-device-input");
    path.is_file().then(|| MeasuredProgram {
        name: "vhost-device-input".into(),
        path,
        style: Style::VhostDevice,
    })
}
