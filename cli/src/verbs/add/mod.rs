// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl add`: a device for a VM, as an instance of our units.

mod access;
mod apply;
mod args;
mod console;
mod drop_in_edit;
mod gpu;
mod input;
mod plan;
mod program;

use conventions::DeviceType;

use crate::instance::{Instance, UnitKind, UnitType};
use crate::output::Output;
use crate::systemd::Target;

use super::error::{AddError, Error};
use crate::verbs::shared::lock::lock;
use crate::verbs::shared::unit_control::UnitController;
use plan::{HostInventory, Plan};

pub(crate) use args::Args;

pub(crate) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let lock = lock()?;
    let host = HostInventory::read();
    let plans = plans(args, &host)?;
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        for plan in &plans {
            check_program(args, &controller, &plan.instance).await?;
        }
        apply::apply(args, &mut controller, &host.folders, &plans, lock, output).await
    })
}

/// The plans for what is to be added: several for a console, and for an input device of several nodes.
fn plans(args: &Args, host: &HostInventory) -> Result<Vec<Plan>, Error> {
    let mut plan = match (args.device_type, &args.backend) {
        (_, Some(name)) => program::plan(args, name, host)?,
        (DeviceType::Console, None) => return console::plans(args, host),
        (DeviceType::Gpu, None) => gpu::plan(args, host)?,
        (DeviceType::Input, None) => return input::plans(args, host),
        (device_type, None) => {
            let text = format!(
                "Which backend of type {device_type}? Use --backend=BACKEND. See 'vhostctl list-backends'."
            );
            return Err(AddError::Usage(text).into());
        }
    };
    let access = plan.set_access(args)?;
    let kind = plan.instance.kind();
    plan.hints
        .extend(access::hint(&args.access, access.as_ref(), kind));
    Ok(vec![plan])
}

/// Checks that the unit is installed, and that its program can do what is asked of it.
async fn check_program(
    args: &Args,
    controller: &UnitController<'_>,
    instance: &Instance,
) -> Result<(), Error> {
    let unit = instance.unit(UnitType::Service);
    let Some(program) = controller.manager().program(&unit).await? else {
        return Err(AddError::NotInstalled {
            unit,
            package: instance.kind().package(),
        }
        .into());
    };
    if args.vulkan && instance.kind() == UnitKind::Gpu {
        let unit = instance.render_server();
        if controller.manager().program(&unit).await?.is_none() {
            return Err(AddError::NotInstalled {
                unit,
                package: instance.kind().package(),
            }
            .into());
        }
    }
    if args.virgl && instance.kind() == UnitKind::Gpu {
        gpu::check_virgl(&program)?;
    }
    Ok(())
}
