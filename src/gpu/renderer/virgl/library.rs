// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Safe functions for virglrenderer (virglrenderer.h).
//!
//! A process has one instance of the library, bound to the thread that initialises it, where its GL
//! contexts are current. The library checks ids, sizes and command streams itself. Its caller
//! must ensure the rest, and this module does: the thread, the lifetime of the guest's memory, and the
//! bounds of buffers.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use virglrenderer_sys as sys;

use super::api::Api;
use super::guest_iovecs::{GuestIovecs, IoVec};
use super::{VirglError, egl};
use crate::gpu::protocol::{Box3, CapsetInfo, ResourceCreate3d, Transfer3d};
use crate::gpu::renderer::Direction;
pub(super) use crate::gpu::renderer::virglrenderer::Refused;
use crate::gpu::renderer::virglrenderer::{self, Functions as _, Instance, accepted};

/// State of the library's callbacks.
struct Shared {
    /// The last retired fence: all before it are retired too.
    retired: AtomicU32,
    /// The render node, until the library asks for it.
    node: Mutex<Option<OwnedFd>>,
}

static SHARED: Shared = Shared {
    retired: AtomicU32::new(0),
    node: Mutex::new(None),
};

/// `virgl_renderer_callbacks.write_fence`.
pub(super) unsafe extern "C" fn write_fence(_: *mut c_void, fence: u32) {
    SHARED.retired.store(fence, Ordering::Relaxed);
}

/// `virgl_renderer_callbacks.get_drm_fd`.
unsafe extern "C" fn get_drm_fd(_: *mut c_void) -> c_int {
    let mut node = SHARED.node.lock().unwrap_or_else(PoisonError::into_inner);
    node.take().map_or(-1, IntoRawFd::into_raw_fd)
}

/// The library keeps the address of its callbacks.
struct Callbacks(sys::virgl_renderer_callbacks);

// SAFETY: the table is never written to, and points to functions only.
unsafe impl Sync for Callbacks {}

static CALLBACKS: Callbacks = Callbacks({
    // SAFETY: it consists of a number and of optional functions. Their number depends on the header.
    let mut table: sys::virgl_renderer_callbacks = unsafe { std::mem::zeroed() };
    // The first version with get_drm_fd; every version of the library supports it.
    table.version = 2;
    table.write_fence = Some(write_fence);
    table.get_drm_fd = Some(get_drm_fd);
    table
});

/// The initialised library. Its methods panic on any thread but the one that created it.
pub(super) struct Library {
    api: Api,
    thread: ThreadId,
    poll_fd: c_int,
    /// The backings of resources: the library has the addresses of their iovecs.
    attached: HashMap<u32, GuestIovecs>,
    /// `None` for a fake library, of which there may be several. Dropped after the cleanup.
    instance: Option<Instance>,
}

impl Library {
    /// Loads the library and initialises it on this thread, for the render node `node` or without one
    /// for software rendering.
    ///
    /// # Errors
    /// If this process uses the library already, or it cannot be loaded or initialised.
    pub(super) fn open(node: Option<OwnedFd>) -> Result<Self, VirglError> {
        let instance = Instance::take().ok_or(VirglError::Taken)?;
        let (api, library) = Api::load()?;
        egl::check(node.is_some())?;
        virglrenderer::attach(library);
        let mut flags = sys::VIRGL_RENDERER_USE_EGL | sys::VIRGL_RENDERER_THREAD_SYNC;
        if node.is_none() {
            flags |= sys::VIRGL_RENDERER_USE_SURFACELESS;
        }
        SHARED.retired.store(0, Ordering::Relaxed);
        *SHARED.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
        let callbacks = (&raw const CALLBACKS.0).cast_mut();
        let cookie = (&raw const SHARED).cast_mut().cast();
        // SAFETY: callbacks and cookie are statics, and the library writes to neither. On failure it
        // cleans up after itself.
        let result = unsafe { (api.init)(cookie, flags as c_int, callbacks) };
        if result != 0 {
            let last_message = virglrenderer::last_message();
            return Err(VirglError::Init { last_message });
        }
        virglrenderer::limit();
        // SAFETY: the library is initialised, on this thread.
        let poll_fd = unsafe { (api.get_poll_fd)() };
        let library = Self::new(api, poll_fd, Some(instance));
        if poll_fd < 0 {
            return Err(VirglError::NoFences);
        }
        Ok(library)
    }

    /// The library with the functions `api`, initialised on this thread. `poll_fd` is the event of its
    /// fences, open for as long as the library is.
    fn new(api: Api, poll_fd: c_int, instance: Option<Instance>) -> Self {
        Self {
            api,
            thread: std::thread::current().id(),
            poll_fd,
            attached: HashMap::new(),
            instance,
        }
    }

