// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs of a VM with Vulkan, and its guest.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use frontend::{Command, Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::{Builder, Vm};
use harness::viewers::RfbViewer;
use harness::vulkan;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::{gpu_command, vnc_program};

const GPU: &str =
    "vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16,chardev=gpu";
/// The first QEMU whose generic device maps memory of the host.
const FIRST_QEMU: (u32, u32) = (11, 1);
/// For what takes no time, but on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Processors are emulated, and the host renders by software.
pub(crate) const PATIENTLY: Duration = Duration::from_secs(180);

/// Plays the service manager for virgl_render_server: each connection gets a server of its own.
pub(crate) struct RenderServer {
    path: PathBuf,
    servers: Arc<Mutex<Vec<Program>>>,
}

impl RenderServer {
    pub(crate) fn listen(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("render");
        let listener = net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        net::listen(&listener, 4)?;
        let servers = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::clone(&servers);
        // Ends with the test's process.
        thread::spawn(move || {
            while let Ok(connection) = net::accept_with(&listener, SocketFlags::CLOEXEC) {
                match start_server(connection) {
                    Ok(server) => lock(&started).push(server),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        });
        Ok(Self { path, servers })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing listens there any more.
    pub(crate) fn refuse(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(&self.path)?)
    }

    /// What the servers said.
    pub(crate) fn said(&self) -> String {
        lock(&self.servers).iter().map(Program::stderr).collect()
    }

    /// Sends a signal to the servers and to the processes that they started, one for each program of the guest.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.signal_contexts(signal)?;
        for server in lock(&self.servers).iter_mut() {
            server.signal(signal)?;
        }
        Ok(())
    }

    /// Sends a signal to the processes that the servers started, and tells to how many.
    pub(crate) fn signal_contexts(&self, signal: Signal) -> anyhow::Result<usize> {
        let mut count = 0;
        for server in lock(&self.servers).iter() {
            let children = format!("/proc/{0}/task/{0}/children", server.pid());
            for child in fs::read_to_string(children)?.split_whitespace() {
                // One may have ended meanwhile.
                let _ = kill_process(Pid::from_raw(child.parse()?).context("no PID")?, signal);
                count += 1;
            }
        }
        Ok(count)
    }

    /// What the servers took of the processors, with their processes that have ended and the parts of those that run.
    fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for server in lock(&self.servers).iter() {
            let children = format!("/proc/{0}/task/{0}/children", server.pid());
            let children = fs::read_to_string(children)?;
            let own = server.pid().to_string();
            for pid in children.split_whitespace().chain([own.as_str()]) {
                // One may have ended meanwhile.
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                // The name, in brackets, may hold anything; fields 14 to 17 are its own and its ended children's time.
                let fields = stat.rsplit(") ").next().unwrap_or_default();
                let times = fields.split(' ').skip(11).take(4);
                ticks += times
                    .filter_map(|time| time.parse::<u64>().ok())
                    .sum::<u64>();
            }
        }
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs(ticks) / u32::try_from(per_second)?)
    }

    /// Waits until all servers have ended, as they do with their connection.
    fn wait_ended(&self) -> anyhow::Result<()> {
        for server in lock(&self.servers).iter_mut() {
            server.wait_exit(SOON)?;
        }
        Ok(())
    }
}

fn start_server(connection: OwnedFd) -> anyhow::Result<Program> {
    Command::new(vulkan::RENDER_SERVER)
        .arg("--socket-fd=3")
        .descriptor(connection)
        .spawn()
        .context("cannot start the render server")
}

fn lock(servers: &Mutex<Vec<Program>>) -> std::sync::MutexGuard<'_, Vec<Program>> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A VM with its GPU, the server that renders for it, and a console, which is its only display.
pub(crate) struct Machine {
    pub vm: Vm,
    pub gpu: Program,
    pub server: RenderServer,
    vnc: Program,
    folder: TempDir,
}

impl Machine {
    /// Boots a guest with Vulkan, with further options of the GPU.
    pub(crate) fn boot(options: &[&str]) -> anyhow::Result<Self> {
        Self::boot_guest(&[&["--venus"], options].concat(), vulkan::add_to)
    }

    /// Boots a guest that has Mesa's OpenGL too, with the options of the GPU, of which one chooses the renderer.
    pub(crate) fn boot_opengl(options: &[&str]) -> anyhow::Result<Self> {
        Self::boot_guest(options, |guest| {
            vulkan::add_opengl_to(vulkan::add_to(guest)?)
        })
    }

