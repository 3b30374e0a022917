//! Carrying out what is to be added, and undoing it if that fails half way.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::slice;

use tempfile::Builder;

use crate::instance::Half;
use crate::output::Output;
use crate::settings::Folders;

use super::super::change::Changes;
use super::super::{Error as VerbError, remove};
use super::{Args, Error, Plan};

/// Writes the settings, has systemd read them, enables the socket and starts it if that is wanted; by
/// then the next may look at them.
pub(super) async fn carry_out(
    args: &Args,
    changes: &Changes<'_>,
    folders: &Folders,
    plan: &Plan,
    mut lock: Option<fs::File>,
    output: &Output,
) -> Result<(), VerbError> {
    let instance = &plan.instance;
    let file = folders.own_file(instance);
    let text = plan.settings.text(instance);
    let before = read(&file)?;
    let is_other = before.as_ref().is_some_and(|before| *before != text);
    if is_other && !args.force {
        return Err(Error::Exists {
            unit: instance.unit(Half::Service),
            selector: instance.selector(),
            file: file.display().to_string(),
        }
        .into());
    }
    let socket = instance.unit(Half::Socket);
    let was_enabled = changes.manager.is_enabled(&socket).await?;
    let done = async {
        write(&file, &text)?;
        changes.manager.reload().await?;
        changes.manager.enable(slice::from_ref(&socket)).await?;
        drop(lock.take());
        if args.now {
            changes.start(slice::from_ref(instance)).await?;
        }
        Ok(())
    };
    let done: Result<(), VerbError> = done.await;
    if let Err(error) = done {
        let undone = async {
            match &before {
                Some(before) => write(&file, before)?,
                None => remove::forget(folders, instance, output)?,
            }
            if !was_enabled {
                let units = [socket.clone(), instance.unit(Half::Service)];
                changes.manager.disable(slice::from_ref(&socket)).await?;
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
    let what = match &before {
        None => "Created",
        Some(before) if *before == text => "Kept",
        Some(_) => "Replaced",
    };
    output.hint(&format!("{what} {}.", file.display()));
    for hint in &plan.hints {
        output.hint(hint);
    }
    if !args.now {
        let selector = instance.selector();
        output.hint(&format!(
            "It listens from the next boot on; for now: vhostctl start {selector}"
        ));
    }
    Ok(())
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
