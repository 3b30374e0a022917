// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vhost-user backend for the tests of the points: right in all of them, or wrong in exactly one.
//!
//! It takes the options of the conventions. The environment says the type of its device (STAND_IN_TYPE) and its fault
//! (STAND_IN_FAULT), which has the name of the point that is to find it.

mod devices;
mod events;
mod gpu;
mod memory;
mod ring;
mod server;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use std::{env, io, thread};

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

static FAULT: OnceLock<String> = OnceLock::new();
static STATE: AtomicU8 = AtomicU8::new(0);

/// What the program is doing, as far as SIGTERM is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Waiting,
    Connected,
    MidMessage,
    Flooded,
    Running,
    Left,
}

pub(crate) fn enter(state: State) {
    STATE.store(state as u8, Ordering::Relaxed);
}

/// Whether this is the fault that it is to have.
pub(crate) fn fault(point: &str) -> bool {
    FAULT.get().is_some_and(|fault| fault == point)
}

/// An error that ends a start.
fn fail(why: &str) -> ! {
    if !fault("conventions/message-on-stderr") {
        eprintln!("stand-in: {why}");
    }
    exit(1)
}

#[derive(Default)]
struct Options {
    path: Option<PathBuf>,
    fd: Option<i32>,
    disk: Option<PathBuf>,
    device: Option<PathBuf>,
    /// Where programs connect that send the events of an input device.
    events: Option<PathBuf>,
    read_only: bool,
    device_type: String,
}

fn main() {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let args: Vec<String> = args
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let _ = FAULT.set(variable("STAND_IN_FAULT"));
    let device_type = variable("STAND_IN_TYPE");
    if args.iter().any(|arg| arg == "--print-capabilities") {
        print_capabilities(&args, &device_type);
    }
    let mut options = parse(&args);
    options.device_type = device_type;
    run(&options)
}

fn print_capabilities(args: &[String], device_type: &str) -> ! {
    let known = ["--print-capabilities", "--socket-path=", "--fd="];
    let known = known
        .into_iter()
        .chain(["--evdev-path=", "--render-node=", "--blk-file="]);
    let is_known = |arg: &String| known.clone().any(|option| arg.starts_with(option));
    if fault("conventions/capabilities-ignore-options") && !args.iter().all(is_known) {
        fail("unknown option");
    }
    if fault("conventions/capabilities-touch-nothing") {
        for arg in args {
            if let Some(path) = arg.strip_prefix("--blk-file=") {
                let _ = File::open(path);
            }
        }
    }
    if fault("conventions/print-capabilities") {
        println!("Welcome");
    }
    let device_type = match fault("conventions/capabilities-type") {
        true => "toaster",
        false => device_type,
    };
    let features = match device_type {
        _ if fault("conventions/capabilities-features") => "\"levitation\"",
        "gpu" => "\"render-node\"",
        "input" => "\"evdev-path\"",
        "block" => "\"blk-file\", \"read-only\"",
        _ => "",
    };
    println!("{{\"type\": \"{device_type}\", \"features\": [{features}]}}");
    exit(0)
}

fn parse(args: &[String]) -> Options {
    let mut options = Options::default();
    for arg in args {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        match name {
            "--socket-path" => options.path = Some(value.into()),
            "--fd" => match value.parse() {
                Ok(fd) if fd >= 0 => options.fd = Some(fd),
                _ if fault("conventions/fd-malformed") => exit(0),
                _ => fail("--fd takes a number"),
            },
            "--blk-file" => {
                options.disk = Some(value.into());
                options.device = Some(value.into());
            }
            "--evdev-path" | "--render-node" => options.device = Some(value.into()),
            "--events" => options.events = Some(value.into()),
            "--read-only" => options.read_only = true,
            _ if fault("conventions/unknown-option") => {}
            _ => fail(&format!("unknown option {name}")),
        }
    }
    options
}

/// Where front-ends come from.
enum Source {
    Listener(UnixListener),
    Connected(UnixStream),
}

