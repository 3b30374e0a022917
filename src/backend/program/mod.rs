// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend program from its command line to its exit status.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::builder::Styles;
use clap::{CommandFactory as _, Parser};
use conventions::{Capabilities, FrontEndStatus, printable_lines};
use vhost_user_backend::Error as DaemonError;

use crate::backend::continuity::{Continuity, Descriptors, EndReason};
use crate::backend::device::DeviceBuilder;
use crate::backend::device::request_links::RequestLinks;
use crate::backend::logging;
use crate::backend::service::main_thread_channel::{MainThreadEvent, MainThreadHandle};
use crate::backend::service::notify;
use crate::backend::sockets::{ListenerOptions, refuse_unparsed, refuse_waiting};
use crate::backend::transport::display_socket::DisplaySocketMailbox;
use crate::backend::transport::proxy::{self, ConnectionSide, FrontEndProxy, VhostUserProxy};
use crate::backend::transport::resumable::{self, ResumableProxy};
use crate::backend::transport::succession::Succession;
use crate::backend::transport::worker;
use endpoint::{Endpoint, Sockets};
use main_loop::{ExitReason, MainLoop};
use options::{CommonOptions, wants_capabilities};
use other_front_ends::OtherFrontEnds;
use takeover::Takeover;

mod endpoint;
mod main_loop;
mod open_files;
pub(crate) mod options;
mod other_front_ends;
pub(crate) mod takeover;

/// What is special to a program: its name, capabilities and options, and how these become a device.
pub trait Program {
    /// The command line: the device's options, with [`CommonOptions`] flattened into them.
    type Options: Parser;
    /// What [`Program::open`] opens, and the worker builds the device of.
    type Builder: DeviceBuilder;
    /// Why [`Program::open`] fails, in one line that says what to do.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The program's name, for log and messages.
    const NAME: &'static str;

    /// The names of the sockets that [`Program::listeners`] may have.
    const LISTENERS: &'static [&'static str] = &[];

    /// The answer to `--print-capabilities`: what the program can do on this host. Opens no GPU and no device.
    fn capabilities() -> Capabilities;

    /// The common options within `options`.
    fn common(options: &Self::Options) -> &CommonOptions;

    /// The sockets on which the program listens beside the vhost-user socket, for [`DeviceContext::listen`]. The
    /// program has the options `--NAME-socket` and `--NAME-fd` for each. The default has none.
    ///
    /// [`DeviceContext::listen`]: crate::backend::DeviceContext::listen
    fn listeners(options: &Self::Options) -> Vec<ListenerOptions> {
        let _ = options;
        Vec::new()
    }

    /// Whether the device of `options` goes on in the next process of the program. The default is that it does not.
    fn takeover(options: &Self::Options) -> Takeover {
        let _ = options;
        Takeover::Unsupported
    }

    /// Opens everything the device is made of. Runs on the main thread, as the only thread and outside the sandbox,
    /// before a socket is made. `continuity` has what the process before this one kept, if this one goes on for it.
    ///
    /// # Errors
    /// Whatever the user asked for and cannot have. The program then ends with status 1.
    fn open(options: &Self::Options, continuity: &Continuity)
    -> Result<Self::Builder, Self::Error>;
}

/// Runs a program: serves one front-end until it disconnects or a signal comes, then exits. Returns only after
/// `--print-capabilities`. [The module](crate::backend) describes the order of start-up and the threads.
///
/// Exit statuses: 0 after the front-end disconnected or on SIGTERM or SIGINT; 1 after an error, which is
/// logged; 2 on a usage error; 75 and 76 as 0 and 1, when the service manager keeps another front-end's
/// connection and is to start the program again; 74 after a signal and 77 after a fault of the process, when the
/// service manager keeps its state and is to start another process, which goes on.
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
    let options = P::Options::try_parse().unwrap_or_else(|error| usage::<P>(error));
    let common = P::common(&options);
    // Before the log opens a socket, which could get the number that --fd names.
    let found = Sockets::find(&common.connection, &P::listeners(&options));
    logging::init(P::NAME, common.general.log_level);
    notify::init();
    open_files::raise_limit();
    let mut progress = Progress::default();
    let reason = match found.sockets {
        Ok(sockets) => guard(|| serve::<P>(&options, sockets, found.state, &mut progress)),
        Err(e) => e.into(),
    };
    // Also after a failed start.
    progress.end_state(&reason);
    let status = progress.exit_status(&reason);
    if let ExitReason::Crashed(_) | ExitReason::Failed(_) = &reason {
        logging::last_error(&reason.to_string());
        // Because of a connection left in a queue, systemd would start the program again and again, and
        // its front-end would wait for ever.
        if !progress.is_accepted() && status != TAKE_OVER {
            let shared = found.shared.iter();
            shared.for_each(|listener| refuse_waiting(listener));
        }
    }
    logging::flush();
    // Without exit handlers: those of libraries would free what the other threads still use.
    signal_hook::low_level::exit(status)
}

