// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian's kernel image as the ELF file inside it.
//!
//! A bzImage first unpacks itself, which takes seconds on an emulated processor. QEMU
//! enters the ELF by its PVH note at once.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::compression;

/// Unpacks the ELF kernel of the bzImage `image` into the file `elf`.
///
/// # Errors
///
/// If `image` is no bzImage with a payload we can unpack.
pub fn extract_elf(image: &Path, elf: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let payload = payload(&bytes)
        .with_context(|| format!("{} is no bzImage (boot protocol 2.08)", image.display()))?;
    // The length of the kernel follows.
    let kernel = compression::decompress_prefix(payload)
        .with_context(|| format!("cannot unpack the kernel in {}", image.display()))?;
    ensure!(
        kernel.starts_with(b"\x7fELF"),
        "the payload of {} is no ELF file",
        image.display()
    );
    fs::write(elf, kernel).with_context(|| format!("cannot write {}", elf.display()))
}

/// The compressed kernel within a bzImage (Documentation/arch/x86/boot.rst).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let field = |offset: usize| -> Option<usize> {
        let bytes = image.get(offset..offset.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // Sectors of the real-mode part, without the boot sector; 0 stands for 4.
    let sectors = usize::from(*image.get(0x1f1)?);
    let setup = (if sectors == 0 { 4 } else { sectors } + 1) * 512;
    let start = setup.checked_add(field(0x248)?)?;
    image.get(start..start.checked_add(field(0x24c)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(payload_bytes: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * 512 + 16];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload_bytes.len() as u32).to_le_bytes());
        image.extend_from_slice(payload_bytes);
        image
    }

    #[test]
    fn payload_is_found() {
        assert_eq!(payload(&bz_image(b"payload")), Some(&b"payload"[..]));
    }

    #[test]
    fn file_that_is_cut_short_has_no_payload() {
        let image = bz_image(b"payload");
        assert_eq!(payload(&image[..image.len() - 1]), None);
        assert_eq!(payload(b"MZ"), None);
    }
}
