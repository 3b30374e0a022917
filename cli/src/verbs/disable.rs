//! `vhostctl disable`: backends listen at boot no more.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::Error;
use super::confirm;
use super::unit_control::UnitController;

/// Disable backends: do not start their sockets at boot
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --now it asks, or refuses, as 'vhostctl stop' does if a front-end is connected."
)]
pub(crate) struct Args {
    /// Disable these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Stop them now as well
    #[arg(long)]
    now: bool,

    /// With --now: proceed even if a front-end is connected
    #[arg(long, requires = "now")]
    force: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut changes = UnitController::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        if args.now {
            confirm::confirm(&changes, &instances, args.force).await?;
        }
        let instances = changes.disable(instances).await?;
        if args.now {
            changes.stop(instances).await?;
        }
        changes.finish()
    })
}
