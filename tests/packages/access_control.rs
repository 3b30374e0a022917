// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The examples for SELinux and AppArmor, as docs/libvirt.md has them installed: beside Debian's own policies, on a kernel that
//! has neither.

use std::fs;

use anyhow::{Context as _, ensure};
use harness::debian_root::DebianRoot;
use harness::paths::source_root;

use crate::machine::Machine;

const EXAMPLES: &str = "/usr/share/doc/vhostctl/examples";

/// A block of commands of docs/libvirt.md, which begins so. Its paths are those of the source tree, which `packaging` leads to.
fn block(begin: &str) -> anyhow::Result<String> {
    let document = fs::read_to_string(source_root().join("docs/libvirt.md"))?;
    let blocks = document.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|block| block.split("```").next());
    let found = blocks.find(|block| block.starts_with(begin));
    found.map(str::to_owned).context("no such block")
}

/// Compiled and linked: what it names is there, and it allows what it should.
#[test]
fn selinux_module_is_a_part_of_debians_policy() -> anyhow::Result<()> {
    const RELEASE: &str = "trixie";
    const PACKAGES: [&str; 5] = [
        "checkpolicy",
        "policycoreutils",
        "selinux-policy-default",
        "semodule-utils",
        "setools",
    ];
    DebianRoot::of(RELEASE)?.fetch(&PACKAGES)?;
    let machine = Machine::boot(RELEASE)?;
    machine.install("deb")?;
    let names = PACKAGES.join(" ");
    machine.apt(&format!("install --no-install-recommends {names}"))?;
    let commands = block("checkmodule")?;
    machine.sh(&format!(
        "set -e; mkdir /root/module && cd /root/module && ln -s {EXAMPLES} packaging\n{commands}"
    ))?;

    let policy = "$(ls /etc/selinux/default/policy/policy.*)";
    let allowed = |source: &str, target: &str, class: &str, what: &str| {
        let query = format!("sesearch -A -s {source} -t {target} -c {class} -p {what} {policy}");
        machine.sh(&query)
    };
    // Debian's services without a policy are initrc_t.
    for target in ["init_t", "initrc_t"] {
        let rule = allowed("svirt_t", target, "unix_stream_socket", "connectto")?;
        ensure!(rule.contains("vhost_user_server"), "{target}: {rule:?}");
    }
    let rule = allowed("svirt_t", "vhost_user_runtime_t", "sock_file", "write")?;
    ensure!(rule.contains("vhost_user_client"), "{rule:?}");
    // Nobody else got anything.
    let rule = allowed("sshd_t", "vhost_user_runtime_t", "sock_file", "write")?;
    ensure!(!rule.contains("vhost_user"), "{rule:?}");

    // What systemd and restorecon(8) look up, here and where /run is looked up as /var/run.
    const SOCKET: &str = "/run/vhost-user/gpu/vm1.sock";
    machine.sh(
        "cp -r /etc/selinux/default/contexts/files /root/files && cd /root/files && rm *.bin && \
         sed -i 's|^/var/run /run$|/run /var/run|' file_contexts.subs_dist && grep '^/run /var/run' file_contexts.subs_dist",
    )?;
    for folder in ["/etc/selinux/default/contexts/files", "/root/files"] {
        let label = machine.sh(&format!(
            "selabel_lookup -b file -f {folder}/file_contexts -k {SOCKET}"
        ))?;
        ensure!(
            label.contains("system_u:object_r:vhost_user_runtime_t:s0"),
            "{folder}: {label}"
        );
    }
    Ok(())
}

#[test]
fn apparmor_lines_are_parsed_on_debian_12() -> anyhow::Result<()> {
    let machine = machine_with_profiles("bookworm", "libvirt-daemon-system")?;
    // As the document says, the line of the file.
    let local = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
    apparmor_lines_are_parsed(
        &machine,
        &format!("grep rw, {EXAMPLES}/apparmor/vhostctl >>{local}"),
    )
}

#[test]
fn apparmor_lines_are_parsed_on_debian_13() -> anyhow::Result<()> {
    let machine = machine_with_profiles("trixie", "libvirt-daemon-driver-qemu")?;
    let folder = "/etc/apparmor.d/abstractions/libvirt-qemu.d";
    apparmor_lines_are_parsed(
        &machine,
        &format!("mkdir -p {folder} && cp {EXAMPLES}/apparmor/vhostctl {folder}/"),
    )
}

/// A machine with AppArmor's parser and the profiles of libvirt, which are in this package.
fn machine_with_profiles(release: &str, package: &str) -> anyhow::Result<Machine> {
    let root = DebianRoot::of(release)?;
    root.fetch(&["apparmor"])?;
    let profiles = root.fetch_alone(package)?;
    let machine = Machine::boot(release)?;
    machine.install("deb")?;
    machine.apt("install --no-install-recommends apparmor")?;
    machine.copy(&[profiles], "/root/profiles")?;
    machine.sh(
        "dpkg-deb --fsys-tarfile /root/profiles/*.deb | tar --extract --directory=/ ./etc/apparmor.d && \
         mkdir -p /etc/apparmor.d/local/abstractions && touch /etc/apparmor.d/local/abstractions/libvirt-qemu",
    )?;
    Ok(machine)
}

/// Installs the line for all domains by `install`, then that of the document for one domain.
fn apparmor_lines_are_parsed(machine: &Machine, install: &str) -> anyhow::Result<()> {
    // As libvirt makes it at the domain's first start.
    const UUID: &str = "0000";
    let profile = format!("/etc/apparmor.d/libvirt/libvirt-{UUID}");
    machine.sh(&format!(
        "sed 's/LIBVIRT_TEMPLATE/libvirt-{UUID}/' /etc/apparmor.d/libvirt/TEMPLATE.qemu >{profile}"
    ))?;
    // It compiles the profile, and gives the kernel nothing; with --preprocess it prints what it has read.
    let parse = |option: &str| {
        machine.sh(&format!(
            "apparmor_parser --skip-kernel-load --skip-cache {option} {profile}"
        ))
    };
    let all = "/run/vhost-user/** rw,";
    let before = parse("--preprocess")?;
    ensure!(!before.contains(all), "{before}");
    machine.sh(install)?;
    parse("")?;
    ensure!(parse("--preprocess")?.contains(all), "{install}");

    let commands = block("# vhost-user-gpu in")?;
    let line = commands.lines().find(|line| line.starts_with("sed "));
    let line = line.context("no line for one domain")?;
    machine.sh(&line.replace("$(virsh domuuid vm1)", UUID))?;
    parse("")?;
    let one = "\"/run/vhost-user/*/vm1{,:*}.sock\" rw,";
    ensure!(parse("--preprocess")?.contains(one), "{line}");

    // The parser does find faults.
    machine.sh(&format!(
        "sed -i '/^}}/i  /run/vhost-user/** ro,' {profile}"
    ))?;
    ensure!(parse("").is_err(), "ro is no permission");
    Ok(())
}
