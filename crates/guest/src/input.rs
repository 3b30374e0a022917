// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Input devices in a stable text form.
//!
//! The text is what the guest's `evdev-list` prints and what the mock devices are
//! made from, so "the guest sees what the host has" is one comparison of strings.
//! One statement a line, codes as decimal numbers or ranges of them (the codes of
//! `linux/input-event-codes.h`):
//!
//! ```text
//! name USB Mouse
//! id 0003 046d c077 0111          bus, vendor, product, version (hexadecimal)
//! uniq 0815                       if there is one
//! prop 0                          INPUT_PROP_*
//! key 272-274                     and so on: rel, msc, sw, led, snd
//! abs 0 0 32767 0 0 40            code, minimum, maximum, fuzz, flat, resolution
//! rep                             the device repeats keys
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use evdev::raw_stream::RawDevice;
use evdev::{AbsoluteAxisCode, EventType};

/// Range of one absolute axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Axis {
    /// Smallest value.
    pub minimum: i32,
    /// Largest value.
    pub maximum: i32,
    /// Noise that the kernel filters out.
    pub fuzz: i32,
    /// Width of the dead zone in the middle.
    pub flat: i32,
    /// Units per millimetre (or per radian).
    pub resolution: i32,
}

/// What an input device says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Name (`EVIOCGNAME`).
    pub name: String,
    /// Bus, vendor, product and version (`EVIOCGID`).
    pub id: [u16; 4],
    /// Serial number or other unique name (`EVIOCGUNIQ`).
    pub uniq: String,
    /// Properties (`EVIOCGPROP`).
    pub props: BTreeSet<u16>,
    /// Codes by event type (`EVIOCGBIT`), for all types of [`KINDS`].
    pub codes: BTreeMap<&'static str, BTreeSet<u16>>,
    /// Absolute axes (`EVIOCGABS`).
    pub axes: BTreeMap<u16, Axis>,
    /// Whether keys repeat (`EV_REP`).
    pub repeats: bool,
}

/// Event types that are nothing but a set of codes, in the order of the text form.
pub const KINDS: [(&str, EventType); 6] = [
    ("key", EventType::KEY),
    ("rel", EventType::RELATIVE),
    ("msc", EventType::MISC),
    ("sw", EventType::SWITCH),
    ("led", EventType::LED),
    ("snd", EventType::SOUND),
];

/// The name of an event type in the text form; its number if it has none.
#[must_use]
pub fn kind_name(kind: EventType) -> String {
    match kind {
        EventType::SYNCHRONIZATION => "syn".to_owned(),
        EventType::ABSOLUTE => "abs".to_owned(),
        _ => KINDS
            .iter()
            .find(|(_, known)| *known == kind)
            .map_or_else(|| kind.0.to_string(), |(name, _)| (*name).to_owned()),
    }
}

impl Description {
    /// Asks the device.
    ///
    /// # Errors
    ///
    /// If the ranges of its axes cannot be read.
    pub fn of(device: &RawDevice) -> std::io::Result<Self> {
        let mut codes = BTreeMap::new();
        for (name, kind) in KINDS {
            let set: BTreeSet<u16> = match kind {
                EventType::KEY => numbers(device.supported_keys(), |code| code.0),
                EventType::RELATIVE => numbers(device.supported_relative_axes(), |code| code.0),
                EventType::MISC => numbers(device.misc_properties(), |code| code.0),
                EventType::SWITCH => numbers(device.supported_switches(), |code| code.0),
                EventType::LED => numbers(device.supported_leds(), |code| code.0),
                _ => numbers(device.supported_sounds(), |code| code.0),
            };
            if !set.is_empty() {
                codes.insert(name, set);
            }
        }
        let axes = if device.supported_absolute_axes().is_some() {
            device
                .get_absinfo()?
                .map(|(code, info): (AbsoluteAxisCode, _)| {
                    let axis = Axis {
                        minimum: info.minimum(),
                        maximum: info.maximum(),
                        fuzz: info.fuzz(),
                        flat: info.flat(),
                        resolution: info.resolution(),
                    };
                    (code.0, axis)
                })
                .collect()
        } else {
            BTreeMap::new()
        };
        let id = device.input_id();
        Ok(Self {
            name: device.name().unwrap_or_default().to_owned(),
            id: [id.bus_type().0, id.vendor(), id.product(), id.version()],
            uniq: device.unique_name().unwrap_or_default().to_owned(),
            props: numbers(Some(device.properties()), |code| code.0),
            codes,
            axes,
            repeats: device.supported_events().contains(EventType::REPEAT),
        })
    }
}

