// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options of our own programs, as the units pass them: in `$OPTIONS` and `$EVDEV_PATH`. The only place that
//! reads or writes them.

use std::fmt;
use std::str::FromStr;

use conventions::{EVDEV_PATH, InputMatch, OPTIONS, SizeError, parse_size};

use super::grab::GrabToggle;
use crate::instance::UnitKind;
use crate::unit_syntax::{Directive, quoted, variable_word, variable_words};

const RENDER_NODE: &str = "--render-node=";
/// The variable that names the render node of a render server, which the GPU's program does not open.
const SERVER_NODE: &str = "RENDER_NODE";
const VIRGL: &str = "--virgl";
const VENUS: &str = "--venus";
/// Where the unit has the socket of its render server mounted.
const RENDER_SERVER: &str = "--render-server=/run/vhost-render/render.sock";
const MAX_HOSTMEM: &str = "--max-hostmem=";
const RESOLUTION: &str = "--resolution=";
const ALLOW_RESIZE: &str = "--allow-resize";
const MATCH: &str = "--evdev-match=";
const MATCH_NAME: &str = "--evdev-name=";
const MATCH_INTERFACE: &str = "--evdev-interface=";
const NO_GRAB: &str = "--no-grab";
const GRAB_TOGGLE: &str = "--grab-toggle=";
const GRAB_GROUP: &str = "--grab-group=";
const VIRTUAL: &str = "--virtual=";
const KEYBOARD_LAYOUT: &str = "--keyboard-layout=";

/// The options of a program, by the kind of its unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProgramOptions {
    /// Those of another program are words of its command line.
    #[default]
    None,
    Gpu(GpuOptions),
    Input(InputOptions),
    Vnc(VncOptions),
}

/// Options of vhost-user-gpu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GpuOptions {
    pub render_node: Option<String>,
    pub virgl: bool,
    /// Vulkan, by a render server of its own, which opens the render node.
    pub vulkan: bool,
    pub max_hostmem: Option<MaxHostmem>,
    /// The size of each head's screen where no VMM says it; empty for the program's default, one head.
    pub resolutions: Resolutions,
    /// Viewers may change the sizes where no VMM says them.
    pub allow_resize: bool,
    /// Options that vhostctl does not set.
    pub others: Vec<String>,
}

/// Options of vhost-user-input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputOptions {
    pub evdev_path: Option<String>,
    /// The device by what it says of itself, instead of a path.
    pub evdev_match: Option<InputMatch>,
    pub no_grab: bool,
    /// The chord by which the host takes the device, and gives it again.
    pub grab_toggle: Option<GrabToggle>,
    /// The file of the devices that change hands together.
    pub grab_group: Option<String>,
    /// A device without hardware, instead of one of the host.
    pub virtual_kind: Option<VirtualKind>,
    /// Options that vhostctl does not set.
    pub others: Vec<String>,
}

/// Which device of the host a program opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceAddress {
    /// The one at this path.
    Path(String),
    /// The input device that says this of itself.
    Match(InputMatch),
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Path(path) => f.pad(path),
            Self::Match(rule) => f.pad(&rule.to_string()),
        }
    }
}

/// Options of vhost-vnc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VncOptions {
    pub keyboard_layout: Option<String>,
    /// Options that vhostctl does not set.
    pub others: Vec<String>,
}

/// The value of `--virtual`: an input device that the console plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum VirtualKind {
    Keyboard,
    Tablet,
}

impl VirtualKind {
    /// All kinds, as a console has them.
    pub(crate) const ALL: [Self; 2] = [Self::Keyboard, Self::Tablet];

    /// Its name, which is also that of the console's device within the VM.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keyboard => "keyboard",
            Self::Tablet => "tablet",
        }
    }
}

/// The value of `--resolution`: the sizes of the heads' screens, in pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolutions(Vec<(u32, u32)>);

/// Why something is not a list of sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolutionError {
    #[error("'{0}' is not WIDTHxHEIGHT, such as 1920x1080")]
    Form(String),
    #[error("'{0}': a width and a height are from 1 to {SIDE_MAX}")]
    Side(String),
    #[error("a GPU has at most {HEADS_MAX} heads")]
    Heads,
}

