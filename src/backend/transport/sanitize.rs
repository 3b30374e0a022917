//! Requests that the daemon would not survive. Those that are right, and with which the guest alone
//! would have it end the connection or its worker, are passed on in a form that it survives; those
//! that cannot be served are refused in words that say why.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::{FrontendReq, VhostUserVirtioFeatures};

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

/// Flags of a message that is version 1 of the protocol and asks for no acknowledgement.
const VERSION: u32 = 1;

/// In the payload of `SET_VRING_ADDR`: where the three parts of a ring have their addresses, and
/// how they are aligned (virtio 1.2, 2.7): descriptor table, used ring, available ring.
const RING_PARTS: [(usize, u64); 3] = [(8, 16), (16, 4), (24, 2)];
/// Bytes that the daemon reads of a ring as soon as it is told of it.
const RING_HEADER: u64 = 4;
/// In the payload of `SET_VRING_KICK`: no eventfd comes with it.
const NO_EVENTFD: u64 = 1 << 8;

/// Why a request is refused, and with it the front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Unoffered(#[from] Unoffered),
    #[error(
        "the front-end wants virtqueue {0} polled (VHOST_USER_SET_VRING_KICK without an eventfd), which this device does not do"
    )]
    Polled(u64),
}

/// Whole messages to pass on before a request and after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ExtraMessages {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

/// What is remembered of the messages before.
#[derive(Default)]
pub(super) struct RequestSanitizer {
    memory: SharedMemory,
    owned: bool,
    /// The virtio features as the device told them last, and as they were set last.
    offered: Option<u64>,
    features: Option<u64>,
    trouble: RateLimitedLog,
}

impl RequestSanitizer {
    /// Looks at one of the front-end's requests before the daemon does, and changes what it would
    /// not survive.
    ///
    /// # Errors
    /// Where the request cannot be served.
    pub(super) fn request(
        &mut self,
        request: u32,
        payload: &mut [u8],
        fds: &mut [OwnedFd],
    ) -> Result<ExtraMessages, RequestError> {
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

    /// Looks at one of the daemon's replies.
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

    /// libkrun says whose device it is each time a driver starts it, and the daemon ends the
    /// connection the second time.
    fn set_owner(&mut self) -> ExtraMessages {
        if !std::mem::replace(&mut self.owned, true) {
            return ExtraMessages::default();
        }
        ExtraMessages {
            before: message(RESET_OWNER, &[]),
            ..self.features_again()
        }
    }

    /// The daemon forgets the features with the owner and with the device's state, and takes no
    /// `SET_VRING_ENABLE` until they are set again.
    fn features_again(&self) -> ExtraMessages {
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        // Without these features the rings would be enabled by this.
        let features = self.features.filter(|features| features & protocol != 0);
        ExtraMessages {
            before: Vec::new(),
            after: features.map_or_else(Vec::new, |features| {
                message(SET_FEATURES, &features.to_ne_bytes())
            }),
        }
    }

    /// A driver says where its rings lie, and no front-end is bound to look at it. One that says
    /// what cannot be is given a ring that ends outside the guest's memory: of that the device
    /// knows that it is broken, and goes on with the others.
    fn redirect_invalid_vring(&mut self, payload: &mut [u8]) {
        let addresses = RING_PARTS.map(|(at, align)| (word(payload, at), align));
        let possible = addresses.iter().all(|(address, align)| {
            address.is_some_and(|address| {
                address.is_multiple_of(*align) && self.memory.contains(address)
            })
        });
        let end = self.memory.end();
        let (false, Some(nowhere)) = (possible, end.and_then(|end| end.checked_sub(RING_HEADER)))
        else {
            return;
        };
        self.trouble
            .warn("the guest's driver placed a virtqueue where none can lie; it is not served");
        for (at, align) in RING_PARTS {
            if let Some(to) = payload.get_mut(at..at.saturating_add(8)) {
                // The used and the available ring in one place, so that it stays broken where memory
                // is added after the last region.
                to.copy_from_slice(&(nowhere & !(align.max(4) - 1)).to_ne_bytes());
            }
        }
    }
}

/// Kicks a ring that starts, once. The worker may have an event of the same ring under way, from
/// before it was stopped, and would end with an error when it finds nothing in the new eventfd (or
/// wait for ever, in one that blocks). A kick too many is nothing to a device.
fn set_kick(payload: &[u8], fds: &[OwnedFd]) -> Result<(), RequestError> {
    match word(payload, 0) {
        // The daemon would take it, and never look at the ring.
        Some(kick) if kick & NO_EVENTFD != 0 => Err(RequestError::Polled(kick & 0xff)),
        _ => {
            if let Some(kick) = fds.first() {
                signal(kick);
            }
            Ok(())
        }
    }
}

fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let size = payload.len() as u32;
    let header = [request, VERSION, size].map(u32::to_ne_bytes).concat();
    [header.as_slice(), payload].concat()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
