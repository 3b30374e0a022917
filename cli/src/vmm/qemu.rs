// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of QEMU.

use super::{NoVmDevice, VmDevice};

/// Options of the machine that come with a GPU. libvirt sets them itself.
const MACHINE_OPTIONS: [&str; 2] = ["-vga", "-display"];

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QemuOption {
    name: &'static str,
    value: String,
}

/// Properties of devices that are numbers.
const NUMBERS: [&str; 7] = [
    "config_size",
    "max_outputs",
    "num_vqs",
    "virtio-id",
    "vq_size",
    "xres",
    "yres",
];

/// The first QEMU whose [`GENERIC_GPU`] maps memory of the host into the guest.
pub(crate) const FIRST_WITH_VULKAN: (u32, u32) = (11, 1);
/// A virtio-gpu with the two queues and the configuration that the specification gives it. QEMU's own front-end for GPUs maps
/// no memory of the host, which Vulkan needs.
const GENERIC_GPU: &str =
    "vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16";

impl QemuOption {
    pub(super) fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            name,
            value: value.into(),
        }
    }

    /// Both words.
    pub(crate) fn words(&self) -> [&str; 2] {
        [self.name, &self.value]
    }

    /// The same beside libvirt's own devices, which have JSON as value: QEMU makes those with a list of properties first,
    /// and gives them the places that libvirt meant for its own.
    pub(crate) fn words_for_libvirt(&self) -> [String; 2] {
        let value = match self.name {
            "-device" => json_device(&self.value),
            _ => self.value.clone(),
        };
        [self.name.to_owned(), value]
    }

    /// Whether it is about the machine, not about a device.
    pub(crate) fn is_for_machine(&self) -> bool {
        MACHINE_OPTIONS.contains(&self.name)
    }
}

/// The options for a device.
pub(crate) fn options(device: &VmDevice) -> Result<Vec<QemuOption>, NoVmDevice> {
    let (id, chardev) = (&device.id, format!("{}-socket", device.id));
    let pci =
        |model: &str| QemuOption::new("-device", format!("{model},id={id},chardev={chardev}"));
    let socket = doubled(&device.socket);
    let mut options = vec![QemuOption::new(
        "-chardev",
        format!("socket,id={chardev},path={socket}"),
    )];
    match device.device_type.as_str() {
        "gpu" if device.has_vulkan => {
            options.push(pci(GENERIC_GPU));
            options.extend(MACHINE_OPTIONS.map(|option| QemuOption::new(option, "none")));
        }
        "gpu" => {
            let mut option = pci("vhost-user-gpu-pci");
            if device.heads > 1 {
                option
                    .value
                    .push_str(&format!(",max_outputs={}", device.heads));
            }
            // This front-end says the sizes itself: the backend's --resolution= is not asked for.
            if let Some((width, height)) = device.screen_size {
                option
                    .value
                    .push_str(&format!(",xres={width},yres={height}"));
            }
            options.push(option);
            // QEMU's own VGA is not the guest's screen then, and most of its displays refuse this one.
            options.extend(MACHINE_OPTIONS.map(|option| QemuOption::new(option, "none")));
        }
        "input" => options.push(pci("vhost-user-input-pci")),
        "block" => options.push(pci("vhost-user-blk-pci")),
        "rng" => options.push(pci("vhost-user-rng-pci")),
        "scsi" => options.push(pci("vhost-user-scsi-pci")),
        "vsock" => options.push(pci("vhost-user-vsock-pci")),
        "fs" => {
            let mut option = pci("vhost-user-fs-pci");
            option.value.push_str(&format!(",tag={}", device.name));
            options.push(option);
        }
        "net" => options.extend([
            QemuOption::new(
                "-netdev",
                format!("vhost-user,id={id}-net,chardev={chardev}"),
            ),
            QemuOption::new("-device", format!("virtio-net-pci,netdev={id}-net,id={id}")),
        ]),
        "crypto" => options.extend([
            QemuOption::new(
                "-object",
                format!("cryptodev-vhost-user,id={id}-dev,chardev={chardev}"),
            ),
            QemuOption::new(
                "-device",
                format!("virtio-crypto-pci,cryptodev={id}-dev,id={id}"),
            ),
        ]),
        _ => {
            return Err(NoVmDevice {
                backend: device.name.clone(),
                device_type: device.device_type.clone(),
            });
        }
    }
    Ok(options)
}