    /// As [`Library::new`], with a fake library.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn fake(api: Api, poll_fd: c_int) -> Self {
        SHARED.retired.store(0, Ordering::Relaxed);
        Self::new(api, poll_fd, None)
    }

    /// The library's functions, on its thread only. A call from another thread is a bug of this
    /// program, which no guest can trigger.
    fn api(&self) -> &Api {
        let here = std::thread::current().id();
        assert_eq!(here, self.thread, "virglrenderer is called off its thread");
        &self.api
    }

    /// Readable after a fence is signalled, until [`Library::poll`].
    pub(super) fn fence_event(&self) -> BorrowedFd<'_> {
        // SAFETY: the library keeps it open until its cleanup, when this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.poll_fd) }
    }

    /// Makes the library's own GL context current, for direct calls to GL.
    pub(super) fn make_current(&self) {
        // SAFETY: the library is initialised, and this is its thread.
        unsafe { (self.api().force_ctx_0)() }
    }

    /// The version and size of a capability set; `None` if there is no such set.
    pub(super) fn capset(&self, id: u32) -> Option<CapsetInfo> {
        // SAFETY: the library is initialised, and this is its thread.
        unsafe { virglrenderer::capset(self.api().get_cap_set, id) }
    }

    /// The data of a capability set, in a version of at most [`CapsetInfo::max_version`].
    pub(super) fn capset_data(&self, set: &CapsetInfo, version: u32) -> Vec<u8> {
        // SAFETY: as for capset, which returned the set.
        unsafe { virglrenderer::capset_data(self.api().fill_caps, set, version) }
    }

    /// Creates a rendering context.
    pub(super) fn create_context(&mut self, id: u32, name: &[u8]) -> Result<(), Refused> {
        let name: Vec<u8> = name.iter().copied().take_while(|b| *b != 0).collect();
        let name = CString::new(name).unwrap_or_default();
        let len = name.as_bytes().len() as u32;
        // SAFETY: the library is initialised, this is its thread, and it copies the name.
        accepted(unsafe { (self.api().context_create)(id, len, name.as_ptr()) })
    }

    /// Destroys a rendering context.
    pub(super) fn destroy_context(&mut self, id: u32) {
        // SAFETY: the library is initialised, this is its thread; it looks the id up.
        unsafe { (self.api().context_destroy)(id) }
    }

    /// Attaches a resource to a context.
    pub(super) fn context_attach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api().context_attach)(context as c_int, id as c_int) }
    }

    /// Detaches a resource from a context.
    pub(super) fn context_detach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api().context_detach)(context as c_int, id as c_int) }
    }

    /// Executes a command stream in a context. The library may write to it.
    pub(super) fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), Refused> {
        let len = c_int::try_from(stream.len()).map_err(|_| Refused::TOO_BIG)?;
        let commands = stream.as_mut_ptr().cast();
        // SAFETY: the library is initialised, this is its thread, the stream has as many aligned
        // words, and the library does not keep its address.
        accepted(unsafe { (self.api().submit)(commands, context as c_int, len) })
    }

    /// Creates a resource.
    pub(super) fn create_resource(&mut self, new: &ResourceCreate3d) -> Result<(), Refused> {
        let mut args = sys::virgl_renderer_resource_create_args {
            handle: new.id,
            target: new.target,
            format: new.format,
            bind: new.bind,
            width: new.width,
            height: new.height,
            depth: new.depth,
            array_size: new.array_size,
            last_level: new.last_level,
            nr_samples: new.samples,
            flags: new.flags,
        };
        // SAFETY: the library is initialised, this is its thread, the arguments are read during
        // the call, and there are no iovecs.
        accepted(unsafe { (self.api().resource_create)(&raw mut args, std::ptr::null_mut(), 0) })
    }

    /// Destroys a resource, and detaches its backing.
    pub(super) fn unref_resource(&mut self, id: u32) {
        // The backing first: contexts may keep the resource itself alive.
        self.detach(id);
        // SAFETY: the library is initialised, this is its thread; it looks the id up.
        unsafe { (self.api().resource_unref)(id) }
    }

    /// The GL name of a resource's texture; `None` if it has none. Makes the library's own GL context,
    /// which has this texture, current.
    pub(super) fn texture(&self, id: u32) -> Option<c_uint> {
        /// Newer versions of the library may fill more than this header declares.
        #[repr(C)]
        struct InfoBuffer {
            info: sys::virgl_renderer_resource_info,
            _more: [u64; 32],
        }
        self.make_current();
        // SAFETY: it consists of numbers.
        let mut buffer: InfoBuffer = unsafe { std::mem::zeroed() };
        let place = (&raw mut buffer).cast();
        // SAFETY: the library is initialised, this is its thread; it looks the id up, and the buffer
        // is larger than what it fills.
        accepted(unsafe { (self.api().resource_info)(id as c_int, place) }).ok()?;
        (buffer.info.tex_id != 0).then_some(buffer.info.tex_id)
    }

    /// Attaches a backing to a resource, instead of the one it has.
    pub(super) fn attach(&mut self, id: u32, iovecs: GuestIovecs) -> Result<(), Refused> {
        self.detach(id);
        let count = c_int::try_from(iovecs.as_slice().len()).map_err(|_| Refused::TOO_BIG)?;
        let address = iovecs.as_slice().as_ptr().cast_mut().cast();
        // SAFETY: the library is initialised, this is its thread. It keeps the address of the
        // iovecs, and reads and writes the guest's memory by them, until they are detached: `attached`
        // keeps them and the mapping until then. The library does not write to the iovecs themselves.
        accepted(unsafe { (self.api().resource_attach)(id as c_int, address, count) })?;
        self.attached.insert(id, iovecs);
        Ok(())
    }

    /// Detaches the backing of a resource; `None` if it has none.
    pub(super) fn detach(&mut self, id: u32) -> Option<GuestIovecs> {
        // In this order: the iovecs must exist while the library has their address.
        if self.attached.contains_key(&id) {
            let null = std::ptr::null_mut;
            // SAFETY: the library is initialised, this is its thread; it may omit the
            // iovecs that it had.
            unsafe {
                (self.api().resource_detach)(id as c_int, null(), std::ptr::null_mut());
            }
        }
        self.attached.remove(&id)
    }

    /// The backing of a resource.
    pub(super) fn iovecs(&self, id: u32) -> Option<&GuestIovecs> {
        self.attached.get(&id)
    }

    /// The resources that have a backing.
    pub(super) fn attached_ids(&self) -> Vec<u32> {
        self.attached.keys().copied().collect()
    }

    /// Copies between a resource and its backing.
    pub(super) fn transfer(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<(), Refused> {
        self.transfer_with(context, transfer, direction, &[])
    }

    /// Copies between a resource and `iovecs`, or if these are empty, the resource's backing.
    pub(super) fn transfer_with(
        &self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
        iovecs: &[IoVec],
    ) -> Result<(), Refused> {
        let Transfer3d {
            part,
            offset,
            id,
            level,
            stride,
            layer_stride,
        } = *transfer;
        let count = c_int::try_from(iovecs.len()).map_err(|_| Refused::TOO_BIG)?;
        let iovecs = match iovecs {
            [] => std::ptr::null_mut(),
            iovecs => iovecs.as_ptr().cast_mut().cast(),
        };
        let mut part = virgl_box(&part);
        let part = part.as_mut_ptr().cast();
        accepted(match direction {
            // SAFETY: the library is initialised, this is its thread, the box is read during the
            // call, and so are the iovecs, whose borrow keeps the guest's memory mapped. Without
            // them it uses those that are attached, or refuses.
            Direction::ToHost => unsafe {
                (self.api().transfer_write)(
                    id,
                    context,
                    level as c_int,
                    stride,
                    layer_stride,
                    part,
                    offset,
                    iovecs,
                    count as u32,
                )
            },
            // SAFETY: as above; it writes within the iovecs only.
            Direction::FromHost => unsafe {
                (self.api().transfer_read)(
                    id,
                    context,
                    level,
                    stride,
                    layer_stride,
                    part,
                    offset,
                    iovecs,
                    count,
                )
            },
        })
    }

    /// Copies a part of a resource's largest mipmap into `into`, whose rows are `stride` bytes apart.
    pub(super) fn read(
        &mut self,
        id: u32,
        part: &Box3,
        stride: u32,
        into: &mut [u8],
    ) -> Result<(), Refused> {
        let mut part = virgl_box(part);
        let mut iovec = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let iovec = (&raw mut iovec).cast();
        // SAFETY: the library is initialised, this is its thread; box and iovec are read during the
        // call, and it writes within the iovec only: it refuses a part that does not fit.
        accepted(unsafe {
            (self.api().transfer_read)(id, 0, 0, stride, 0, part.as_mut_ptr().cast(), 0, iovec, 1)
        })
    }

    /// Creates a fence. [`Library::retired`] returns `fence`, or a later one, once all work submitted so
    /// far is done.
    pub(super) fn create_fence(&mut self, fence: u32) -> Result<(), Refused> {
        // SAFETY: the library is initialised, this is its thread.
        accepted(unsafe { (self.api().create_fence)(fence as c_int, 0) })
    }

    /// Updates what [`Library::retired`] returns.
    pub(super) fn poll(&mut self) {
        // SAFETY: the library is initialised, this is its thread; its callback only stores a number.
        unsafe { (self.api().poll)() }
    }

    /// The last retired fence.
    pub(super) fn retired(&self) -> u32 {
        SHARED.retired.load(Ordering::Relaxed)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // On another thread, no cleanup is possible: leave it, since the process ends.
        if std::thread::current().id() != self.thread {
            std::mem::forget(self.instance.take());
            std::mem::take(&mut self.attached)
                .into_values()
                .for_each(std::mem::forget);
            return;
        }
        // SAFETY: the library is initialised, this is its thread. The iovecs that it still has
        // are dropped after this.
        unsafe { (self.api.cleanup)((&raw const SHARED).cast_mut().cast()) };
    }
}

/// `struct virgl_box`.
fn virgl_box(part: &Box3) -> [u32; 6] {
    let Box3 {
        x,
        y,
        z,
        width,
        height,
        depth,
    } = *part;
    [x, y, z, width, height, depth]
}
