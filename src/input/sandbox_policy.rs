//! What the device needs of the system once it is open: to ask evdev for states, and to grab it.

use crate::backend::{Argument, SandboxPolicy, SyscallRule};

/// The parts of an ioctl's number (Linux's asm-generic/ioctl.h): its direction, type and number, and
/// not the size of the answer, of which there is room for more or less.
const ALL_BUT_SIZE: u32 = 0xc000_ffff;
const READ: u32 = 2 << 30 | EVDEV;
const WRITE: u32 = 1 << 30 | EVDEV;
const EVDEV: u32 = (b'E' as u32) << 8;

const fn evdev(mask: u32, request: u32) -> SyscallRule {
    SyscallRule::with(libc::SYS_ioctl, Argument::masked(1, mask, request))
}

/// Linux's linux/input.h: what is read of a device, and that it is grabbed and released. Not on the
/// list: its key map, force feedback, its revocation.
const CALLS: [SyscallRule; 6] = [
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
        calls: CALLS.to_vec(),
        ..SandboxPolicy::default()
    }
}
