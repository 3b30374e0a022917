// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the machine says of itself: its system, its libraries, its render nodes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of the libraries that the program loads, by the names of Debian and Fedora.
const PACKAGES: [&str; 8] = [
    "libvirglrenderer1",
    "virglrenderer",
    "libegl-mesa0",
    "mesa-libEGL",
    "libgl1-mesa-dri",
    "mesa-dri-drivers",
    "libdrm2",
    "libdrm",
];

/// The render nodes in a folder, in their order.
pub(super) fn render_nodes(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_node = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("renderD"))
    };
    let mut nodes: Vec<_> = entries.map(|entry| entry.path()).filter(is_node).collect();
    nodes.sort();
    nodes
}

/// The first line of a command, if it runs.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The system and its libraries, as a list.
pub(super) fn describe(program: &Path) -> String {
    let release = read("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let version = said(&program.to_string_lossy(), &["--version"]);
    let mut lines = vec![
        format!("- program: {}", version.unwrap_or_else(|| "unknown".into())),
        format!("- system: {}", name.unwrap_or("unknown").trim_matches('"')),
        format!(
            "- kernel: {}, {}",
            read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            std::env::consts::ARCH
        ),
    ];
    for package in PACKAGES {
        let installed = said(
            "dpkg-query",
            &["--show", "--showformat=${Version}\\n", package],
        )
        .or_else(|| {
            said(
                "rpm",
                &["-q", "--queryformat=%{VERSION}-%{RELEASE}\\n", package],
            )
        });
        if let Some(installed) = installed {
            lines.push(format!("- {package}: {installed}"));
        }
    }
    lines.join("\n")
}

/// A node's driver, its device, and who may open it, as a list.
pub(super) fn describe_node(node: &Path) -> String {
    let name = node.file_name().unwrap_or_default().to_string_lossy();
    let device = Path::new("/sys/class/drm").join(&*name).join("device");
    let driver = fs::read_link(device.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name);
    let driver = driver.map_or("unknown".into(), |name| name.to_string_lossy());
    let ids = ["vendor", "device"].map(|file| read(device.join(file)).unwrap_or("-".into()));
    let access = match fs::metadata(node) {
        Ok(node) => format!(
            "{:o}, user {}, group {}",
            node.mode() & 0o7777,
            node.uid(),
            node.gid()
        ),
        Err(error) => error.to_string(),
    };
    format!(
        "- driver: {driver}\n- device: {}\n- access: {access}",
        ids.join(":")
    )
}
