//! `vhostctl enable`: has backends listen from boot on.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::Error;
use super::unit_control::UnitController;

/// Enable backends: start their sockets at boot
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Enable these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Start them now as well
    #[arg(long)]
    now: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut changes = UnitController::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        let instances = changes.enable(instances).await?;
        if args.now {
            changes.start(instances).await?;
        }
        changes.finish()
    })
}
