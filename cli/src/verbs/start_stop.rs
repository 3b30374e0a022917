// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl start`, `stop`, `enable` and `disable`: steps for the units of the selected backends.

use crate::completion;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;

use super::error::Error;
use super::shared::confirm;
use super::shared::unit_control::{Step, UnitController};

/// Start backends: their sockets listen, and the first VMM that connects starts the program
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Start these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

/// Stop backends: their programs and their sockets
#[derive(Debug, clap::Args)]
#[command(after_help = confirm::LOSS)]
pub(crate) struct StopArgs {
    /// Stop these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Proceed even if a front-end is connected
    #[arg(long)]
    force: bool,
}

/// Enable backends: start their sockets at boot
#[derive(Debug, clap::Args)]
pub(crate) struct EnableArgs {
    /// Enable these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Start them now as well
    #[arg(long)]
    now: bool,
}

/// Disable backends: do not start their sockets at boot
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --now, vhostctl asks or refuses as 'vhostctl stop' does if a front-end is connected."
)]
pub(crate) struct DisableArgs {
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

/// The steps of one of the verbs, and the backends to apply them to.
pub(crate) struct StepRequest<'a> {
    backends: &'a [Selector],
    steps: &'static [Step],
    force: bool,
}

impl<'a> From<&'a StartArgs> for StepRequest<'a> {
    fn from(args: &'a StartArgs) -> Self {
        Self {
            backends: &args.backends,
            steps: &[Step::Start],
            force: false,
        }
    }
}

impl<'a> From<&'a StopArgs> for StepRequest<'a> {
    fn from(args: &'a StopArgs) -> Self {
        Self {
            backends: &args.backends,
            steps: &[Step::Stop],
            force: args.force,
        }
    }
}

impl<'a> From<&'a EnableArgs> for StepRequest<'a> {
    fn from(args: &'a EnableArgs) -> Self {
        Self {
            backends: &args.backends,
            steps: match args.now {
                true => &[Step::Enable, Step::Start],
                false => &[Step::Enable],
            },
            force: false,
        }
    }
}

impl<'a> From<&'a DisableArgs> for StepRequest<'a> {
    fn from(args: &'a DisableArgs) -> Self {
        Self {
            backends: &args.backends,
            steps: match args.now {
                true => &[Step::Disable, Step::Stop],
                false => &[Step::Disable],
            },
            force: args.force,
        }
    }
}

pub(crate) fn run<'a>(
    args: impl Into<StepRequest<'a>>,
    target: &Target,
    output: &Output,
) -> Result<(), Error> {
    let request = args.into();
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        let mut instances = controller.select(request.backends).await?;
        if request.steps.contains(&Step::Stop) {
            confirm::confirm(&controller, &instances, request.force).await?;
        }
        for step in request.steps {
            instances = controller.apply(*step, instances).await?;
        }
        controller.finish()
    })
}
