// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the front-end runs the device, by what it said of the virtqueues.

use vhost::vhost_user::message::FrontendReq;

const SET_VRING_KICK: u32 = FrontendReq::SET_VRING_KICK as u32;
const SET_VRING_ENABLE: u32 = FrontendReq::SET_VRING_ENABLE as u32;
const GET_VRING_BASE: u32 = FrontendReq::GET_VRING_BASE as u32;
const RESET_OWNER: u32 = FrontendReq::RESET_OWNER as u32;
const RESET_DEVICE: u32 = FrontendReq::RESET_DEVICE as u32;

/// The virtqueue's index in the payload of `SET_VRING_KICK`.
const INDEX_MASK: u64 = 0xff;

/// Which virtqueues the front-end has running, and whether it is about to stop them: it stops them one by one.
#[derive(Debug, Default)]
pub(super) struct RunningVrings {
    pub(super) started: u64,
    pub(super) enabled: u64,
    pub(super) run: bool,
}

impl RunningVrings {
    /// Whether some run, and none was stopped since the last one began.
    pub(super) fn run(&self) -> bool {
        self.run
    }

    /// Takes note of a request of the front-end.
    pub(super) fn note(&mut self, request: u32, payload: &[u8]) {
        let index = u64::from(word(payload, 0));
        match request {
            SET_VRING_KICK => self.start(number(payload) & INDEX_MASK),
            SET_VRING_ENABLE if word(payload, 4) == 0 => self.disable(index),
            SET_VRING_ENABLE => self.enable(index),
            GET_VRING_BASE => self.stop(index),
            RESET_OWNER | RESET_DEVICE => self.disable_all(),
            _ => {}
        }
    }

    fn start(&mut self, index: u64) {
        self.started |= bit(index);
        self.run |= self.enabled & bit(index) != 0;
    }

    fn enable(&mut self, index: u64) {
        self.enabled |= bit(index);
        self.run |= self.started & bit(index) != 0;
    }

    fn disable(&mut self, index: u64) {
        self.run &= self.started & self.enabled & bit(index) == 0;
        self.enabled &= !bit(index);
    }

    fn stop(&mut self, index: u64) {
        self.run &= self.started & bit(index) == 0;
        self.started &= !bit(index);
    }

    fn disable_all(&mut self) {
        self.run = false;
        self.enabled = 0;
    }
}

/// None for an index that no device has.
fn bit(index: u64) -> u64 {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    1_u64.checked_shl(index).unwrap_or(0)
}

/// 32 bits of a payload from byte `at` on. The daemon refuses a payload that is too short.
fn word(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// The first 64 bits of a payload.
pub(super) fn number(payload: &[u8]) -> u64 {
    let bytes = payload.first_chunk();
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}
