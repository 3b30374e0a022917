//! `vhostctl remove`: undoes `add`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::completion;
use crate::instance::{Half, Instance};
use crate::output::Output;
use crate::selector::Selector;
use crate::settings::Folders;
use crate::systemd::Target;

use super::Error;
use super::change::{self, Changes, units};

/// Stop backends, disable them and delete what was added for them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A VMM that is connected loses the device; a guest is not prepared for that. Shut the VM down first.

Settings that others made for the backend (systemctl edit) are kept.")]
pub struct Args {
    /// Remove these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

pub fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    target.local_only("remove")?;
    zbus::block_on(async {
        let changes = Changes::connect(target, output).await?;
        let instances = changes.select(&args.backends).await?;
        let (sockets, services) = (
            units(&instances, Half::Socket),
            units(&instances, Half::Service),
        );
        let lock = change::lock()?;
        // First what may be refused: who cannot delete is not to stop anything.
        let folders = Folders::system();
        for instance in &instances {
            forget(&folders, instance, output)?;
        }
        drop(lock);
        changes.stop(&instances).await?;
        // Makes systemd read its files again, too.
        changes.manager.disable(&sockets).await?;
        let all = [sockets, services].concat();
        changes.manager.reset_failed(&all).await?;
        Ok(())
    })
}

/// Deletes our file, and its folder if nothing else is in it.
pub fn forget(folders: &Folders, instance: &Instance, output: &Output) -> Result<(), Error> {
    let file = folders.own_file(instance);
    delete(&file)?;
    let folder = folders.drop_in_folder(instance);
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            output.hint(&format!(
                "Kept {}, which has settings of others.",
                folder.display()
            ));
        }
        // It was never there, or is somebody else's care.
        _ => {}
    }
    Ok(())
}

fn delete(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("delete", file, error))
        }
        _ => Ok(()),
    }
}
