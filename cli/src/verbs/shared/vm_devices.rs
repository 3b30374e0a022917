// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices of a VM, as a VMM has to know them.

use crate::backends;
use crate::exit;
use crate::instance::Instance;
use crate::systemd::{self, Target};
use crate::vmm::VmDevice;

use crate::verbs::error::Error;

/// The devices of a VM, the GPU first.
pub(crate) fn vm_devices(vm: &str, target: &Target) -> Result<Vec<VmDevice>, Error> {
    let is_device_of_vm = |instance: &Instance| instance.vm() == vm && instance.is_device();
    let all = systemd::ask(target, async |queries| {
        backends::list(queries, is_device_of_vm).await
    })?;
    let devices: Vec<_> = all
        .iter()
        .map(|backend| {
            let default = backend.instance.socket();
            let socket = backend.socket.as_deref().unwrap_or(&default);
            VmDevice::new(&backend.instance, &backend.device_type, socket)
                .with_heads(backend.heads)
                .with_screen_size(backend.screen_size)
                .with_vulkan(backend.has_vulkan)
        })
        .collect();
    if devices.is_empty() {
        return Err(Error::NoSuchBackend {
            selector: vm.to_owned(),
            exit_code: exit::NOT_FOUND,
        });
    }
    Ok(devices)
}
