// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program from its options to its exit status.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Instant;

use log::LevelFilter;

use crate::backend::logging;
use crate::backend::sandbox::{SandboxMode, SandboxPolicy, SyscallArgument, SyscallRule};
use crate::backend::service::notify;
use crate::backend::{
    ListeningSocket, PlannedListener, SocketError, plan_listeners, refuse_waiting,
};
use crate::vnc::display::Display;
use crate::vnc::input::{ConsoleInput, KeyboardLayout};
use crate::vnc::server::{ExitReason, HeadSocket, Parts, Server};

const NAME: &str = "vhost-vnc";
/// Bytes of a block of memory that comes from the kernel.
const LARGE: libc::c_int = 1 << 20;

/// What the program serves, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen for viewers: head 0, 1 and so on. Without any, on [`Options::fd`] or on the sockets of socket
    /// activation.
    pub socket_paths: Vec<PathBuf>,
    /// A listening socket for the viewers of head 0.
    pub fd: Option<RawFd>,
    /// The GPU's display socket.
    pub display: PathBuf,
    /// The events socket of the virtual keyboard.
    pub keyboard: Option<PathBuf>,
    /// The events socket of the virtual tablet.
    pub tablet: Option<PathBuf>,
    /// The guest's keyboard layout.
    pub keyboard_layout: String,
    /// What viewers and texts call the VM.
    pub name: String,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// Whether to drop files, privileges and system calls.
    pub sandbox: SandboxMode,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves viewers until a signal comes or, with socket activation, nobody looks any more; then exits: with status 0, or
/// with 1 after an error, which is logged. Only at the very start of a program, as it takes the descriptors that were
/// passed to it.
pub fn run(options: &Options) -> ! {
    // Before the log opens a socket, which could get the number that --fd names.
    let planned = plan_listeners(&options.socket_paths, options.fd);
    logging::init(NAME, options.log_level);
    notify::init();
    report_panics();
    let shared: Vec<_> = planned
        .iter()
        .flatten()
        .map(PlannedListener::shared)
        .collect();
    let ended = serve(options, planned);
    let status = match ended {
        Ok(reason) => {
            log::info!("{reason}");
            notify::stopping(reason);
            0
        }
        Err(e) => {
            logging::last_error(&e.to_string());
            // Viewers fail at once instead of waiting for a program that cannot start.
            let shared = shared.iter().flatten();
            shared.for_each(|listener| refuse_waiting(listener));
            1
        }
    };
    logging::flush();
    signal_hook::low_level::exit(status)
}

fn serve(
    options: &Options,
    planned: Result<Vec<PlannedListener>, SocketError>,
) -> Result<ExitReason, Error> {
    give_pictures_back();
    let planned = planned?;
    let layout = KeyboardLayout::load(&options.keyboard_layout)?;
    let sockets = planned.into_iter().map(PlannedListener::listen);
    let sockets: Vec<ListeningSocket> = sockets.collect::<Result<_, _>>()?;
    let input = ConsoleInput::new(options.keyboard.clone(), options.tablet.clone(), layout)
        .map_err(|e| format!("cannot prepare for the input devices: {e}"))?;
    let parts = Parts {
        listeners: HeadSocket::in_order(&sockets),
        ends_idle: options.socket_paths.is_empty() && options.fd.is_none(),
        vm: options.name.clone(),
        display: Display::new(options.display.clone()),
        input,
    };
    let mut server = Server::new(parts, Instant::now())
        .map_err(|e| format!("cannot prepare for viewers: {e}"))?;
    options.sandbox.warn("a viewer");
    let files = sockets.iter().filter_map(ListeningSocket::file);
    let sandbox = options.sandbox.sandbox(sandbox_policy(), files);
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_files()?;
    }
    logging::detach().map_err(|e| format!("cannot start to write the log: {e}"))?;
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_syscalls()?;
    }
    log::info!("the console of {} is ready", options.name);
    notify::ready(server.status());
    let ended = server.run();
    Ok(ended.map_err(|e| format!("cannot wait for viewers, the GPU and input devices: {e}"))?)
}

/// Has large blocks of memory, such as pictures, come from the kernel and go back to it. Otherwise glibc raises the size from
/// which on it does so, with the first picture that is freed, up to one of 3840x2160: later black pictures, which nobody
/// writes to, would take memory, and freed ones keep it (mallopt(3)).
fn give_pictures_back() {
    // SAFETY: it changes nothing but a number of the allocator's, which it locks meanwhile.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    if set == 0 {
        log::debug!("cannot set the size of large blocks of memory");
    }
}

/// Connecting to the sockets of GPU and input devices. (No landlock yet restricts which.)
fn sandbox_policy() -> SandboxPolicy {
    let unix = SyscallArgument::is(0, libc::AF_UNIX as u32);
    SandboxPolicy {
        calls: vec![
            SyscallRule::with(libc::SYS_socket, unix),
            SyscallRule::any(libc::SYS_connect),
        ],
        ..SandboxPolicy::default()
    }
}

/// From now on a panic ends the program with a message in the log.
fn report_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        logging::last_error(&format!("internal error, please report it: {panic}"));
        signal_hook::low_level::exit(1);
    }));
}
