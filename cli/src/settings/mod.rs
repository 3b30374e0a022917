//! What the drop-ins of an instance say: its device, its options, its backend.
//!
//! vhostctl writes one file per instance, `50-vhostctl.conf`, and reads all that count, also those
//! of `systemctl edit`: what somebody set by hand is as true as what was added here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use conventions::{EVDEV_PATH, GpuMemory, OPTIONS, parse_size};

use crate::instance::{Instance, UnitKind, UnitType};
use crate::unit_file::{self, Assignment, expand, quoted, variable_word, words};
use crate::values::{self, ValueError};

/// The name of our file. systemd reads drop-ins by name: `override.conf`, which is what
/// `systemctl edit` makes, comes after it and counts more.
pub(crate) const FILE_NAME: &str = "50-vhostctl.conf";
/// A section of ours, which systemd leaves alone as its name begins with "X-".
const SECTION: &str = "X-vhostctl";
/// The highest number of characters of a user's name.
const USER_MAX: usize = 31;

/// Where systemd's unit files are.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    search: Vec<PathBuf>,
    write: PathBuf,
}

impl Folders {
    /// Those of the system's manager; SYSTEMD_UNIT_PATH is honoured as systemd does (systemd(1)).
    pub(crate) fn system() -> Self {
        const WRITE: &str = "/etc/systemd/system";
        const DEFAULT: [&str; 8] = [
            "/etc/systemd/system.control",
            "/run/systemd/system.control",
            "/run/systemd/transient",
            WRITE,
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ];
        let default = || DEFAULT.iter().map(PathBuf::from);
        let Some(path) = env::var_os("SYSTEMD_UNIT_PATH") else {
            return Self {
                search: default().collect(),
                write: WRITE.into(),
            };
        };
        let mut search = Vec::new();
        for part in env::split_paths(&path) {
            if part.as_os_str().is_empty() {
                search.extend(default());
            } else {
                search.push(part);
            }
        }
        let write = search.first().cloned().unwrap_or_else(|| WRITE.into());
        Self { search, write }
    }

    /// Those that are searched, the most important first.
    pub(crate) fn search(&self) -> &[PathBuf] {
        &self.search
    }

    /// Our file for one unit of an instance.
    pub(crate) fn own_file(&self, instance: &Instance, unit_type: UnitType) -> PathBuf {
        self.drop_in_folder(instance, unit_type).join(FILE_NAME)
    }

    /// The administrator's folder for the drop-ins of a unit.
    pub(crate) fn drop_in_folder(&self, instance: &Instance, unit_type: UnitType) -> PathBuf {
        self.write.join(format!("{}.d", instance.unit(unit_type)))
    }

    /// Every file that makes a service what it is, in the order in which systemd reads them.
    fn files(&self, instance: &Instance) -> Vec<PathBuf> {
        let names = [
            instance.unit(UnitType::Service),
            format!("{}@.service", instance.kind().template()),
        ];
        let in_order = || {
            names
                .iter()
                .flat_map(|name| self.search.iter().map(move |folder| (folder, name)))
        };
        let mut files: Vec<_> = in_order()
            .map(|(folder, name)| folder.join(name))
            .find(|path| path.is_file())
            .into_iter()
            .collect();
        // Of drop-ins with the same name, the first one hides the others.
        let mut drop_ins = BTreeMap::new();
        for (folder, name) in in_order() {
            let entries = folder.join(format!("{name}.d")).read_dir();
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    drop_ins.entry(entry.file_name()).or_insert(path);
                }
            }
        }
        files.extend(drop_ins.into_values());
        files
    }
}

/// What there is to say about an instance besides its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The type of device, where the kind of unit does not tell.
    pub device_type: Option<String>,
    /// The backend, by the name of its descriptor or its program, where that goes for the unit.
    pub backend: Option<String>,
    /// The device of the host that it opens.
    pub device: Option<String>,
    /// Further options of the program: words.
    pub options: Vec<String>,
    /// The whole command line, where that is not the template's.
    pub command: Vec<String>,
    /// Device nodes that it may open besides.
    pub nodes: Vec<String>,
    /// The user that it runs as, where that is not a dynamic one.
    pub user: Option<String>,
    /// Further assignments of the service, which are not read back.
    pub service: Vec<(&'static str, String)>,
}

impl Settings {
    /// Those in effect; what cannot be read is as good as not there.
    pub(crate) fn read(folders: &Folders, instance: &Instance) -> Self {
        let assignments = folders
            .files(instance)
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .flat_map(|text| unit_file::parse(&text))
            .collect::<Vec<_>>();
        Self::from_assignments(&assignments, instance)
    }

