// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What both renderers that use virglrenderer share: libraries loaded at run time, its log, and that a process has one
//! instance of it.

mod dynamic_library;
mod functions;
mod instance;
mod library_log;

pub(super) use dynamic_library::{DynamicLibrary, LoadError, open};
pub(super) use functions::{Functions, functions};
pub(super) use instance::{Instance, Refused, accepted, capset, capset_data};
pub(super) use library_log::{attach, is_1_1, last_message, limit};

/// File name of the library, with the version of its ABI.
const LIBRARY: &str = "libvirglrenderer.so.1";
