// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl view`: shows a VM's screen in a viewer.

mod viewer;

use std::env;
use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::completion;
use crate::exit;
use crate::instance::parse_name;
use crate::output::Output;
use crate::systemd::Target;
use crate::verbs::error::{ConsoleError, Error};
use crate::verbs::shared::console_socket::ConsoleSocket;

use viewer::Viewer;

/// Show the screen of a VM in a VNC viewer, and use its keyboard and mouse
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The VM needs a console: vhostctl add console VM --now. TigerVNC's viewer is preferred (xtigervncviewer,
vncviewer), then gvncviewer. Another one (--viewer=) gets the path of the socket as its argument, and
remote-viewer the URI vnc+unix:///PATH, which its version 11.0 does not open.

With -H, ssh forwards the socket to a private folder of this machine while the viewer runs.

The exit status is that of the viewer, or as vhostctl(1) says if it was not started.")]
pub(crate) struct Args {
    /// The VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms_with_console())]
    vm: String,

    /// Show this head of a VM with several; the first one is 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    head: usize,

    /// Use this viewer [default: $VHOSTCTL_VIEWER, or the first one that is found]
    #[arg(long, value_name = "PROGRAM", value_hint = clap::ValueHint::CommandName)]
    viewer: Option<OsString>,
}

/// The variable that names the viewer.
const VARIABLE: &str = "VHOSTCTL_VIEWER";
/// How long a server of another machine may take to say its name.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(args: &Args, target: &Target, _output: &Output) -> Result<ExitCode, Error> {
    let chosen = args.viewer.clone().or_else(|| env::var_os(VARIABLE));
    let chosen = chosen.filter(|program| !program.is_empty());
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    let socket = ConsoleSocket::find(&args.vm, args.head, target)?;
    let viewer = match chosen {
        Some(program) => Viewer::named(&program),
        None if !has_display => {
            return Err(ConsoleError::NoDisplay {
                vm: args.vm.clone(),
                path: socket.path().to_owned(),
            }
            .into());
        }
        None => Viewer::installed(&env::var_os("PATH").unwrap_or_default())
            .ok_or(ConsoleError::NoViewer)?,
    };
    let mut command = viewer.command(&socket.local_path());
    let failed = |source| ConsoleError::Run {
        program: viewer.program.clone(),
        source,
    };
    let Some(forward) = socket.forward() else {
        // It takes the place of this process.
        return Err(failed(command.exec()).into());
    };
    check_answer(&socket)?;
    let status = forward.run(&mut command).map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(exit::FAILURE)))
}

/// Checks that the server of another machine answers: a viewer only hears that the connection ended.
fn check_answer(socket: &ConsoleSocket) -> Result<(), ConsoleError> {
    let mut stream = socket.connect()?;
    let mut greeting = [0; 12];
    let answered = stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.read_exact(&mut greeting));
    match answered {
        Ok(()) if greeting.starts_with(b"RFB ") => Ok(()),
        Ok(()) => Err(socket.failure(ErrorKind::InvalidData.into())),
        Err(error) => Err(socket.failure(error)),
    }
}
