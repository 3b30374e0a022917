//! `vhostctl start`: lets backends listen for their VMM.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::Error;
use super::unit_control::UnitController;

/// Start backends: their sockets listen, and the first VMM that connects starts the program
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut changes = UnitController::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        changes.start(instances).await?;
        changes.finish()
    })
}
