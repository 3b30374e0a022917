// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Installed programs that can serve a device, by their descriptors (QEMU's docs/interop/vhost-user.rst, "Backend program conventions", and
//! vhost-user.json).

pub(crate) mod known;
mod probe;
mod trust;

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use conventions::{BackendDescription, DeviceType};
use serde::Serialize;
use serde_json::Value;

pub(crate) use probe::{ProbeError, probe};
pub(crate) use trust::why_untrusted;

/// The folders of the whole system, the most specific first. libvirt reads these two.
const SYSTEM: [&str; 2] = ["/etc/qemu/vhost-user", "/usr/share/qemu/vhost-user"];
/// The most bytes that are read of a descriptor, which has a few lines.
const SIZE_MAX: u64 = 64 << 10;

/// A descriptor file and the result of checking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Descriptor {
    /// The name of the file without `.json`.
    pub name: String,
    pub path: PathBuf,
    pub state: DescriptorState,
    /// The file that hides or masks it.
    pub by: Option<PathBuf>,
    /// The type of device, as the file says.
    #[serde(rename = "type")]
    pub device_type: Option<String>,
    pub description: Option<String>,
    pub binary: Option<PathBuf>,
    /// The features of the program, if it was asked and answered.
    pub features: Option<Vec<String>>,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Whether it keeps libvirt from starting any vhost-user GPU.
    pub breaks_libvirt: bool,
}

/// Whether a descriptor is used, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DescriptorState {
    /// It is in effect, and its program answers.
    Usable,
    /// It is in effect, but not valid.
    Broken,
    /// A file of the same name in a more specific folder replaces it.
    Hidden,
    /// An empty file of the same name in a more specific folder disables it.
    Masked,
    /// An empty file that masks less specific ones of its name.
    Mask,
}

impl fmt::Display for DescriptorState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Usable => "usable",
            Self::Broken => "broken",
            Self::Hidden => "hidden",
            Self::Masked => "masked",
            Self::Mask => "mask",
        })
    }
}

/// The folders to search, the most specific first, with that of the caller unless others can change it.
pub(crate) fn folders() -> Vec<PathBuf> {
    own_folder()
        .filter(|folder| trust::why_untrusted(folder).is_none())
        .into_iter()
        .chain(SYSTEM.iter().map(PathBuf::from))
        .collect()
}

/// Why the folder in HOME or XDG_CONFIG_HOME is not searched, if it has descriptors.
pub(crate) fn why_own_folder_is_ignored() -> Option<String> {
    let folder = own_folder()?;
    folder.read_dir().ok()?.next()?.ok()?;
    let why = trust::why_untrusted(&folder)?;
    let shown = folder.display();
    Some(format!(
        "{shown} is ignored: {why}, and descriptors name programs to run."
    ))
}

/// The folder of the caller's descriptors, by the environment.
fn own_folder() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let variable = |name| env::var_os(name).map(PathBuf::from).and_then(absolute);
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("qemu/vhost-user"))
}

/// All descriptors of these folders in QEMU's order: by name, and for each name the one in effect first. Programs are
/// asked only if `ask` is set.
pub(crate) fn list(folders: &[PathBuf], ask: bool) -> Vec<Descriptor> {
    let mut by_name = BTreeMap::<String, Vec<PathBuf>>::new();
    for folder in folders {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.path().is_dir();
            if !name.starts_with('.') && !is_folder {
                by_name.entry(name).or_default().push(entry.path());
            }
        }
    }
    let mut all = Vec::new();
    for paths in by_name.into_values() {
        let mut first: Option<(PathBuf, bool)> = None;
        for path in paths {
            let mut descriptor = Descriptor::read(path.clone());
            if let Some((by, empty)) = &first {
                descriptor.state = if *empty {
                    DescriptorState::Masked
                } else {
                    DescriptorState::Hidden
                };
                // libvirt does not look into a user's folder.
                descriptor.breaks_libvirt &= !is_of_system(by);
                descriptor.by = Some(by.clone());
            } else {
                first = Some((path, descriptor.state == DescriptorState::Mask));
            }
            all.push(descriptor);
        }
    }
    if ask {
        probe::ask_all(&mut all);
    }
    all
}