/// The most pixels of a width or height.
const SIDE_MAX: u32 = 16384;
/// The most heads of a virtio-gpu (VIRTIO_GPU_MAX_SCANOUTS of its header).
pub(crate) const HEADS_MAX: usize = 16;
/// The size of a head that nobody named: the program's default.
const DEFAULT_SIZE: (u32, u32) = (1280, 800);

impl FromStr for Resolutions {
    type Err = ResolutionError;

    fn from_str(text: &str) -> Result<Self, ResolutionError> {
        let side = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse::<u32>().unwrap_or(u32::MAX))
        };
        let size = |size: &str| {
            let sides = size
                .split_once('x')
                .and_then(|(width, height)| Some((side(width)?, side(height)?)));
            let (width, height) = sides.ok_or_else(|| ResolutionError::Form(size.to_owned()))?;
            match [width, height]
                .iter()
                .all(|side| (1..=SIDE_MAX).contains(side))
            {
                true => Ok((width, height)),
                false => Err(ResolutionError::Side(size.to_owned())),
            }
        };
        let sizes: Vec<_> = text.split(',').map(size).collect::<Result<_, _>>()?;
        match sizes.len() > HEADS_MAX {
            true => Err(ResolutionError::Heads),
            false => Ok(Self(sizes)),
        }
    }
}

impl fmt::Display for Resolutions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let sizes: Vec<_> = self
            .0
            .iter()
            .map(|(width, height)| format!("{width}x{height}"))
            .collect();
        f.pad(&sizes.join(","))
    }
}

impl Resolutions {
    /// The number of heads.
    pub(crate) fn heads(&self) -> usize {
        self.0.len().max(1)
    }

    /// The size of the first head, unless it is the default one, which QEMU has too.
    pub(crate) fn first(&self) -> Option<(u32, u32)> {
        self.0.first().copied().filter(|size| *size != DEFAULT_SIZE)
    }

    /// With that many heads: further ones have the size of the last. `None` if there are more already.
    pub(crate) fn with_heads(mut self, heads: usize) -> Option<Self> {
        if self.0.len() > heads {
            return None;
        }
        let last = self.0.last().copied();
        // One head of the default size needs no word.
        if last.is_some() || heads > 1 {
            self.0.resize(heads, last.unwrap_or(DEFAULT_SIZE));
        }
        Some(self)
    }
}

/// The value of `--max-hostmem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaxHostmem {
    /// As the user wrote it.
    text: String,
    bytes: u64,
}

impl MaxHostmem {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl FromStr for MaxHostmem {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        Ok(Self {
            text: text.to_owned(),
            bytes: parse_size(text)?,
        })
    }
}

impl ProgramOptions {
    /// Those in the environment of a unit: assignments such as `OPTIONS=--virgl`, of which the last counts.
    pub(crate) fn from_environment(kind: UnitKind, environment: &[String]) -> Self {
        let variable = |name: &str| {
            environment
                .iter()
                .rev()
                .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
        };
        let words = variable_words(variable(OPTIONS).unwrap_or_default());
        match kind {
            UnitKind::Gpu => Self::Gpu(GpuOptions::from_words(variable(SERVER_NODE), words)),
            UnitKind::Input => {
                let path = variable(EVDEV_PATH).filter(|path| !path.is_empty());
                Self::Input(InputOptions::from_words(path, words))
            }
            UnitKind::Program => Self::None,
            UnitKind::Vnc => Self::Vnc(VncOptions::from_words(words)),
        }
    }

    /// The assignments by which a unit passes them.
    pub(crate) fn environment(&self) -> Vec<Directive> {
        let (path, words) = match self {
            Self::None => (None, Vec::new()),
            Self::Gpu(options) => {
                let node = options.render_node.as_ref().filter(|_| options.vulkan);
                (node.map(|node| (SERVER_NODE, node)), options.words())
            }
            Self::Input(options) => {
                let path = options.evdev_path.as_ref();
                (path.map(|path| (EVDEV_PATH, path)), options.words())
            }
            Self::Vnc(options) => (None, options.words()),
        };
        let path = path.map(|(name, path)| format!("{name}={path}"));
        let words: Vec<_> = words.iter().map(|word| variable_word(word)).collect();
        let words = (!words.is_empty()).then(|| format!("{OPTIONS}={}", words.join(" ")));
        path.into_iter()
            .chain(words)
            .map(|assignment| Directive::new("Environment", quoted(&assignment)))
            .collect()
    }

