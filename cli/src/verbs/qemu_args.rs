//! `vhostctl qemu-args`: QEMU's arguments for the backends of a VM.

use std::io::IsTerminal as _;

use crate::completion;
use crate::instance::parse_name;
use crate::output::Output;
use crate::systemd::{Manager, Target};
use crate::vmm::memory::{Memory, MemoryError};
use crate::vmm::{self, VmDevice};

use super::Error;

/// Show the arguments by which QEMU uses the backends of a VM
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Quoted for a shell: eval qemu-system-x86_64 ... $(vhostctl qemu-args vm1)

The guest's memory is shared with the backends, without which they cannot work, so its size has to be said
here. --memory=none leaves that out, for a machine whose memory is shared by other arguments.

With a GPU comes -display none. QEMU shows a vhost-user GPU only on displays that take dmabufs, such as
egl-headless or gtk,gl=on; with others, VNC among them, it ends with \"The console requires display DMABUF
support.\" A -display that follows these arguments replaces this one.

The user that runs QEMU has to be one who may connect: vhostctl status shows who that is, and vhostctl add
--socket-user= decides it. QEMU before 10.0 takes GPU and input devices only with KVM.")]
pub(crate) struct Args {
    /// The VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms())]
    vm: String,

    /// The guest's memory, as QEMU's -m takes it: 2G, 2048 (in MiB), or 2G,slots=2,maxmem=8G; 'none' for none
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = memory)]
    memory: Shared,
}

/// How much memory is to be shared; none where other arguments see to it.
type Shared = Option<Memory>;

fn memory(text: &str) -> Result<Shared, MemoryError> {
    match text {
        "none" => Ok(None),
        memory => memory.parse().map(Some),
    }
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let devices = devices(&args.vm, target)?;
    let mut pairs = args.memory.as_ref().map_or_else(Vec::new, Memory::shared);
    for device in devices {
        pairs.extend(device.qemu()?);
    }
    if output.json(&pairs.concat())? {
        return Ok(());
    }
    let words = pairs.iter().map(|pair| {
        let quoted: Vec<_> = pair.iter().map(|word| vmm::shell_quoted(word)).collect();
        quoted.join(" ")
    });
    // For people a line each, which a shell still takes; for the shell itself, which in $(...) does not
    // take line ends away, one.
    let between = if std::io::stdout().is_terminal() {
        " \\\n"
    } else {
        " "
    };
    output.data(&words.collect::<Vec<_>>().join(between))?;
    Ok(())
}

/// The devices of a VM, the GPU first.
pub(super) fn devices(vm: &str, target: &Target) -> Result<Vec<VmDevice>, Error> {
    let all = zbus::block_on(async { Manager::connect(target).await?.backends().await })?;
    let devices: Vec<_> = all
        .iter()
        .filter(|backend| backend.vm == vm)
        .map(|backend| {
            let default = backend.instance.socket();
            let socket = backend.socket.as_deref().unwrap_or(&default);
            VmDevice::new(&backend.instance, &backend.device_type, socket)
        })
        .collect();
    if devices.is_empty() {
        return Err(Error::Unknown {
            selector: vm.to_owned(),
        });
    }
    Ok(devices)
}
