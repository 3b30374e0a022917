//! A backend program from its command line to its exit status.

use std::io;
use std::process::ExitCode;

use clap::builder::Styles;
use clap::{CommandFactory as _, Parser};
use conventions::{Capabilities, FrontEndStatus, printable_lines};
use vhost_user_backend::Error as DaemonError;

use crate::backend::device::DeviceBuilder;
use crate::backend::device::config_change::ConfigChangeLink;
use crate::backend::logging;
use crate::backend::sandbox::Sandbox;
use crate::backend::service::main_thread_channel::MainThreadHandle;
use crate::backend::service::notify;
use crate::backend::sockets::{ListenerOptions, refuse_unparsed, refuse_waiting};
use crate::backend::transport::display_socket::DisplaySocketMailbox;
use crate::backend::transport::proxy::{self, ConnectionSide, VhostUserProxy};
use crate::backend::transport::worker;
use endpoint::{Endpoint, Sockets};
use main_loop::{ExitReason, MainLoop};
use options::{CommonOptions, SandboxSwitch, wants_capabilities};
use other_front_ends::OtherFrontEnds;

mod endpoint;
mod main_loop;
pub(crate) mod options;
mod other_front_ends;

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

    /// Opens everything the device is made of. Runs on the main thread, as the only thread and outside the sandbox,
    /// before a socket is made.
    ///
    /// # Errors
    /// Whatever the user asked for and cannot have. The program then ends with status 1.
    fn open(options: &Self::Options) -> Result<Self::Builder, Self::Error>;
}

/// Runs a program: serves one front-end until it disconnects or a signal comes, then exits. Returns only after
/// `--print-capabilities`. [The module](crate::backend) describes the order of start-up and the threads.
///
/// Exit statuses: 0 after the front-end disconnected or on SIGTERM or SIGINT; 1 after an error, which is
/// logged; 2 on a usage error; 75 and 76 as 0 and 1, when the service manager keeps another front-end's
/// connection and is to start the program again.
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
    let mut progress = Progress::default();
    let reason = match found.sockets {
        Ok(sockets) => {
            let served = serve::<P>(&options, sockets, &mut progress);
            served.unwrap_or_else(|reason| reason)
        }
        Err(e) => e.into(),
    };
    if let ExitReason::Failed(e) = &reason {
        logging::last_error(&e.to_string());
        // Because of a connection left in a queue, systemd would start the program again and again, and
        // its front-end would wait for ever.
        if !progress.accepted {
            let shared = found.shared.iter();
            shared.for_each(|listener| refuse_waiting(listener));
        }
    }
    let status = match (reason, progress.handed_over) {
        (ExitReason::Signal, _) | (ExitReason::Disconnected | ExitReason::Idle, false) => 0,
        (ExitReason::Disconnected | ExitReason::Idle, true) => ANOTHER_WAITS,
        (ExitReason::Failed(_), false) => 1,
        (ExitReason::Failed(_), true) => FAILED_AND_ANOTHER_WAITS,
    };
    logging::flush();
    // Without exit handlers: those of libraries would free what the other threads still use.
    signal_hook::low_level::exit(status)
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

/// How far the program got.
#[derive(Default)]
struct Progress {
    /// A front-end was accepted: until then, an error is a failed start.
    accepted: bool,
    /// Another front-end waits, and the service manager keeps it.
    handed_over: bool,
}

/// Serves one front-end. Returns why the program ends; as an error, before it was ready.
fn serve<P: Program>(
    options: &P::Options,
    sockets: Sockets,
    progress: &mut Progress,
) -> Result<ExitReason, ExitReason> {
    let (main_thread, receiver) = MainThreadHandle::new()?;
    let mut main_loop = MainLoop::new(receiver)?;
    main_thread.report_panics();
    let builder = P::open(options).map_err(ExitReason::failed)?;
    let (endpoint, further) = sockets.listen()?;
    // Before the first other thread: landlock binds a thread and those that it makes.
    let sandbox = match P::common(options).general.sandbox {
        SandboxSwitch::On => {
            let sockets = endpoint.file().into_iter().chain(further.files());
            Some(Sandbox::new(builder.sandbox_policy(), sockets))
        }
        SandboxSwitch::Off => {
            log::warn!(
                "--sandbox=off: a guest that breaks into this process has all rights of its user"
            );
            None
        }
    };
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_files()?;
    }
    logging::detach()?;
    let display_socket = DisplaySocketMailbox::default();
    let config_changes = ConfigChangeLink::default();
    let (mut daemon, device_end) = worker::spawn(
        P::NAME,
        builder,
        display_socket.clone(),
        further.listeners(),
        config_changes.clone(),
        main_thread,
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
    notify::ready(FrontEndStatus::Waiting { place: &place });
    let mut others = OtherFrontEnds::new(&endpoint, &place);
    if matches!(endpoint, Endpoint::Listening { .. }) && further.are_passed() {
        main_loop.end_when_idle();
    }
    let serve_front_end = || {
        let front_end = main_loop.accept(&endpoint)?;
        progress.accepted = true;
        others.serve(&front_end);
        log::info!("a front-end is connected");
        main_loop.connect_status();
        let mut proxy = VhostUserProxy::new(front_end, private, display_socket, config_changes)?;
        match main_loop.forward(&mut proxy, &mut others)? {
            ConnectionSide::FrontEnd => Ok(ExitReason::Disconnected),
            ConnectionSide::Backend => Err(explain(daemon.wait())),
        }
    };
    let reason = serve_front_end().unwrap_or_else(|reason| reason);
    notify::stopping(&reason);
    main_loop.end_device(&device_end);
    if !matches!(reason, ExitReason::Failed(_)) {
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
