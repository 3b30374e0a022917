//! `vhostctl remove`: undoes `add`.

use crate::completion;
use crate::instance::Instance;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::Target;
use crate::unit_folders::UnitFolders;

use super::error::Error;
use super::shared::confirm;
use super::shared::delete_drop_in::delete;
use super::shared::lock::lock;
use super::shared::unit_control::{BackendUnits, Step, UnitController};

/// Stop backends, disable them and delete what was added for them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A connected VM loses the device: with a GPU its screen; with an input device, QEMU aborts if no guest driver is
using it. So vhostctl asks first; without a terminal it refuses, unless --force is given. Shut the VM down
first.

Other drop-ins of the backend (systemctl edit) are kept.")]
pub(crate) struct Args {
    /// Remove these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Proceed even if a front-end is connected
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    target.local_only("remove")?;
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        let instances = controller.select(&args.backends).await?;
        confirm::confirm(&controller, &instances, args.force).await?;
        let folders = UnitFolders::system();
        let lock = lock()?;
        // Before the drop-ins are gone, which tell of sockets for a console.
        let units = controller.units(&instances).await?;
        // First the step that may be denied: a user who cannot delete must not stop anything.
        let mut instances = delete_drop_ins(&mut controller, &folders, &units).await?;
        drop(lock);
        instances = controller.apply(Step::Stop, instances).await?;
        let mut removed = Vec::new();
        for units in &units {
            if !instances.contains(&units.instance) {
                continue;
            }
            let disabled = controller.disable_all(units).await;
            if controller.keep(disabled)?.is_some() {
                removed.push(units);
            }
        }
        controller.manager().reload().await?;
        let all: Vec<_> = removed.iter().flat_map(|units| units.all()).collect();
        controller.jobs().reset_failed(&all).await?;
        for BackendUnits { instance, .. } in removed {
            output.hint(&format!("Removed {instance}."));
            for unit_type in instance.kind().unit_types() {
                let folder = folders.drop_in_folder(instance, *unit_type);
                if folder.exists() {
                    output.hint(&format!(
                        "Kept {}, which has other drop-ins.",
                        folder.display()
                    ));
                }
            }
        }
        controller.finish()
    })
}

/// Deletes the drop-ins of each; returns those for which it succeeded.
async fn delete_drop_ins(
    controller: &mut UnitController<'_>,
    folders: &UnitFolders,
    all: &[BackendUnits],
) -> Result<Vec<Instance>, Error> {
    let mut deleted = Vec::new();
    for units in all {
        // systemd does not even disable a masked unit.
        let unmasked = controller
            .manager()
            .check_unmasked("remove", &units.all())
            .await;
        if controller.keep(unmasked)?.is_none() {
            continue;
        }
        if controller
            .keep(delete_all(folders, &units.instance))?
            .is_some()
        {
            deleted.push(units.instance.clone());
        }
    }
    Ok(deleted)
}

/// Deletes our files, that of the service first.
fn delete_all(folders: &UnitFolders, instance: &Instance) -> Result<(), Error> {
    for unit_type in instance.kind().unit_types().iter().rev() {
        delete(&folders.own_file(instance, *unit_type))?;
    }
    Ok(())
}
