// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the memory of an exported blob lies in its file, and whether that file can be mapped safely.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, fstat, seek};

use super::library::{Exported, ExportedType};
use crate::gpu::resource::{BlobError, HostMapping, HostMemory, is_dmabuf};

/// The blob of `len` bytes that was exported as `exported`.
///
/// # Errors
/// If its file is shorter, could be shortened, or has a layout that is not known.
pub(super) fn mapping(
    exported: Exported,
    len: u64,
    caching: u32,
) -> Result<HostMapping, BlobError> {
    let Exported { kind, file } = exported;
    let offset = match kind {
        ExportedType::Dmabuf if is_dmabuf(&file) => {
            let size = seek(&file, SeekFrom::End(0)).map_err(|e| BlobError::File(e.into()))?;
            check_size(size, 0, len)?;
            0
        }
        // The render server says what it is: a file that is no dmabuf could be shortened.
        ExportedType::Dmabuf => {
            let size = size_of_sealed(&file)?;
            check_size(size, 0, len)?;
            0
        }
        ExportedType::Memfd => {
            let size = size_of_sealed(&file)?;
            check_size(size, 0, len)?;
            0
        }
        ExportedType::Opaque => {
            // The driver's own descriptors, such as a device's, have no seals.
            let size = size_of_sealed(&file).map_err(|_| BlobError::Opaque)?;
            let (file, offset) = mesa_offset(file, size)?;
            check_size(size, offset, len)?;
            return Ok(host_mapping(file, offset, len, caching, false));
        }
    };
    let is_dmabuf = kind == ExportedType::Dmabuf;
    Ok(host_mapping(file, offset, len, caching, is_dmabuf))
}

fn host_mapping(
    file: OwnedFd,
    offset: u64,
    len: u64,
    caching: u32,
    is_dmabuf: bool,
) -> HostMapping {
    let memory = HostMemory {
        file: Arc::new(file),
        offset,
        len,
        caching,
    };
    HostMapping::new(memory, is_dmabuf)
}

/// Checks that a file of `size` bytes has `len` from `offset` on. Whole pages are mapped.
fn check_size(size: u64, offset: u64, len: u64) -> Result<(), BlobError> {
    let end = offset.checked_add(len);
    match end {
        Some(end) if end <= size => Ok(()),
        _ => Err(BlobError::ShortFile { size, offset, len }),
    }
}

/// The size of a memfd, which can no longer be shortened: who maps it would be ended by an access behind its end.
fn size_of_sealed(file: &impl AsFd) -> Result<u64, BlobError> {
    let failed = |e: rustix::io::Errno| BlobError::File(e.into());
    if !fcntl_get_seals(file)
        .map_err(failed)?
        .contains(SealFlags::SHRINK)
    {
        fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW).map_err(failed)?;
    }
    let stat = fstat(file).map_err(failed)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Where the memory begins in a memfd of Mesa's llvmpipe, whose Vulkan driver is lavapipe. The file begins with its size and