    fn boot_guest(
        options: &[&str],
        add_to: impl for<'a> Fn(Builder<'a>) -> anyhow::Result<Builder<'a>>,
    ) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        ensure!(
            artifacts.qemu.version >= FIRST_QEMU,
            "{:?}: run make check-vulkan",
            artifacts.qemu
        );
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let server = RenderServer::listen(folder.path())?;
        let has_vulkan = options.contains(&"--venus");
        let render_server = format!("--render-server={}", server.path.display());
        let gpu = gpu_command(SocketForm::Path)
            .args(has_vulkan.then_some(render_server))
            .arg(format!("--display-socket={}", path("display")))
            .args(options)
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .spawn()?;
        gpu.wait_stderr("serving on")
            .with_context(|| format!("{}{}", gpu.stderr(), server.said()))?;
        let vnc = Command::new(vnc_program())
            .arg(format!("--socket-path={}", path("vnc")))
            .arg(format!("--display={}", path("display")))
            .spawn()?;
        let chardev = format!("socket,id=gpu,path={}", gpu.socket_path().display());
        let words = ["-chardev", &chardev, "-device", GPU].map(str::to_owned);
        let guest = Vm::builder(&artifacts)
            .kernel_options("ignore_loglevel")
            .arguments(&words);
        let vm = add_to(guest)?
            .boot()
            .with_context(|| format!("{}{}", gpu.stderr(), server.said()))?;
        Ok(Self {
            vm,
            gpu,
            server,
            vnc,
            folder,
        })
    }

    /// Runs a command of the guest, and says what all programs said if it fails.
    pub(crate) fn command(&mut self, command: &str) -> anyhow::Result<String> {
        let lines = self.vm.command_within(command, PATIENTLY);
        let lines = lines.with_context(|| self.said())?;
        Ok(lines.join("\n"))
    }

    /// Has the guest draw the cube, and waits until a viewer sees it turn.
    pub(crate) fn draw_cube(&mut self) -> anyhow::Result<()> {
        self.command(&vulkan::start_seats())?;
        self.command(&vulkan::show(&format!("{} --wsi wayland", vulkan::CUBE)))?;
        let mut viewer = self.viewer()?;
        let deadline = Instant::now() + PATIENTLY;
        let mut first: Option<Image> = None;
        while Instant::now() < deadline {
            let picture = viewer.picture()?;
            if shows_cube(&picture) {
                match &first {
                    Some(first) if first.difference(&picture).is_some() => return Ok(()),
                    Some(_) => {}
                    None => first = Some(picture),
                }
            }
            thread::sleep(Duration::from_millis(200));
        }
        let last = viewer.picture()?;
        let cage = self
            .vm
            .command("shell cat /tmp/seatd /tmp/cage")?
            .join("\n");
        bail!(
            "no cube turns: {last:?} has {} colors in the middle; the guest says:\n{cage}\n{}",
            colors(&last),
            self.said()
        );
    }

    /// What the programs that render took of the host's processors, with the server's processes that have ended.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        Ok(self.gpu.cpu_time()? + self.server.cpu_time()?)
    }

    /// Somebody who looks at its screen.
    pub(crate) fn viewer(&self) -> anyhow::Result<RfbViewer> {
        RfbViewer::connect(&self.folder.path().join("vnc"), SOON)
    }

    /// What the programs said.
    pub(crate) fn said(&self) -> String {
        let programs = [&self.gpu, &self.vnc].map(Program::stderr).concat();
        format!("{programs}{}", self.server.said())
    }

    /// Ends the VM: the GPU has to end by itself, and its server with it.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Self {
            vm,
            mut gpu,
            server,
            ..
        } = self;
        drop(vm);
        crate::common::assert_clean_exit(&mut gpu);
        server.wait_ended()
    }
}

/// Whether one color is all around, and the cube's in the middle.
fn shows_cube(screen: &Image) -> bool {
    let at = |x, y| screen.get(x, y).unwrap_or_default();
    let (right, bottom) = (
        screen.width.saturating_sub(1),
        screen.height.saturating_sub(1),
    );
    let corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)];
    let same = corners.iter().all(|(x, y)| at(*x, *y) == at(0, 0));
    same && colors(screen) > 50
}

/// How many colors there are in the middle of the screen.
fn colors(screen: &Image) -> usize {
    let (width, height) = (screen.width / 2, screen.height / 2);
    let middle = screen.crop(width / 2, height / 2, width, height);
    let colors: std::collections::BTreeSet<u32> = middle.pixels.into_iter().collect();
    colors.len()
}
