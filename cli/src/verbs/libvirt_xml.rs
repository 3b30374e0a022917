// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl libvirt-xml`: libvirt's elements for the backends of a VM.

use std::path::Path;

use serde::Serialize;

use crate::completion;
use crate::instance::parse_name;
use crate::output::Output;
use crate::systemd::Target;
use crate::vmm::libvirt::{self, escaped};
use crate::vmm::{VmDevice, qemu};

use super::error::Error;
use super::shared::vm_devices::vm_devices;

/// Show the XML of libvirt for the backends of a VM
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Merge the XML into the domain (virsh edit); the namespace in the first line is required for <qemu:arg>. The
AppArmor profiles of libvirt allow no socket in a <qemu:arg>, <filesystem> or <disk>. On a host with such
profiles, the lines for the profile of the domain are printed on standard error. They allow only the QEMU of
this domain to use the sockets of this VM. SELinux was not tested.

With a vhost-user GPU, a <graphics type='vnc'/> keeps the domain from starting: QEMU exits with \"The console
requires display DMABUF support.\" Remove it; vhostctl view shows the screen of a VM with a console, and virsh
screenshot that of any.

libvirt itself can start a GPU without settings: <video> with the driver 'vhostuser'. This XML uses the GPU that
'vhostctl add gpu' or 'add console' created.")]
pub(crate) struct Args {
    /// The VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms())]
    vm: String,
}

/// The parts of a domain.
#[derive(Debug, Serialize)]
struct Domain {
    /// Elements right below `<domain>`.
    elements: Vec<String>,
    /// Elements in `<devices>`.
    devices: Vec<String>,
    /// The words of `<qemu:commandline>`.
    arguments: Vec<String>,
    /// Lines for the domain's AppArmor profile.
    apparmor: Vec<String>,
}

/// Where libvirt keeps the AppArmor profiles of its domains.
const PROFILES: &str = "/etc/apparmor.d/libvirt";
const MEMORY: &str =
    "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>";
/// Without it, libvirt adds a VGA that is not the guest's screen.
const NO_VIDEO: &str = "\
<!-- No <graphics type='vnc'/> here: it would keep the domain from starting. See vhostctl view. -->
<video>
  <model type='none'/>
</video>";

const NO_ELEMENT: &str = "\
libvirt does not know a GPU with Vulkan. It is among the arguments of QEMU, which has to be 11.1 or newer. Neither virsh \
screenshot nor a <graphics> shows it, only a console: vhostctl view.";

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let mut domain = Domain {
        elements: vec![MEMORY.to_owned()],
        devices: Vec::new(),
        arguments: Vec::new(),
        apparmor: Vec::new(),
    };
    let mut disks = 0;
    let devices = vm_devices(&args.vm, target)?;
    for device in &devices {
        domain.apparmor.push(apparmor_rule(device.socket()));
        match libvirt::element(device, disks) {
            Some(element) => {
                disks += usize::from(device.is_disk());
                domain.devices.push(element);
            }
            None => {
                if device.is_gpu() {
                    domain.devices.push(NO_VIDEO.to_owned());
                }
                for option in qemu::options(device)? {
                    if !option.is_for_machine() {
                        domain.arguments.extend(option.words_for_libvirt());
                    }
                }
            }
        }
    }
    if !output.json(&[&domain])? {
        output.data(&domain.xml())?;
        if devices.iter().any(VmDevice::has_vulkan) {
            output.hint(NO_ELEMENT);
        }
        if target.is_local() && Path::new(PROFILES).is_dir() {
            output.hint(&format!(
                "For AppArmor, add to {PROFILES}/libvirt-UUID before its last line (libvirt creates that file at the first \
                 start of the domain and keeps it):\n  {}",
                domain.apparmor.join("\n  ")
            ));
        }
    }
    Ok(())
}

/// A line of an AppArmor profile by which a process may connect to this socket.
fn apparmor_rule(socket: &str) -> String {
    let mut path = String::with_capacity(socket.len());
    for c in socket.chars() {
        // Characters with a meaning in a rule.
        if matches!(
            c,
            '\\' | '"' | '*' | '?' | '[' | ']' | '{' | '}' | '^' | '@'
        ) {
            path.push('\\');
        }
        path.push(c);
    }
    format!("\"{path}\" rw,")
}

impl Domain {
    fn xml(&self) -> String {
        let mut lines = vec![
            "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                .to_owned(),
        ];
        lines.extend(self.elements.iter().map(|element| indented(element, 1)));
        if !self.devices.is_empty() {
            lines.push("  <devices>".to_owned());
            lines.extend(self.devices.iter().map(|element| indented(element, 2)));
            lines.push("  </devices>".to_owned());
        }
        if !self.arguments.is_empty() {
            lines.push("  <qemu:commandline>".to_owned());
            let arguments = self.arguments.iter();
            lines
                .extend(arguments.map(|word| format!("    <qemu:arg value='{}'/>", escaped(word))));
            lines.push("  </qemu:commandline>".to_owned());
        }
        lines.push("</domain>".to_owned());
        lines.join("\n")
    }
}

fn indented(text: &str, levels: usize) -> String {
    let lines = text
        .lines()
        .map(|line| format!("{}{line}", "  ".repeat(levels)));
    lines.collect::<Vec<_>>().join("\n")
}
