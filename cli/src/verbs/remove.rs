// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl remove`: undoes `add`.

use std::collections::BTreeMap;

use crate::completion;
use crate::instance::{Instance, UnitKind, UnitType};
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::{Failure, Job, Target};
use crate::unit_folders::UnitFolders;

use super::error::Error;
use super::shared::confirm;
use super::shared::delete_drop_in::delete;
use super::shared::kept_folders::KeptFolders;
use super::shared::lock::lock;
use super::shared::unit_control::{BackendUnits, Step, UnitController};

/// Stop backends, disable them and delete what was added for them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A connected VM loses the device: with a GPU its screen; with an input device, QEMU aborts if no guest driver is
using it. So vhostctl asks first; without a terminal it refuses, unless --force is given. Shut the VM down
first.

Other drop-ins of the backend (systemctl edit) are kept. What only its service kept below /var/lib and /var/cache is
deleted, such as the shaders of a GPU.")]
pub(crate) struct Args {
    /// Remove these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,

    /// Proceed even if a front-end is connected
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        let instances = controller.select(&args.backends).await?;
        confirm::confirm(&controller, &instances, args.force).await?;
        let folders = UnitFolders::system();
        let lock = lock()?;
        // Before the drop-ins are gone, which tell of sockets for a console.
        let units = controller.units(&instances).await?;
        // The drop-ins may name some of them.
        let kept = kept_folders(&mut controller, &instances).await?;
        // First the step that may be denied: a user who cannot delete must not stop anything.
        let mut instances = delete_drop_ins(&mut controller, &folders, &units).await?;
        drop(lock);
        instances = controller.apply(Step::Stop, instances).await?;
        let servers = stop_render_servers(&controller, &instances, output).await?;
        let mut removed = Vec::new();
        for units in &units {
            if !instances.contains(&units.instance) {
                continue;
            }
            let disabled = controller.disable_all(units, &mut false).await;
            if controller.keep(disabled)?.is_some() {
                removed.push(units);
            }
        }
        controller.manager().reload().await?;
        let all = removed.iter().flat_map(|units| units.all());
        let all: Vec<_> = all.chain(servers).collect();
        controller.jobs().reset_failed(&all).await?;
        for BackendUnits { instance, .. } in removed {
            output.hint(&format!("Removed {instance}."));
            let deleted = match kept.get(instance) {
                Some(kept) => controller.keep(kept.delete())?.unwrap_or_default(),
                None => Vec::new(),
            };
            for folder in deleted {
                output.hint(&format!("Deleted {}.", folder.display()));
            }
            for unit_type in instance.kind().unit_types() {
                let folder = folders.drop_in_folder(instance, *unit_type);
                if folder.exists() {
                    output.hint(&format!(
                        "Kept {}, which has other drop-ins. To delete them too: systemctl revert {}",
                        folder.display(),
                        instance.unit(*unit_type)
                    ));
                }
            }
        }
        controller.finish()
    })
}

/// Stops the render servers of GPUs, which write to what is deleted, and returns their units. One that cannot be stopped is no
/// reason to keep a backend.
async fn stop_render_servers(
    controller: &UnitController<'_>,
    instances: &[Instance],
    output: &Output,
) -> Result<Vec<String>, Error> {
    let gpus = instances.iter().filter(|one| one.kind() == UnitKind::Gpu);
    let units: Vec<_> = gpus
        .flat_map(|gpu| [gpu.render_server_socket(), gpu.render_server()])
        .collect();
    for Failure { unit, error } in controller.jobs().run(Job::Stop, &units).await? {
        output.hint(&format!("{unit} runs on: {error}"));
    }
    Ok(units)
}

/// What systemd keeps on disk for each.
async fn kept_folders(
    controller: &mut UnitController<'_>,
    instances: &[Instance],
) -> Result<BTreeMap<Instance, KeptFolders>, Error> {
    let mut kept = BTreeMap::new();
    for instance in instances {
        let service = instance.unit(UnitType::Service);
        let properties = controller.manager().properties(service, None).await?;
        kept.insert(instance.clone(), KeptFolders::of(instance, &properties));
    }
    Ok(kept)
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
    if instance.kind() == UnitKind::Gpu {
        delete(&folders.render_server_file(instance))?;
    }
    Ok(())
}
