// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl qemu-args`: QEMU's arguments for the backends of a VM.

use std::io::IsTerminal as _;

use crate::completion;
use crate::instance::parse_name;
use crate::output::Output;
use crate::systemd::Target;
use crate::vmm::memory::{Memory, MemoryError};
use crate::vmm::qemu::{self, QemuOption};
use crate::vmm::{VmDevice, qemu_version};

use super::error::Error;
use super::shared::vm_devices::vm_devices;

/// Show the arguments of QEMU for the backends of a VM
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Quoted for a shell: eval qemu-system-x86_64 ... $(vhostctl qemu-args vm1)

The backends need the guest's memory to be shared, so its size is set here. --memory=none leaves that out, for a
machine whose memory is shared by other arguments.

With a GPU, -display none is set. QEMU shows a vhost-user GPU only on displays that accept dmabufs, such as
egl-headless or gtk,gl=on; with others, including VNC, it exits with \"The console requires display DMABUF
support.\" A -display after these arguments replaces this one. A console needs none: see vhostctl view.

A GPU with Vulkan is QEMU's generic device, which needs QEMU 11.1 or newer. No -display shows it, only a console.

The user that runs QEMU must be allowed to connect: vhostctl status shows the access, and vhostctl add
--socket-user= sets it. QEMU before 10.0 supports GPU and input devices only with KVM.")]
pub(crate) struct Args {
    /// The VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms())]
    vm: String,

    /// The guest's memory, as QEMU's -m takes it: 2G, 2048 (in MiB), or 2G,slots=2,maxmem=8G; 'none' for none
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = memory)]
    memory: Shared,
}

/// The memory to share; none if other arguments share it.
type Shared = Option<Memory>;

fn memory(text: &str) -> Result<Shared, MemoryError> {
    match text {
        "none" => Ok(None),
        memory => memory.parse().map(Some),
    }
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let mut options = args.memory.as_ref().map_or_else(Vec::new, Memory::shared);
    let devices = vm_devices(&args.vm, target)?;
    for device in &devices {
        options.extend(qemu::options(device)?);
    }
    if target.is_local() && devices.iter().any(VmDevice::has_vulkan) {
        qemu_version::too_old_for_vulkan()
            .iter()
            .for_each(|hint| output.hint(hint));
    }
    let words: Vec<_> = options.iter().flat_map(QemuOption::words).collect();
    if output.json(&words)? {
        return Ok(());
    }
    let pairs = options
        .iter()
        .map(|option| option.words().map(qemu::shell_quoted).join(" "));
    // On a terminal a line each, escaped for the shell; otherwise one line, as $(...) keeps escaped line ends.
    let between = if std::io::stdout().is_terminal() {
        " \\\n"
    } else {
        " "
    };
    output.data(&pairs.collect::<Vec<_>>().join(between))?;
    Ok(())
}
