//! Installed backends: the descriptors that QEMU's conventions have programs bring along
//! (docs/interop/vhost-user.rst, "Backend program conventions"; vhost-user.json for their content).

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

pub(crate) use probe::probe;
pub(crate) use trust::distrust;

/// The folders of the whole system, the most specific first. libvirt reads these two.
const SYSTEM: [&str; 2] = ["/etc/qemu/vhost-user", "/usr/share/qemu/vhost-user"];
/// A descriptor is a few lines; what is longer is none.
const SIZE_MAX: u64 = 64 << 10;

/// A file in one of the folders, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Descriptor {
    /// The name of the file without `.json`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it counts.
    pub state: DescriptorState,
    /// The file that hides or masks it.
    pub by: Option<PathBuf>,
    /// The type of device, as the file has it.
    #[serde(rename = "type")]
    pub device_type: Option<String>,
    /// What it says of itself.
    pub description: Option<String>,
    /// The program.
    pub binary: Option<PathBuf>,
    /// What the program can do, as far as it was asked and answered.
    pub features: Option<Vec<String>>,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Whether libvirt starts no vhost-user GPU at all because of it.
    pub breaks_libvirt: bool,
}

/// What a descriptor is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DescriptorState {
    /// It counts, and its program answers.
    Usable,
    /// It would count if it were in order.
    Broken,
    /// A file of the same name in a more specific folder counts in its place.
    Hidden,
    /// An empty file of the same name in a more specific folder takes it away.
    Masked,
    /// Such an empty file.
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

/// The folders to search, the most specific first. The caller's own is one of them if it is the caller's.
pub(crate) fn folders() -> Vec<PathBuf> {
    own_folder()
        .filter(|folder| trust::distrust(folder).is_none())
        .into_iter()
        .chain(SYSTEM.iter().map(PathBuf::from))
        .collect()
}

/// Why the folder that HOME or XDG_CONFIG_HOME names is not searched, although something is there.
pub(crate) fn left_out() -> Option<String> {
    let folder = own_folder()?;
    folder.read_dir().ok()?.next()?.ok()?;
    let why = trust::distrust(&folder)?;
    let shown = folder.display();
    Some(format!(
        "{shown} is ignored: {why}, and descriptors name programs to run."
    ))
}

/// Where the environment says that the caller's descriptors are.
fn own_folder() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let variable = |name| env::var_os(name).map(PathBuf::from).and_then(absolute);
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("qemu/vhost-user"))
}

/// Every descriptor of these folders in QEMU's order: by name, and of one name the one that counts
/// first. Programs are asked only if `ask` is set.
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
    /// Reads a file as if it were the only one.
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
        if descriptor.is_not_ours(&descriptor.path.clone()) {
            return descriptor;
        }
        match read(&descriptor.path) {
            Ok(text) if text.is_empty() => descriptor.state = DescriptorState::Mask,
            Ok(text) => descriptor.judge(&text),
            Err(error) => {
                descriptor.problem(format!("it cannot be read: {error}"));
                descriptor.breaks_libvirt = is_of_system(&descriptor.path);
            }
        }
        if descriptor.name == file_name && descriptor.state != DescriptorState::Mask {
            descriptor.problem("its name does not end with .json".to_owned());
        }
        descriptor
    }

    fn judge(&mut self, text: &str) {
        // What can be read of a file that is not in order is shown all the same.
        let lenient = serde_json::from_str::<Value>(text).ok();
        let member = |name: &str| Some(lenient.as_ref()?.get(name)?.as_str()?.to_owned());
        self.device_type = member("type");
        self.description = member("description");
        self.binary = member("binary").map(PathBuf::from);
        match serde_json::from_str::<BackendDescription>(text) {
            Ok(content) => {
                if let Err(problem) = content.device_type.parse::<DeviceType>() {
                    self.problem(problem.to_string());
                    self.breaks_libvirt = is_of_system(&self.path);
                }
                if let Some(problem) = program_problem(&content.binary) {
                    self.problem(problem);
                } else {
                    self.is_not_ours(&content.binary);
                }
            }
            Err(error) => {
                self.problem(format!("it is not a valid descriptor: {error}"));
                // libvirt can do without a description.
                let enough = self.device_type.is_some() && self.binary.is_some();
                self.breaks_libvirt = is_of_system(&self.path) && !enough;
            }
        }
    }

    /// Whether somebody else decides what is at a path: of a user's own descriptor that is a problem. The
    /// system's are root's care.
    fn is_not_ours(&mut self, path: &Path) -> bool {
        let why = if is_of_system(&self.path) {
            None
        } else {
            trust::distrust(path)
        };
        why.map(|why| self.problem(format!("it is not trusted: {why}")))
            .is_some()
    }

    fn problem(&mut self, text: String) {
        self.state = DescriptorState::Broken;
        self.problems.push(text);
    }

    /// Whether a name on the command line means it: that of the file, with or without the number
    /// in front, or that of the program.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let unnumbered = self.name.trim_start_matches(|c: char| c.is_ascii_digit());
        let program = self.binary.as_deref().and_then(Path::file_name);
        self.name == name
            || unnumbered.strip_prefix('-') == Some(name)
            || program.is_some_and(|program| program == name)
    }
}

/// Whether a file lies where libvirt looks.
fn is_of_system(path: &Path) -> bool {
    path.parent().is_some_and(|folder| {
        folder.ends_with("etc/qemu/vhost-user") || folder.ends_with("usr/share/qemu/vhost-user")
    })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    fs::File::open(path)?
        .take(SIZE_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// What is wrong with a program before it is run.
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
