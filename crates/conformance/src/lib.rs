// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Does a vhost-user backend keep to the conventions, the protocol and its device's specification?
//!
//! A [`Point`] is one thing that QEMU's "Backend program conventions" and the protocol (docs/interop/vhost-user.rst,
//! vhost-user.json, vhost-user-gpu.rst) or virtio 1.2 asks of a backend, with a function that tries it. [`points`] has
//! all of them. A [`Check`] runs points against one program: each starts the program anew in a temporary folder,
//! plays the management layer, the front-end and the guest's driver, and tells what it saw.
//!
//! ```no_run
//! use std::time::Duration;
//! use conformance::{Check, Outcome, Target};
//!
//! let target = Target::program("/usr/lib/qemu/vhost-user-gpu");
//! let check = Check::new(target, Duration::from_secs(10));
//! for point in conformance::points() {
//!     let report = check.run(point);
//!     if let Outcome::Fails(seen) = report.outcome {
//!         println!("{}: {seen}", point.name);
//!     }
//! }
//! ```
//!
//! Nothing here needs root, systemd or a VMM. The program gets files and sockets of the temporary folder only, and
//! whatever it started is killed at the end of the point. No wait is longer than the point's limit. A process that may end
//! by a signal calls [`clean_up`] before.
//!
//! No point is here that was not seen to fail: `examples/stand-in` is a backend with one fault for each, and
//! `tests/points.rs` tries each point against the fault and against a backend without one.

mod check;
mod device;
mod folders;
mod guest;
mod marked;
mod outcome;
mod point;
mod process;
mod program;
mod protocol;
mod sockets;
mod target;
mod trial;
mod work;

pub use check::{Check, Report};
pub use outcome::{Flaw, Outcome, Seen};
pub use point::{Level, Point};
pub use target::{DescriptorFile, Target};
pub use trial::Trial;

/// All points, group by group: conventions, protocol, devices.
pub fn points() -> impl Iterator<Item = &'static Point> {
    program::points()
        .chain(protocol::points())
        .chain(device::points())
}

/// Ends all programs that checks of this process started and removes their folders, for a process that is about to end
/// by a signal. Checks on other threads stop where they would start another program.
pub fn clean_up() {
    marked::kill_every();
    folders::remove_folders();
}

/// Makes this process the parent of all that the programs leave behind, so that also what hides from the check by
/// another environment is found and killed: for a process that has no other children than those that are there now, and
/// runs one point after the other.
///
/// # Errors
/// As `prctl(2)`, PR_SET_CHILD_SUBREAPER.
pub fn adopt_orphans() -> std::io::Result<()> {
    Ok(marked::adopt()?)
}

/// Folders of checks that could not be removed, as those in which the program made files as another user.
#[must_use]
pub fn left_behind() -> Vec<std::path::PathBuf> {
    folders::left()
}

/// The point of this name.
#[must_use]
pub fn point(name: &str) -> Option<&'static Point> {
    points().find(|point| point.name == name)
}
