// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The folders, files and device nodes of the host that a program serves.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use conventions::DeviceType;

use crate::accounts;
use crate::descriptors::known::{FileForm, KnownProgram};
use crate::descriptors::probe;
use crate::unit_syntax::{Directive, quoted};
use crate::values;

use crate::verbs::add::args::Args;
use crate::verbs::error::{AddError, FileError};

/// The queues of a disk. QEMU uses one for each processor of the guest, and does not start if there are fewer.
const QUEUES: u32 = 64;

/// The files of the host that a program may use.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Arguments that name them.
    pub(super) arguments: Vec<String>,
    /// Device nodes.
    pub(super) nodes: Vec<String>,
    /// Groups of the nodes.
    groups: Vec<String>,
    /// Files and folders that it may write to.
    writable: Vec<PathBuf>,
    /// Whether it may write to no other files.
    is_complete: bool,
}

impl Files {
    /// By the command line. `is_dynamic` is whether the program runs as a dynamic user.
    pub(super) fn new(
        args: &Args,
        known: Option<&KnownProgram>,
        program: &Path,
        is_dynamic: bool,
    ) -> Result<Self, AddError> {
        let mut files = Self::default();
        for (option, path, device_type) in [
            ("--shared-dir", &args.shared_dir, DeviceType::Fs),
            ("--blk-file", &args.blk_file, DeviceType::Block),
        ] {
            if path.is_some() && args.device_type != device_type {
                return Err(AddError::Usage(format!(
                    "{option} is for type {device_type}. See 'vhostctl add --help'."
                )));
            }
        }
        let needs_folder = known.is_some_and(KnownProgram::needs_folder);
        if needs_folder && args.shared_dir.is_none() && args.arguments.is_empty() {
            return Err(AddError::Usage(format!(
                "Which folder should {} share? Use --shared-dir=PATH.",
                program.display()
            )));
        }
        if args.read_only && args.shared_dir.is_none() && args.blk_file.is_none() {
            let text = "--read-only requires --shared-dir or --blk-file.";
            return Err(AddError::Usage(text.to_owned()));
        }
        if let Some(folder) = &args.shared_dir {
            if !metadata(folder)?.is_dir() {
                return Err(unusable(folder, FileError::NotFolder));
            }
            files.arguments = shared_dir(folder, program);
            files.serve(folder, args.read_only);
        }
        if let Some(file) = &args.blk_file {
            let data = metadata(file)?;
            let is_device = data.file_type().is_block_device();
            if !is_device && !data.is_file() {
                return Err(unusable(file, FileError::NotDisk));
            }
            files.arguments = match known.map(|known| known.file) {
                Some(FileForm::BlockExport) => block_export(file, is_device, args.read_only),
                Some(FileForm::Options) | None => blk_file(file, args.read_only),
            };
            if is_device {
                files.is_complete = true;
                files.node(file);
            } else {
                if is_dynamic {
                    check_access(file, &data, !args.read_only)?;
                }
                files.serve(file, args.read_only);
            }
        }
        for path in &args.allow_path {
            metadata(path)?;
            files.serve(path, false);
        }
        let temporary = |path: &&PathBuf| path.starts_with("/tmp") || path.starts_with("/var/tmp");
        let served = [&args.shared_dir, &args.blk_file].into_iter().flatten();
        if let Some(path) = served
            .chain(&args.allow_path)
            .find(temporary)
            .filter(|_| is_dynamic)
        {
            return Err(unusable(path, FileError::Temporary));
        }
        args.allow_device.iter().for_each(|node| files.node(node));
        Ok(files)
    }

    fn serve(&mut self, path: &Path, read_only: bool) {
        self.is_complete = true;
        if !read_only {
            self.writable.push(path.to_owned());
        }
    }

    /// Allows a device node, and adds the group that may open it.
    fn node(&mut self, node: &Path) {
        self.nodes.push(node.display().to_string());
        let group = fs::metadata(node)
            .ok()
            .filter(|data| data.mode() & 0o006 != 0o006 && data.mode() & 0o060 == 0o060)
            .map(|data| data.gid())
            .filter(|group| *group != 0)
            .map(accounts::group_name)
            .filter(|group| !self.groups.contains(group));
        self.groups.extend(group);
    }

