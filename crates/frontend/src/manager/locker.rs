// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket pair in whose queue a program keeps descriptors for the next one.

use std::fs;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, SocketType, send, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{Error, Result};

/// Fills the queue of a locker ("locker-out"), as if a program kept many descriptors: no more can be kept.
///
/// # Errors
/// As `send(2)`.
pub fn fill_locker(locker: impl AsFd) -> Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match send(&locker, &[0xff; 8], flags) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(Error::os("filling a locker")(error)),
        }
    }
}

/// Fills the locker of the process `pid`, of whatever service manager. Needs the privileges of `ptrace(2)`.
///
/// # Errors
/// If it has none; as `pidfd_getfd(2)` and [`fill_locker`].
pub fn fill_locker_of(pid: i32) -> Result<()> {
    let none = || Error::Protocol(format!("process {pid} has no locker"));
    let process = pidfd_open(Pid::from_raw(pid).ok_or_else(none)?, PidfdFlags::empty());
    let process = process.map_err(Error::os("pidfd_open"))?;
    let folder = format!("/proc/{pid}/fd");
    let mut lockers = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("descriptors of a process"))? {
        let entry = entry.map_err(Error::io("descriptors of a process"))?;
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|file| file.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_string_lossy().parse();
        let (true, Ok(number)) = (is_socket, number) else {
            continue;
        };
        let fd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
        let fd = fd.map_err(Error::os("pidfd_getfd"))?;
        if sockopt::socket_type(&fd) == Ok(SocketType::SEQPACKET) {
            fill_locker(fd)?;
            lockers += 1;
        }
    }
    match lockers {
        0 => Err(none()),
        _ => Ok(()),
    }
}
