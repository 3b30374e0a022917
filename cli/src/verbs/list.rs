// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl list`: the backends that systemd knows, per VM.

use crate::backends::{self, Backend};
use crate::completion;
use crate::output::{Cell, Output, Row};
use crate::selector::Selector;
use crate::systemd::{self, Target};

use super::error::Error;
use super::shared::arguments;
use super::shared::state_style::emphasis;

/// List the backends of all VMs (default)
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
A backend is an instance of vhost-user-gpu@.socket, vhost-user-input@.socket or, for all other types,
vhost-user@.socket. The VNC server of a console, vhost-vnc@.socket, is listed as one of type vnc. The list has the
backends that systemd has loaded, and those that are enabled or have drop-ins.

STATE is 'listening' while the backend waits for a VMM or a viewer and 'running' while it serves one; 'released' if it
serves one and the host has its device (vhostctl release); 'no-device' if it listens but its host device is missing, so
that a VMM that connects is refused; 'no-socket' if it should listen but its socket is gone, until it is restarted;
otherwise starting, stopping, failed or inactive.")]
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
            match self.released {
                true => Cell::new("released"),
                false => Cell::new(self.state).emphasis(emphasis(self.state)),
            },
            Cell::optional(self.socket.as_ref()),
            Cell::optional(self.pid).right(),
        ]
    }
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let chosen = |instance: &_| {
        args.backends.is_empty() || args.backends.iter().any(|chosen| chosen.matches(instance))
    };
    let mut backends = systemd::ask(target, async |queries| {
        backends::list(queries, chosen).await
    })?;
    let is_of_type = |wanted: &_, backend: &Backend| *wanted == backend.device_type;
    backends.retain(|backend| {
        args.device_type
            .iter()
            .all(|wanted| is_of_type(wanted, backend))
    });
    if output.json(&backends)? {
        return Ok(());
    }
    if let Some(text) = nothing_of(args).filter(|_| backends.is_empty() && output.legend()) {
        output.lines(&[text])?;
        return Ok(());
    }
    output.table(&backends)?;
    output.count(backends.len(), "backend")?;
    Ok(())
}

/// What is said where a part of all backends was asked for, and there is none. As of systemctl, that is no error.
fn nothing_of(args: &Args) -> Option<String> {
    let names: Vec<_> = args.backends.iter().map(ToString::to_string).collect();
    let names = names.join(" or ");
    match (&args.device_type, names.as_str()) {
        (None, "") => None,
        (Some(device_type), "") => Some(format!("No backends of type {device_type}.")),
        (None, names) => Some(format!("No backends match {names}.")),
        (Some(device_type), names) => {
            Some(format!("No backends of type {device_type} match {names}."))
        }
    }
}
