//! The other side: how a VMM is told of a VM's backends.

pub(crate) mod memory;

use crate::instance::Instance;

/// A backend, as a front-end has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmDevice {
    /// The name for QEMU, from which the names of its parts are made.
    id: String,
    /// By the conventions' names.
    device_type: String,
    /// What a guest may see of it.
    name: String,
    socket: String,
}

/// Options of the machine that come with a GPU. libvirt says them itself.
pub(crate) const MACHINE_OPTIONS: [&str; 2] = ["-vga", "-display"];

/// QEMU and libvirt have no front-end for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU has no device for {backend}, whose type is '{device_type}'.")]
pub(crate) struct NoDevice {
    backend: String,
    device_type: String,
}

impl VmDevice {
    /// Of a type by the conventions' names, listening at `socket`.
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
        }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// QEMU's arguments, in pairs of an option and its value.
    pub(crate) fn qemu(&self) -> Result<Vec<[String; 2]>, NoDevice> {
        let (id, chardev) = (&self.id, format!("{}-socket", self.id));
        let pci = |device: &str| {
            vec![[
                "-device".to_owned(),
                format!("{device},id={id},chardev={chardev}"),
            ]]
        };
        let with = |option: &str, value: String, device: &str| {
            vec![
                [option.to_owned(), value],
                ["-device".to_owned(), format!("{device},id={id}")],
            ]
        };
        let devices = match self.device_type.as_str() {
            "gpu" => {
                let mut words = pci("vhost-user-gpu-pci");
                // QEMU's own screen is none of the guest's then, and most of its displays refuse this one.
                for option in MACHINE_OPTIONS {
                    words.push([option.to_owned(), "none".to_owned()]);
                }
                words
            }
            "input" => pci("vhost-user-input-pci"),
            "block" => pci("vhost-user-blk-pci"),
            "rng" => pci("vhost-user-rng-pci"),
            "scsi" => pci("vhost-user-scsi-pci"),
            "vsock" => pci("vhost-user-vsock-pci"),
            "fs" => {
                let mut words = pci("vhost-user-fs-pci");
                words
                    .iter_mut()
                    .for_each(|[_, value]| value.push_str(&format!(",tag={}", self.name)));
                words
            }
            "net" => with(
                "-netdev",
                format!("vhost-user,id={id}-net,chardev={chardev}"),
                &format!("virtio-net-pci,netdev={id}-net"),
            ),
            "crypto" => with(
                "-object",
                format!("cryptodev-vhost-user,id={id}-dev,chardev={chardev}"),
                &format!("virtio-crypto-pci,cryptodev={id}-dev"),
            ),
            _ => {
                return Err(NoDevice {
                    backend: self.name.clone(),
                    device_type: self.device_type.clone(),
                });
            }
        };
        let path = doubled(&self.socket);
        let socket = [
            "-chardev".to_owned(),
            format!("socket,id={chardev},path={path}"),
        ];
        Ok(std::iter::once(socket).chain(devices).collect())
    }

    /// libvirt's element for it, inside of `<devices>`; none where libvirt knows such a device only by QEMU's
    /// arguments.
    pub(crate) fn libvirt(&self, index: usize) -> Option<String> {
        let path = escaped(&self.socket);
        match self.device_type.as_str() {
            "fs" => Some(format!(
                "<filesystem type='mount'>\n  <driver type='virtiofs'/>\n  <source socket='{path}'/>\n  \
                 <target dir='{}'/>\n</filesystem>",
                escaped(&self.name)
            )),
            "block" => {
                let letter = u8::try_from(index)
                    .ok()
                    .and_then(|index| b'a'.checked_add(index))?;
                letter.is_ascii_lowercase().then(|| format!(
                    "<disk type='vhostuser' device='disk'>\n  <driver name='qemu' type='raw'/>\n  \
                     <source type='unix' path='{path}'/>\n  <target dev='vd{}' bus='virtio'/>\n</disk>",
                    char::from(letter)
                ))
            }
            "net" => Some(format!(
                "<interface type='vhostuser'>\n  <source type='unix' path='{path}' mode='client'/>\n  \
                 <model type='virtio'/>\n</interface>"
            )),
            _ => None,
        }
    }

    /// Whether it is the VM's screen.
    pub(crate) fn is_gpu(&self) -> bool {
        self.device_type == "gpu"
    }

    /// By the conventions' name.
    pub(crate) fn device_type(&self) -> &str {
        &self.device_type
    }
}

/// In QEMU's options a comma in a value is doubled.
fn doubled(value: &str) -> String {
    value.replace(',', ",,")
}

/// For an attribute's value between single quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
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

    fn device(unit: &str, device_type: &str, socket: &str) -> VmDevice {
        let (instance, _) = Instance::from_unit(unit).expect("a unit");
        VmDevice::new(&instance, device_type, socket)
    }

    fn line(device: &VmDevice) -> String {
        device.qemu().expect("a device").concat().join(" ")
    }

    #[test]
    fn qemu_gets_a_chardev_and_a_device() {
        assert_eq!(
            line(&device("vhost-user-gpu@vm1.socket", "gpu", "/run/a,b.sock")),
            "-chardev socket,id=gpu-socket,path=/run/a,,b.sock \
             -device vhost-user-gpu-pci,id=gpu,chardev=gpu-socket -vga none -display none"
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
    fn what_qemu_lacks_is_said() {
        let error = device("vhost-user@vm1:x.socket", "caif", "/s")
            .qemu()
            .expect_err("no such device");
        assert!(error.to_string().contains("caif"));
        assert!(
            device("vhost-user@vm1:x.socket", "backend", "/s")
                .qemu()
                .is_err()
        );
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
