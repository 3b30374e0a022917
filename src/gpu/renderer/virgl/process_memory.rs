// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A limit on the memory of the process, in case the budget misses something.
//!
//! OpenGL keeps memory that no command accounts for: machine code of shaders, and deleted textures that
//! one of its contexts has bound. With software rendering, this is memory of the process. GPU memory is
//! not visible here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::gpu::renderer::ContextError;
use crate::gpu::resource::Budget;

/// Bytes that the process may use beyond the budget. OpenGL's libraries and a guest's shaders take some
/// hundred megabytes.
const SLACK: u64 = 512 << 20;
/// Most bytes of `/proc/self/statm` (proc(5)): seven numbers.
const STATM_LEN: usize = 256;
/// Streams from one check of the memory to the next: a check takes longer than a small stream.
const STREAMS_PER_CHECK: u32 = 64;

/// Compares the memory of the process with its limit.
pub(super) struct ProcessMemory {
    /// `None` without a limit.
    limit: Option<Limit>,
    /// Number of streams so far; wraps around.
    streams: u32,
}

struct Limit {
    statm: File,
    bytes: u64,
}

impl ProcessMemory {
    /// Limits the process to its current memory plus `budget` and [`SLACK`]. There is no limit if
    /// /proc cannot be read.
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            limit: Limit::new(budget.limit()).ok(),
            streams: 0,
        }
    }

    /// No limit.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn unlimited() -> Self {
        Self {
            limit: None,
            streams: 0,
        }
    }

    /// Bytes beyond the limit; `None` within it.
    pub(super) fn excess(&self) -> Option<u64> {
        self.limit.as_ref().and_then(Limit::excess)
    }

    /// Checks the limit.
    ///
    /// # Errors
    /// If the process uses more.
    pub(super) fn check(&self) -> Result<(), ContextError> {
        match self.excess() {
            Some(excess) => Err(ContextError::Excess(excess)),
            None => Ok(()),
        }
    }

    /// Checks the limit with every [`STREAMS_PER_CHECK`]th call, once for each command stream.
    ///
    /// # Errors
    /// As [`ProcessMemory::check`].
    pub(super) fn check_stream(&mut self) -> Result<(), ContextError> {
        self.streams = self.streams.wrapping_add(1);
        if self.streams % STREAMS_PER_CHECK == 0 {
            return self.check();
        }
        Ok(())
    }
}

impl Limit {
    fn new(budget: u64) -> io::Result<Self> {
        let statm = File::open("/proc/self/statm")?;
        let bytes = anonymous(&statm)?
            .saturating_add(budget)
            .saturating_add(SLACK);
        Ok(Self { statm, bytes })
    }

    fn excess(&self) -> Option<u64> {
        let excess = || anonymous(&self.statm).ok()?.checked_sub(self.bytes);
        excess()?;
        trim_heap();
        excess()
    }
}

/// Bytes of private memory: neither the guest's nor of a file.
fn anonymous(statm: &File) -> io::Result<u64> {
    let mut text = [0; STATM_LEN];
    let len = statm.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned();
    let mut pages = text.split_whitespace().map(str::parse::<u64>);
    // Size, resident, shared.
    let (Some(_), Some(Ok(resident)), Some(Ok(shared))) =
        (pages.next(), pages.next(), pages.next())
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let page = rustix::param::page_size() as u64;
    Ok(resident.saturating_sub(shared).saturating_mul(page))
}

/// Returns the allocator's free memory to the system.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_counts_the_memory_that_was_written_to() {
        let statm = File::open("/proc/self/statm").unwrap();
        let before = anonymous(&statm).unwrap();
        assert!(before > 0);
        let block = vec![7_u8; 64 << 20];
        let grown = anonymous(&statm).unwrap() - before;
        // The kernel counts in batches of pages.
        assert!((48 << 20..96 << 20).contains(&grown), "{grown}");
        drop(block);
    }

    #[test]
    fn memory_beyond_the_limit_is_an_excess() {
        let mut memory = ProcessMemory::new(&Budget::new(1 << 30));
        assert_eq!(memory.excess(), None);
        memory.limit.as_mut().unwrap().bytes = 0;
        assert!(memory.excess().is_some());
    }
}
