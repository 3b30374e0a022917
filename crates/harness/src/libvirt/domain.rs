// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A domain of libvirt's that is the test guest.

use crate::artifacts::{Accelerator, Artifacts};

use super::{AGENT, EMULATOR, ROOT};

/// What a domain has beside the test guest.
#[derive(Debug, Clone, Copy, Default)]
pub struct DomainParts<'a> {
    /// Attributes of `<domain>`.
    pub attributes: &'a str,
    /// Elements in `<devices>`.
    pub devices: &'a str,
    /// Elements right below `<domain>`.
    pub elements: &'a str,
}

impl DomainParts<'_> {
    /// The XML of the domain `name`: the test guest with these parts.
    pub(super) fn xml(self, name: &str, artifacts: &Artifacts) -> String {
        let kind = match artifacts.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "qemu",
        };
        let DomainParts {
            attributes,
            devices,
            elements,
        } = self;
        format!(
            "<domain type='{kind}' {attributes}>
  <name>{name}</name>
  <memory unit='MiB'>384</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <features><acpi/></features>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{}</kernel>
    <initrd>{}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 no_timer_check drm_kms_helper.fbdev_emulation=0</cmdline>
  </os>
  <devices>
    <emulator>{EMULATOR}</emulator>
    <serial type='file'><source path='{ROOT}/console.log'/></serial>
    <serial type='unix'><source mode='bind' path='{AGENT}'/><target port='1'/></serial>
    {devices}
  </devices>
  {elements}
</domain>
",
            artifacts.kernel.display(),
            artifacts.initramfs.display(),
        )
    }
}
