// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Safe functions for virglrenderer (virglrenderer.h) with a render server, or with native contexts.
//!
//! The library checks ids. It has no GL here, so that any thread may call it, one at a time. It calls back on threads of its
//! own.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use virglrenderer_sys as sys;

use super::api::Api;
use super::fences::RetiredFences;
use super::render_server;
use crate::gpu::protocol::{CapsetInfo, ResourceCreateBlob, RingId};
use crate::gpu::render_node;
use crate::gpu::renderer::virglrenderer::{self, Instance, Refused, accepted};

/// State of the library's callbacks.
#[derive(Debug)]
struct Callbacks {
    retired: Arc<RetiredFences>,
    /// The connection to the render server, until the library asks for it.
    server: Mutex<Option<OwnedFd>>,
    /// The node of the GPU, for native contexts. Each opens it anew: buffers of one file are all its contexts'.
    node: Option<PathBuf>,
}

/// The state of the callbacks by their cookie.
///
/// # Safety
/// `cookie` is that of [`Library::open`], whose library is alive.
unsafe fn callbacks<'a>(cookie: *mut c_void) -> &'a Callbacks {
    // SAFETY: as the caller ensures: the library's callbacks end with its cleanup, before the state is dropped.
    unsafe { &*cookie.cast_const().cast::<Callbacks>() }
}

/// `virgl_renderer_callbacks.write_fence`: for fences of OpenGL, of which there are none.
unsafe extern "C" fn write_fence(_: *mut c_void, _: u32) {}

/// `virgl_renderer_callbacks.write_context_fence`, on a thread of the library.
pub(super) unsafe extern "C" fn write_context_fence(
    cookie: *mut c_void,
    _context: u32,
    _ring: u32,
    fence: u64,
) {
    // SAFETY: the library passes on its cookie.
    unsafe { callbacks(cookie) }.retired.push(fence);
}

/// `virgl_renderer_callbacks.get_server_fd`.
unsafe extern "C" fn get_server_fd(cookie: *mut c_void, _version: u32) -> c_int {
    // SAFETY: the library passes on its cookie.
    let server = &unsafe { callbacks(cookie) }.server;
    let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
    server.take().map_or(-1, OwnedFd::into_raw_fd)
}

/// `virgl_renderer_callbacks.get_drm_fd`.
unsafe extern "C" fn get_drm_fd(cookie: *mut c_void) -> c_int {
    // SAFETY: the library passes on its cookie.
    let node = unsafe { callbacks(cookie) }.node.as_deref();
    let opened = node.map(render_node::open);
    match opened {
        Some(Ok(file)) => file.into_raw_fd(),
        Some(Err(error)) => {
            log::warn!("{error}");
            -1
        }
        None => -1,
    }
}

/// The library keeps the address of its callbacks.
struct CallbackTable(sys::virgl_renderer_callbacks);

// SAFETY: the table is never written to, and points to functions only.
unsafe impl Sync for CallbackTable {}

static CALLBACKS: CallbackTable = CallbackTable({
    // SAFETY: it consists of a number and of optional functions. Their number depends on the header.
    let mut table: sys::virgl_renderer_callbacks = unsafe { std::mem::zeroed() };
    // The first version with get_server_fd.
    table.version = 3;
    table.write_fence = Some(write_fence);
    table.write_context_fence = Some(write_context_fence);
    table.get_server_fd = Some(get_server_fd);
    table.get_drm_fd = Some(get_drm_fd);
    table
});

const FLAGS: u32 = sys::VIRGL_RENDERER_NO_VIRGL
    | sys::VIRGL_RENDERER_THREAD_SYNC
    | sys::VIRGL_RENDERER_ASYNC_FENCE_CB;
const VENUS_FLAGS: u32 = FLAGS | sys::VIRGL_RENDERER_VENUS | sys::VIRGL_RENDERER_RENDER_SERVER;
const NATIVE_FLAGS: u32 = FLAGS | sys::VIRGL_RENDERER_DRM;

/// What the descriptor of an exported blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExportedType {
    Dmabuf,
    /// A memfd that begins with the blob.
    Memfd,
    /// What the host's Vulkan driver alone knows.
    Opaque,
}

/// An exported blob.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) kind: ExportedType,
    pub(super) file: OwnedFd,
}

/// The initialised library.
#[derive(Debug)]
pub(super) struct Library {
    api: Api,
    callbacks: Arc<Callbacks>,
    /// Of all contexts.
    capset: u32,
    /// `None` for a fake library, of which there may be several. Dropped after the cleanup.
    _instance: Option<Instance>,
}

impl Library {
    /// Initialises the library for the render server at the other end of `server`.
    ///
    /// # Errors
    /// If it cannot be; its log has the reason.
    pub(super) fn open(
        api: Api,
        instance: Option<Instance>,
        server: OwnedFd,
        retired: Arc<RetiredFences>,
    ) -> Result<Self, Refused> {
        let callbacks = Callbacks {
            retired,
            server: Mutex::new(Some(server)),
            node: None,
        };
        Self::init(api, instance, callbacks, VENUS_FLAGS, CapsetInfo::VENUS)
    }

    /// Initialises the library for native contexts on a render node.
    ///
    /// # Errors
    /// If it cannot be: it was built without, or knows none for the node's driver. Its log has the reason.
    pub(super) fn open_native(
        api: Api,
        instance: Option<Instance>,
        node: PathBuf,
        retired: Arc<RetiredFences>,
    ) -> Result<Self, Refused> {
        let callbacks = Callbacks {
            retired,
            server: Mutex::new(None),
            node: Some(node),
        };
        Self::init(api, instance, callbacks, NATIVE_FLAGS, CapsetInfo::DRM)
    }

