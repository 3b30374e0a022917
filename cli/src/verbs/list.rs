//! `vhostctl list`: the backends that systemd knows, per VM.

use crate::backends::{self, Backend};
use crate::completion;
use crate::output::{Cell, Output, Row};
use crate::selector::Selector;
use crate::systemd::{Manager, Target};

use super::error::Error;
use super::shared::arguments;
use super::shared::state_style::emphasis;

/// List the backends of all VMs (default)
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
A backend is an instance of vhost-user-gpu@.socket, vhost-user-input@.socket or, for all other types,
vhost-user@.socket. The VNC server of a console, vhost-vnc@.socket, is listed as one of type vnc. The list has the backends that systemd has loaded, and those that are enabled or have
drop-ins.

STATE is 'listening' while the backend waits for a VMM or a viewer and 'running' while it serves one; 'no-device' if it
listens but its host device is missing, so that a VMM that connects is refused; otherwise starting, stopping,
failed or inactive.")]
pub(crate) struct Args {
    /// List these: all of a VM, or one; shell patterns are allowed
    #[arg(value_name = "VM[:NAME]", add = completion::backends())]
    backends: Vec<Selector>,

    /// List backends of one type only, such as gpu, input, fs or vnc
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_parser = arguments::listed_type(),
        hide_possible_values = true
    )]
    device_type: Option<String>,
}

impl Row for Backend {
    const HEADER: &[&str] = &["VM", "NAME", "TYPE", "STATE", "SOCKET", "PID"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.vm),
            Cell::new(&self.name),
            Cell::new(&self.device_type),
            Cell::new(self.state).emphasis(emphasis(self.state)),
            Cell::optional(self.socket.as_ref()),
            Cell::optional(self.pid).right(),
        ]
    }
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let mut backends =
        zbus::block_on(async { backends::list(&Manager::connect(target).await?).await })?;
    backends.retain(|backend| {
        let is_meant = |selector: &Selector| selector.matches(&backend.instance);
        let is_of_type = |wanted: &String| *wanted == backend.device_type;
        (args.backends.is_empty() || args.backends.iter().any(is_meant))
            && args.device_type.iter().all(is_of_type)
    });
    if output.json(&backends)? {
        return Ok(());
    }
    output.table(&backends)?;
    output.count(backends.len(), "backend")?;
    Ok(())
}