/// Why the program ends after `serve`. A panic of it is a fault of this process, as one of another thread is.
fn guard(serve: impl FnOnce() -> Result<ExitReason, ExitReason>) -> ExitReason {
    // Only the progress is used afterwards, whose fields are independent.
    let served = catch_unwind(AssertUnwindSafe(serve));
    let served = served.unwrap_or_else(|panic| Err(crashed(panic.as_ref())));
    served.unwrap_or_else(|reason| reason)
}

fn crashed(panic: &(dyn Any + Send)) -> ExitReason {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a message");
    ExitReason::Crashed(format!("internal error, please report it: {text}"))
}

/// Prints the help, the version or a usage error, and exits.
fn usage<P: Program>(error: clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    let status = error.exit_code();
    eprint!("{}", usage_text(error, P::Options::command()));
    let further = P::LISTENERS.iter().map(|name| format!("{name}-fd"));
    let options: Vec<_> = further.chain(["fd".to_owned()]).collect();
    refuse_unparsed(&options);
    std::process::exit(status)
}

/// The text of a usage error, safe for a terminal: what the user wrote is escaped.
#[must_use]
pub fn usage_text(error: clap::Error, definition: clap::Command) -> String {
    // Parse again without colours, which cannot be told from escape sequences that the user wrote.
    let plain = definition.styles(Styles::plain());
    let error = plain.try_get_matches().err().unwrap_or(error);
    let text = error.render().ansi().to_string();
    printable_lines(&text).into_owned()
}

/// Exit statuses for which systemd starts the program again (`RestartForceExitStatus=`): it keeps the connection of a
/// front-end that waits.
const ANOTHER_WAITS: i32 = 75;
const FAILED_AND_ANOTHER_WAITS: i32 = 76;

/// Exit status for which systemd starts the program again: the next process goes on, or begins anew if this one could
/// not go on for the one before.
const TAKE_OVER: i32 = 77;
/// Exit status after a signal while a front-end is connected and its state is kept. A signal does not tell whether the
/// service is to stop. systemd knows: unless it stops the service, it starts the program again, which goes on. To
/// it this is a success (`SuccessExitStatus=`).
const SIGNALLED: i32 = 74;

/// How far the program got.
#[derive(Default)]
struct Progress {
    /// A front-end was accepted: until then, an error is a failed start.
    accepted: Arc<AtomicBool>,
    /// Another front-end waits, and the service manager keeps it.
    handed_over: bool,
    /// What outlives this process.
    continuity: Continuity,
}

impl Progress {
    fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Acquire)
    }

    fn exit_status(&self, reason: &ExitReason) -> i32 {
        let failed_to_take_over = self.continuity.is_resumed() && !self.is_accepted();
        match reason {
            ExitReason::Signal if self.is_accepted() && self.continuity.has_successor() => {
                SIGNALLED
            }
            ExitReason::Signal => 0,
            ExitReason::Crashed(_) | ExitReason::Failed(_) if failed_to_take_over => TAKE_OVER,
            ExitReason::Disconnected | ExitReason::Idle if self.handed_over => ANOTHER_WAITS,
            ExitReason::Disconnected | ExitReason::Idle => 0,
            ExitReason::Crashed(_) | ExitReason::Failed(_) if self.handed_over => {
                FAILED_AND_ANOTHER_WAITS
            }
            ExitReason::Crashed(_) | ExitReason::Failed(_) => 1,
        }
    }

    /// Keeps a successor from going on where it would end in the same way.
    fn end_state(&self, reason: &ExitReason) {
        match reason {
            // Another process starts, or the service manager closes what it keeps.
            ExitReason::Signal => self.continuity.forget_deaths(),
            ExitReason::Crashed(_) => {}
            ExitReason::Disconnected | ExitReason::Idle | ExitReason::Failed(_) => {
                self.continuity.end(EndReason::Over);
            }
        }
    }

    /// What a panic of any thread is to end at once, with the panic's message, while the thread holds all that it held: a process
    /// for which another one goes on. It dies as by a signal, so that nobody records, or tells front-end or guest, what was
    /// made of a device that is broken.
    fn crash(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (continuity, accepted) = (self.continuity.clone(), self.accepted.clone());
        move |message| {
            let serves = continuity.is_resumed() || accepted.load(Ordering::Acquire);
            if serves && continuity.has_successor() {
                logging::last_error(message);
                logging::flush();
                signal_hook::low_level::exit(TAKE_OVER);
            }
        }
    }
}

