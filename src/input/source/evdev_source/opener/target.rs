// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which nodes may be the device.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use conventions::{InputIdentity, InputMatch};

use crate::input::source::evdev_source::port::Port;
use crate::input::source::evdev_source::sysfs::InputFolders;

use super::names::{self, Link};

/// How the device is found.
#[derive(Clone, Debug)]
pub(in crate::input::source::evdev_source) enum Target {
    /// By this path.
    Path(PathBuf),
    /// By what it says of itself; of several that say the same, the one at the port where it was last.
    Match(InputMatch, InputFolders, Port),
}

/// A node that may be the device.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// Its name, if it is in the folder of the nodes.
    pub(super) name: Option<OsString>,
    /// It is known to be where the device was last.
    pub(super) is_at_port: bool,
}

impl Target {
    /// The folder with the nodes, or where they will be.
    pub(super) fn node_folder(&self) -> PathBuf {
        match self {
            Self::Path(path) => names::node_folder(path),
            Self::Match(_, folders, _) => folders.nodes().to_owned(),
        }
    }

    /// Whether the nodes will be in [`node_folder`](Self::node_folder) if that is not there yet. A link elsewhere may come to
    /// lead anywhere.
    pub(super) fn is_folder_certain(&self) -> bool {
        match self {
            Self::Path(path) => path.starts_with("/dev"),
            Self::Match(..) => true,
        }
    }

    /// What is to be read to find it, beside that folder.
    pub(super) fn read(&self) -> Option<&Path> {
        match self {
            Self::Path(_) => None,
            Self::Match(_, folders, _) => Some(folders.devices()),
        }
    }

    /// The folders that say when another node may be the device, each the nearest one that exists.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Path(path) => names::folders(path),
            Self::Match(_, folders, _) => vec![names::existing(folders.nodes()).to_owned()],
        }
    }

    /// The link by which it is found; `None` if there is none.
    pub(super) fn link(&self) -> Option<Link> {
        match self {
            Self::Path(path) => Link::read(path),
            Self::Match(..) => None,
        }
    }

    /// The nodes that may be the device now: at most one by a path.
    ///
    /// # Errors
    /// Those of following a link.
    pub(super) fn nodes(&self, folder: &Path) -> io::Result<Vec<Node>> {
        match self {
            Self::Path(path) => match names::node(path, folder) {
                Ok((path, name)) => Ok(vec![Node {
                    path,
                    name,
                    is_at_port: false,
                }]),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            },
            Self::Match(rule, folders, port) => {
                let found = folders.matching(rule).into_iter();
                let node = |(name, device): (OsString, InputIdentity)| Node {
                    path: folder.join(&name),
                    name: Some(name),
                    is_at_port: !device.phys.is_empty() && device.phys == port.as_str(),
                };
                Ok(found.map(node).collect())
            }
        }
    }
}
