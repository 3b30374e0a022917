//! Carrying out what is to be added, and undoing it if that fails half way.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;
use tempfile::Builder;

use crate::instance::{Half, Instance};
use crate::output::Output;
use crate::settings::Folders;
use crate::systemd::State;

use super::super::change::Changes;
use super::super::{Error as VerbError, remove};
use super::{Args, Error, Plan};

/// Writes the settings, has systemd read them, enables the socket and starts it if that is wanted; by
/// then the next may look at them.
pub(super) async fn carry_out(
    args: &Args,
    changes: &mut Changes<'_>,
    folders: &Folders,
    plan: &Plan,
    mut lock: Option<fs::File>,
    output: &Output,
) -> Result<(), VerbError> {
    // All may read the files and folders that are made, whoever makes them.
    umask(Mode::from_raw_mode(0o022));
    let instance = &plan.instance;
    let file = folders.own_file(instance);
    let text = plan.settings.text(instance).map_err(Error::Value)?;
    let before = read(&file)?;
    let is_other = before.as_ref().is_some_and(|before| *before != text);
    if is_other && !args.force {
        return Err(Error::Exists {
            unit: instance.unit(Half::Service),
            selector: instance.to_string(),
            file: file.display().to_string(),
        }
        .into());
    }
    let socket = instance.unit(Half::Socket);
    let was_enabled = changes.manager.is_enabled(&socket).await?;
    let before_it = state(changes, instance).await?;
    let done = async {
        write(&file, &text)?;
        changes.manager.reload().await?;
        changes.manager.enable(&socket).await?;
        changes.manager.reload().await?;
        drop(lock.take());
        if args.now {
            changes.start(vec![instance.clone()]).await?;
        }
        changes.finish()
    };
    let done: Result<(), VerbError> = done.await;
    if let Err(error) = done {
        let undone = async {
            match &before {
                Some(before) => write(&file, before)?,
                None => remove::forget(folders, instance)?,
            }
            if !was_enabled {
                let units = [socket.clone(), instance.unit(Half::Service)];
                changes.manager.disable(&socket).await?;
                changes.manager.reset_failed(&units).await?;
            }
            changes.manager.reload().await?;
            Ok::<_, VerbError>(())
        };
        // Where writing was refused there is nothing to undo, and no permission to do it.
        let wrote = !matches!(error, VerbError::File { .. });
        if wrote && let Err(second) = undone.await {
            output.hint(&format!("Failed to undo it: {second}"));
        }
        return Err(error);
    }
    let is_new = before.as_ref().is_none_or(|before| *before != text);
    let what = match &before {
        None => "Created",
        Some(_) if is_new => "Replaced",
        Some(_) => "Kept",
    };
    output.hint(&format!("{what} {}.", file.display()));
    for hint in &plan.hints {
        output.hint(hint);
    }
    if let Some(hint) = effect(instance, before_it, is_new, args.now) {
        output.hint(&hint);
    }
    Ok(())
}

/// What the backend did before, which `add` leaves alone.
async fn state(changes: &Changes<'_>, instance: &Instance) -> Result<State, VerbError> {
    let all = changes.manager.details(|one| one == instance).await?;
    Ok(all
        .first()
        .map_or(State::Inactive, |details| details.backend.state))
}

/// When the settings count.
fn effect(instance: &Instance, before: State, is_new: bool, now: bool) -> Option<String> {
    match (before, is_new) {
        (State::Running | State::Stopping, true) => Some(format!(
            "{instance} serves a VM with the settings it had. The new ones count from that VM's next start."
        )),
        (State::Running | State::Stopping, false) => Some(format!(
            "{instance} serves a VM already, with these settings."
        )),
        (State::Listening | State::Starting, true) => Some(format!(
            "{instance} listens already. The new settings count from its VM's next start."
        )),
        (State::Listening | State::Starting, false) => Some(format!("{instance} listens already.")),
        (State::Inactive | State::Failed, _) if now => None,
        (State::Inactive | State::Failed, _) => Some(format!(
            "It listens from the next boot on. To start it now: vhostctl start {instance}"
        )),
    }
}

fn read(file: &Path) -> Result<Option<String>, VerbError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VerbError::file("read", file, error)),
    }
}

/// Puts a file in its place as a whole or not at all.
fn write(file: &Path, text: &str) -> Result<(), VerbError> {
    let write = || {
        let folder = file.parent().ok_or(ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let written = (|| {
            let mode = fs::Permissions::from_mode(0o644);
            let mut temporary = Builder::new()
                .prefix(".vhostctl-")
                .permissions(mode)
                .tempfile_in(folder)?;
            temporary.write_all(text.as_bytes())?;
            temporary.as_file().sync_all()?;
            temporary.persist(file).map_err(|error| error.error)?;
            fs::File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            // Only if it is empty, hence ours.
            let _ = fs::remove_dir(folder);
        }
        written
    };
    let result: io::Result<()> = write();
    result.map_err(|error| VerbError::file("write", file, error))
}
