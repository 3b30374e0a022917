// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives back the memory that only the start of the program needed.
//!
//! The command line, the sandbox and a front-end that sets the device up take more code than to serve, and memory that is free
//! afterwards. A host has one process for each device, which serves for days.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

/// Gives free memory back to the host, and unmaps code and constants until they are needed again. What is needed again is
/// found in the kernel's page cache, which keeps it for as long as the host has memory for it.
pub(crate) fn give_back() {
    // SAFETY: no memory that is in use is touched.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: `unmap_constants` keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(unmap_constants), ptr::null_mut()) };
}

/// The libraries that are unmapped as well, by the names of their files. Others stay: libraries of graphics may have
/// relocations in their code, or change it while they run.
const LIBRARIES: [&[u8]; 4] = [b"ld-linux", b"libc.so.", b"libgcc_s.so.", b"libm.so."];

/// Whether an object of this name is the program itself, which has none, or one of [`LIBRARIES`].
fn is_meant(name: &[u8]) -> bool {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    name.is_empty() || LIBRARIES.iter().any(|begin| file.starts_with(begin))
}

/// Unmaps the pages of those parts of a program or library that are never written.
///
/// # Safety
/// `object` describes one that is loaded.
unsafe extern "C" fn unmap_constants(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: as the caller promises.
    let (name, base, headers) = unsafe {
        let object = &*object;
        let name = match object.dlpi_name.is_null() {
            true => c"",
            false => CStr::from_ptr(object.dlpi_name),
        };
        let headers = object.dlpi_phdr;
        let count = match headers.is_null() {
            true => 0,
            false => object.dlpi_phnum.into(),
        };
        let headers = match count {
            0 => &[],
            _ => std::slice::from_raw_parts(headers, count),
        };
        (name, object.dlpi_addr as usize, headers)
    };
    if !is_meant(name.to_bytes()) {
        return 0;
    }
    let page = rustix::param::page_size();
    // A part with relocations is writable here, and made read-only later (`PT_GNU_RELRO`).
    let is_constant = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(is_constant) {
        let start = base.wrapping_add(header.p_vaddr as usize);
        let end = start.wrapping_add(header.p_memsz as usize);
        let start = start / page * page;
        let len = end.saturating_sub(start);
        // SAFETY: pages of a file that were not written: whoever needs one gets the same bytes from the file. Where the kernel
        // refuses, they stay.
        unsafe { libc::madvise(ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Relocated at the start, so that its page is no page of the file.
    static WORDS: [&str; 3] = ["it", "is", "there"];

    /// KiB that are present of the parts of this program that are never written.
    fn resident() -> u64 {
        let name = std::env::current_exe().expect("a name");
        let name = name.to_string_lossy().into_owned();
        let maps = fs::read_to_string("/proc/self/smaps").expect("maps");
        let mut is_constant = false;
        let mut sum = 0;
        for line in maps.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [_, flags, _, _, _, file] => is_constant = file == name && !flags.contains('w'),
                ["Rss:", number, _] if is_constant => {
                    sum += number.parse::<u64>().expect("a number")
                }
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn libraries_that_may_change_their_code_stay() {
        for meant in [
            "",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ] {
            assert!(is_meant(meant.as_bytes()), "{meant}");
        }
        for other in [
            "linux-vdso.so.1",
            "/usr/lib/x86_64-linux-gnu/libGLdispatch.so.0",
            "/usr/lib/libc.so.d/libEGL_nvidia.so.0",
        ] {
            assert!(!is_meant(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn program_goes_on_with_less_memory() {
        let before = resident();
        assert!(before > 0);
        give_back();
        let after = resident();
        assert!(after < before, "{before} KiB before and {after} after");
        assert_eq!(std::hint::black_box(&WORDS).concat(), "itisthere");
    }
}