/// that offset (`size_t`); the offset is also the last word before the memory.
///
/// # Errors
/// If the file is not of this layout.
fn mesa_offset(file: OwnedFd, size: u64) -> Result<(OwnedFd, u64), BlobError> {
    const WORD: u64 = size_of::<usize>() as u64;
    let file = File::from(file);
    let word = |at: u64| {
        let mut bytes = [0; size_of::<usize>()];
        file.read_exact_at(&mut bytes, at)
            .map(|()| usize::from_ne_bytes(bytes) as u64)
            .map_err(|_| BlobError::Opaque)
    };
    let [has_size, offset] = [word(0)?, word(WORD)?];
    let page = rustix::param::page_size() as u64;
    let is_aligned = offset != 0 && offset % page == 0;
    if has_size != size || !is_aligned || offset >= size {
        return Err(BlobError::Opaque);
    }
    if word(offset.saturating_sub(WORD))? != offset {
        return Err(BlobError::Opaque);
    }
    Ok((file.into(), offset))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const PAGE: u64 = 4096;

    fn memfd(size: u64) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("blob", flags).unwrap();
        ftruncate(&file, size).unwrap();
        file.into()
    }

    fn exported(kind: ExportedType, file: File) -> Exported {
        Exported {
            kind,
            file: file.into(),
        }
    }

    /// A file as llvmpipe makes it.
    fn mesa_file(offset: u64, len: u64) -> File {
        let size = offset + len + 40;
        let file = memfd(size);
        for (at, word) in [(0, size), (8, offset), (offset - 8, offset)] {
            file.write_all_at(&word.to_ne_bytes(), at).unwrap();
        }
        file
    }

    #[test]
    fn memfd_is_mapped_from_its_beginning_and_cannot_shrink() {
        let file = memfd(2 * PAGE);
        let ours = file.try_clone().unwrap();
        let mapping = mapping(exported(ExportedType::Memfd, file), 2 * PAGE, 1).unwrap();
        assert_eq!(
            (mapping.memory().offset, mapping.memory().len),
            (0, 2 * PAGE)
        );
        assert!(ftruncate(&ours, PAGE).is_err());
    }

    #[test]
    fn file_that_is_too_short_or_may_shrink_is_refused() {
        let short = exported(ExportedType::Memfd, memfd(PAGE));
        let error = mapping(short, PAGE + 1, 1).unwrap_err();
        assert!(matches!(error, BlobError::ShortFile { .. }));
        let unsealable = memfd_create("blob", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&unsealable, PAGE).unwrap();
        let unsealable = exported(ExportedType::Memfd, unsealable.into());
        let error = mapping(unsealable, PAGE, 1).unwrap_err();
        assert!(matches!(error, BlobError::File(_)));
    }

    /// A render server that a guest got into could call any file so.
    #[test]
    fn file_that_is_called_a_dmabuf_and_is_none_cannot_shrink() {
        let file = memfd(PAGE);
        let ours = file.try_clone().unwrap();
        mapping(exported(ExportedType::Dmabuf, file), PAGE, 1).unwrap();
        assert!(ftruncate(&ours, 0).is_err());
        let unsealable = memfd_create("blob", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&unsealable, PAGE).unwrap();
        for file in [File::from(unsealable), tempfile::tempfile().unwrap()] {
            file.set_len(PAGE).unwrap();
            let error = mapping(exported(ExportedType::Dmabuf, file), PAGE, 1).unwrap_err();
            assert!(matches!(error, BlobError::File(_)), "{error:?}");
        }
    }

    #[test]
    fn lavapipes_memory_begins_behind_its_header() {
        let file = exported(ExportedType::Opaque, mesa_file(PAGE, 3 * PAGE));
        let mapping = mapping(file, 3 * PAGE, 1).unwrap();
        assert_eq!(
            (mapping.memory().offset, mapping.memory().len),
            (PAGE, 3 * PAGE)
        );
    }

    #[test]
    fn opaque_files_of_other_layouts_are_refused() {
        let changed = |at: u64, word: u64| {
            let file = mesa_file(PAGE, PAGE);
            file.write_all_at(&word.to_ne_bytes(), at).unwrap();
            file
        };
        let files = [
            memfd(3 * PAGE),
            memfd(4),
            changed(0, PAGE),
            changed(8, 64),
            changed(8, u64::MAX - PAGE + 1),
            changed(PAGE - 8, 2 * PAGE),
            File::open("/dev/null").unwrap(),
        ];
        for file in files {
            let error = mapping(exported(ExportedType::Opaque, file), PAGE, 1).unwrap_err();
            assert!(matches!(error, BlobError::Opaque), "{error:?}");
        }
        let file = exported(ExportedType::Opaque, mesa_file(PAGE, PAGE));
        let error = mapping(file, 2 * PAGE, 1).unwrap_err();
        assert!(matches!(error, BlobError::ShortFile { .. }));
    }
}
