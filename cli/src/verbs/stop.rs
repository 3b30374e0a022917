//! `vhostctl stop`: stops backends, whoever is connected.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::Error;
use super::change::Changes;

/// Stop backends: their programs and their sockets
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A VMM that is connected loses the device; a guest is not prepared for that. Shut the VM down first.")]
pub struct Args {
    /// Stop these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

pub fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let changes = Changes::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        changes.stop(&instances).await
    })
}
