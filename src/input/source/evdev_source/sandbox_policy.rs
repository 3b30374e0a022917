//! What an open evdev device needs from the system: ioctls that read its state and grab it.

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

/// Requests of Linux's linux/input.h. Not on the list: key maps, force feedback, `EVIOCREVOKE`.
const IOCTLS: [SyscallRule; 6] = [
    // EVIOCGMTSLOTS, EVIOCGKEY, EVIOCGLED, EVIOCGSW
    evdev(ALL_BUT_SIZE, READ | 0x0a),
    evdev(ALL_BUT_SIZE, READ | 0x18),
    evdev(ALL_BUT_SIZE, READ | 0x19),
    evdev(ALL_BUT_SIZE, READ | 0x1b),
    // EVIOCGABS: a number for each of 64 axes.
    evdev(0xc000_ffc0, READ | 0x40),
    // EVIOCGRAB
    evdev(ALL_BUT_SIZE, WRITE | 0x90),
];

pub(super) fn sandbox_policy() -> SandboxPolicy {
    SandboxPolicy {
        calls: IOCTLS.to_vec(),
        ..SandboxPolicy::default()
    }
}