impl Descriptor {
    /// Reads a file without regard to the others.
    fn read(path: PathBuf) -> Self {
        let file_name = path.file_name().unwrap_or_default();
        let file_name = file_name.to_string_lossy().into_owned();
        let name = file_name.strip_suffix(".json").unwrap_or(&file_name);
        let mut descriptor = Self {
            name: name.to_owned(),
            state: DescriptorState::Usable,
            by: None,
            device_type: None,
            description: None,
            binary: None,
            features: None,
            problems: Vec::new(),
            breaks_libvirt: false,
            path,
        };
        if descriptor.note_if_untrusted(&descriptor.path.clone()) {
            return descriptor;
        }
        match read(&descriptor.path) {
            Ok(text) if text.is_empty() => descriptor.state = DescriptorState::Mask,
            Ok(text) => descriptor.check_content(&text),
            Err(error) => {
                descriptor.add_problem(format!("it cannot be read: {error}"));
                descriptor.breaks_libvirt = is_of_system(&descriptor.path);
            }
        }
        if descriptor.name == file_name && descriptor.state != DescriptorState::Mask {
            descriptor.add_problem("its name does not end with .json".to_owned());
        }
        descriptor
    }

    fn check_content(&mut self, text: &str) {
        // The members of a file that is not valid are shown as well.
        let lenient = serde_json::from_str::<Value>(text).ok();
        let member = |name: &str| Some(lenient.as_ref()?.get(name)?.as_str()?.to_owned());
        self.device_type = member("type");
        self.description = member("description");
        self.binary = member("binary").map(PathBuf::from);
        match serde_json::from_str::<BackendDescription>(text) {
            Ok(content) => {
                if let Err(problem) = content.device_type.parse::<DeviceType>() {
                    self.add_problem(problem.to_string());
                    self.breaks_libvirt = is_of_system(&self.path);
                }
                if let Some(problem) = program_problem(&content.binary) {
                    self.add_problem(problem);
                } else {
                    self.note_if_untrusted(&content.binary);
                }
            }
            Err(error) => {
                self.add_problem(format!("it is not a valid descriptor: {error}"));
                // libvirt can do without a description.
                let enough = self.device_type.is_some() && self.binary.is_some();
                self.breaks_libvirt = is_of_system(&self.path) && !enough;
            }
        }
    }

    /// Records a problem if other users can change what is at a path, and returns whether they can. Descriptors of the
    /// system are up to root.
    fn note_if_untrusted(&mut self, path: &Path) -> bool {
        let why = if is_of_system(&self.path) {
            None
        } else {
            trust::why_untrusted(path)
        };
        why.map(|why| self.add_problem(format!("it is not trusted: {why}")))
            .is_some()
    }

    fn add_problem(&mut self, text: String) {
        self.state = DescriptorState::Broken;
        self.problems.push(text);
    }

    /// Whether a name on the command line selects it: that of the file, with or without its number, or that of the
    /// program.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let unnumbered = self.name.trim_start_matches(|c: char| c.is_ascii_digit());
        let program = self.binary.as_deref().and_then(Path::file_name);
        self.name == name
            || unnumbered.strip_prefix('-') == Some(name)
            || program.is_some_and(|program| program == name)
    }
}

/// Whether libvirt searches the folder of a file.
fn is_of_system(path: &Path) -> bool {
    path.parent().is_some_and(|folder| {
        folder.ends_with("etc/qemu/vhost-user") || folder.ends_with("usr/share/qemu/vhost-user")
    })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // Reading a pipe would block.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    fs::File::open(path)?
        .take(SIZE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Why a program cannot be run, if that can be seen without running it.
fn program_problem(binary: &Path) -> Option<String> {
    let shown = binary.display();
    if !binary.is_absolute() {
        return Some(format!("its program '{shown}' is not an absolute path"));
    }
    match binary.metadata() {
        Err(error) => Some(format!("its program {shown} cannot be found: {error}")),
        Ok(data) if !data.is_file() || data.permissions().mode() & 0o111 == 0 => {
            Some(format!("its program {shown} is not executable"))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests;
