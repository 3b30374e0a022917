// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many file descriptors the program may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit on open file descriptors (`RLIMIT_NOFILE`) to what the program may have. A front-end may share 509
/// regions of memory, each by a descriptor, which a program that takes over has more than once for a moment.
///
/// The limit that most processes have, 1024, is for select(2), which neither this library nor what it loads uses. Programs that it
/// starts would inherit the limit: it starts none.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("cannot raise the limit on open files: {error}");
    }
}