    /// All words, except for the path of an input device and of a render server's node.
    pub(crate) fn words(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Gpu(options) => options.words(),
            Self::Input(options) => options.words(),
            Self::Vnc(options) => options.words(),
        }
    }

    /// The number of screens of a GPU.
    pub(crate) fn heads(&self) -> usize {
        match self {
            Self::Gpu(options) => options.resolutions.heads(),
            Self::None | Self::Input(_) | Self::Vnc(_) => 1,
        }
    }

    /// The size of the first screen of a GPU, if it is not the default one.
    pub(crate) fn screen_size(&self) -> Option<(u32, u32)> {
        match self {
            Self::Gpu(options) => options.resolutions.first(),
            Self::None | Self::Input(_) | Self::Vnc(_) => None,
        }
    }

    /// Which device of the host the program opens.
    pub(crate) fn address(&self) -> Option<DeviceAddress> {
        let by_match = match self {
            Self::Input(options) => options.evdev_match.clone().map(DeviceAddress::Match),
            Self::None | Self::Gpu(_) | Self::Vnc(_) => None,
        };
        let by_path = || Some(DeviceAddress::Path(self.device()?.to_owned()));
        by_path().or(by_match)
    }

    /// The path of the device of the host that the program opens.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Self::None | Self::Vnc(_) => None,
            Self::Gpu(options) => options.render_node.as_deref(),
            Self::Input(options) => options.evdev_path.as_deref(),
        }
    }

    /// What the service may open for that: the device or, where that is an input device that is not named by its node, all input
    /// devices (`DeviceAllow=` knows no single one but by its number, which another time it comes back is another one).
    pub(crate) fn allowed_devices(&self) -> Option<&str> {
        match (self, self.device()) {
            (Self::Input(_), Some(device)) if !is_input_node(device) => Some(ALL_INPUT_DEVICES),
            (Self::Input(options), None) if options.evdev_match.is_some() => {
                Some(ALL_INPUT_DEVICES)
            }
            (Self::Gpu(options), _) if options.vulkan => None,
            (_, device) => device,
        }
    }
}

/// All input devices, for `DeviceAllow=`.
const ALL_INPUT_DEVICES: &str = "char-input";

