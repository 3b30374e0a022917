// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `EVIOCGRAB`, of a descriptor that may have been grabbed by a predecessor of this process: the crate `evdev` only ends
//! grabs that it began.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use vmm_sys_util::ioctl;

/// Whether events of an open device come to no other reader.
#[derive(Debug)]
pub(crate) enum Grab {
    /// They do.
    Free,
    /// They do not.
    Held,
    /// A predecessor had the descriptor. `is_recorded`: it recorded that it grabs the device whenever a guest has it.
    Left { is_recorded: bool },
}

impl Grab {
    /// Begins it, if it is not held: `set` is the request, for 1 or 0.
    ///
    /// # Errors
    /// `ResourceBusy` if another process holds it.
    pub(crate) fn begin(&mut self, mut set: impl FnMut(bool) -> io::Result<()>) -> io::Result<()> {
        let begun = match self {
            Self::Held => return Ok(()),
            Self::Free => set(true),
            Self::Left { is_recorded } => match set(true) {
                // The kernel says so of the descriptor's own grab too.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    if *is_recorded {
                        Ok(())
                    } else {
                        // A predecessor died between its grab and the record of that, if this succeeds.
                        let ended = set(false).map_err(|_| error);
                        ended.and_then(|()| set(true))
                    }
                }
                begun => begun,
            },
        };
        *self = match begun {
            Ok(()) => Self::Held,
            Err(_) => Self::Free,
        };
        begun
    }

    /// Ends it, if it is held: `set` is the request, for 1 or 0.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    pub(crate) fn end(&mut self, mut set: impl FnMut(bool) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Free => return Ok(()),
            Self::Held => set(false)?,
            Self::Left { .. } => match set(false) {
                // A predecessor did not grab it after all, or ended that.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {}
                ended => ended?,
            },
        }
        *self = Self::Free;
        Ok(())
    }
}

/// The request, of an evdev device.
pub(super) fn set_grab(device: BorrowedFd<'_>, grab: bool) -> io::Result<()> {
    let number = ioctl::ioctl_expr(
        ioctl::_IOC_WRITE,
        u32::from(b'E'),
        0x90,
        size_of::<libc::c_int>() as u32,
    );
    // SAFETY: the request takes its argument as a number, and accesses no memory.
    match unsafe { ioctl::ioctl_with_val(&device, number, grab.into()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's side of a device.
    #[derive(Default)]
    struct Kernel {
        ours: bool,
        anothers: bool,
    }

    impl Kernel {
        fn set(&mut self, grab: bool) -> io::Result<()> {
            match grab {
                true if self.ours || self.anothers => return Err(Errno::BUSY.into()),
                false if !self.ours => return Err(Errno::INVAL.into()),
                _ => self.ours = grab,
            }
            Ok(())
        }
    }

    #[test]
    fn grab_of_a_predecessor_is_taken_over_and_ended() {
        for is_recorded in [true, false] {
            for ours in [true, false] {
                let mut kernel = Kernel {
                    ours,
                    anothers: false,
                };
                let mut grab = Grab::Left { is_recorded };
                grab.begin(|grab| kernel.set(grab)).expect("it is free");
                assert!(kernel.ours, "recorded: {is_recorded}, held: {ours}");
                grab.end(|grab| kernel.set(grab)).expect("it is held");
                assert!(!kernel.ours);
                kernel.ours = ours;
                let mut grab = Grab::Left { is_recorded };
                grab.end(|grab| kernel.set(grab)).expect("it may be held");
                assert!(!kernel.ours, "recorded: {is_recorded}, held: {ours}");
                grab.begin(|grab| kernel.set(grab)).expect("it is free");
                assert!(kernel.ours);
            }
        }
    }

    #[test]
    fn grab_of_another_process_is_an_error() {
        let mut kernel = Kernel {
            ours: false,
            anothers: true,
        };
        for mut grab in [Grab::Free, Grab::Left { is_recorded: false }] {
            let busy = grab.begin(|grab| kernel.set(grab));
            let busy = busy.expect_err("another process has it");
            assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        }
    }

    /// The host never gets a key in between.
    #[test]
    fn recorded_grab_does_not_end_in_between() {
        let mut requests = Vec::new();
        let mut grab = Grab::Left { is_recorded: true };
        let begun = grab.begin(|grab| {
            requests.push(grab);
            Err(Errno::BUSY.into())
        });
        begun.expect("it is held");
        assert_eq!(requests, [true]);
    }
}
