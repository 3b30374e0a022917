// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Applying plans, and undoing them if a step fails.

use std::fs;

use rustix::fs::Mode;
use rustix::process::umask;

use crate::backends::Details;
use crate::instance::{Instance, UnitKind, UnitType};
use crate::output::Output;
use crate::settings::drop_in;
use crate::systemd::{BackendState, Job};
use crate::unit_folders::UnitFolders;
use crate::verbs::error::{AddError, Error};
use crate::verbs::shared::unit_control::{Step, UnitController};

use super::args::Args;
use super::drop_in_edit::DropInEdit;
use super::plan::{Plan, ServicePlan};

/// A plan, with the files that it changes and what was before.
struct Change<'a> {
    plan: &'a Plan,
    service: Option<DropInEdit>,
    socket: Option<DropInEdit>,
    console: Option<DropInEdit>,
    renderer: Option<DropInEdit>,
    /// Its sockets, and whether each is enabled and active.
    sockets: Vec<SocketBefore>,
    state: BackendState,
}

/// A socket before the change.
struct SocketBefore {
    unit: String,
    was_enabled: bool,
    was_active: bool,
}

/// Writes the drop-ins, reloads systemd, enables the sockets and, with --now, starts them. The lock is released before
/// the start.
pub(super) async fn apply(
    args: &Args,
    controller: &mut UnitController<'_>,
    folders: &UnitFolders,
    plans: &[Plan],
    mut lock: Option<fs::File>,
    output: &Output,
) -> Result<(), Error> {
    // Everybody may read the new files and folders, whatever the umask.
    umask(Mode::from_raw_mode(0o022));
    let mut changes = Vec::with_capacity(plans.len());
    for plan in plans {
        let change = Change::new(plan, folders)?;
        if !args.force {
            change.check_replaced()?;
        }
        changes.push(change);
    }
    let instances: Vec<_> = plans.iter().map(|plan| plan.instance.clone()).collect();
    let details = controller.details(&instances).await?;
    for change in &mut changes {
        let before = details
            .iter()
            .find(|details| details.backend.instance == change.plan.instance);
        change.look(controller, before).await?;
        change.check_running(args.now)?;
    }
    let done = do_all(args, controller, &mut changes, &mut lock).await;
    if let Err(error) = done {
        // If the first write was denied, there is nothing to undo.
        let wrote = changes
            .iter()
            .flat_map(Change::files)
            .any(DropInEdit::is_applied);
        let undone = match wrote {
            true => undo_all(controller, &changes).await,
            false => Ok(()),
        };
        if let Err(second) = undone {
            output.hint(&format!("Failed to undo the changes: {second}"));
        }
        return Err(error);
    }
    for hint in hints(args, &changes) {
        output.hint(&hint);
    }
    Ok(())
}

async fn do_all(
    args: &Args,
    controller: &mut UnitController<'_>,
    changes: &mut [Change<'_>],
    lock: &mut Option<fs::File>,
) -> Result<(), Error> {
    for change in changes.iter_mut() {
        change.files_mut().try_for_each(DropInEdit::apply)?;
    }
    let renewed = changes.iter().filter(|change| change.renews());
    let renewed: Vec<_> = renewed.map(|change| change.plan.instance.clone()).collect();
    if !renewed.is_empty() {
        // While systemd knows their paths, which may have changed.
        controller.stop_sockets(renewed.clone()).await?;
    }
    controller.manager().reload().await?;
    for socket in changes.iter().flat_map(|change| &change.sockets) {
        controller.enablement().enable(&socket.unit).await?;
    }
    controller.manager().reload().await?;
    drop(lock.take());
    let started = match args.now {
        true => changes
            .iter()
            .map(|change| change.plan.instance.clone())
            .collect(),
        false => renewed,
    };
    if !started.is_empty() {
        controller.apply(Step::Start, started).await?;
    }
    controller.finish()
}

/// Restores files, enablement and sockets as they were before.
async fn undo_all(controller: &UnitController<'_>, changes: &[Change<'_>]) -> Result<(), Error> {
    changes
        .iter()
        .flat_map(Change::files)
        .try_for_each(DropInEdit::undo)?;
    let sockets = || changes.iter().flat_map(|change| &change.sockets);
    let started: Vec<_> = sockets()
        .filter(|socket| !socket.was_active)
        .map(|socket| socket.unit.clone())
        .collect();
    // A unit that does not stop is not what failed.
    controller.jobs().run(Job::Stop, &started).await?;
    for socket in sockets().filter(|socket| !socket.was_enabled) {
        controller.enablement().disable(&socket.unit).await?;
    }
    for change in changes {
        let sockets = change.sockets.iter().filter(|socket| !socket.was_enabled);
        let mut units: Vec<_> = sockets.map(|socket| socket.unit.clone()).collect();
        if !units.is_empty() {
            units.push(change.plan.instance.unit(UnitType::Service));
        }
        controller.jobs().reset_failed(&units).await?;
    }
    controller.manager().reload().await?;
    for change in changes.iter().filter(|change| change.renews()) {
        for socket in change.sockets.iter().filter(|socket| socket.was_active) {
            controller.restore_socket(&socket.unit).await?;
        }
    }
    Ok(())
}

