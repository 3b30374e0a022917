// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an open evdev device needs from the system: ioctls that read what it is and its state, and grab it.

use crate::backend::{SandboxPolicy, SyscallArgument, SyscallRule};

/// The bits of an ioctl request (Linux's asm-generic/ioctl.h) for its direction, type and number. The
/// size of the answer varies.
const ALL_BUT_SIZE: u32 = 0xc000_ffff;
const READ: u32 = 2 << 30 | EVDEV;
const WRITE: u32 = 1 << 30 | EVDEV;
const EVDEV: u32 = (b'E' as u32) << 8;

const fn evdev(mask: u32, request: u32) -> SyscallRule {
    SyscallRule::with(libc::SYS_ioctl, SyscallArgument::masked(1, mask, request))
}

/// Requests of Linux's linux/input.h. Not on the list: key maps, force feedback, `EVIOCREVOKE`, all that sets anything.
const IOCTLS: [SyscallRule; 15] = [
    // EVIOCGMTSLOTS, EVIOCGKEY, EVIOCGLED, EVIOCGSW
    evdev(ALL_BUT_SIZE, READ | 0x0a),
    evdev(ALL_BUT_SIZE, READ | 0x18),
    evdev(ALL_BUT_SIZE, READ | 0x19),
    evdev(ALL_BUT_SIZE, READ | 0x1b),
    // EVIOCGABS: a number for each of 64 axes.
    evdev(0xc000_ffc0, READ | 0x40),
    // EVIOCGRAB
    evdev(ALL_BUT_SIZE, WRITE | 0x90),
    // What a device is that comes back: EVIOCGVERSION, EVIOCGID, EVIOCGREP, EVIOCGNAME, EVIOCGPHYS, EVIOCGUNIQ,
    // EVIOCGPROP.
    evdev(ALL_BUT_SIZE, READ | 0x01),
    evdev(ALL_BUT_SIZE, READ | 0x02),
    evdev(ALL_BUT_SIZE, READ | 0x03),
    evdev(ALL_BUT_SIZE, READ | 0x06),
    evdev(ALL_BUT_SIZE, READ | 0x07),
    evdev(ALL_BUT_SIZE, READ | 0x08),
    evdev(ALL_BUT_SIZE, READ | 0x09),
    // EVIOCGBIT: a number for each of 32 event types.
    evdev(0xc000_ffe0, READ | 0x20),
    // EVIOCGEFFECTS, which the crate asks a device with force feedback.
    evdev(ALL_BUT_SIZE, READ | 0x84),
];

pub(super) fn sandbox_policy() -> SandboxPolicy {
    SandboxPolicy {
        calls: IOCTLS.to_vec(),
        ..SandboxPolicy::default()
    }
}
