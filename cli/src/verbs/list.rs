//! `vhostctl list`: the backends that systemd knows, per VM.

use crate::output::{Cell, Emphasis, Output, Row};
use crate::systemd::{Backend, Manager, State, Target};

use super::Error;

/// List the backends of all VMs (default)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A backend is an instance of vhost-user-gpu@.socket, vhost-user-input@.socket or, for all other types,
vhost-user@.socket. Listed are those that systemd has loaded, and those that are enabled or have a drop-in
of their own.

STATE is 'listening' while the backend waits for a VMM and 'running' while it serves one; otherwise
it is starting, stopping, failed or inactive.")]
pub struct Args {}

impl Row for Backend {
    const HEADER: &[&str] = &["VM", "NAME", "TYPE", "STATE", "SOCKET", "PID"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.vm),
            Cell::optional(self.name.as_ref()),
            Cell::new(&self.device_type),
            Cell::new(self.state).emphasis(emphasis(self.state)),
            Cell::optional(self.socket.as_ref()),
            Cell::optional(self.pid).right(),
        ]
    }
}

/// The colours of systemctl.
pub(super) fn emphasis(state: State) -> Emphasis {
    match state {
        State::Running => Emphasis::Good,
        State::Failed => Emphasis::Bad,
        State::Inactive => Emphasis::Faint,
        _ => Emphasis::None,
    }
}

pub fn run(Args {}: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let backends = zbus::block_on(async { Manager::connect(target).await?.backends().await })?;
    if output.json(&backends)? {
        return Ok(());
    }
    output.table(&backends)?;
    output.count(backends.len(), "backend")?;
    Ok(())
}
