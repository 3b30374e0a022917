//! Applying a plan, and undoing it if a step fails.

use std::fs;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::instance::{Instance, UnitType};
use crate::output::Output;
use crate::settings::drop_in;
use crate::systemd::BackendState;
use crate::unit_folders::UnitFolders;
use crate::verbs::error::{AddError, Error};
use crate::verbs::shared::unit_control::{Step, UnitController};

use super::args::Args;
use super::drop_in_edit::DropInEdit;
use super::plan::Plan;

/// Writes the drop-ins, reloads systemd, enables the socket and, with --now, starts it. The lock is released before
/// the start.
pub(super) async fn apply(
    args: &Args,
    controller: &mut UnitController<'_>,
    folders: &UnitFolders,
    plan: &Plan,
    mut lock: Option<fs::File>,
    output: &Output,
) -> Result<(), Error> {
    // Everybody may read the new files and folders, whatever the umask.
    umask(Mode::from_raw_mode(0o022));
    let instance = &plan.instance;
    let text = drop_in::service_text(&plan.settings, instance).map_err(AddError::Value)?;
    let access = plan.access.as_ref().map(|access| access.text(instance));
    let mut files = [
        DropInEdit::new(folders, instance, UnitType::Service, Some(text))?,
        DropInEdit::new(folders, instance, UnitType::Socket, access)?,
    ];
    let exists = files.iter().any(DropInEdit::existed);
    let other = files.iter().find(|file| exists && file.changes());
    if let Some(other) = other.filter(|_| !args.force) {
        return Err(AddError::Exists {
            unit: instance.unit(UnitType::Service),
            selector: instance.to_string(),
            file: other.file().display().to_string(),
        }
        .into());
    }
    let socket = instance.unit(UnitType::Socket);
    controller
        .manager()
        .check_unmasked("enable", std::slice::from_ref(&socket))
        .await?;
    let was_enabled = controller.enablement().is_enabled(&socket).await?;
    let before_it = state(controller, instance).await?;
    let [service_changes, access_changes] = files.each_ref().map(DropInEdit::changes);
    // The access is that of the socket file, which cannot be created again while a VMM is connected.
    let renews =
        access_changes && matches!(before_it, BackendState::Listening | BackendState::NoDevice);
    let done = async {
        files.iter_mut().try_for_each(DropInEdit::apply)?;
        controller.manager().reload().await?;
        controller.enablement().enable(&socket).await?;
        controller.manager().reload().await?;
        drop(lock.take());
        if renews {
            controller.stop_sockets(vec![instance.clone()]).await?;
        }
        if args.now || renews {
            controller
                .apply(Step::Start, vec![instance.clone()])
                .await?;
        }
        controller.finish()
    };
    let done: Result<(), Error> = done.await;
    if let Err(error) = done {
        let undone = async {
            files.iter().try_for_each(DropInEdit::undo)?;
            if !was_enabled {
                let units = [socket.clone(), instance.unit(UnitType::Service)];
                controller.enablement().disable(&socket).await?;
                controller.jobs().reset_failed(&units).await?;
            }
            controller.manager().reload().await?;
            if renews {
                controller.restore_socket(&socket).await?;
            }
            Ok::<_, Error>(())
        };
        // If the first write was denied, there is nothing to undo.
        let wrote = files.iter().any(DropInEdit::is_applied);
        let undone = match wrote {
            true => undone.await,
            false => Ok(()),
        };
        if let Err(second) = undone {
            output.hint(&format!("Failed to undo the changes: {second}"));
        }
        return Err(error);
    }
    let summaries = files.iter().filter_map(DropInEdit::summary);
    let effects = [
        effect(instance, before_it, service_changes, args.now),
        effect_on_access(instance, before_it, access_changes && exists),
    ];
    for hint in summaries
        .chain(plan.hints.iter().cloned())
        .chain(effects.into_iter().flatten())
    {
        output.hint(&hint);
    }
    Ok(())
}

/// When the access takes effect.
fn effect_on_access(instance: &Instance, before: BackendState, changes: bool) -> Option<String> {
    match before {
        BackendState::Listening | BackendState::NoDevice if changes => {
            Some("Its socket was created again: the new access takes effect now.".to_owned())
        }
        BackendState::Running | BackendState::Starting | BackendState::Stopping if changes => {
            Some(format!(
                "The new access takes effect when its socket is started again: vhostctl restart {instance}, once the VM is shut down."
            ))
        }
        _ => None,
    }
}

/// The state of the backend before.
async fn state(
    controller: &UnitController<'_>,
    instance: &Instance,
) -> Result<BackendState, Error> {
    let all = controller.details(std::slice::from_ref(instance)).await?;
    Ok(all
        .first()
        .map_or(BackendState::Inactive, |details| details.backend.state))
}

/// When the settings take effect.
fn effect(instance: &Instance, before: BackendState, is_new: bool, now: bool) -> Option<String> {
    match (before, is_new) {
        (BackendState::Running | BackendState::Stopping, true) => Some(format!(
            "{instance} serves a VM with the old settings. The new settings take effect when that VM is started again."
        )),
        (BackendState::Running | BackendState::Stopping, false) => Some(format!(
            "{instance} already serves a VM with these settings."
        )),
        (BackendState::Listening | BackendState::NoDevice | BackendState::Starting, true) => {
            Some(format!(
                "{instance} is already listening. The new settings take effect when its VM is started."
            ))
        }
        (BackendState::Listening | BackendState::NoDevice | BackendState::Starting, false) => {
            Some(format!("{instance} is already listening."))
        }
        (BackendState::Inactive | BackendState::Failed, _) if now => None,
        (BackendState::Inactive | BackendState::Failed, _) => Some(format!(
            "Enabled, starts at boot. To start it now: vhostctl start {instance}"
        )),
    }
}
