// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rewrites or refuses front-end requests that would make the vhost-user-backend daemon or its worker exit.
//!
//! Valid requests are rewritten: a guest can cause them, and must not end its own device. Requests that cannot
//! be served are refused with a message that says why.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::{FrontendReq, VhostUserVirtioFeatures};

use super::message_header::HEADER;
use super::running_vrings::RunningVrings;
use crate::backend::logging::RateLimitedLog;
use crate::backend::virtqueue::signal;
use features::Unoffered;
use memory::{MemoryError, SharedMemory};

mod features;
mod memory;

const GET_FEATURES: u32 = FrontendReq::GET_FEATURES as u32;
const SET_FEATURES: u32 = FrontendReq::SET_FEATURES as u32;
const SET_OWNER: u32 = FrontendReq::SET_OWNER as u32;
const RESET_OWNER: u32 = FrontendReq::RESET_OWNER as u32;
const RESET_DEVICE: u32 = FrontendReq::RESET_DEVICE as u32;
const SET_MEM_TABLE: u32 = FrontendReq::SET_MEM_TABLE as u32;
const ADD_MEM_REG: u32 = FrontendReq::ADD_MEM_REG as u32;
const REM_MEM_REG: u32 = FrontendReq::REM_MEM_REG as u32;
const SET_VRING_ADDR: u32 = FrontendReq::SET_VRING_ADDR as u32;
const SET_VRING_KICK: u32 = FrontendReq::SET_VRING_KICK as u32;

/// Flags of a message: protocol version 1, no acknowledgement.
const VERSION: u32 = 1;
/// Flags of a message: a reply, an acknowledgement is wanted.
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Offsets of the addresses in the payload of `SET_VRING_ADDR`, and their alignment (virtio 1.2, 2.7):
/// descriptor table, used ring, available ring.
const RING_PARTS: [(usize, u64); 3] = [(8, 16), (16, 4), (24, 2)];
/// Bytes of a ring that the daemon reads on `SET_VRING_ADDR`.
const RING_HEADER: u64 = 4;
/// Bit in the payload of `SET_VRING_KICK`: the message has no eventfd.
const NO_EVENTFD: u64 = 1 << 8;

/// Why a request is refused, which ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Unoffered(#[from] Unoffered),
    #[error(
        "the front-end wants virtqueue {0} to be polled (VHOST_USER_SET_VRING_KICK without an eventfd), which is not supported"
    )]
    Polled(u64),
}

/// Messages to send to the daemon before and after a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExtraMessages {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

/// Rewrites or refuses requests, by what it keeps of earlier messages.
#[derive(Default)]
pub(super) struct RequestSanitizer {
    memory: SharedMemory,
    owned: bool,
    /// The virtio features that the device offered, and those that the front-end set last.
    offered: Option<u64>,
    features: Option<u64>,
    vrings: RunningVrings,
    trouble: RateLimitedLog,
}

impl RequestSanitizer {
    /// Whether the front-end is answered with an error instead of the daemon getting the request, for which an
    /// acknowledgement is asked. The front-end goes on without what it asked for.
    ///
    /// So it is with what this device (`is_own`) or another one of the VM had the front-end map into the guest. QEMU 11.1 gives such maps to all
    /// vhost-user devices, as if they were the guest's memory. It keeps a list of what each device has, if that can take
    /// single regions. When the VM is reset it removes the maps while the devices are stopped, looks them up when it updates the
    /// lists at the next start, and crashes (tried). What a device refuses is not in its list; QEMU goes on, and the device
    /// needs no such memory. While the virtqueues are stopped nothing is refused: QEMU would not start the device.
    pub(super) fn declines(&self, message: &[u8], fds: &[OwnedFd], is_own: bool) -> bool {
        let header = |at: usize| half_word(message, at);
        let is_added = header(0) == Some(ADD_MEM_REG)
            && header(4).is_some_and(|flags| flags & NEED_REPLY != 0)
            && self.vrings.run();
        let payload = message.get(HEADER..).unwrap_or_default();
        is_added && (is_own || self.memory.is_map(payload, fds))
    }

