// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a VMM is told of a VM's backends: by arguments of QEMU or elements of libvirt.

pub(crate) mod libvirt;
pub(crate) mod memory;
pub(crate) mod qemu;
pub(crate) mod qemu_version;

use crate::instance::Instance;

/// A backend, as a VMM has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmDevice {
    /// The name for QEMU, from which the names of its parts are made.
    id: String,
    /// By the conventions' names.
    device_type: String,
    /// The name that a guest may see.
    name: String,
    socket: String,
    /// The number of screens of a GPU.
    heads: usize,
    /// The width and height of a GPU's first screen in pixels, if they are not QEMU's default ones.
    screen_size: Option<(u32, u32)>,
    /// Whether a GPU has Vulkan.
    has_vulkan: bool,
}

/// QEMU and libvirt have no front-end for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU has no device for {backend}, whose type is '{device_type}'.")]
pub(crate) struct NoVmDevice {
    backend: String,
    device_type: String,
}

impl VmDevice {
    /// A device of a type by the conventions' names, whose backend listens at `socket`.
    pub(crate) fn new(instance: &Instance, device_type: &str, socket: &str) -> Self {
        // Input devices and others may have the same name; QEMU's have to begin with a letter.
        let id = match instance.name() {
            Some(name) => format!("{}-{name}", instance.kind().name()),
            None => instance.kind().name().to_owned(),
        };
        Self {
            id,
            device_type: device_type.to_owned(),
            name: instance.name().unwrap_or(instance.vm()).to_owned(),
            socket: socket.to_owned(),
            heads: 1,
            screen_size: None,
            has_vulkan: false,
        }
    }

    /// The same with that many screens.
    pub(crate) fn with_heads(self, heads: usize) -> Self {
        Self { heads, ..self }
    }

    /// The same with a first screen of that size.
    pub(crate) fn with_screen_size(self, screen_size: Option<(u32, u32)>) -> Self {
        Self {
            screen_size,
            ..self
        }
    }

    /// The same with Vulkan, or without.
    pub(crate) fn with_vulkan(self, has_vulkan: bool) -> Self {
        Self { has_vulkan, ..self }
    }

    /// Whether it is a GPU with Vulkan, which QEMU has as a device of no type that it knows.
    pub(crate) fn has_vulkan(&self) -> bool {
        self.has_vulkan
    }

    /// The path of its backend's socket.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// Whether it is the VM's screen.
    pub(crate) fn is_gpu(&self) -> bool {
        self.device_type == "gpu"
    }

    /// Whether it is a disk.
    pub(crate) fn is_disk(&self) -> bool {
        self.device_type == "block"
    }
}

#[cfg(test)]
fn device(unit: &str, device_type: &str, socket: &str) -> VmDevice {
    let instance = Instance::from_unit(unit).expect("a unit");
    VmDevice::new(&instance, device_type, socket)
}
