//! How much memory the process really has: a net below the accounts.
//!
//! OpenGL keeps what no account can tell: code of programs, and deleted textures that one of its contexts
//! had bound last. Where it draws by software, that is memory of this process. Of a GPU's memory the
//! process knows nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// How much more than the budget the process may have. OpenGL's libraries and a guest's shaders, which
/// are no resources, take some hundred megabytes.
const SLACK: u64 = 512 << 20;
/// `statm` of proc(5): seven numbers.
const MOST: usize = 256;

/// The process's own memory, and how much it may be.
pub(super) struct Resident {
    statm: File,
    most: u64,
}

impl Resident {
    /// From now on, a budget of `budget` bytes may be used up, and OpenGL may take something.
    ///
    /// # Errors
    /// Where the process may not look at itself.
    pub(super) fn new(budget: u64) -> io::Result<Self> {
        let statm = File::open("/proc/self/statm")?;
        let most = anonymous(&statm)?
            .saturating_add(budget)
            .saturating_add(SLACK);
        Ok(Self { statm, most })
    }

    /// How many bytes the process has too many, where it does.
    pub(super) fn excess(&self) -> Option<u64> {
        let excess = || anonymous(&self.statm).ok()?.checked_sub(self.most);
        excess()?;
        give_back();
        excess()
    }
}

/// Bytes of memory that are the process's alone: not the guest's, and of no file.
fn anonymous(statm: &File) -> io::Result<u64> {
    let mut text = [0; MOST];
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

/// Has the allocator give back what nobody uses.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_as_large_as_what_it_has_written_to() {
        let statm = File::open("/proc/self/statm").unwrap();
        let before = anonymous(&statm).unwrap();
        assert!(before > 0);
        let block = vec![7_u8; 64 << 20];
        let grown = anonymous(&statm).unwrap() - before;
        // The kernel counts in lots of pages.
        assert!((48 << 20..96 << 20).contains(&grown), "{grown}");
        drop(block);
    }

    #[test]
    fn beyond_the_budget_is_an_excess() {
        let mut resident = Resident::new(1 << 30).unwrap();
        assert_eq!(resident.excess(), None);
        resident.most = 0;
        assert!(resident.excess().is_some());
    }
}