impl<'a> Change<'a> {
    fn new(plan: &'a Plan, folders: &UnitFolders) -> Result<Self, Error> {
        let instance = &plan.instance;
        let edit = |unit_type, text| DropInEdit::new(folders.own_file(instance, unit_type), text);
        let service = match plan.service.settings() {
            Some(settings) => {
                let text = drop_in::service_text(settings, instance).map_err(AddError::Value)?;
                Some(edit(UnitType::Service, Some(text))?)
            }
            None => None,
        };
        let socket = match plan.socket.clone() {
            Some(directives) => {
                let text = drop_in::socket_text(instance, UnitType::Socket, directives.clone());
                let text = (!directives.is_empty()).then_some(text);
                Some(edit(UnitType::Socket, text)?)
            }
            None => None,
        };
        let console = match plan.console {
            true => {
                let text = drop_in::socket_text(instance, UnitType::Console, Vec::new());
                Some(edit(UnitType::Console, Some(text))?)
            }
            false => None,
        };
        let renderer = match &plan.renderer {
            Some(renderer) => {
                let text = renderer.drop_in(instance).map_err(AddError::Value)?;
                Some(DropInEdit::new(folders.render_server_file(instance), text)?)
            }
            None => None,
        };
        Ok(Self {
            plan,
            service,
            socket,
            console,
            renderer,
            sockets: Vec::new(),
            state: BackendState::Inactive,
        })
    }

