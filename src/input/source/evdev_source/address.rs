// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which evdev device of the host is meant.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use conventions::InputMatch;

use super::port::Port;

/// Which evdev device of the host is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvdevAddress {
    /// The one at this path, `/dev/input/event*` or a link to one.
    Path(PathBuf),
    /// The one that says this of itself.
    Match(Box<InputMatch>),
}

impl EvdevAddress {
    /// The part of it that stays the same for all nodes of a device: the path, or the numbers.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Match(rule) => rule.ids.to_string(),
        }
    }

    /// Says that it leads to `node`, which is another device's.
    pub(super) fn beside(&self, node: &OsStr) -> String {
        let node = node.to_string_lossy();
        match self {
            Self::Path(_) => format!("the name leads to {node} now, which was there beside it"),
            Self::Match(_) => format!("{node} matches, which was there beside it"),
        }
    }

    /// Says that what is taken for it may be another device, because it is at the port `here`, and `was` elsewhere.
    pub(super) fn moved(&self, was: &Port, here: &Port) -> String {
        format!(
            "{self} is at {} now, and was at {}: without a serial number it may also be another device of its model. --evdev-path=/dev/input/by-path/... names a port",
            here.as_str(),
            was.as_str()
        )
    }

    /// Says that nothing tells which of `nodes` it leads to.
    pub(super) fn several(&self, nodes: &[OsString]) -> String {
        let nodes: Vec<_> = nodes.iter().map(|node| node.to_string_lossy()).collect();
        format!(
            "{} match, and nothing tells which one it is: unplug the others, and plug them in after it",
            nodes.join(" and ")
        )
    }
}

impl fmt::Display for EvdevAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Match(rule) => rule.fmt(f),
        }
    }
}
