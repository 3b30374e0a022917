// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fences of the fake library: they retire when the test says so.

use std::ffi::c_int;

use crate::gpu::renderer::virgl::library::write_fence;

use super::state::state;

/// Completes the work before the next `count` fences.
#[cfg(feature = "fuzzing")]
pub(super) fn retire(count: usize) {
    state(|state| {
        state.done = state.done.saturating_add(count).min(state.fences.len());
        if let Some(event) = &state.event {
            let _ = event.write(1);
        }
    });
}

pub(super) unsafe extern "C" fn create_fence(fence: c_int, _: u32) -> c_int {
    state(|state| state.fences.push_back(fence as u32));
    0
}

pub(super) unsafe extern "C" fn poll() {
    let retired = state(|state| {
        if let Some(event) = &state.event {
            let _ = event.read();
        }
        let done = std::mem::take(&mut state.done);
        state.fences.drain(..done).next_back()
    });
    if let Some(fence) = retired {
        // SAFETY: it only stores a number.
        unsafe { write_fence(std::ptr::null_mut(), fence) }
    }
}