    fn files(&self) -> impl Iterator<Item = &DropInEdit> {
        let own = [&self.service, &self.socket, &self.console, &self.renderer];
        own.into_iter().flatten()
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut DropInEdit> {
        let own = [
            &mut self.service,
            &mut self.socket,
            &mut self.console,
            &mut self.renderer,
        ];
        own.into_iter().flatten()
    }

    /// Whether it had settings of ours before.
    fn existed(&self) -> bool {
        [&self.service, &self.socket]
            .into_iter()
            .flatten()
            .any(DropInEdit::existed)
    }

    fn changes_service(&self) -> bool {
        self.service.as_ref().is_some_and(DropInEdit::changes)
    }

    fn changes_socket(&self) -> bool {
        self.socket.as_ref().is_some_and(DropInEdit::changes)
    }

    /// Fails if other settings would be replaced.
    fn check_replaced(&self) -> Result<(), AddError> {
        if matches!(self.plan.service, ServicePlan::Changed(_)) || !self.existed() {
            return Ok(());
        }
        let instance = &self.plan.instance;
        let files = [
            (instance.unit(UnitType::Service), &self.service),
            (instance.unit(UnitType::Socket), &self.socket),
            (instance.render_server(), &self.renderer),
        ];
        let files = files.into_iter().filter_map(|(unit, file)| {
            let file = file.as_ref().filter(|file| file.changes())?;
            Some((unit, file))
        });
        // Rather one that can be read.
        match files.max_by_key(|(_, file)| file.existed()) {
            Some((unit, file)) => Err(AddError::Exists {
                unit,
                selector: instance.to_string(),
                settings: match file.existed() {
                    true => format!("in {}", file.file().display()),
                    false => "those of its template".to_owned(),
                },
            }),
            None => Ok(()),
        }
    }

    /// Asks systemd how its units are before the change.
    async fn look(
        &mut self,
        controller: &UnitController<'_>,
        details: Option<&Details>,
    ) -> Result<(), Error> {
        let instance = &self.plan.instance;
        let is_active = |state: Option<&str>| matches!(state, Some("listening" | "running"));
        let socket = instance.unit(UnitType::Socket);
        let state = details.and_then(|details| details.backend.socket_state.as_deref());
        let mut sockets = vec![(socket, is_active(state))];
        if self.plan.console {
            let console = details.and_then(|details| details.console.as_ref());
            sockets.push((
                instance.unit(UnitType::Console),
                is_active(console.and_then(|console| console.state.as_deref())),
            ));
        }
        let units: Vec<_> = sockets.iter().map(|(unit, _)| unit.clone()).collect();
        controller
            .manager()
            .check_unmasked("enable", &units)
            .await?;
        for (unit, was_active) in sockets {
            self.sockets.push(SocketBefore {
                was_enabled: controller.enablement().is_enabled(&unit).await?,
                unit,
                was_active,
            });
        }
        self.state = details.map_or(BackendState::Inactive, |details| details.backend.state);
        Ok(())
    }

    fn runs(&self) -> bool {
        matches!(
            self.state,
            BackendState::Running | BackendState::Starting | BackendState::Stopping
        )
    }

    /// Whether the service runs without a socket for a console, which systemd cannot add to it.
    fn lacks_console(&self) -> bool {
        let console = self.plan.instance.unit(UnitType::Console);
        let mut sockets = self.sockets.iter();
        self.plan.console
            && self.runs()
            && sockets.any(|socket| socket.unit == console && !socket.was_active)
    }

    /// Fails if a socket is to be started that systemd cannot start now.
    fn check_running(&self, now: bool) -> Result<(), AddError> {
        match now && self.lacks_console() {
            true => Err(AddError::RunsWithoutConsole {
                instance: self.plan.instance.to_string(),
            }),
            false => Ok(()),
        }
    }

    /// Whether its socket is created again: who may connect is a property of the socket file, which cannot be created
    /// again while somebody is connected.
    fn renews(&self) -> bool {
        match self.state {
            BackendState::Listening | BackendState::NoDevice => self.changes_socket(),
            BackendState::NoSocket => true,
            _ => false,
        }
    }
}

/// What was done, and when it takes effect.
fn hints(args: &Args, changes: &[Change<'_>]) -> Vec<String> {
    let summaries = changes
        .iter()
        .flat_map(|change| change.files().filter_map(DropInEdit::summary));
    let mut hints: Vec<_> = summaries.collect();
    for change in changes {
        hints.extend(change.plan.hints.iter().cloned());
    }
    let mut is_enabled_only = false;
    for change in changes {
        let instance = &change.plan.instance;
        if change.lacks_console() {
            hints.push(format!(
                "{instance} serves a VM, so its socket for the console is started with that VM's next start."
            ));
        } else if matches!(change.state, BackendState::Inactive | BackendState::Failed) {
            is_enabled_only |= !args.now;
        } else {
            hints.extend(effect(instance, change.state, change.changes_service()));
        }
        hints.extend(effect_on_access(
            instance,
            change.state,
            change.changes_socket() && change.existed(),
        ));
    }
    if is_enabled_only {
        let what = match changes {
            [change] => change.plan.instance.to_string(),
            _ => args.vm.clone(),
        };
        hints.push(format!(
            "Enabled, starts at boot. To start it now: vhostctl start {what}"
        ));
    }
    hints
}

/// When the access takes effect.
fn effect_on_access(instance: &Instance, before: BackendState, changes: bool) -> Option<String> {
    match before {
        BackendState::Listening | BackendState::NoDevice | BackendState::NoSocket if changes => {
            Some("Its socket was created again: the new access takes effect now.".to_owned())
        }
        BackendState::Running | BackendState::Starting | BackendState::Stopping if changes => {
            let once = match instance.kind() {
                UnitKind::Vnc => "nobody looks",
                UnitKind::Gpu | UnitKind::Input | UnitKind::Program => "the VM is shut down",
            };
            Some(format!(
                "The new access takes effect when its socket is started again: vhostctl restart {instance}, once {once}."
            ))
        }
        _ => None,
    }
}

/// When the settings take effect, of a backend that listens or runs.
fn effect(instance: &Instance, before: BackendState, is_new: bool) -> Option<String> {
    let is_vnc = instance.kind() == UnitKind::Vnc;
    match (before, is_new) {
        (BackendState::Running | BackendState::Stopping, true) if is_vnc => Some(format!(
            "{instance} serves viewers with the old settings. The new settings take effect when they have left."
        )),
        (BackendState::Running | BackendState::Stopping, false) if is_vnc => Some(format!(
            "{instance} already serves viewers with these settings."
        )),
        (BackendState::Running | BackendState::Stopping, true) => Some(format!(
            "{instance} serves a VM with the old settings. The new settings take effect when that VM is started again."
        )),
        (BackendState::Running | BackendState::Stopping, false) => Some(format!(
            "{instance} already serves a VM with these settings."
        )),
        (BackendState::Listening | BackendState::NoDevice | BackendState::Starting, true)
            if is_vnc =>
        {
            Some(format!(
                "{instance} is already listening. The new settings take effect when a viewer connects."
            ))
        }
        (BackendState::Listening | BackendState::NoDevice | BackendState::Starting, true) => {
            Some(format!(
                "{instance} is already listening. The new settings take effect when its VM is started."
            ))
        }
        (BackendState::Listening | BackendState::NoDevice | BackendState::Starting, false) => {
            Some(format!("{instance} is already listening."))
        }
        (BackendState::NoSocket, _) => Some(format!(
            "The socket of {instance} was gone. It was created again."
        )),
        (BackendState::Inactive | BackendState::Failed, _) => None,
    }
}
