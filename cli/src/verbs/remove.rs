//! `vhostctl remove`: undoes `add`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::completion;
use crate::instance::{Instance, UnitType};
use crate::output::Output;
use crate::selector::Selector;
use crate::settings::Folders;
use crate::systemd::Target;

use super::Error;
use super::confirm;
use super::unit_control::{self, UnitController, units};

/// Stop backends, disable them and delete what was added for them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A VM that is connected loses the device: with a GPU its screen; with an input device, QEMU aborts if no guest
driver is using it. So vhostctl asks before it does anything; without a terminal it refuses, unless --force
is given. Shut the VM down first.

Settings that others made for the backend (systemctl edit) are kept.")]
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
        let mut changes = UnitController::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        confirm::confirm(&changes, &instances, args.force).await?;
        let folders = Folders::system();
        let lock = unit_control::lock()?;
        // First what may be refused: who cannot delete is not to stop anything.
        let mut instances = forget_all(&mut changes, &folders, instances).await?;
        drop(lock);
        instances = changes.stop(instances).await?;
        instances = disable_all(&mut changes, instances).await?;
        let all =
            [UnitType::Socket, UnitType::Service].map(|unit_type| units(&instances, unit_type));
        changes.manager.reset_failed(&all.concat()).await?;
        for instance in &instances {
            output.hint(&format!("Removed {instance}."));
            for unit_type in [UnitType::Socket, UnitType::Service] {
                let folder = folders.drop_in_folder(instance, unit_type);
                if folder.exists() {
                    output.hint(&format!(
                        "Kept {}, which has settings of others.",
                        folder.display()
                    ));
                }
            }
        }
        changes.finish()
    })
}

/// Deletes what was added for each; those for which that could be done come back.
async fn forget_all(
    changes: &mut UnitController<'_>,
    folders: &Folders,
    instances: Vec<Instance>,
) -> Result<Vec<Instance>, Error> {
    let mut forgotten = Vec::new();
    for instance in instances {
        // systemd does nothing about a masked unit, not even disable it.
        let units = [UnitType::Socket, UnitType::Service].map(|unit_type| instance.unit(unit_type));
        let unmasked = changes.manager.check_unmasked("remove", &units).await;
        if changes.keep(unmasked)?.is_none() {
            continue;
        }
        if changes.keep(forget(folders, &instance))?.is_some() {
            forgotten.push(instance);
        }
    }
    Ok(forgotten)
}

async fn disable_all(
    changes: &mut UnitController<'_>,
    instances: Vec<Instance>,
) -> Result<Vec<Instance>, Error> {
    let mut disabled = Vec::new();
    for instance in instances {
        let done = changes
            .manager
            .disable(&instance.unit(UnitType::Socket))
            .await;
        if changes.keep(done)?.is_some() {
            disabled.push(instance);
        }
    }
    changes.manager.reload().await?;
    Ok(disabled)
}

/// Deletes our files.
fn forget(folders: &Folders, instance: &Instance) -> Result<(), Error> {
    for unit_type in [UnitType::Service, UnitType::Socket] {
        delete(&folders.own_file(instance, unit_type))?;
    }
    Ok(())
}

/// Deletes one of our files, and its folder if nothing else is in it.
pub(super) fn delete(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::file("delete", file, error));
        }
        _ => {}
    }
    if let Some(folder) = file.parent() {
        // It was never there, or has settings of others.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
