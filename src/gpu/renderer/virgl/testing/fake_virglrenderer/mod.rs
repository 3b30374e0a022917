// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A fake libvirglrenderer, which draws nothing and asserts what the renderer has to ensure: ids exist,
//! sizes are bounded, no transfer reaches further than 32 bits, streams consist of whole commands, and
//! iovecs stay valid while the library has their address.

mod contexts;
mod dmabufs;
mod fences;
mod resources;
mod state;
mod streams;
mod transfers;

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;

use virglrenderer_sys as sys;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::gpu::renderer::virgl::VirglRenderer;
use crate::gpu::renderer::virgl::api::Api;
use crate::gpu::renderer::virgl::library::Library;
use crate::gpu::renderer::virgl::process_memory::ProcessMemory;
use crate::gpu::resource::Budget;

use state::{State, state};

/// The library refuses a resource with this bit in `bind`.
pub(crate) const REFUSED_BIND: u32 = 1 << 30;

/// A renderer with a fake library, on this thread.
///
/// # Panics
/// If the host has no descriptors left.
pub(crate) fn renderer(budget: Budget) -> VirglRenderer {
    let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).expect("cannot make an eventfd");
    let poll_fd = event.as_raw_fd();
    state(|state| {
        *state = State {
            event: Some(event),
            ..State::default()
        };
    });
    VirglRenderer::with_library(
        Library::fake(api(), poll_fd),
        "a fake".to_owned(),
        Some(dmabufs::exporter()),
        ProcessMemory::unlimited(),
        budget,
    )
}

/// What the fuzz targets see of the library.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::{dmabufs, fences, state};

    /// The library refuses a resource with this bit in `bind`.
    pub const REFUSED_BIND: u32 = super::REFUSED_BIND;

    /// Completes the work before the next `count` fences.
    pub fn retire(count: usize) {
        fences::retire(count);
    }

    /// Numbers of resources and contexts.
    pub fn population() -> (usize, usize) {
        state::state(|state| (state.resources.len(), state.contexts.len()))
    }

    /// Number of open descriptors of exported buffers, anywhere in the process.
    ///
    /// # Panics
    /// If /proc cannot be read.
    pub fn open_dmabufs() -> usize {
        dmabufs::open_dmabufs()
    }
}

fn api() -> Api {
    Api {
        init,
        cleanup,
        poll: fences::poll,
        get_poll_fd,
        force_ctx_0,
        get_cap_set: contexts::get_cap_set,
        fill_caps: contexts::fill_caps,
        context_create: contexts::context_create,
        context_destroy: contexts::context_destroy,
        context_attach: contexts::context_attach,
        context_detach: contexts::context_detach,
        resource_create: resources::resource_create,
        resource_unref: resources::resource_unref,
        resource_attach: resources::resource_attach,
        resource_detach: resources::resource_detach,
        resource_info: resources::resource_info,
        transfer_read: transfers::transfer_read,
        transfer_write: transfers::transfer_write,
        submit: streams::submit,
        create_fence: fences::create_fence,
    }
}

unsafe extern "C" fn init(
    _: *mut c_void,
    _: c_int,
    _: *mut sys::virgl_renderer_callbacks,
) -> c_int {
    -1
}

unsafe extern "C" fn cleanup(_: *mut c_void) {
    state(|state| *state = State::default());
}

unsafe extern "C" fn get_poll_fd() -> c_int {
    -1
}

unsafe extern "C" fn force_ctx_0() {}
