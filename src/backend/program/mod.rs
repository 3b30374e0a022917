//! A backend program from its first line to its last.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::Styles;
use clap::{CommandFactory as _, Parser};
use conventions::{Capabilities, FrontEndStatus, printable_lines};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use signal_hook::consts::{SIGINT, SIGTERM};
use vhost_user_backend::Error as DaemonError;

use crate::backend::logging;
use crate::backend::sandbox::Sandbox;
use crate::backend::service::main_thread::{MainThreadEvent, MainThreadHandle, MainThreadReceiver};
use crate::backend::service::notify;
use crate::backend::service::status_line::StatusLine;
use crate::backend::transport::device::{DeviceBuilder, GpuSocketMailbox};
use crate::backend::transport::proxy::{self, End, VhostUserProxy};
use crate::backend::transport::worker::{self, DeviceEnd};
use endpoint::{Endpoint, Source};
use options::{CommonOptions, Switch, wants_capabilities};
use other_front_ends::OtherFrontEnds;

mod endpoint;
pub(crate) mod options;
mod other_front_ends;

/// A program's own part: its name, what it can do, and how its device comes from its options.
pub trait Program {
    /// The device's options, with [`CommonOptions`] flattened into them.
    type Options: Parser;
    /// What the device is made of.
    type Builder: DeviceBuilder;
    /// Why there is no device.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The program's name, as it is in the log.
    const NAME: &'static str;

    /// What it can do on this host. Must not open a GPU or a device.
    fn capabilities() -> Capabilities;

    /// Where the common options are.
    fn common(options: &Self::Options) -> &CommonOptions;

    /// Opens what the device is made of, before the sandbox closes and on the main thread.
    ///
    /// # Errors
    /// Whatever the user asked for and cannot have, in one line that says what to do.
    fn open(options: &Self::Options) -> Result<Self::Builder, Self::Error>;
}

/// Runs a program: options, socket, device, readiness, and one front-end served to its end. Returns
/// only where no device was to be served.
pub fn run<P: Program>() -> ExitCode {
    if wants_capabilities(std::env::args_os()) {
        return match P::capabilities().print(io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{}: cannot print the capabilities: {e}", P::NAME);
                ExitCode::FAILURE
            }
        };
    }
    let options =
        P::Options::try_parse().unwrap_or_else(|error| usage(error, P::Options::command()));
    let common = P::common(&options);
    // Before the log opens a socket, which could get the number that --fd names.
    let source = Source::find(&common.connection);
    logging::init(P::NAME, common.general.log_level);
    notify::init();
    let listener = source.as_ref().ok().and_then(Source::shared_listener);
    let mut progress = Progress::default();
    let served = source
        .map_err(Into::into)
        .and_then(|source| serve::<P>(&options, source, &mut progress));
    if let Err(e) = &served {
        logging::last_error(&e.to_string());
        // A connection that stays in the queue would start the program again, to fail again, for
        // ever, and its front-end would wait for as long.
        if let (Some(listener), false) = (listener, progress.accepted) {
            endpoint::refuse_waiting(&listener);
        }
    }
    let status = match (served, progress.handed_over) {
        (Ok(Goodbye::Signal), _) | (Ok(Goodbye::FrontEnd), false) => 0,
        (Ok(Goodbye::FrontEnd), true) => ANOTHER_WAITS,
        (Err(_), false) => 1,
        (Err(_), true) => FAILED_AND_ANOTHER_WAITS,
    };
    logging::flush();
    // Not by way of main: the other threads are at work still, perhaps in a library whose exit
    // handlers would take away under their hands what they use.
    signal_hook::low_level::exit(status)
}

/// Shows the help or the version, or what is wrong with the command line, and ends.
fn usage(error: clap::Error, definition: clap::Command) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    let status = error.exit_code();
    eprint!("{}", usage_text(error, definition));
    endpoint::refuse_unparsed(std::env::args_os());
    std::process::exit(status)
}