    /// Checks and rewrites a request of the front-end before the daemon gets it.
    ///
    /// # Errors
    /// If the request cannot be served.
    pub(super) fn request(
        &mut self,
        request: u32,
        payload: &mut [u8],
        fds: &mut [OwnedFd],
    ) -> Result<ExtraMessages, RequestError> {
        self.vrings.note(request, payload);
        match request {
            SET_FEATURES => self.set_features(payload)?,
            SET_OWNER => return Ok(self.set_owner()),
            RESET_OWNER => self.owned = false,
            RESET_DEVICE => return Ok(self.features_again()),
            SET_MEM_TABLE => self.memory.replace(payload, fds)?,
            ADD_MEM_REG => self.memory.add(payload, fds)?,
            REM_MEM_REG => self.memory.remove(payload)?,
            SET_VRING_ADDR => self.redirect_invalid_vring(payload),
            SET_VRING_KICK => set_kick(payload, fds)?,
            _ => {}
        }
        Ok(ExtraMessages::default())
    }

    /// Notes a reply of the daemon.
    pub(super) fn reply(&mut self, request: u32, payload: &[u8]) {
        if request == GET_FEATURES {
            self.offered = word(payload, 0);
        }
    }

    fn set_features(&mut self, payload: &[u8]) -> Result<(), Unoffered> {
        self.features = word(payload, 0);
        match (self.offered, self.features) {
            (Some(offered), Some(features)) if features & !offered != 0 => {
                Err(Unoffered(features & !offered))
            }
            _ => Ok(()),
        }
    }

    /// libkrun sends `SET_OWNER` each time a driver starts the device; the daemon ends the connection at the second.
    fn set_owner(&mut self) -> ExtraMessages {
        if !std::mem::replace(&mut self.owned, true) {
            return ExtraMessages::default();
        }
        ExtraMessages {
            before: message(RESET_OWNER, &[]),
            ..self.features_again()
        }
    }

    /// The daemon drops the features on a reset, and refuses `SET_VRING_ENABLE` until they are set again.
    fn features_again(&self) -> ExtraMessages {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        // Without this feature SET_FEATURES would enable the virtqueues.
        let features = self.features.filter(|features| features & protocol != 0);
        ExtraMessages {
            before: Vec::new(),
            after: features.map_or_else(Vec::new, |features| {
                message(SET_FEATURES, &features.to_ne_bytes())
            }),
        }
    }

    /// A driver places its virtqueue, and not every front-end checks the addresses: the daemon would end the
    /// connection. A virtqueue at an impossible place is moved to the end of the guest's memory, where the
    /// device finds that it is broken and serves the others.
    fn redirect_invalid_vring(&mut self, payload: &mut [u8]) {
        let addresses = RING_PARTS.map(|(at, align)| (word(payload, at), align));
        let possible = addresses.iter().all(|(address, align)| {
            address.is_some_and(|address| address % *align == 0 && self.memory.contains(address))
        });
        let end = self.memory.end();
        let (false, Some(nowhere)) = (possible, end.and_then(|end| end.checked_sub(RING_HEADER)))
        else {
            return;
        };
        self.trouble.warn(
            "the guest's driver placed a virtqueue at an impossible address; it is not served",
        );
        for (at, align) in RING_PARTS {
            if let Some(to) = payload.get_mut(at..at.saturating_add(8)) {
                // Used and available ring at one address: broken even if memory is added after the last
                // region.
                to.copy_from_slice(&(nowhere & !(align.max(4) - 1)).to_ne_bytes());
            }
        }
    }
}

/// Signals the kick eventfd of a virtqueue that starts. The worker may have an event of this virtqueue under
/// way, from before it was stopped, and would exit with an error on an empty eventfd, or hang on a blocking
/// one. A spurious kick does no harm.
fn set_kick(payload: &[u8], fds: &[OwnedFd]) -> Result<(), RequestError> {
    match word(payload, 0) {
        // The daemon accepts this, and never serves the virtqueue.
        Some(kick) if kick & NO_EVENTFD != 0 => Err(RequestError::Polled(kick & 0xff)),
        _ => {
            if let Some(kick) = fds.first() {
                signal(kick);
            }
            Ok(())
        }
    }
}

pub(super) fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let size = payload.len() as u32;
    let header = [request, VERSION, size].map(u32::to_ne_bytes).concat();
    [header.as_slice(), payload].concat()
}

/// The acknowledgement of a request that is [declined](RequestSanitizer::declines).
pub(super) fn refusal(request: u32) -> Vec<u8> {
    let header = [request, VERSION | REPLY, 8].map(u32::to_ne_bytes);
    [header.as_flattened(), &1_u64.to_ne_bytes()].concat()
}

fn half_word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
