// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is in the packages, of Debian and of RPM.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use harness::run::read;

use crate::machine::{built, symbols};

/// Files of each package that users and other programs look for, without the documents.
const FILES: [(&str, &[&str]); 4] = [
    (
        "vhostctl",
        &[
            "/etc/needrestart/conf.d/vhost-user.conf",
            "/usr/bin/vhostctl",
            "/usr/lib/systemd/system/system-vhost\\x2duser.slice",
            "/usr/lib/systemd/system/vhost-user-retry@.service",
            "/usr/lib/systemd/system/vhost-user@.service",
            "/usr/lib/systemd/system/vhost-user@.socket",
            "/usr/libexec/vhost-user-accept",
            "/usr/share/bash-completion/completions/vhostctl",
            "/usr/share/fish/vendor_completions.d/vhostctl.fish",
            "/usr/share/man/man1/vhostctl.1.gz",
            "/usr/share/man/man5/vhost-render-server@.service.5.gz",
            "/usr/share/man/man5/vhost-render-server@.socket.5.gz",
            "/usr/share/man/man5/vhost-user-display@.socket.5.gz",
            "/usr/share/man/man5/vhost-user-events@.socket.5.gz",
            "/usr/share/man/man5/vhost-user-gpu@.service.5.gz",
            "/usr/share/man/man5/vhost-user-gpu@.socket.5.gz",
            "/usr/share/man/man5/vhost-user-input@.service.5.gz",
            "/usr/share/man/man5/vhost-user-input@.socket.5.gz",
            "/usr/share/man/man5/vhost-user@.service.5.gz",
            "/usr/share/man/man5/vhost-user@.socket.5.gz",
            "/usr/share/man/man5/vhost-vnc@.service.5.gz",
            "/usr/share/man/man5/vhost-vnc@.socket.5.gz",
            "/usr/share/man/man8/vhost-user-accept.8.gz",
        ],
    ),
    (
        "vhost-user-gpu",
        &[
            "/usr/bin/vhost-user-gpu",
            "/usr/lib/systemd/system/vhost-render-server@.service",
            "/usr/lib/systemd/system/vhost-render-server@.socket",
            "/usr/lib/systemd/system/vhost-user-display@.socket",
            "/usr/lib/systemd/system/vhost-user-gpu-virgl.conf",
            "/usr/lib/systemd/system/vhost-user-gpu-vulkan.conf",
            "/usr/lib/systemd/system/vhost-user-gpu@.service",
            "/usr/lib/systemd/system/vhost-user-gpu@.socket",
            "/usr/share/man/man8/vhost-user-gpu.8.gz",
            "/usr/share/qemu/vhost-user/40-vhost-user-gpu.json",
        ],
    ),
    (
        "vhost-user-input",
        &[
            "/usr/bin/vhost-user-input",
            "/usr/lib/systemd/system/vhost-user-events@.socket",
            "/usr/lib/systemd/system/vhost-user-input@.service",
            "/usr/lib/systemd/system/vhost-user-input@.socket",
            "/usr/share/man/man8/vhost-user-input.8.gz",
            "/usr/share/qemu/vhost-user/40-vhost-user-input.json",
        ],
    ),
    (
        "vhost-vnc",
        &[
            "/usr/bin/vhost-vnc",
            "/usr/lib/systemd/system/vhost-vnc@.service",
            "/usr/lib/systemd/system/vhost-vnc@.socket",
            "/usr/share/man/man8/vhost-vnc.8.gz",
        ],
    ),
];

/// The files of each package that `expected` has to have, with zsh's completion where the distribution wants it.
fn expected(zsh: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut expected: BTreeMap<String, BTreeSet<String>> = FILES
        .iter()
        .map(|(name, files)| {
            (
                (*name).to_owned(),
                files.iter().map(|file| (*file).to_owned()).collect(),
            )
        })
        .collect();
    if let Some(files) = expected.get_mut("vhostctl") {
        files.insert(format!("{zsh}/_vhostctl"));
    }
    expected
}

/// The name of a package, which its version follows.
fn name(package: &Path) -> anyhow::Result<String> {
    let file = package
        .file_name()
        .and_then(|name| name.to_str())
        .context("no name")?;
    let end = file
        .find(|c: char| c.is_ascii_digit())
        .context("no version")?;
    Ok(file.get(..end - 1).context("no name")?.to_owned())
}

