// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machines that QEMU emulates.

use crate::artifacts::Accelerator;

/// A machine of QEMU, and what its kernel has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// x86-64.
    Q35,
    /// arm64.
    Virt,
}

impl Board {
    /// The value of QEMU's `-machine`, without the memory.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::Q35 => "q35,i8042=off",
            Self::Virt => "virt",
        }
    }

    /// The value of QEMU's `-cpu`.
    pub(crate) fn cpu(self, accelerator: Accelerator) -> &'static str {
        match (accelerator, self) {
            (Accelerator::Kvm, _) => "host",
            // "max" would break what LLVM compiles for it in the guest.
            (Accelerator::Tcg, Self::Q35) => "Haswell-noTSX",
            (Accelerator::Tcg, Self::Virt) => "cortex-a72",
        }
    }

    /// Options of the kernel. Its messages go to the first serial port.
    pub(crate) fn kernel_options(self) -> &'static str {
        match self {
            // For hosts that are so busy that the guest gets no processor for long: without no_timer_check, the kernel panics
            // when it misses interrupts of its timer; without tsc=nowatchdog, it complains that a clock was read late.
            Self::Q35 => "console=ttyS0 no_timer_check tsc=nowatchdog",
            Self::Virt => "console=ttyAMA0",
        }
    }
}
