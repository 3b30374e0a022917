// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Confirmation before connected VMs lose devices.

use std::io::{self, IsTerminal as _};

use crate::backends::Details;
use crate::instance::{Instance, UnitKind};
use crate::output;
use crate::systemd::BackendState;

use super::unit_control::UnitController;
use crate::verbs::error::Error;

/// What the help of the verbs that stop backends says.
pub(crate) const LOSS: &str = "\
A connected VM loses the device: with a GPU its screen; with an input device, QEMU aborts if no guest driver is
using it. So vhostctl asks first, also if viewers would lose the screen; without a terminal it refuses, unless
--force is given. Shut the VM down first.";

/// Asks on a terminal before VMs lose devices, and refuses it elsewhere. Nothing was changed by then, so that no VM
/// loses only some of its devices.
pub(crate) async fn confirm(
    controller: &UnitController<'_>,
    instances: &[Instance],
    force: bool,
) -> Result<(), Error> {
    if force {
        return Ok(());
    }
    let all = controller.details(instances).await?;
    // A backend that does not report it was started by a connection.
    let connected = all.iter().filter(|details| {
        details.backend.state == BackendState::Running && details.is_used() != Some(false)
    });
    let connected: Vec<_> = connected.collect();
    if connected.is_empty() {
        return Ok(());
    }
    let losses: Vec<_> = connected.iter().map(|details| loss(details)).collect();
    let losses = losses.join("\n");
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let advice = advice(&connected);
        return Err(Error::Connected { losses, advice });
    }
    let answer = output::ask(format_args!("{losses}\nContinue anyway? [y/N]"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Declined),
    }
}

/// That nothing was changed, and what to do first, so that nothing is lost.
fn advice(connected: &[&Details]) -> &'static str {
    let (devices, consoles): (Vec<&Details>, Vec<_>) = connected
        .iter()
        .partition(|details| details.backend.instance.is_device());
    match (devices.is_empty(), consoles.is_empty()) {
        (true, _) => "Nothing was changed. Close the viewers first, or use --force.",
        (false, false) => {
            "Nothing was changed. Shut the VM down and close the viewers first, or use --force."
        }
        // Its program outlives the VM.
        _ if devices.iter().all(|details| details.is_used().is_none()) => {
            "Nothing was changed. Shut the VM down first; if it is off already, use --force."
        }
        _ => "Nothing was changed. Shut the VM down first, or use --force.",
    }
}

/// What the VM of a backend that is connected, or may be, loses.
fn loss(details: &Details) -> String {
    let instance = &details.backend.instance;
    let has = if details.is_used().is_some() {
        "has"
    } else {
        "may have"
    };
    let loss = match instance.kind() {
        UnitKind::Gpu => {
            "its VM loses its screen until it is shut down and started again (QEMU does not reconnect)"
        }
        UnitKind::Input => {
            "its VM loses the device until it is shut down and started again, and QEMU aborts if no guest \
             driver is using it (firmware, boot menu, reboot)"
        }
        UnitKind::Vnc => {
            return format!("{instance} {has} viewers connected: they lose the screen.");
        }
        UnitKind::Program => {
            "its VM loses the device until it is shut down and started again, and what the guest has not \
             written yet"
        }
    };
    format!("{instance} {has} a front-end connected: {loss}.")
}