fn run(options: &Options) -> ! {
    if let Some(device) = &options.device {
        if !device.exists() && !fault("conventions/unusable-device") {
            fail(&format!("there is no {}", device.display()));
        }
    }
    if fault("conventions/null-descriptors") {
        let mut probe = io::stdout();
        let null = fs::metadata("/dev/null").unwrap();
        let own = File::from(probe.as_fd().try_clone_to_owned().unwrap())
            .metadata()
            .unwrap();
        use std::os::unix::fs::MetadataExt as _;
        if own.rdev() == null.rdev() {
            let _ = probe.flush();
            fail("no output");
        }
    }
    if fault("conventions/foreground") && env::var_os("STAND_IN_CHILD").is_none() {
        let mut again = std::process::Command::new(env::current_exe().unwrap());
        again
            .args(env::args_os().skip(1))
            .env("STAND_IN_CHILD", "1");
        let _child = again.spawn().unwrap();
        exit(0)
    }
    if is_child_wanted() {
        let mut again = std::process::Command::new(env::current_exe().unwrap());
        again
            .args(env::args_os().skip(1))
            .env("STAND_IN_CHILD", "1");
        let status = again.status().unwrap();
        exit(status.code().unwrap_or(1))
    }
    if fault("conventions/sigterm-connected:survivor") {
        // With nothing of the environment, and in a session of its own.
        let seconds = format!("1000.{}", std::process::id());
        let mut survivor = std::process::Command::new("setsid");
        survivor.env_clear().args(["--fork", "sleep", &seconds]);
        let null = || std::process::Stdio::null();
        let survivor = survivor.stdin(null()).stdout(null()).stderr(null());
        let _ = survivor.status().unwrap();
    }
    if fault("conventions/readiness") {
        notify("READY=1");
        // Long enough to be seen.
        thread::sleep(Duration::from_millis(500));
    }
    let source = open(options);
    handle_sigterm(options.path.clone());
    if !fault("conventions/readiness") {
        notify("READY=1");
    }
    feed_watchdog();
    serve(source, options)
}

/// Whether it is to wait for a child that serves, without passing signals on, as a shell script without exec.
fn is_child_wanted() -> bool {
    let faults = [
        "conventions/foreground:wrapper",
        "conventions/sigterm-waiting:wrapper",
        "conventions/sigterm-connected:wrapper",
        "conventions/sigterm-running:wrapper",
        "protocol/leak-connections:wrapper",
    ];
    faults.into_iter().any(fault) && env::var_os("STAND_IN_CHILD").is_none()
}

fn open(options: &Options) -> Source {
    match (&options.path, options.fd) {
        (Some(path), Some(_)) if fault("conventions/socket-both") => Source::Listener(listen(path)),
        (Some(_), Some(_)) => fail("--socket-path and --fd exclude each other"),
        (None, None) => match activated() {
            Some(listener) => Source::Listener(listener),
            None if fault("conventions/socket-neither") => loop {
                thread::sleep(Duration::from_secs(1));
            },
            None => fail("--socket-path or --fd is required"),
        },
        (Some(path), None) => Source::Listener(listen(path)),
        (None, Some(fd)) => inherited(fd),
    }
}

/// A descriptor that the program was started with.
fn take(fd: i32) -> Option<OwnedFd> {
    if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
        return None;
    }
    // SAFETY: it is open, and nothing else in this program knows its number: it was there at the start.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn activated() -> Option<UnixListener> {
    if env::var_os("LISTEN_FDS")?.to_str() != Some("1") {
        return None;
    }
    let own = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !own && !fault("conventions/listen-fds") {
        return None;
    }
    take(3).map(UnixListener::from)
}

fn inherited(fd: i32) -> Source {
    if fault("conventions/fd") {
        fail("--fd is not supported");
    }
    let Some(socket) = take(fd) else {
        if fault("conventions/fd-not-open") {
            exit(0);
        }
        fail(&format!("descriptor {fd} is not open"));
    };
    let is_listening = rustix::net::sockopt::socket_acceptconn(&socket);
    match is_listening {
        Err(_) if fault("conventions/fd-not-a-socket") => exit(0),
        Err(_) => fail(&format!("descriptor {fd} is no socket")),
        Ok(true) if fault("conventions/fd-listening") => fail("the socket is not connected"),
        Ok(true) => Source::Listener(socket.into()),
        Ok(false) if fault("conventions/fd-connected") && fd > 9 => fail("the number is too large"),
        Ok(false) => Source::Connected(socket.into()),
    }
}

