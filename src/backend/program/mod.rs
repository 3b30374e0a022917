//! A backend program from its first line to its last.

use std::io;
use std::process::ExitCode;

use clap::builder::Styles;
use clap::{CommandFactory as _, Parser};
use conventions::{Capabilities, FrontEndStatus, printable_lines};
use vhost_user_backend::Error as DaemonError;

use crate::backend::logging;
use crate::backend::sandbox::Sandbox;
use crate::backend::service::main_thread::MainThreadHandle;
use crate::backend::service::notify;
use crate::backend::transport::device::DeviceBuilder;
use crate::backend::transport::gpu_socket::GpuSocketMailbox;
use crate::backend::transport::proxy::{self, Side, VhostUserProxy};
use crate::backend::transport::worker;
use endpoint::Source;
use main_loop::{ExitReason, MainLoop};
use options::{CommonOptions, Switch, wants_capabilities};
use other_front_ends::OtherFrontEnds;

pub(crate) mod endpoint;
mod main_loop;
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
    let reason = match source {
        Ok(source) => {
            let served = serve::<P>(&options, source, &mut progress);
            served.unwrap_or_else(|reason| reason)
        }
        Err(e) => e.into(),
    };
    if let ExitReason::Failed(e) = &reason {
        logging::last_error(&e.to_string());
        // A connection that stays in the queue would start the program again, to fail again, for
        // ever, and its front-end would wait for as long.
        if let (Some(listener), false) = (listener, progress.accepted) {
            endpoint::refuse_waiting(&listener);
        }
    }
    let status = match (reason, progress.handed_over) {
        (ExitReason::Signal, _) | (ExitReason::Disconnected, false) => 0,
        (ExitReason::Disconnected, true) => ANOTHER_WAITS,
        (ExitReason::Failed(_), false) => 1,
        (ExitReason::Failed(_), true) => FAILED_AND_ANOTHER_WAITS,
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

/// The exit statuses that have the service manager start the program again (`RestartForceExitStatus=`), for the
/// front-end that waits and that the manager keeps meanwhile.
const ANOTHER_WAITS: i32 = 75;
const FAILED_AND_ANOTHER_WAITS: i32 = 76;

/// How far the program came.
#[derive(Default)]
struct Progress {
    /// A front-end was accepted: until then, an error is a failed start.
    accepted: bool,
    /// Another front-end waits, and the service manager keeps it.
    handed_over: bool,
}

/// Serves one front-end. The error is why the program ends before.
fn serve<P: Program>(
    options: &P::Options,
    source: Source,
    progress: &mut Progress,
) -> Result<ExitReason, ExitReason> {
    let (main_thread, receiver) = MainThreadHandle::new()?;
    let mut main_loop = MainLoop::new(receiver)?;
    main_thread.report_panics();
    let builder = P::open(options).map_err(ExitReason::failed)?;
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
    main_loop.wait_for_device()?;
    let (listener, private) = proxy::private_connection()?;
    daemon
        .start(&mut listener.into())
        .map_err(|e| ExitReason::failed(e.to_string()))?;
    // All threads that this program makes itself are there.
    if let Some(sandbox) = &sandbox {
        sandbox.restrict_syscalls()?;
    }

    let place = endpoint.describe();
    log::info!("serving on {place}");
    notify::ready(FrontEndStatus::Waiting { place: &place });
    let mut others = OtherFrontEnds::new(&endpoint, &place);
    let serve_front_end = || {
        let front_end = main_loop.accept(&endpoint)?;
        progress.accepted = true;
        others.serve(&front_end);
        log::info!("a front-end is connected");
        main_loop.connect_status();
        let mut proxy = VhostUserProxy::new(front_end, private, gpu_socket)?;
        match main_loop.forward(&mut proxy, &mut others)? {
            Side::FrontEnd => Ok(ExitReason::Disconnected),
            Side::Backend => Err(explain(daemon.wait())),
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
            format!("the front-end's vhost-user message cannot be served: {e}")
        }
        Err(e) => format!("the vhost-user daemon failed: {e}"),
        Ok(()) => "the vhost-user daemon ended by itself".to_owned(),
    })
}