/// What is wrong with the command line of a program, as a terminal may show it.
#[must_use]
pub fn usage_text(error: clap::Error, definition: clap::Command) -> String {
    // Once more without colours: what the user wrote could not be told from them.
    let plain = definition.styles(Styles::plain());
    let error = plain.try_get_matches().err().unwrap_or(error);
    let text = error.render().ansi().to_string();
    printable_lines(&text).into_owned()
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Why the program ends without a fault.
enum Goodbye {
    Signal,
    FrontEnd,
}

/// The exit statuses that have the service manager start the program again (`RestartForceExitStatus=`), for the
/// front-end that waits and that the manager keeps meanwhile.
const ANOTHER_WAITS: i32 = 75;
const FAILED_AND_ANOTHER_WAITS: i32 = 76;

/// How far it came.
#[derive(Default)]
struct Progress {
    /// A front-end was accepted: until then, an error is a failed start.
    accepted: bool,
    /// Another front-end waits, and the service manager keeps it.
    handed_over: bool,
}

/// Serves one front-end.
fn serve<P: Program>(
    options: &P::Options,
    source: Source,
    progress: &mut Progress,
) -> Result<Goodbye> {
    let (main_thread, receiver) = MainThreadHandle::new()?;
    let main_loop = MainLoop {
        stop: stop_signals()?,
        receiver,
        status: RefCell::default(),
    };
    report_panics(main_thread.clone());
    let builder = P::open(options)?;
    let endpoint = source.endpoint()?;
    // Before the first other thread, as files are given up by a thread for those that it makes.
    let sandbox = match P::common(options).general.sandbox {
        Switch::On => Some(Sandbox::new(builder.sandbox_policy(), endpoint.file())),
        Switch::Off => {
            log::warn!(
                "--sandbox=off: a guest that breaks into this process has all that its user may do"
            );
            None
        }
    };
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_files()?;
    }
    logging::detach()?;
    let gpu_socket = GpuSocketMailbox::default();
    let (mut daemon, device_end) =
        worker::spawn(P::NAME, builder, gpu_socket.clone(), main_thread)?;
    if main_loop.started()?.is_none() {
        return Ok(Goodbye::Signal);
    }
    let (listener, private) = proxy::private_connection()?;
    daemon
        .start(&mut listener.into())
        .map_err(|e| e.to_string())?;
    // All threads that this program makes itself are there.
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_syscalls()?;
    }

    let place = endpoint.describe();
    log::info!("serving on {place}");
    notify::ready(FrontEndStatus::Waiting { place: &place });
    let mut others = OtherFrontEnds::new(&endpoint, &place);
    let goodbye = main_loop.front_end(&endpoint).and_then(|front_end| {
        let Some(front_end) = front_end else {
            return Ok(Goodbye::Signal);
        };
        progress.accepted = true;
        others.serve(&front_end);
        log::info!("a front-end is connected");
        main_loop.status.borrow_mut().connect();
        let mut proxy = VhostUserProxy::new(front_end, private, gpu_socket)?;
        match main_loop.proxy(&mut proxy, &mut others)? {
            Ended::Signal => Ok(Goodbye::Signal),
            Ended::Connection(End::FrontEnd) => Ok(Goodbye::FrontEnd),
            Ended::Connection(End::Daemon) => Err(explain(daemon.wait())),
        }
    });
    let last = match &goodbye {
        Ok(Goodbye::Signal) => "stopped by a signal".to_owned(),
        Ok(Goodbye::FrontEnd) => "the front-end left".to_owned(),
        Err(e) => e.to_string(),
    };
    notify::stopping(&last);
    main_loop.end_device(&device_end);
    if goodbye.is_ok() {
        log::info!("{last}");
    }
    progress.handed_over = others.hand_over();
    goodbye
}

/// Why the daemon closed the connection first.
fn explain(ended: std::result::Result<(), DaemonError>) -> Box<dyn std::error::Error> {
    match ended {
        Err(DaemonError::HandleRequest(e)) => {
            format!("the front-end's vhost-user message cannot be served: {e}").into()
        }
        Err(e) => format!("the vhost-user daemon failed: {e}").into(),
        Ok(()) => "the vhost-user daemon ended by itself".into(),
    }
}

/// A socket that becomes readable on SIGTERM and SIGINT.
fn stop_signals() -> io::Result<UnixStream> {
    let (stop, signalled) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
    }
    Ok(stop)
}

/// A panic in any thread ends the program: what it left half done must not be served.
fn report_panics(main_thread: MainThreadHandle) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        let message = format!("internal error, please report it: {panic}");
        main_thread.tell(MainThreadEvent::Failed(message));
    }));
}

/// What the main thread does for most of its life.
struct MainLoop {
    stop: UnixStream,
    receiver: MainThreadReceiver,
    status: RefCell<StatusLine>,
}

/// How long the device may take to give back what would outlast the program.
const END_LIMIT: Duration = Duration::from_millis(500);

enum Ended {
    Signal,
    Connection(End),
}

/// What ends a wait for anything else.
enum Interruption {
    Signal,
    Started,
}

