//! `vhostctl restart`: stops backends and lets them listen anew.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::Error;
use super::confirm;
use super::unit_control::UnitController;

/// Stop backends and start them again, also those that were stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A VM that is connected loses the device: with a GPU its screen; with an input device, QEMU aborts if no guest
driver is using it. So vhostctl asks before it does anything; without a terminal it refuses, unless --force
is given. Shut the VM down first.")]
pub(crate) struct Args {
    /// Restart these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Proceed even if a front-end is connected
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut changes = UnitController::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        confirm::confirm(&changes, &instances, args.force).await?;
        // As one job a service would be started along with its socket, with nobody connected to it.
        let instances = changes.stop(instances).await?;
        changes.start(instances).await?;
        changes.finish()
    })
}