    fn from_assignments(assignments: &[Assignment], instance: &Instance) -> Self {
        let specifier = instance.specifier();
        let mut dynamic = true;
        let mut settings = Self::default();
        let mut environment = BTreeMap::new();
        for Assignment {
            section,
            key,
            value,
        } in assignments
        {
            let plain = expand(value, &specifier);
            match (section.as_str(), key.as_str()) {
                (SECTION, "Type") => settings.device_type = Some(words(&plain).join(" ")),
                (SECTION, "Backend") => settings.backend = Some(words(&plain).join(" ")),
                ("Service", "Environment") if value.is_empty() => environment.clear(),
                ("Service", "Environment") => environment.extend(
                    words(&plain)
                        .iter()
                        .filter_map(|word| word.split_once('='))
                        .map(|(name, value)| (name.to_owned(), value.to_owned())),
                ),
                ("Service", "ExecStart") if instance.kind() == UnitKind::Backend => {
                    settings.command = words(&plain)
                        .iter()
                        .map(|word| unit_file::from_command_word(word))
                        .collect();
                }
                ("Service", "DeviceAllow") if value.is_empty() => settings.nodes.clear(),
                ("Service", "DeviceAllow") => {
                    settings.nodes.extend(words(&plain).into_iter().take(1))
                }
                ("Service", "User") => settings.user = Some(plain),
                ("Service", "DynamicUser") => dynamic = plain != "no",
                _ => {}
            }
        }
        let options = environment.remove(OPTIONS).unwrap_or_default();
        for word in unit_file::variable_words(&options) {
            match word.strip_prefix("--render-node=") {
                Some(path) if instance.kind() == UnitKind::Gpu => {
                    settings.device = Some(path.to_owned());
                }
                _ => settings.options.push(word),
            }
        }
        if instance.kind() == UnitKind::Input {
            settings.device = environment
                .remove(EVDEV_PATH)
                .filter(|path| !path.is_empty());
        }
        settings.user = match settings.user.filter(|user| !user.is_empty()) {
            _ if dynamic => None,
            None => Some("root".to_owned()),
            user => user,
        };
        let device = settings.device.clone();
        settings.nodes.retain(|node| Some(node) != device.as_ref());
        settings
    }

    /// The text of our file.
    ///
    /// # Errors
    /// A value that no unit file can hold, or that would mean something else there.
    pub(crate) fn text(&self, instance: &Instance) -> Result<String, ValueError> {
        self.check()?;
        let mut text = head(instance, &instance.unit(UnitType::Service));
        let record = [("Type", &self.device_type), ("Backend", &self.backend)];
        let record = record
            .into_iter()
            .filter_map(|(key, value)| Some((key, quoted(value.as_deref()?))));
        section(&mut text, SECTION, record.collect());
        let mut service = self.service(instance);
        if instance.kind() == UnitKind::Gpu {
            let virgl = self.options.iter().any(|option| option == "--virgl");
            if virgl {
                service.extend(opengl());
            }
            if let Some(most) = self.memory_max(virgl) {
                service.retain(|(key, _)| key != "MemoryMax");
                service.push(("MemoryMax".into(), most));
            }
        }
        section(&mut text, "Service", service);
        Ok(text)
    }

    fn check(&self) -> Result<(), ValueError> {
        for node in self.device.iter().chain(&self.nodes) {
            values::check_node(node)?;
        }
        for option in &self.options {
            values::check_text(option)?;
        }
        if let Some(program) = self.command.first() {
            values::check_program(program)?;
        }
        for (_, value) in &self.service {
            values::check_text(value)?;
        }
        self.user.as_deref().map_or(Ok(()), values::check_user)
    }

    /// The MemoryMax= for resources that take more than the unit was made for: without, the guest's
    /// GPU would be killed before its budget is used up.
    fn memory_max(&self, virgl: bool) -> Option<String> {
        let memory = if virgl {
            GpuMemory::VIRGL
        } else {
            GpuMemory::TWO_D
        };
        let hostmem = self
            .options
            .iter()
            .rev()
            .find_map(|option| parse_size(option.strip_prefix("--max-hostmem=")?).ok())
            .filter(|hostmem| *hostmem > memory.max_hostmem)?;
        Some(format!("{}M", memory.memory_max_mib(hostmem)))
    }

