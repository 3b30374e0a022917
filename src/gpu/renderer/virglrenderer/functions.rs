// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The functions of libvirglrenderer, loaded at run time and only by the options that need it.
//!
//! A linked library would load some twenty others into every process, including those that render in
//! 2D or only print their capabilities. The types come from the library's header, and the compiler
//! checks each function's type against that header.

use super::{DynamicLibrary, LIBRARY, LoadError, dynamic_library};

/// A table of functions of the library.
pub(in crate::gpu::renderer) trait Functions: Sized {
    /// Finds them in the library.
    ///
    /// # Errors
    /// If it lacks one.
    fn find(library: &DynamicLibrary) -> Result<Self, libloading::Error>;

    /// Loads the library and finds them. It stays loaded, since it keeps threads and callbacks.
    ///
    /// # Errors
    /// If it cannot be loaded, or lacks one.
    fn load() -> Result<(Self, &'static DynamicLibrary), LoadError> {
        let library = dynamic_library::open(LIBRARY)?;
        let functions = Self::find(library).map_err(|source| LoadError {
            library: LIBRARY,
            source,
        })?;
        Ok((functions, library))
    }
}

/// Declares a table of functions: `name = symbol(arguments) -> result;`.
macro_rules! functions {
    ($(#[$table:meta])* $Table:ident; $(
        $(#[$doc:meta])* $name:ident = $symbol:ident($($argument:ty),* $(,)?) $(-> $result:ty)?;
    )*) => {
        $(#[$table])*
        pub(super) struct $Table {
            $($(#[$doc])* pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        // The types above are those of the header.
        const _: () = {
            $(let _: unsafe extern "C" fn($($argument),*) $(-> $result)? =
                virglrenderer_sys::$symbol;)*
        };

        impl $crate::gpu::renderer::virglrenderer::Functions for $Table {
            fn find(
                library: &$crate::gpu::renderer::virglrenderer::DynamicLibrary,
            ) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the types are checked against the header above, and the library's
                    // name has the version of the ABI.
                    $($name: unsafe { *library.get(stringify!($symbol).as_bytes())? },)*
                })
            }
        }
    };
}
pub(in crate::gpu::renderer) use functions;
