// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is installed, where the system's own programs look for it.

use anyhow::{Context as _, ensure};
use harness::debian_root::DebianRoot;

use crate::machine::Machine;

const PACKAGES: &str = "vhostctl vhost-user-gpu vhost-user-input vhost-vnc";

#[test]
fn files_are_roots_and_verified() -> anyhow::Result<()> {
    let machine = Machine::boot("trixie")?;
    machine.install("deb")?;
    let differing = machine.sh(&format!("dpkg --verify {PACKAGES}"))?;
    ensure!(differing.is_empty(), "{differing}");
    let list = machine.sh(&format!(
        "dpkg-query --listfiles {PACKAGES} | sort -u | grep . | tr '\\n' '\\0' | xargs -0 stat --format='%F %a %U:%G %n'"
    ))?;
    let mut programs = 0;
    for line in list.lines() {
        let is_fine = if let Some(rest) = line.strip_prefix("regular file ") {
            let is_program = ["/bin/", "/libexec/"]
                .iter()
                .any(|folder| rest.contains(folder));
            programs += usize::from(is_program);
            let mode = if is_program { "755" } else { "644" };
            rest.starts_with(&format!("{mode} root:root "))
        } else {
            line.starts_with("directory 755 root:root ") || line.starts_with("symbolic link ")
        };
        ensure!(is_fine, "{line}");
    }
    ensure!(programs == 5, "{list}");
    Ok(())
}

#[test]
fn shells_and_man_find_what_is_theirs() -> anyhow::Result<()> {
    const RELEASE: &str = "trixie";
    const READERS: [&str; 4] = ["bash-completion", "fish", "man-db", "zsh"];
    DebianRoot::of(RELEASE)?.fetch(&READERS)?;
    let machine = Machine::boot(RELEASE)?;
    machine.install("deb")?;
    machine.apt(&format!(
        "install --no-install-recommends {}",
        READERS.join(" ")
    ))?;

    // As each shell loads completions of commands that it has not seen yet.
    for (shell, line) in [
        (
            "bash",
            "source /usr/share/bash-completion/bash_completion; _comp_load vhostctl; COMP_LINE='vhostctl sta'; \
             COMP_POINT=12; _vhostctl; printf '%s\\n' \"${COMPREPLY[@]}\"",
        ),
        (
            "zsh",
            "autoload -U compinit && compinit -D -u && autoload +X _vhostctl && [ \"$_comps[vhostctl]\" = _vhostctl ] && \
             VHOSTCTL_COMPLETE=zsh _CLAP_COMPLETE_INDEX=1 _CLAP_IFS=$'\\n' vhostctl -- vhostctl sta",
        ),
        ("fish", "complete --do-complete 'vhostctl sta'"),
    ] {
        let output = machine.sandbox.exec([shell, "-c", line])?;
        let offered = String::from_utf8_lossy(&output.stdout).into_owned();
        for verb in ["start", "status"] {
            ensure!(
                offered.lines().any(|line| line.starts_with(verb)),
                "{shell}: {output:?}"
            );
        }
        ensure!(
            !offered.lines().any(|line| line.starts_with("list")) && output.stderr.is_empty(),
            "{shell}: {output:?}"
        );
    }

    let pages = machine.sh(&format!(
        "dpkg-query --listfiles {PACKAGES} | grep '/man/man[0-9]/'"
    ))?;
    ensure!(pages.lines().count() > 15, "{pages}");
    for page in pages.lines() {
        // By its name, as users do; the links of the units' page too.
        let file = page
            .rsplit('/')
            .next()
            .and_then(|file| file.strip_suffix(".gz"));
        let (name, section) = file
            .and_then(|file| file.rsplit_once('.'))
            .with_context(|| page.to_owned())?;
        let said = machine.sh(&format!(
            "MANWIDTH=100 man --warnings --encoding=UTF-8 {section} '{name}' | head -n 4"
        ))?;
        ensure!(
            said.starts_with("vhost") && said.contains("NAME") && !said.contains("warning"),
            "{page}: {said}"
        );
    }
    Ok(())
}
