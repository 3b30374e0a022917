// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Libraries of the system, loaded at run time (dlopen(3)).

use super::VirglError;

/// A library of the system. `library::Library` is virglrenderer, initialised.
pub(super) type DynamicLibrary = libloading::Library;

/// Loads a library, which stays loaded until the process ends.
///
/// # Errors
/// If it cannot be loaded.
pub(super) fn open(name: &'static str) -> Result<&'static DynamicLibrary, VirglError> {
    // SAFETY: these are libraries of the system, whose constructors may run on any thread.
    let library = unsafe { DynamicLibrary::new(name) };
    let library = library.map_err(|source| VirglError::Missing {
        library: name,
        source,
    })?;
    Ok(Box::leak(Box::new(library)))
}
