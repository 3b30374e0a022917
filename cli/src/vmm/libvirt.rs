// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The domain XML of libvirt.

use super::VmDevice;

/// libvirt's element for a device, inside of `<devices>`; `None` where libvirt knows such a device only by QEMU's
/// arguments. `disks` is the number of disks before it.
pub(crate) fn element(device: &VmDevice, disks: usize) -> Option<String> {
    let path = escaped(&device.socket);
    match device.device_type.as_str() {
        "fs" => Some(format!(
            "<filesystem type='mount'>\n  <driver type='virtiofs'/>\n  <source socket='{path}'/>\n  \
             <target dir='{}'/>\n</filesystem>",
            escaped(&device.name)
        )),
        "block" => {
            let letter = u8::try_from(disks)
                .ok()
                .and_then(|disks| b'a'.checked_add(disks))?;
            letter.is_ascii_lowercase().then(|| {
                format!(
                    "<disk type='vhostuser' device='disk'>\n  <driver name='qemu' type='raw'/>\n  \
                     <source type='unix' path='{path}'/>\n  <target dev='vd{}' bus='virtio'/>\n</disk>",
                    char::from(letter)
                )
            })
        }
        "net" => Some(format!(
            "<interface type='vhostuser'>\n  <source type='unix' path='{path}' mode='client'/>\n  \
             <model type='virtio'/>\n</interface>"
        )),
        _ => None,
    }
}

/// A text in an attribute's value, between single quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::device;

    #[test]
    fn disks_have_names_by_their_number() {
        let disk = device("vhost-user@vm1:disk.socket", "block", "/run/a'b.sock");
        let element = element(&disk, 1).expect("an element");
        assert!(element.contains("dev='vdb'"), "{element}");
        assert!(element.contains("path='/run/a&apos;b.sock'"), "{element}");
    }
}
