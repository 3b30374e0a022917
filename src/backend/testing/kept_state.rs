// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of processes that die one after the other.

use std::io;

use crate::backend::continuity::{Continuity, Descriptors};

/// What a service manager keeps of a device's processes: each of them goes on where the last one died.
#[derive(Debug)]
pub(crate) struct KeptState {
    descriptors: Descriptors,
    processes: usize,
}

const PROGRAM: &str = "test";

impl KeptState {
    /// Of no process yet.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            descriptors: Descriptors::create()?,
            processes: 0,
        })
    }

    /// How many processes there were.
    #[cfg(test)]
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// What the next process gets. Tests kill processes as often as they like: deaths do not count.
    ///
    /// # Errors
    /// As [`KeptState::successor`].
    pub(crate) fn next_process(&mut self) -> io::Result<Continuity> {
        let next = self.successor()?;
        next.forget_deaths();
        Ok(next)
    }

    /// The last process wrote `bytes` at `at` of its lists.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn write_lists(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        crate::backend::continuity::fuzzing::write_lists(&self.descriptors, at, bytes)
    }

    /// What the next process gets.
    ///
    /// # Errors
    /// If the host has no descriptors or address space left, or the last process left no state to go on with, or too many
    /// died of it.
    pub(crate) fn successor(&mut self) -> io::Result<Continuity> {
        let [(_, state), (_, images), (_, incoming), (_, outgoing)] = self.descriptors.named();
        let descriptors = Descriptors::from_kept([
            state.try_clone()?,
            images.try_clone()?,
            incoming.try_clone()?,
            outgoing.try_clone()?,
        ]);
        self.processes += 1;
        if self.processes > 1 {
            let left = Continuity::resume(PROGRAM, descriptors).map_err(io::Error::other)?;
            left.ok_or_else(|| io::Error::other("the state has ended"))
        } else {
            Continuity::begin(PROGRAM, descriptors).map_err(io::Error::other)
        }
    }
}
