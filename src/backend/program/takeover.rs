// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether another process of the program goes on where this one ends, and with what.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::backend::continuity::{self, Continuity, ContinuityError, Descriptors};
use crate::backend::service::notify;

/// How long the service manager may take to store the descriptors.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Whether a device goes on in the next process of its program, with the same front-end and guest, where the service
/// manager keeps descriptors for it (`FileDescriptorStoreMax=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// No: the connection ends with the process.
    Unsupported,
    /// No, for this reason, which the log tells: the end of a sentence with "because".
    Impossible(&'static str),
    /// Yes. The device keeps its state by [`DeviceContext`](crate::backend::DeviceContext), and has the same after it was
    /// built anew.
    Supported,
    /// Yes, with images of so many bytes in all. A state is kept only if the process has the address space for them.
    WithImages(u64),
}

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("the service manager does not take it: {0}")]
    Store(#[source] io::Error),
    #[error(transparent)]
    State(#[from] ContinuityError),
    #[error("no descriptors or memory for it: {0}")]
    Create(#[source] io::Error),
    #[error(
        "no address space for images of {bytes} bytes, of which it takes several times as much: {source}"
    )]
    Images { bytes: u64, source: io::Error },
}

/// The state that a predecessor `left`, or a new one that is kept from now on. `is_shared`: the front-end's socket outlives
/// the program too.
pub(super) fn begin(
    program: &str,
    takeover: Takeover,
    left: Option<Descriptors>,
    is_shared: bool,
) -> Continuity {
    if let Some(resumed) = left.and_then(|left| resume(program, takeover, left)) {
        return resumed;
    }
    // The connection of the front-end of a state that is not used closes. A process that died while it gave a state away left
    // a part of it.
    forget_all();
    if !is_shared || notify::kept_descriptors() < continuity::NAMES.len() {
        return Continuity::default();
    }
    let images = match takeover {
        Takeover::Supported => None,
        Takeover::WithImages(bytes) => Some(bytes),
        Takeover::Unsupported => return Continuity::default(),
        Takeover::Impossible(reason) => {
            log::info!(
                "a restart of this program ends the front-end's connection, because {reason}"
            );
            return Continuity::default();
        }
    };
    keep_new(program, images).unwrap_or_else(|error| {
        log::warn!("a restart of this program will end the front-end's connection: {error}");
        forget_all();
        Continuity::default()
    })
}

/// Has the service manager close whatever it keeps of a state. What it keeps counts as a state that is kept: vhostctl
/// would not warn of a restart.
pub(super) fn forget_all() {
    if notify::keeps_descriptors() {
        continuity::NAMES
            .iter()
            .for_each(|name| notify::forget_kept(name));
    }
}

fn resume(program: &str, takeover: Takeover, left: Descriptors) -> Option<Continuity> {
    if let Takeover::Unsupported | Takeover::Impossible(_) = takeover {
        log::warn!("cannot go on for the process before this one with these options");
        return None;
    }
    match Continuity::resume(program, left) {
        Ok(resumed) => resumed,
        Err(error) => {
            log::warn!(
                "cannot go on for the process before this one, and closes its front-end's connection: {error}. The VM has lost this \
                 device: shut it down and start it again"
            );
            None
        }
    }
}

/// Gives the service manager a new state to keep, with room for `images`. No front-end may be accepted before.
fn keep_new(program: &str, images: Option<u64>) -> Result<Continuity, KeepError> {
    let descriptors = Descriptors::create().map_err(KeepError::Create)?;
    let ours = descriptors.try_clone().map_err(KeepError::Create)?;
    // First: what the service manager has counts as a state that is kept.
    let continuity = Continuity::begin(program, ours)?;
    if let Some(bytes) = images {
        let mapped = continuity.arena(bytes);
        mapped.map_err(|source| KeepError::Images { bytes, source })?;
    }
    for (name, fd) in descriptors.named() {
        notify::keep(name, fd.as_fd()).map_err(KeepError::Store)?;
    }
    notify::barrier(STORE_LIMIT).map_err(KeepError::Store)?;
    Ok(continuity)
}