/// The codes of one of evdev's attribute sets as plain numbers.
fn numbers<T: evdev::EvdevEnum>(
    set: Option<&evdev::AttributeSetRef<T>>,
    number: impl Fn(T) -> u16,
) -> BTreeSet<u16> {
    set.into_iter()
        .flat_map(evdev::AttributeSetRef::iter)
        .map(number)
        .collect()
}

/// Writes ` 1-3 7` for 1, 2, 3 and 7.
fn write_ranges(f: &mut fmt::Formatter<'_>, codes: &BTreeSet<u16>) -> fmt::Result {
    let mut codes = codes.iter().copied().peekable();
    while let Some(first) = codes.next() {
        let mut last = first;
        while let Some(next) = codes.next_if(|&next| Some(next) == last.checked_add(1)) {
            last = next;
        }
        if first == last {
            write!(f, " {first}")?;
        } else {
            write!(f, " {first}-{last}")?;
        }
    }
    writeln!(f)
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bus, vendor, product, version] = self.id;
        writeln!(f, "name {}", self.name)?;
        writeln!(f, "id {bus:04x} {vendor:04x} {product:04x} {version:04x}")?;
        if !self.uniq.is_empty() {
            writeln!(f, "uniq {}", self.uniq)?;
        }
        if !self.props.is_empty() {
            write!(f, "prop")?;
            write_ranges(f, &self.props)?;
        }
        for (name, _) in KINDS {
            if let Some(codes) = self.codes.get(name) {
                write!(f, "{name}")?;
                write_ranges(f, codes)?;
            }
        }
        for (code, axis) in &self.axes {
            let Axis {
                minimum,
                maximum,
                fuzz,
                flat,
                resolution,
            } = axis;
            writeln!(
                f,
                "abs {code} {minimum} {maximum} {fuzz} {flat} {resolution}"
            )?;
        }
        if self.repeats {
            writeln!(f, "rep")?;
        }
        Ok(())
    }
}

/// A line that is no statement of the text form.
#[derive(Debug, thiserror::Error)]
#[error("input device description, line {line}: cannot read {text:?}")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl FromStr for Description {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut description = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                description.read_statement(line).ok_or_else(|| ParseError {
                    line: index + 1,
                    text: line.to_owned(),
                })?;
            }
        }
        Ok(description)
    }
}

impl Description {
    fn read_statement(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "name" => self.name = rest.to_owned(),
            "uniq" => self.uniq = rest.to_owned(),
            "rep" if rest.is_empty() => self.repeats = true,
            "prop" => self.props = read_ranges(rest)?,
            "id" => {
                let parts = rest
                    .split_whitespace()
                    .map(|part| u16::from_str_radix(part, 16).ok());
                self.id = parts.collect::<Option<Vec<_>>>()?.try_into().ok()?;
            }
            "abs" => {
                let (code, values) = rest.split_once(' ')?;
                let values = values
                    .split_whitespace()
                    .map(|value| value.parse::<i32>().ok());
                let [minimum, maximum, fuzz, flat, resolution] =
                    values.collect::<Option<Vec<_>>>()?.try_into().ok()?;
                let axis = Axis {
                    minimum,
                    maximum,
                    fuzz,
                    flat,
                    resolution,
                };
                self.axes.insert(code.parse().ok()?, axis);
            }
            _ => {
                let (name, _) = KINDS.iter().find(|(name, _)| *name == word)?;
                self.codes.insert(name, read_ranges(rest)?);
            }
        }
        Some(())
    }
}

/// Reads `1-3 7`.
fn read_ranges(text: &str) -> Option<BTreeSet<u16>> {
    let mut codes = BTreeSet::new();
    for part in text.split_whitespace() {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        codes.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLET: &str = "name Pen tablet\nid 0003 056a 00d1 0100\nuniq 0815\nprop 0-1\n\
                          key 272-274 320\nmsc 4\nabs 0 -5 32767 4 0 100\nabs 1 0 20000 4 0 100\n";

    #[test]
    fn text_form_is_read_as_it_is_written() {
        let description: Description = TABLET.parse().expect("valid");
        assert_eq!(description.axes[&0].minimum, -5);
        assert_eq!(description.to_string(), TABLET);
    }

    #[test]
    fn comments_and_empty_lines_are_skipped() {
        let description: Description = "# a keyboard\n\nname K\nrep\n".parse().expect("valid");
        assert!(description.repeats);
        assert_eq!(description.name, "K");
    }

    #[test]
    fn bad_line_is_named() {
        for bad in [
            "id 1 2 3",
            "abs 0 1",
            "key x",
            "what 1",
            "rep 5",
            "key 9-99999",
        ] {
            let error = format!("name K\n{bad}")
                .parse::<Description>()
                .expect_err(bad);
            assert_eq!((error.line, error.text.as_str()), (2, bad));
        }
    }
}
