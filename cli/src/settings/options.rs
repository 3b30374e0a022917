//! The options of our own programs, as the units pass them: in `$OPTIONS` and `$EVDEV_PATH`. The only place that
//! reads or writes them.

use std::str::FromStr;

use conventions::{EVDEV_PATH, OPTIONS, SizeError, parse_size};

use crate::instance::UnitKind;
use crate::unit_syntax::{Directive, quoted, variable_word, variable_words};

const RENDER_NODE: &str = "--render-node=";
const VIRGL: &str = "--virgl";
const MAX_HOSTMEM: &str = "--max-hostmem=";
const NO_GRAB: &str = "--no-grab";

/// The options of a program, by the kind of its unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProgramOptions {
    /// Those of another program are words of its command line.
    #[default]
    None,
    Gpu(GpuOptions),
    Input(InputOptions),
}

/// Options of vhost-user-gpu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GpuOptions {
    pub render_node: Option<String>,
    pub virgl: bool,
    pub max_hostmem: Option<MaxHostmem>,
    /// Options that vhostctl does not set.
    pub others: Vec<String>,
}

/// Options of vhost-user-input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputOptions {
    pub evdev_path: Option<String>,
    pub no_grab: bool,
    /// Options that vhostctl does not set.
    pub others: Vec<String>,
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
            UnitKind::Gpu => Self::Gpu(GpuOptions::from_words(words)),
            UnitKind::Input => {
                let path = variable(EVDEV_PATH).filter(|path| !path.is_empty());
                Self::Input(InputOptions::from_words(path, words))
            }
            UnitKind::Program => Self::None,
        }
    }

    /// The assignments by which a unit passes them.
    pub(crate) fn environment(&self) -> Vec<Directive> {
        let (path, words) = match self {
            Self::None => (None, Vec::new()),
            Self::Gpu(options) => (None, options.words()),
            Self::Input(options) => (options.evdev_path.as_ref(), options.words()),
        };
        let path = path.map(|path| format!("{EVDEV_PATH}={path}"));
        let words: Vec<_> = words.iter().map(|word| variable_word(word)).collect();
        let words = (!words.is_empty()).then(|| format!("{OPTIONS}={}", words.join(" ")));
        path.into_iter()
            .chain(words)
            .map(|assignment| Directive::new("Environment", quoted(&assignment)))
            .collect()
    }

    /// All words, except for the path of an input device.
    pub(crate) fn words(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Gpu(options) => options.words(),
            Self::Input(options) => options.words(),
        }
    }

    /// The device of the host that the program opens.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Gpu(options) => options.render_node.as_deref(),
            Self::Input(options) => options.evdev_path.as_deref(),
        }
    }
}

impl GpuOptions {
    fn from_words(words: Vec<String>) -> Self {
        let mut options = Self::default();
        for word in words {
            let hostmem = word.strip_prefix(MAX_HOSTMEM).map(str::parse);
            if let Some(path) = word.strip_prefix(RENDER_NODE) {
                options.render_node = Some(path.to_owned());
            } else if word == VIRGL {
                options.virgl = true;
            } else if let Some(Ok(hostmem)) = hostmem {
                options.max_hostmem = Some(hostmem);
            } else {
                options.others.push(word);
            }
        }
        options.render_node = options.render_node.filter(|path| !path.is_empty());
        options
    }

    fn words(&self) -> Vec<String> {
        let node = self.render_node.iter();
        let hostmem = self.max_hostmem.iter();
        node.map(|path| format!("{RENDER_NODE}{path}"))
            .chain(self.virgl.then(|| VIRGL.to_owned()))
            .chain(hostmem.map(|size| format!("{MAX_HOSTMEM}{}", size.text)))
            .chain(self.others.iter().cloned())
            .collect()
    }
}

impl InputOptions {
    fn from_words(path: Option<&str>, words: Vec<String>) -> Self {
        let (no_grab, others): (Vec<_>, _) = words.into_iter().partition(|word| word == NO_GRAB);
        Self {
            evdev_path: path.map(str::to_owned),
            no_grab: !no_grab.is_empty(),
            others,
        }
    }

    fn words(&self) -> Vec<String> {
        let no_grab = self.no_grab.then(|| NO_GRAB.to_owned());
        no_grab
            .into_iter()
            .chain(self.others.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: UnitKind, variables: &[&str]) -> ProgramOptions {
        let variables: Vec<_> = variables.iter().map(ToString::to_string).collect();
        ProgramOptions::from_environment(kind, &variables)
    }

    #[test]
    fn device_is_read_from_the_environment() {
        let device = |kind, variables: &[&str]| {
            let options = options(kind, variables);
            options.device().map(str::to_owned)
        };
        let input = ["OPTIONS=--no-grab", "EVDEV_PATH=/dev/input/event3"];
        assert_eq!(
            device(UnitKind::Input, &input).as_deref(),
            Some("/dev/input/event3")
        );
        let gpu = [
            "OPTIONS=",
            "OPTIONS=--virgl --render-node=/dev/dri/renderD129",
        ];
        assert_eq!(
            device(UnitKind::Gpu, &gpu).as_deref(),
            Some("/dev/dri/renderD129")
        );
        assert_eq!(
            device(UnitKind::Input, &["OPTIONS=--no-grab", "EVDEV_PATH="]),
            None
        );
        for kind in UnitKind::ALL {
            assert_eq!(device(kind, &[]), None);
        }
    }

    #[test]
    fn options_are_written_as_they_are_read() {
        for (kind, variables) in [
            (
                UnitKind::Gpu,
                "OPTIONS=--render-node=/dev/a --virgl --max-hostmem=4g --sandbox=off",
            ),
            (
                UnitKind::Gpu,
                "OPTIONS=--max-hostmem=none --render-node-of=x",
            ),
            (UnitKind::Input, "OPTIONS=--no-grab --log-level=debug"),
        ] {
            let options = options(kind, &[variables]);
            let written = options.environment();
            assert_eq!(written.len(), 1, "{variables}");
            let words = variables.strip_prefix("OPTIONS=").expect("a variable");
            assert_eq!(options.words().join(" "), words);
        }
        let gpu = options(UnitKind::Gpu, &["OPTIONS=--max-hostmem=4g"]);
        let ProgramOptions::Gpu(gpu) = gpu else {
            panic!("not a GPU's");
        };
        assert_eq!(gpu.max_hostmem.map(|size| size.bytes()), Some(4 << 30));
    }
}
