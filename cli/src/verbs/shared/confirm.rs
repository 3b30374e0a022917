//! Confirmation before connected VMs lose devices.

use std::io::{self, IsTerminal as _};

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
    let losses: Vec<_> = connected
        .map(|details| loss(&details.backend.instance, details.is_used().is_some()))
        .collect();
    if losses.is_empty() {
        return Ok(());
    }
    let losses = losses.join("\n");
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::Connected { losses });
    }
    let answer = output::ask(format_args!("{losses}\nContinue anyway? [y/N]"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Declined),
    }
}

/// What the VM of a connected backend loses; `is_known` is false if it may be connected.
fn loss(instance: &Instance, is_known: bool) -> String {
    let has = if is_known { "has" } else { "may have" };
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