/// Without documents and what else each distribution puts beside.
fn is_of_the_product(path: &str) -> bool {
    ![
        "/usr/share/doc/",
        "/usr/share/licenses/",
        "/usr/share/lintian/",
        "/usr/lib/.build-id",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

#[test]
fn debian_packages_have_their_files() -> anyhow::Result<()> {
    let mut expected = expected("/usr/share/zsh/vendor-completions");
    for package in built("deb")? {
        let list = read(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
        let paths = list.lines().filter_map(|line| {
            let path = line.split_whitespace().nth(5)?;
            // It doubles backslashes.
            let path = path.trim_start_matches('.').replace("\\\\", "\\");
            (!path.ends_with('/')).then_some(path)
        });
        let files: BTreeSet<String> = paths.filter(|path| is_of_the_product(path)).collect();
        let name = name(&package)?;
        let wanted = expected.remove(&name).context(name.clone())?;
        ensure!(files == wanted, "{name}: {files:#?} instead of {wanted:#?}");
        ensure!(
            list.contains(&format!("./usr/share/doc/{name}/copyright")),
            "{list}"
        );
        ensure!(
            list.contains(&format!("./usr/share/doc/{name}/changelog")),
            "{list}"
        );
    }
    ensure!(expected.is_empty(), "{expected:?}");
    Ok(())
}

#[test]
fn rpm_packages_have_their_files_and_scripts() -> anyhow::Result<()> {
    let mut expected = expected("/usr/share/zsh/site-functions");
    for package in built("rpm")? {
        let query = |option: &str| read(Command::new("rpm").args(["-qp", option]).arg(&package));
        let files = query("--queryformat=[%{FILEMODES:perms} %{FILENAMES}\\n]")?;
        let files: BTreeSet<String> = files
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(mode, path)| !mode.starts_with('d') && is_of_the_product(path))
            .map(|(_, path)| path.to_owned())
            .collect();
        let name = name(&package)?;
        let wanted = expected.remove(&name).context(name.clone())?;
        ensure!(files == wanted, "{name}: {files:#?} instead of {wanted:#?}");
        let scripts = query("--scripts")?;
        for section in ["posttrans", "preuninstall", "postuninstall"] {
            ensure!(
                scripts.contains(&format!("{section} scriptlet")),
                "{name}: {scripts}"
            );
        }
        ensure!(
            scripts.contains("systemctl --system daemon-reload"),
            "{name}: {scripts}"
        );
        let restarts = scripts.contains("vhostctl restart --all");
        ensure!(restarts == (name == "vhostctl"), "{name}: {scripts}");
        for script in scripts.split("scriptlet (using /bin/sh):").skip(1) {
            let script = script.rsplit_once('\n').map_or(script, |(body, _)| body);
            read(Command::new("sh").args(["-n", "-c", script]))?;
        }
    }
    ensure!(expected.is_empty(), "{expected:?}");
    Ok(())
}

#[test]
fn symbols_are_in_packages_of_their_own() -> anyhow::Result<()> {
    const PROGRAMS: [&str; 5] = [
        "bin/vhostctl",
        "bin/vhost-user-gpu",
        "bin/vhost-user-input",
        "bin/vhost-vnc",
        "libexec/vhost-user-accept",
    ];
    let [package] = &symbols("rpm")?[..] else {
        bail!("RPM has one package for all symbols");
    };
    let files = read(Command::new("rpm").args(["-qpl"]).arg(package))?;
    for program in PROGRAMS {
        let path = format!("/usr/lib/debug/usr/{program}");
        ensure!(files.contains(&path), "{path} is missing: {files}");
    }
    // Debian names them by their build IDs.
    let mut count = 0;
    for package in symbols("deb")? {
        let files = read(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
        count += files
            .lines()
            .filter(|line| line.ends_with(".debug"))
            .count();
    }
    ensure!(count == PROGRAMS.len(), "{count} files of symbols");
    Ok(())
}

/// The relative links of a document, without the part behind `#`.
fn links(document: &str) -> impl Iterator<Item = &str> {
    let targets = document.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    targets
        .filter_map(|(target, _)| target.split('#').next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

/// What is installed below /usr/share/doc, unpacked into a folder.
fn unpack(package: &Path, into: &Path) -> anyhow::Result<()> {
    let is_deb = package.extension().is_some_and(|kind| kind == "deb");
    let line = match is_deb {
        true => "dpkg-deb --extract \"$0\" \"$1\"",
        false => {
            "rpm2cpio \"$0\" | (cd \"$1\" && cpio --quiet --extract --make-directories './usr/share/doc/*')"
        }
    };
    let mut command = Command::new("sh");
    read(command.args(["-c", line]).arg(package).arg(into)).map(drop)
}

#[test]
fn links_of_installed_documents_hold() -> anyhow::Result<()> {
    for kind in ["deb", "rpm"] {
        let folder = tempfile::tempdir()?;
        for package in built(kind)? {
            unpack(&package, folder.path())?;
        }
        let mut count = 0;
        let mut folders = vec![folder.path().join("usr/share/doc")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "md") {
                    let document = fs::read_to_string(&path)?;
                    for link in links(&document) {
                        let target = folder.join(link);
                        ensure!(target.exists(), "{kind}: {}: {link}", path.display());
                        count += 1;
                    }
                }
            }
        }
        ensure!(count > 50, "{kind}: {count} links");
    }
    Ok(())
}
