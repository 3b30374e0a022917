// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The names of an evdev device, as long as they are.

use std::os::fd::OwnedFd;

use vmm_sys_util::ioctl;

/// The crate `evdev` has room for so many bytes, and panics if the last one is not 0.
const CAPACITY: usize = 256;
/// `EVIOCGNAME`, `EVIOCGPHYS`, `EVIOCGUNIQ`.
const NAMES: [u32; 3] = [0x06, 0x07, 0x08];

/// Whether `file` is an evdev device with a name, port or serial number that the crate `evdev` has no room for.
pub(super) fn has_long_name(file: &OwnedFd) -> bool {
    NAMES.iter().any(|request| {
        let mut name = [0u8; CAPACITY];
        let number =
            ioctl::ioctl_expr(ioctl::_IOC_READ, u32::from(b'E'), *request, CAPACITY as u32);
        // SAFETY: the kernel writes at most as many bytes as the number says, which is the length of `name`. A file
        // that is no evdev device does not know the request.
        unsafe { ioctl::ioctl_with_mut_ptr(file, number, name.as_mut_ptr()) };
        !ends_within(&name)
    })
}

/// Whether what the kernel wrote, or did not write for a name that the device lacks, ends before the last byte.
fn ends_within(name: &[u8; CAPACITY]) -> bool {
    name[CAPACITY - 1] == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_without_an_end_is_long() {
        let mut name = [b'a'; CAPACITY];
        assert!(!ends_within(&name));
        name[CAPACITY - 1] = 0;
        assert!(ends_within(&name));
        assert!(ends_within(&[0; CAPACITY]));
    }
}