/// Serves one front-end. Returns why the program ends; as an error, before it was ready.
fn serve<P: Program>(
    options: &P::Options,
    sockets: Sockets,
    left: Option<Descriptors>,
    progress: &mut Progress,
) -> Result<ExitReason, ExitReason> {
    let (main_thread, receiver) = MainThreadHandle::new()?;
    let mut main_loop = MainLoop::new(receiver)?;
    let continuity = takeover::begin(P::NAME, P::takeover(options), left, sockets.is_shared());
    progress.continuity = continuity.clone();
    main_thread.report_panics(progress.crash());
    let (told, locker) = (main_thread.clone(), continuity.locker());
    continuity.on_end(move |reason| {
        if reason != EndReason::Over {
            locker.close();
            told.tell(MainThreadEvent::StateLost(reason.to_string()));
        }
    });
    let builder = P::open(options, &continuity).map_err(ExitReason::failed)?;
    let (endpoint, further) = sockets.listen()?;
    // Before the first other thread: landlock binds a thread and those that it makes.
    let mode = P::common(options).general.sandbox;
    mode.warn("a guest");
    let sockets = endpoint.file().into_iter().chain(further.files());
    let sandbox = mode.sandbox(builder.sandbox_policy(), sockets);
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_files()?;
    }
    logging::detach()?;
    let display_socket = DisplaySocketMailbox::default();
    let requests = RequestLinks::default();
    let succession = Succession::new(continuity.clone());
    let (mut daemon, device_end) = worker::spawn(
        P::NAME,
        builder,
        display_socket.clone(),
        further.listeners(),
        requests.clone(),
        main_thread,
        succession.clone(),
    )?;
    main_loop.wait_for_device()?;
    let (listener, private) = proxy::private_connection()?;
    daemon
        .start(&mut listener.into())
        .map_err(|e| ExitReason::failed(e.to_string()))?;
    // Every thread that this program makes exists now.
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_syscalls()?;
    }

    let place = endpoint.describe();
    log::info!("serving on {place}");
    let resumed = resumable::kept_front_end(&continuity)?;
    if resumed.is_none() {
        // The connection of a predecessor that died between accepting and recording it ends here.
        continuity.locker().forget_left();
        main_loop.ready(FrontEndStatus::Waiting { place: &place });
    }
    let mut others = OtherFrontEnds::new(&endpoint, &place);
    if continuity.is_kept() {
        others.store_at_once(resumed.is_some());
    }
    if matches!(endpoint, Endpoint::Listening { .. }) && further.are_passed() {
        main_loop.end_when_idle();
    }
    let serve_front_end = || {
        let is_resumed = resumed.is_some();
        let front_end = match resumed {
            Some(front_end) => front_end,
            None => main_loop.accept(&endpoint)?,
        };
        // First: the connection would end with this process.
        let is_kept = is_resumed || resumable::keep_front_end(&continuity, &front_end);
        progress.accepted.store(true, Ordering::Release);
        others.serve(&front_end);
        if !is_resumed {
            log::info!("a front-end is connected");
        }
        main_loop.connect_status();
        let mut proxy: Box<dyn FrontEndProxy> = if is_kept {
            let ends = [front_end, private];
            Box::new(ResumableProxy::new(
                ends,
                display_socket,
                requests,
                succession,
            )?)
        } else {
            Box::new(VhostUserProxy::new(
                front_end,
                private,
                display_socket,
                requests,
            )?)
        };
        match main_loop.forward(&mut *proxy, &mut others)? {
            ConnectionSide::FrontEnd => Ok(ExitReason::Disconnected),
            ConnectionSide::Backend => Err(explain(daemon.wait())),
        }
    };
    let reason = serve_front_end().unwrap_or_else(|reason| reason);
    // Before the device gives back what a successor would not need.
    progress.end_state(&reason);
    if !matches!(reason, ExitReason::Crashed(_) | ExitReason::Failed(_)) {
        // Else systemd would take the end for a failed start.
        main_loop.ready(&reason);
    }
    notify::stopping(&reason);
    main_loop.end_device(&device_end);
    if !matches!(reason, ExitReason::Crashed(_) | ExitReason::Failed(_)) {
        log::info!("{reason}");
    }
    progress.handed_over = others.hand_over();
    Ok(reason)
}

/// Why the daemon closed the connection first.
fn explain(ended: Result<(), DaemonError>) -> ExitReason {
    ExitReason::failed(match ended {
        Err(DaemonError::HandleRequest(e)) => {
            format!("cannot serve a vhost-user message of the front-end: {e}")
        }
        Err(e) => format!("the vhost-user daemon failed: {e}"),
        Ok(()) => "the vhost-user daemon ended unexpectedly".to_owned(),
    })
}

#[cfg(test)]
mod tests;
