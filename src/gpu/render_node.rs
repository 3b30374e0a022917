// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Render nodes: device nodes that give access to a GPU without its displays, and need no privilege
//! (Linux, Documentation/gpu/drm-uapi.rst, "Render nodes").

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, major, minor};

/// Linux's device numbers of render nodes.
const DRM_MAJOR: u32 = 226;
const RENDER_MINORS: std::ops::Range<u32> = 128..192;
const FOLDER: &str = "/dev/dri";

/// Why a render node cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RenderNodeError {
    /// There is no such file.
    #[error("--render-node={}: no such file; {}", .0.display(), available())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("--render-node={}: not a DRM render node; {}", .0.display(), available())]
    NotARenderNode(PathBuf),
    /// The process has no permission to open it.
    #[error(
        "--render-node={}: permission denied; run as a user of the group that owns it (usually \"render\")",
        .0.display()
    )]
    Permission(PathBuf),
    /// Another error.
    #[error("--render-node={}: {source}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Paths of this host's render nodes, in order. Opens none.
pub fn list() -> Vec<PathBuf> {
    let Ok(folder) = fs::read_dir(FOLDER) else {
        return Vec::new();
    };
    let mut nodes: Vec<PathBuf> = folder
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"renderD"))
        })
        .collect();
    nodes.sort();
    nodes
}

/// Opens the render node `path`.
///
/// # Errors
/// If it does not exist, is something else, or cannot be opened.
pub fn open(path: &Path) -> Result<OwnedFd, RenderNodeError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => RenderNodeError::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied => RenderNodeError::Permission(path.to_owned()),
        _ => RenderNodeError::Open {
            path: path.to_owned(),
            source: error,
        },
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let number = metadata.rdev();
    if !metadata.file_type().is_char_device()
        || major(number) != DRM_MAJOR
        || !RENDER_MINORS.contains(&minor(number))
    {
        return Err(RenderNodeError::NotARenderNode(path.to_owned()));
    }
    let node = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::CLOEXEC.bits() as i32)
        .open(path)
        .map_err(failed)?;
    Ok(node.into())
}

fn available() -> String {
    let nodes = list();
    if nodes.is_empty() {
        return "this host has none".to_owned();
    }
    let names: Vec<String> = nodes
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!("this host has {}", names.join(", "))
}