impl MainLoop {
    /// Waits for `others`; their events, unless a signal, or news of the other threads, came.
    fn wait<const N: usize>(
        &self,
        others: [PollFd<'_>; N],
    ) -> Result<std::result::Result<[PollFlags; N], Interruption>> {
        loop {
            let timeout = self.tell_status().map(Timespec::try_from);
            let timeout = timeout.transpose().map_err(io::Error::other)?;
            let mut fds = vec![
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(&self.receiver, PollFlags::IN),
            ];
            fds.extend(others.iter().cloned());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(io::Error::from(e).into()),
            }
            let mut events = fds.iter().map(PollFd::revents);
            let stopped = events.next().is_some_and(|events| !events.is_empty());
            let news = events.next().is_some_and(|events| !events.is_empty());
            let others: [PollFlags; N] =
                std::array::from_fn(|_| events.next().unwrap_or(PollFlags::empty()));
            if stopped {
                return Ok(Err(Interruption::Signal));
            }
            if news && let Some(news) = self.receiver.take() {
                match news {
                    MainThreadEvent::Failed(message) => return Err(message.into()),
                    MainThreadEvent::Started(Err(e)) => return Err(e),
                    MainThreadEvent::Started(Ok(())) => return Ok(Err(Interruption::Started)),
                    MainThreadEvent::HardwareLost(message)
                        if !self.status.borrow().is_connected() =>
                    {
                        return Err(message.into());
                    }
                    MainThreadEvent::HardwareLost(message) => {
                        log::error!(
                            "{message}; the front-end is served without it until it leaves"
                        );
                        self.receiver.take_status();
                        self.status.borrow_mut().set_detail(message);
                    }
                    MainThreadEvent::Ended => {}
                }
            }
            if others.iter().any(|events| !events.is_empty()) {
                return Ok(Ok(others));
            }
        }
    }

    /// Tells the service manager the newest status, if it is time; then, after how long it is to be told.
    fn tell_status(&self) -> Option<Duration> {
        let mut status = self.status.borrow_mut();
        if let Some(detail) = self.receiver.take_status() {
            status.set_detail(detail);
        }
        status.tell(Instant::now())
    }

    /// Has the device give back what would outlast the program. A worker that hangs does not keep
    /// the program from its end.
    fn end_device(&self, device: &DeviceEnd) {
        if let Err(e) = device.request() {
            log::warn!("cannot have the device end: {e}");
            return;
        }
        let deadline = Instant::now() + END_LIMIT;
        loop {
            while let Some(news) = self.receiver.take() {
                match news {
                    MainThreadEvent::Ended => return,
                    // It may be the worker that is gone.
                    MainThreadEvent::Failed(message) => {
                        log::error!("{message}");
                        return;
                    }
                    MainThreadEvent::Started(_) | MainThreadEvent::HardwareLost(_) => {}
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!("the device is busy: the host may not get back all that it had");
                return;
            }
            let mut fds = [PollFd::new(&self.receiver, PollFlags::IN)];
            // Whatever it says, the receiver is looked into again, and not for longer.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Waits until the device has begun; `None` after a signal.
    fn started(&self) -> Result<Option<()>> {
        Ok(match self.wait([])? {
            Err(Interruption::Started) => Some(()),
            Ok([]) | Err(Interruption::Signal) => None,
        })
    }

    /// Waits for a front-end; `None` after a signal.
    fn front_end(&self, endpoint: &Endpoint) -> Result<Option<UnixStream>> {
        let listener = match endpoint {
            Endpoint::Connected(stream) => return Ok(Some(stream.try_clone()?)),
            Endpoint::Ours(listener, _) => listener,
            Endpoint::Listening {
                kept: Some(kept), ..
            } => {
                notify::forget_kept();
                return Ok(Some(kept.try_clone()?));
            }
            Endpoint::Listening { listener, .. } => listener,
        };
        loop {
            if self.wait([PollFd::new(listener, PollFlags::IN)])?.is_err() {
                return Ok(None);
            }
            match listener.accept() {
                Ok((front_end, _)) => return Ok(Some(front_end)),
                Err(e) if endpoint::is_passing(&e) => continue,
                Err(e) => return Err(format!("cannot accept a front-end: {e}").into()),
            }
        }
    }

    /// Passes messages until the connection or the program ends.
    fn proxy(&self, proxy: &mut VhostUserProxy, others: &mut OtherFrontEnds<'_>) -> Result<Ended> {
        loop {
            let [front_end, daemon] = proxy.poll_fds();
            let events = match others.poll_fd() {
                Some(other) => self.wait([front_end, daemon, other])?,
                None => self
                    .wait([front_end, daemon])?
                    .map(|[front_end, daemon]| [front_end, daemon, PollFlags::empty()]),
            };
            match events {
                Ok([front_end, daemon, other]) => {
                    // First, so that who comes once this front-end has left is not taken for a second one.
                    if let Some(end) = proxy.pass([front_end, daemon])? {
                        return Ok(Ended::Connection(end));
                    }
                    if !other.is_empty() {
                        others.look();
                        self.status.borrow_mut().set_next(others.next());
                    }
                }
                Err(Interruption::Signal) => return Ok(Ended::Signal),
                Err(Interruption::Started) => {}
            }
        }
    }
}
