// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Libraries of the system, loaded at run time (dlopen(3)).

/// A library of the system.
pub(in crate::gpu::renderer) type DynamicLibrary = libloading::Library;

/// A library cannot be loaded, or lacks a function.
#[derive(Debug, thiserror::Error)]
#[error("{library} cannot be loaded: {source}")]
pub(in crate::gpu::renderer) struct LoadError {
    /// Its file name.
    pub(in crate::gpu::renderer) library: &'static str,
    /// The dynamic linker's error.
    pub(in crate::gpu::renderer) source: libloading::Error,
}

/// Loads a library, which stays loaded until the process ends.
///
/// # Errors
/// If it cannot be loaded.
pub(in crate::gpu::renderer) fn open(
    name: &'static str,
) -> Result<&'static DynamicLibrary, LoadError> {
    // SAFETY: these are libraries of the system, whose constructors may run on any thread.
    let library = unsafe { DynamicLibrary::new(name) };
    let library = library.map_err(|source| LoadError {
        library: name,
        source,
    })?;
    Ok(Box::leak(Box::new(library)))
}
