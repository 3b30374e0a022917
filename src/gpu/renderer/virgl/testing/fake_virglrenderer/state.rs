// SPDX-License-Identifier: Apache-2.0 OR MIT
//! State of the fake library, which each thread has for itself.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

use virglrenderer_sys as sys;
use vmm_sys_util::eventfd::EventFd;

use crate::gpu::renderer::virgl::guest_iovecs::IoVec;

/// `EINVAL`.
pub(super) const EINVAL: std::ffi::c_int = 22;

/// A resource.
pub(super) struct Resource {
    pub(super) args: sys::virgl_renderer_resource_create_args,
    /// Address and number of the attached iovecs.
    pub(super) iovecs: Option<(*const IoVec, usize)>,
}

/// All that the library has.
#[derive(Default)]
pub(super) struct State {
    pub(super) contexts: HashSet<u32>,
    pub(super) resources: HashMap<u32, Resource>,
    /// EGL images that exist, by their resource.
    pub(super) images: HashSet<u32>,
    /// Fences that are not retired yet.
    pub(super) fences: VecDeque<u32>,
    /// Number of fences to retire with the next poll.
    pub(super) done: usize,
    pub(super) event: Option<EventFd>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Calls `f` with the state of this thread.
pub(super) fn state<T>(f: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(f)
}