/// Whether a path is a node by its number, and no lasting name.
fn is_input_node(path: &str) -> bool {
    let number = path.strip_prefix("/dev/input/event");
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

impl GpuOptions {
    fn from_words(server_node: Option<&str>, words: Vec<String>) -> Self {
        let mut options = Self::default();
        for word in words {
            let hostmem = word.strip_prefix(MAX_HOSTMEM).map(str::parse);
            let resolutions = word.strip_prefix(RESOLUTION).map(str::parse);
            if let Some(path) = word.strip_prefix(RENDER_NODE) {
                options.render_node = Some(path.to_owned());
            } else if word == VIRGL {
                options.virgl = true;
            } else if word == VENUS {
                options.vulkan = true;
            } else if word == RENDER_SERVER {
                // Comes with Vulkan.
            } else if word == ALLOW_RESIZE {
                options.allow_resize = true;
            } else if let Some(Ok(hostmem)) = hostmem {
                options.max_hostmem = Some(hostmem);
            } else if let Some(Ok(resolutions)) = resolutions {
                options.resolutions = resolutions;
            } else {
                options.others.push(word);
            }
        }
        if options.vulkan {
            options.render_node = server_node.map(str::to_owned);
        }
        options.render_node = options.render_node.filter(|path| !path.is_empty());
        options
    }

    fn words(&self) -> Vec<String> {
        let node = self.render_node.iter().filter(|_| !self.vulkan);
        // Unless somebody named another one.
        let is_other = |word: &String| word.starts_with("--render-server");
        let server = (!self.others.iter().any(is_other)).then_some(RENDER_SERVER);
        let venus = self.vulkan.then_some([Some(VENUS), server]);
        let venus = venus.into_iter().flatten().flatten();
        let hostmem = self.max_hostmem.iter();
        let resolutions = Some(&self.resolutions).filter(|sizes| **sizes != Resolutions::default());
        node.map(|path| format!("{RENDER_NODE}{path}"))
            .chain(self.virgl.then(|| VIRGL.to_owned()))
            .chain(venus.map(str::to_owned))
            .chain(hostmem.map(|size| format!("{MAX_HOSTMEM}{}", size.text)))
            .chain(resolutions.map(|sizes| format!("{RESOLUTION}{sizes}")))
            .chain(self.allow_resize.then(|| ALLOW_RESIZE.to_owned()))
            .chain(self.others.iter().cloned())
            .collect()
    }
}

impl InputOptions {
    fn from_words(path: Option<&str>, words: Vec<String>) -> Self {
        let mut options = Self {
            evdev_path: path.map(str::to_owned),
            ..Self::default()
        };
        for word in words {
            let kind = word.strip_prefix(VIRTUAL).and_then(|name| {
                VirtualKind::ALL
                    .into_iter()
                    .find(|kind| kind.name() == name)
            });
            let ids = word.strip_prefix(MATCH).map(str::parse);
            let rule = options.evdev_match.as_mut();
            let toggle = word.strip_prefix(GRAB_TOGGLE).and_then(GrabToggle::parse);
            if word == NO_GRAB {
                options.no_grab = true;
            } else if toggle.is_some() {
                options.grab_toggle = toggle;
            } else if let Some(file) = word.strip_prefix(GRAB_GROUP) {
                options.grab_group = Some(file.to_owned());
            } else if let Some(Ok(ids)) = ids {
                options.evdev_match = Some(InputMatch::new(ids));
            } else if let (Some(name), Some(rule)) = (word.strip_prefix(MATCH_NAME), rule) {
                rule.name = Some(name.to_owned());
            } else if let (Some(end), Some(rule)) = (
                word.strip_prefix(MATCH_INTERFACE),
                options.evdev_match.as_mut(),
            ) {
                rule.interface = Some(end.to_owned());
            } else if let Some(kind) = kind {
                options.virtual_kind = Some(kind);
            } else {
                options.others.push(word);
            }
        }
        options
    }

    fn words(&self) -> Vec<String> {
        let no_grab = self.no_grab.then(|| NO_GRAB.to_owned());
        let kind = self.virtual_kind.iter();
        let rule = self.evdev_match.iter().flat_map(|rule| {
            let name = rule.name.iter().map(|name| format!("{MATCH_NAME}{name}"));
            let interface = rule.interface.iter();
            let interface = interface.map(|end| format!("{MATCH_INTERFACE}{end}"));
            let ids = format!("{MATCH}{}", rule.ids);
            std::iter::once(ids).chain(name).chain(interface)
        });
        let toggle = self.grab_toggle.iter();
        let group = self.grab_group.iter();
        rule.chain(kind.map(|kind| format!("{VIRTUAL}{}", kind.name())))
            .chain(no_grab)
            .chain(toggle.map(|toggle| format!("{GRAB_TOGGLE}{}", toggle.name())))
            .chain(group.map(|file| format!("{GRAB_GROUP}{file}")))
            .chain(self.others.iter().cloned())
            .collect()
    }
}

impl VncOptions {
    fn from_words(words: Vec<String>) -> Self {
        let mut options = Self::default();
        for word in words {
            match word.strip_prefix(KEYBOARD_LAYOUT) {
                Some(layout) => options.keyboard_layout = Some(layout.to_owned()),
                None => options.others.push(word),
            }
        }
        options
    }

    fn words(&self) -> Vec<String> {
        let layout = self.keyboard_layout.iter();
        layout
            .map(|layout| format!("{KEYBOARD_LAYOUT}{layout}"))
            .chain(self.others.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests;