    fn init(
        api: Api,
        instance: Option<Instance>,
        callbacks: Callbacks,
        flags: u32,
        capset: u32,
    ) -> Result<Self, Refused> {
        let callbacks = Arc::new(callbacks);
        let cookie = Arc::as_ptr(&callbacks).cast_mut().cast();
        let table = (&raw const CALLBACKS.0).cast_mut();
        // SAFETY: the table is a static, the cookie lives as long as the library, and it writes to neither. On failure it
        // cleans up after itself.
        accepted(unsafe { (api.init)(cookie, flags as c_int, table) })?;
        Ok(Self {
            api,
            callbacks,
            capset,
            _instance: instance,
        })
    }

    /// The version and size of a capability set; `None` if there is no such set.
    pub(super) fn capset(&self, id: u32) -> Option<CapsetInfo> {
        // SAFETY: the library is initialised.
        unsafe { virglrenderer::capset(self.api.get_cap_set, id) }
    }

    /// The data of a capability set.
    pub(super) fn capset_data(&self, set: &CapsetInfo, version: u32) -> Vec<u8> {
        // SAFETY: as for capset, which returned the set.
        unsafe { virglrenderer::capset_data(self.api.fill_caps, set, version) }
    }

    /// Creates a context. Returns a duplicate of its own connection to the render server, by which its end is noticed, if
    /// there is one and it can be found.
    pub(super) fn create_context(
        &mut self,
        id: u32,
        name: &[u8],
    ) -> Result<Option<OwnedFd>, Refused> {
        let name: Vec<u8> = name.iter().copied().take_while(|b| *b != 0).collect();
        let name = CString::new(name).unwrap_or_default();
        let len = name.as_bytes().len() as u32;
        let has_connection = self.callbacks.node.is_none();
        let first = has_connection
            .then(render_server::next_descriptor)
            .flatten();
        // SAFETY: the library is initialised, and it copies the name.
        accepted(unsafe { (self.api.context_create)(id, self.capset, len, name.as_ptr()) })?;
        Ok(first.and_then(render_server::new_connection))
    }

    /// Destroys a context.
    pub(super) fn destroy_context(&mut self, id: u32) {
        // SAFETY: the library is initialised; it looks the id up.
        unsafe { (self.api.context_destroy)(id) }
    }

    /// Attaches a blob to a context.
    pub(super) fn attach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api.context_attach)(context as c_int, id as c_int) }
    }

    /// Detaches a blob from a context.
    pub(super) fn detach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api.context_detach)(context as c_int, id as c_int) }
    }

    /// Passes on a command stream.
    pub(super) fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), Refused> {
        let len = c_int::try_from(stream.len()).map_err(|_| Refused::TOO_BIG)?;
        let commands = stream.as_mut_ptr().cast();
        // SAFETY: the library is initialised, the stream has as many aligned words, and the library does not keep its
        // address.
        accepted(unsafe { (self.api.submit)(commands, context as c_int, len) })
    }

    /// Creates a fence after what the context has begun on a timeline.
    pub(super) fn create_fence(&mut self, ring: RingId, fence: u64) -> Result<(), Refused> {
        let RingId { context, index } = ring;
        // SAFETY: the library is initialised; it looks the ids up.
        accepted(unsafe { (self.api.context_fence)(context, 0, index.into(), fence) })
    }

    /// Creates a blob in the host's memory.
    pub(super) fn create_blob(&mut self, new: &ResourceCreateBlob) -> Result<(), Refused> {
        let args = sys::virgl_renderer_resource_create_blob_args {
            res_handle: new.id,
            ctx_id: new.context,
            blob_mem: sys::VIRGL_RENDERER_BLOB_MEM_HOST3D,
            blob_flags: new.flags,
            blob_id: new.blob_id,
            size: new.len,
            iovecs: std::ptr::null(),
            num_iovs: 0,
        };
        // SAFETY: the library is initialised, the arguments are read during the call, and there are no iovecs.
        accepted(unsafe { (self.api.create_blob)(&raw const args) })
    }

    /// Exports a blob.
    pub(super) fn export_blob(&mut self, id: u32) -> Result<Exported, Refused> {
        let (mut kind, mut fd) = (0, -1);
        // SAFETY: the library is initialised; it looks the id up, and both results have a place.
        accepted(unsafe { (self.api.export_blob)(id, &raw mut kind, &raw mut fd) })?;
        if fd < 0 {
            return Err(Refused::INVALID);
        }
        // SAFETY: it is a new descriptor, and this process's.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let kind = match kind {
            sys::VIRGL_RENDERER_BLOB_FD_TYPE_DMABUF => ExportedType::Dmabuf,
            sys::VIRGL_RENDERER_BLOB_FD_TYPE_SHM => ExportedType::Memfd,
            _ => ExportedType::Opaque,
        };
        Ok(Exported { kind, file })
    }

    /// How a blob is to be mapped (`VIRTIO_GPU_MAP_CACHE_*`).
    pub(super) fn map_info(&self, id: u32) -> Result<u32, Refused> {
        let mut info = 0;
        // SAFETY: the library is initialised; it looks the id up, and the result has a place.
        accepted(unsafe { (self.api.map_info)(id, &raw mut info) })?;
        Ok(info & sys::VIRGL_RENDERER_MAP_CACHE_MASK)
    }

    /// Destroys a blob.
    pub(super) fn unref(&mut self, id: u32) {
        // SAFETY: the library is initialised; it looks the id up.
        unsafe { (self.api.resource_unref)(id) }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let cookie = Arc::as_ptr(&self.callbacks).cast_mut().cast();
        // SAFETY: the library is initialised. Its threads end with this, before the state of the callbacks.
        unsafe { (self.api.cleanup)(cookie) };
    }
}