/// A device's properties, `DRIVER,NAME=VALUE...`, as JSON. None of them has a comma in its value.
fn json_device(properties: &str) -> String {
    let (driver, rest) = properties.split_once(',').unwrap_or((properties, ""));
    let rest = rest
        .split(',')
        .filter_map(|property| property.split_once('='));
    let members = [("driver", driver)].into_iter().chain(rest);
    let members = members.map(|(name, value)| {
        let is_number = NUMBERS.contains(&name);
        let value = if is_number {
            value.to_owned()
        } else {
            format!("\"{value}\"")
        };
        format!("\"{name}\":{value}")
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// In QEMU's options a comma in a value is doubled.
fn doubled(value: &str) -> String {
    value.replace(',', ",,")
}

/// A word as sh(1) and its relatives read it back.
pub(crate) fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::device;

    fn line(device: &VmDevice) -> String {
        let options = options(device).expect("a device");
        let words: Vec<_> = options.iter().flat_map(QemuOption::words).collect();
        words.join(" ")
    }

    #[test]
    fn gpu_with_vulkan_is_a_generic_device() {
        let gpu = device("vhost-user-gpu@vm1.socket", "gpu", "/s").with_vulkan(true);
        assert_eq!(
            line(&gpu),
            "-chardev socket,id=gpu-socket,path=/s -device vhost-user-test-device-pci,virtio-id=16,num_vqs=2,\
             vq_size=256,config_size=16,id=gpu,chardev=gpu-socket -vga none -display none"
        );
        let options = options(&gpu).expect("a device");
        let json = options[1].words_for_libvirt()[1].clone();
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["virtio-id"], 16, "QEMU takes numbers only: {json}");
        assert_eq!(json["chardev"], "gpu-socket");
    }

    #[test]
    fn qemu_gets_a_chardev_and_a_device() {
        assert_eq!(
            line(&device("vhost-user-gpu@vm1.socket", "gpu", "/run/a,b.sock")),
            "-chardev socket,id=gpu-socket,path=/run/a,,b.sock \
             -device vhost-user-gpu-pci,id=gpu,chardev=gpu-socket -vga none -display none"
        );
        let two = device("vhost-user-gpu@vm1.socket", "gpu", "/s").with_heads(2);
        assert!(
            line(&two).contains("vhost-user-gpu-pci,id=gpu,chardev=gpu-socket,max_outputs=2 "),
            "{}",
            line(&two)
        );
        let large = device("vhost-user-gpu@vm1.socket", "gpu", "/s");
        let large = line(&large.with_screen_size(Some((1920, 1080))));
        assert!(
            large.contains("vhost-user-gpu-pci,id=gpu,chardev=gpu-socket,xres=1920,yres=1080 "),
            "{large}"
        );
        assert_eq!(
            line(&device("vhost-user@vm1:data.socket", "fs", "/s")),
            "-chardev socket,id=backend-data-socket,path=/s \
             -device vhost-user-fs-pci,id=backend-data,chardev=backend-data-socket,tag=data"
        );
        assert_eq!(
            line(&device("vhost-user@vm1:lan.socket", "net", "/s")),
            "-chardev socket,id=backend-lan-socket,path=/s \
             -netdev vhost-user,id=backend-lan-net,chardev=backend-lan-socket \
             -device virtio-net-pci,netdev=backend-lan-net,id=backend-lan"
        );
    }

    #[test]
    fn unknown_device_types_are_an_error() {
        let error =
            options(&device("vhost-user@vm1:x.socket", "caif", "/s")).expect_err("no such device");
        assert!(error.to_string().contains("caif"));
        assert!(options(&device("vhost-user@vm1:x.socket", "backend", "/s")).is_err());
    }

    #[test]
    fn words_survive_the_shell() {
        for word in ["plain", "", "a b", "it's", "$HOME", "*", "~", "a\nb", "\\"] {
            let script = format!("printf %s {}", shell_quoted(word));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .expect("sh");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
        assert_eq!(
            shell_quoted("socket,id=a:b,path=/run/x%y"),
            "socket,id=a:b,path=/run/x%y"
        );
    }
}