    /// The assignments of the section Service.
    fn service(&self, instance: &Instance) -> Vec<(Cow<'static, str>, String)> {
        let mut keys: Vec<(&'static str, String)> = Vec::new();
        let mut options = self.options.clone();
        match (&self.device, instance.kind()) {
            (Some(device), UnitKind::Input) => {
                keys.push(("Environment", quoted(&format!("{EVDEV_PATH}={device}"))));
            }
            (Some(device), UnitKind::Gpu) => {
                options.insert(0, format!("--render-node={device}"));
                keys.push(("PrivateDevices", "no".to_owned()));
                keys.push(("SupplementaryGroups", "render".to_owned()));
            }
            _ => {}
        }
        if !options.is_empty() {
            let options: Vec<_> = options.iter().map(|it| variable_word(it)).collect();
            let options = format!("{OPTIONS}={}", options.join(" "));
            keys.push(("Environment", quoted(&options)));
        }
        if !self.command.is_empty() {
            let words: Vec<_> = self
                .command
                .iter()
                .map(|word| unit_file::command_word(word))
                .collect();
            keys.push(("ExecStart", String::new()));
            keys.push(("ExecStart", words.join(" ")));
        }
        for node in self.device.iter().chain(&self.nodes) {
            keys.push(("DeviceAllow", format!("{} rw", quoted(node))));
        }
        match &self.user {
            // One that exists already. Root is the default without a dynamic one. systemd 257 takes CAP_SETUID
            // away where User=root is said and NoNewPrivileges=yes.
            Some(user) => {
                keys.push(("DynamicUser", "no".to_owned()));
                let user = if is_root(user) { "" } else { user };
                keys.push(("User", percent(user)));
            }
            None => keys.extend(dynamic_user(instance).map(|user| ("User", user))),
        }
        keys.into_iter()
            .chain(self.service.iter().cloned())
            .map(|(key, value)| (key.into(), value))
            .collect()
    }
}

/// The program that the template of an instance has put before one that takes a connected socket.
pub(crate) fn accept_program(folders: &Folders, instance: &Instance) -> Option<PathBuf> {
    let files = folders.files(instance);
    let texts = files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| unit_file::parse(&text))
        .rfind(|it| it.section == SECTION && it.key == "Accept")
        .map(|it| PathBuf::from(expand(&it.value, &instance.specifier())))
}

/// Whether a user is root, by name or number.
pub(crate) fn is_root(user: &str) -> bool {
    matches!(user, "root" | "0")
}

/// How our file for a unit begins.
pub(crate) fn head(instance: &Instance, unit: &str) -> String {
    format!(
        "# Written by \"vhostctl add\", deleted by \"vhostctl remove {instance}\". Settings of your own go into a\n\
         # file beside it: systemctl edit {unit}\n"
    )
}

/// What the host's OpenGL driver needs of a unit, as the drop-in that is installed has it; but for
/// the options, which are the instance's own.
fn opengl() -> impl Iterator<Item = (Cow<'static, str>, String)> {
    unit_file::parse(include_str!("../../../systemd/vhost-user-gpu-virgl.conf"))
        .into_iter()
        .filter(|Assignment { key, value, .. }| {
            let is_options = value
                .strip_prefix(OPTIONS)
                .is_some_and(|rest| rest.starts_with('='));
            key != "Environment" || !is_options
        })
        .map(|Assignment { key, value, .. }| (key.into(), value))
}

fn section<K: AsRef<str>>(text: &mut String, name: &str, assignments: Vec<(K, String)>) {
    if assignments.is_empty() {
        return;
    }
    text.push_str(&format!("\n[{name}]\n"));
    for (key, value) in assignments {
        text.push_str(&format!("{}={value}\n", key.as_ref()));
    }
}

/// Takes a value from being read for specifiers.
pub(crate) fn percent(value: &str) -> String {
    value.replace('%', "%%")
}

/// The name of a user for this instance alone; none where the one in the template will do.
fn dynamic_user(instance: &Instance) -> Option<String> {
    let kind = match instance.kind() {
        UnitKind::Gpu => "gpu",
        UnitKind::Input => "input",
        UnitKind::Backend => "dev",
    };
    let joined = match instance.name() {
        Some(name) => format!("{}-{name}", instance.vm()),
        None => instance.vm().to_owned(),
    };
    let plain = format!("vu-{kind}-{joined}");
    let parts = [Some(instance.vm()), instance.name()];
    // "a-b:c" and "a:b-c" are not to be the same user.
    let clear = instance.name().is_none() || !parts.iter().flatten().any(|part| part.contains('-'));
    if plain.len() <= USER_MAX && !joined.contains('.') && clear {
        return instance.name().map(|_| plain);
    }
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let hash = fnv1a(instance.unit(UnitType::Service).as_bytes()) & 0xffff_ffff_ffff;
    let room = USER_MAX.saturating_sub("vu--".len() + kind.len() + "-".len() + 12);
    let start: String = joined
        .chars()
        .map(safe)
        .take(room.saturating_add(1))
        .collect();
    Some(format!(
        "vu-{kind}-{}-{hash:012x}",
        start.get(..room).unwrap_or(&start)
    ))
}

/// The FNV-1a hash, 64 bits: the same on every machine and in every version, unlike the standard
/// library's.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