fn listen(path: &Path) -> UnixListener {
    let long = path.as_os_str().len() > 107;
    let path = match path.to_str() {
        Some(text) if long && fault("conventions/socket-path-too-long") => {
            PathBuf::from(&text[..107])
        }
        Some(text) if fault("conventions/socket-path") => PathBuf::from(format!("{text}0")),
        _ => path.to_owned(),
    };
    let kind = fs::symlink_metadata(&path)
        .ok()
        .map(|data| data.file_type());
    if let Some(kind) = kind {
        let is_socket = kind.is_socket();
        let is_live = is_socket && UnixStream::connect(&path).is_ok();
        let is_stale = is_socket && !is_live && !fault("conventions/socket-path-stale");
        let is_taken = is_live && fault("conventions/socket-path-live");
        let is_removed = !is_socket && fault("conventions/socket-path-foreign-file");
        if is_stale || is_taken || is_removed {
            let _ = fs::remove_file(&path);
        }
    }
    match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(_) if fault("conventions/socket-path-missing-folder") => exit(0),
        Err(error) => fail(&format!("{}: {error}", path.display())),
    }
}

fn notify(text: &str) {
    if let (Some(path), Ok(socket)) = (env::var_os("NOTIFY_SOCKET"), UnixDatagram::unbound()) {
        let _ = socket.send_to(text.as_bytes(), path);
    }
}

fn feed_watchdog() {
    let usec = env::var("WATCHDOG_USEC")
        .ok()
        .and_then(|usec| usec.parse().ok());
    let Some(usec) = usec else { return };
    thread::spawn(move || {
        loop {
            notify("WATCHDOG=1");
            if fault("conventions/watchdog") {
                return;
            }
            thread::sleep(Duration::from_micros(usec) / 4);
        }
    });
}

fn handle_sigterm(path: Option<PathBuf>) {
    let mut signals = Signals::new([SIGTERM]).unwrap();
    thread::spawn(move || {
        for _ in signals.forever() {
            let ignored = match STATE.load(Ordering::Relaxed) {
                state if state == State::Waiting as u8 => "conventions/sigterm-waiting",
                state if state == State::Connected as u8 => "conventions/sigterm-connected",
                state if state == State::MidMessage as u8 => "conventions/sigterm-mid-message",
                state if state == State::Flooded as u8 => "conventions/sigterm-flood",
                state if state == State::Left as u8 => "conventions/sigterm-left",
                _ => "conventions/sigterm-running",
            };
            if fault(ignored) {
                continue;
            }
            if fault("conventions/sigterm-connected:slow") {
                thread::sleep(Duration::from_secs(7));
            }
            if let Some(path) = path
                .as_ref()
                .filter(|_| !fault("conventions/socket-removed"))
            {
                let _ = fs::remove_file(path);
            }
            exit(if fault("conventions/sigterm-status") {
                3
            } else {
                0
            });
        }
    });
}

fn serve(source: Source, options: &Options) -> ! {
    let events = options
        .events
        .as_deref()
        .map(|path| match events::Source::new(path) {
            Ok(source) => source,
            Err(error) => fail(&format!("{}: {error}", path.display())),
        });
    let device = || {
        devices::open(
            &options.device_type,
            options.disk.as_deref(),
            options.read_only,
            events.clone(),
        )
    };
    match source {
        Source::Connected(stream) => {
            server::serve(stream, device(), None);
            left();
            exit(0)
        }
        Source::Listener(listener) => loop {
            let Ok((stream, _)) = listener.accept() else {
                fail("accept")
            };
            server::serve(stream, device(), Some(&listener));
            left();
            enter(State::Left);
        },
    }
}

/// A front-end has disconnected.
fn left() {
    if fault("conventions/disconnect") {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}