    /// The directives of the service that go with them.
    pub(super) fn service(&self) -> Vec<Directive> {
        let mut service = Vec::new();
        if !self.groups.is_empty() {
            service.push(Directive::new("SupplementaryGroups", self.groups.join(" ")));
        }
        if self.is_complete {
            service.push(Directive::new("ProtectSystem", "strict"));
        }
        // The program reports a path that is missing when the service starts.
        let writable = self.writable.iter();
        service.extend(
            writable.map(|path| {
                Directive::new("ReadWritePaths", quoted(&format!("-{}", path.display())))
            }),
        );
        service
    }
}

/// The metadata of a path, which must be absolute: a service has no other working directory.
fn metadata(path: &Path) -> Result<Metadata, AddError> {
    if !path.is_absolute() {
        return Err(unusable(path, FileError::Relative));
    }
    values::check_text(&path.display().to_string())?;
    fs::metadata(path).map_err(|error| unusable(path, FileError::Metadata(error)))
}

fn unusable(path: &Path, source: FileError) -> AddError {
    AddError::UnusableFile {
        path: path.to_owned(),
        source,
    }
}

/// The option for the shared folder; virtiofsd written in C takes it as a mount option.
fn shared_dir(folder: &Path, program: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let is_virtiofsd = program.file_name().is_some_and(|name| name == "virtiofsd");
    let features = probe(program).ok().and_then(|can| can.features);
    let has_options =
        features.is_some_and(|features| features.iter().any(|it| it == "separate-options"));
    if is_virtiofsd && !has_options {
        let escaped = folder.replace('\\', "\\\\").replace(',', "\\,");
        return vec!["-o".to_owned(), format!("source={escaped}")];
    }
    vec![format!("--shared-dir={folder}")]
}

/// The options of the conventions for a disk.
fn blk_file(file: &Path, read_only: bool) -> Vec<String> {
    let mut arguments = vec![format!("--blk-file={}", file.display())];
    arguments.extend(read_only.then(|| "--read-only".to_owned()));
    arguments
}

/// The options of qemu-storage-daemon(1) for a disk.
fn block_export(file: &Path, is_device: bool, read_only: bool) -> Vec<String> {
    // A comma in a value is doubled.
    let file = file.display().to_string().replace(',', ",,");
    let driver = if is_device { "host_device" } else { "file" };
    let on = |is_on| if is_on { "on" } else { "off" };
    vec![
        "--blockdev".to_owned(),
        format!(
            "driver={driver},node-name=disk,filename={file},read-only={}",
            on(read_only)
        ),
        "--export".to_owned(),
        format!(
            "type=vhost-user-blk,id=disk,node-name=disk,writable={},num-queues={QUEUES},addr.type=fd,addr.str={{fd}}",
            on(!read_only)
        ),
    ]
}

/// Checks that a dynamic user can open a file.
fn check_access(file: &Path, data: &Metadata, write: bool) -> Result<(), AddError> {
    let wanted = if write { 0o006 } else { 0o004 };
    if data.mode() & wanted != wanted {
        let owner = accounts::user_name(data.uid());
        let verb = if write { "write to" } else { "read" };
        return Err(unusable(file, FileError::Access { verb, owner }));
    }
    for folder in file.ancestors().skip(1) {
        let data = metadata(folder)?;
        if data.mode() & 0o001 == 0 {
            let owner = accounts::user_name(data.uid());
            let folder = folder.to_owned();
            return Err(unusable(file, FileError::Folder { folder, owner }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_options_of_the_programs() {
        let missing = Path::new("/nonexistent/virtiofsd");
        assert_eq!(
            shared_dir(Path::new("/srv/a,b\\c"), missing),
            ["-o", "source=/srv/a\\,b\\\\c"]
        );
        let other = Path::new("/nonexistent/fsd");
        assert_eq!(
            shared_dir(Path::new("/srv/a,b"), other),
            ["--shared-dir=/srv/a,b"]
        );
        let export = block_export(Path::new("/srv/a,b.raw"), false, true);
        assert!(
            export[1].contains("filename=/srv/a,,b.raw,read-only=on"),
            "{export:?}"
        );
        assert!(export[3].contains("writable=off"), "{export:?}");
    }
}
