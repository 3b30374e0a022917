//! virglrenderer behind safe functions.
//!
//! The library is one for the process and bound to the thread that initialises it, where its GL
//! contexts are current. It checks ids, sizes and command streams itself; what it leaves to its
//! caller is kept here: the thread, the lifetime of the guest's pages, and the bounds of buffers.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use virglrenderer_sys as sys;

use super::api::Api;
use super::guest_iovecs::{IoVec, Pages};
use super::{Direction, VirglError, egl, log};
use crate::gpu::protocol::{Box3, CapsetInfo, Create3d, Transfer3d};

mod bands;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fake_virglrenderer;

const TOO_BIG: Refused = Refused(rustix::io::Errno::TOOBIG.raw_os_error());

/// What the library and its callbacks share.
struct Shared {
    /// The fence that was retired last: those before it are, too.
    retired: AtomicU32,
    /// The render node, until the library takes it.
    node: Mutex<Option<OwnedFd>>,
}

static SHARED: Shared = Shared {
    retired: AtomicU32::new(0),
    node: Mutex::new(None),
};

/// Whether there is a [`Library`].
static TAKEN: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn write_fence(_: *mut c_void, fence: u32) {
    SHARED.retired.store(fence, Ordering::Relaxed);
}

unsafe extern "C" fn get_drm_fd(_: *mut c_void) -> c_int {
    let mut node = SHARED.node.lock().unwrap_or_else(PoisonError::into_inner);
    node.take().map_or(-1, IntoRawFd::into_raw_fd)
}

/// The library takes callbacks and their user data by address, and keeps them.
struct Callbacks(sys::virgl_renderer_callbacks);

// SAFETY: the table is never written to, and what it points to are functions.
unsafe impl Sync for Callbacks {}

static CALLBACKS: Callbacks = Callbacks({
    // SAFETY: it consists of a number and of functions that may be none. Headers differ in how many
    // they have.
    let mut table: sys::virgl_renderer_callbacks = unsafe { std::mem::zeroed() };
    // The first with get_drm_fd. All that this version has, every version of the library has.
    table.version = 2;
    table.write_fence = Some(write_fence);
    table.get_drm_fd = Some(get_drm_fd);
    table
});

/// The library refused what it was asked to do (and said why in the log): `errno`, as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virglrenderer refuses it ({0})")]
pub struct Refused(c_int);

fn accepted(result: c_int) -> Result<(), Refused> {
    match result {
        0 => Ok(()),
        error => Err(Refused(error)),
    }
}

/// The library, initialised. Its functions panic on any thread but the one that made it.
pub(super) struct Library {
    api: Api,
    thread: ThreadId,
    poll_fd: c_int,
    /// The pages of resources: the library has their addresses.
    attached: HashMap<u32, Pages>,
}

impl Library {
    /// Loads the library and initialises it on this thread: on the render node `node`, or else by
    /// software.
    pub(super) fn open(node: Option<OwnedFd>) -> Result<Self, VirglError> {
        if TAKEN.swap(true, Ordering::Acquire) {
            return Err(VirglError::Taken);
        }
        let opened = Self::initialise(node);
        if opened.is_err() {
            TAKEN.store(false, Ordering::Release);
        }
        opened
    }

    fn initialise(node: Option<OwnedFd>) -> Result<Self, VirglError> {
        let api = Api::load()?;
        egl::check(node.is_some())?;
        log::attach(&api);
        let mut flags = sys::VIRGL_RENDERER_USE_EGL | sys::VIRGL_RENDERER_THREAD_SYNC;
        if node.is_none() {
            flags |= sys::VIRGL_RENDERER_USE_SURFACELESS;
        }
        SHARED.retired.store(0, Ordering::Relaxed);
        *SHARED.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
        let callbacks = (&raw const CALLBACKS.0).cast_mut();
        let cookie = (&raw const SHARED).cast_mut().cast();
        // SAFETY: callbacks and cookie are statics, and the library writes to neither; on failure
        // it has cleaned up after itself.
        let result = unsafe { (api.init)(cookie, flags as c_int, callbacks) };
        if result != 0 {
            let said = log::last();
            return Err(VirglError::Init { said });
        }
        log::limit();
        // SAFETY: the library is initialised, on this thread.
        let poll_fd = unsafe { (api.get_poll_fd)() };
        let library = Self {
            api,
            thread: std::thread::current().id(),
            poll_fd,
            attached: HashMap::new(),
        };
        if poll_fd < 0 {
            return Err(VirglError::NoFences);
        }
        Ok(library)
    }

    /// The library's functions; only on its thread. Being elsewhere is a fault of this program and
    /// nothing that a guest could cause.
    fn api(&self) -> &Api {
        let here = std::thread::current().id();
        assert_eq!(here, self.thread, "virglrenderer is called off its thread");
        &self.api
    }

    /// Is readable once a fence was signalled, until [`Library::poll`].
    pub(super) fn fence_event(&self) -> BorrowedFd<'_> {
        // SAFETY: the library keeps it open until it is cleaned up, which is when this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.poll_fd) }
    }

    /// Makes the library's own GL context current, for what is asked of GL directly.
    pub(super) fn make_current(&self) {
        // SAFETY: the library is initialised, and this is its thread.
        unsafe { (self.api().force_ctx_0)() }
    }

    /// The version and size of a set of capabilities; `None` where there is no such set.
    pub(super) fn capset(&self, id: u32) -> Option<CapsetInfo> {
        let (mut max_version, mut max_size) = (0, 0);
        // SAFETY: the library is initialised, this is its thread, and both results have a place.
        unsafe { (self.api().get_cap_set)(id, &raw mut max_version, &raw mut max_size) };
        (max_size != 0).then_some(CapsetInfo {
            id,
            max_version,
            max_size,
        })
    }

    /// A set of capabilities in one of the versions that [`Library::capset`] tells.
    pub(super) fn capset_data(&self, set: &CapsetInfo, version: u32) -> Vec<u8> {
        /// The library clears what the largest of its sets takes, whichever it fills.
        const ROOM: usize = 64 << 10;
        let size = set.max_size as usize;
        let mut room = vec![0_u64; size.max(ROOM).div_ceil(8)];
        // SAFETY: the library is initialised, this is its thread, and the room is larger than any
        // of the sets, and aligned for what they consist of.
        unsafe { (self.api().fill_caps)(set.id, version, room.as_mut_ptr().cast()) };
        let mut data: Vec<u8> = room.into_iter().flat_map(u64::to_ne_bytes).collect();
        data.truncate(size);
        data
    }

    /// Makes a rendering context.
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

    /// Lets a context use a resource.
    pub(super) fn context_attach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api().context_attach)(context.cast_signed(), id.cast_signed()) }
    }

    /// No longer lets a context use a resource.
    pub(super) fn context_detach(&mut self, context: u32, id: u32) {
        // SAFETY: as for destroy_context.
        unsafe { (self.api().context_detach)(context.cast_signed(), id.cast_signed()) }
    }

    /// Executes a command stream in a context. The library may write to it.
    pub(super) fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), Refused> {
        let len = c_int::try_from(stream.len()).map_err(|_| TOO_BIG)?;
        let commands = stream.as_mut_ptr().cast();
        // SAFETY: the library is initialised, this is its thread, the stream has as many words,
        // aligned as such, and is done with when this returns.
        accepted(unsafe { (self.api().submit)(commands, context.cast_signed(), len) })
    }

    /// Makes a resource.
    pub(super) fn create_resource(&mut self, new: &Create3d) -> Result<(), Refused> {
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
        // the call, and no pages come with them.
        accepted(unsafe { (self.api().resource_create)(&raw mut args, std::ptr::null_mut(), 0) })
    }

    /// Forgets a resource and its pages.
    pub(super) fn unref_resource(&mut self, id: u32) {
        // The pages first: contexts may keep the resource itself alive.
        self.detach(id);
        // SAFETY: the library is initialised, this is its thread; it looks the id up.
        unsafe { (self.api().resource_unref)(id) }
    }

    /// The GL name of a resource's texture, and GL's own context made current for what is done with
    /// it; `None` where it has none.
    pub(super) fn texture(&self, id: u32) -> Option<c_uint> {
        /// Newer versions of the library may fill more than the header has.
        #[repr(C)]
        struct Room {
            info: sys::virgl_renderer_resource_info,
            _more: [u64; 32],
        }
        self.make_current();
        // SAFETY: it consists of numbers.
        let mut room: Room = unsafe { std::mem::zeroed() };
        let place = (&raw mut room).cast();
        // SAFETY: the library is initialised, this is its thread; it looks the id up, and the room
        // is larger than what it fills.
        accepted(unsafe { (self.api().resource_info)(id.cast_signed(), place) }).ok()?;
        (room.info.tex_id != 0).then_some(room.info.tex_id)
    }

    /// Gives a resource its pages, instead of those that it has.
    pub(super) fn attach(&mut self, id: u32, pages: Pages) -> Result<(), Refused> {
        self.detach(id);
        let count = c_int::try_from(pages.vectors().len()).map_err(|_| TOO_BIG)?;
        let vectors = pages.vectors().as_ptr().cast_mut().cast();
        // SAFETY: the library is initialised, this is its thread. It keeps the address of the
        // vectors, and reads and writes the guest's memory through them, until they are detached:
        // they are kept until then, and the memory with them. The vectors themselves it only reads.
        accepted(unsafe { (self.api().resource_attach)(id.cast_signed(), vectors, count) })?;
        self.attached.insert(id, pages);
        Ok(())
    }

    /// Takes the pages of a resource from it; `None` where it has none.
    pub(super) fn detach(&mut self, id: u32) -> Option<Pages> {
        // In this order: while the library has the addresses, the pages are there.
        if self.attached.contains_key(&id) {
            let null = std::ptr::null_mut;
            // SAFETY: the library is initialised, this is its thread; it is not asked to tell
            // which vectors it had.
            unsafe {
                (self.api().resource_detach)(id.cast_signed(), null(), std::ptr::null_mut());
            }
        }
        self.attached.remove(&id)
    }

    /// The pages of a resource.
    pub(super) fn pages(&self, id: u32) -> Option<&Pages> {
        self.attached.get(&id)
    }

    /// The resources that have pages.
    pub(super) fn with_pages(&self) -> Vec<u32> {
        self.attached.keys().copied().collect()
    }

    /// Copies between a resource and its pages.
    pub(super) fn transfer(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<(), Refused> {
        self.transfer_by(context, transfer, direction, &[])
    }

    /// Copies between a resource and its pages: by `vectors`, which are some of these, or by all of
    /// them where there are none.
    fn transfer_by(
        &self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
        vectors: &[IoVec],
    ) -> Result<(), Refused> {
        let Transfer3d {
            part,
            offset,
            id,
            level,
            stride,
            layer_stride,
        } = *transfer;
        let count = c_int::try_from(vectors.len()).map_err(|_| TOO_BIG)?;
        let vectors = match vectors {
            [] => std::ptr::null_mut(),
            some => some.as_ptr().cast_mut().cast(),
        };
        let mut part = virgl_box(&part);
        let part = part.as_mut_ptr().cast();
        accepted(match direction {
            // SAFETY: the library is initialised, this is its thread, the box is read during the
            // call, and so are the vectors, which are memory of the guest's that is mapped. Without
            // them it takes those that are attached, or refuses.
            Direction::ToHost => unsafe {
                (self.api().transfer_write)(
                    id,
                    context,
                    level.cast_signed(),
                    stride,
                    layer_stride,
                    part,
                    offset,
                    vectors,
                    count.cast_unsigned(),
                )
            },
            // SAFETY: as above; it writes no further than the vectors go.
            Direction::FromHost => unsafe {
                (self.api().transfer_read)(
                    id,
                    context,
                    level,
                    stride,
                    layer_stride,
                    part,
                    offset,
                    vectors,
                    count,
                )
            },
        })
    }

    /// Copies a part of a resource's first mipmap into `into`, whose rows are `stride` bytes apart.
    pub(super) fn read(
        &mut self,
        id: u32,
        part: &Box3,
        stride: u32,
        into: &mut [u8],
    ) -> Result<(), Refused> {
        let mut part = virgl_box(part);
        let mut vector = IoVec {
            base: into.as_mut_ptr().cast(),
            len: into.len(),
        };
        let vector = (&raw mut vector).cast();
        // SAFETY: the library is initialised, this is its thread; box and vector are read during
        // the call, and it writes no further than the vector goes: it refuses what does not fit.
        accepted(unsafe {
            (self.api().transfer_read)(id, 0, 0, stride, 0, part.as_mut_ptr().cast(), 0, vector, 1)
        })
    }

    /// Makes a fence: [`Library::retired`] tells `fence`, or a later one, once all that was begun
    /// so far is done.
    pub(super) fn create_fence(&mut self, fence: u32) -> Result<(), Refused> {
        // SAFETY: the library is initialised, this is its thread.
        accepted(unsafe { (self.api().create_fence)(fence.cast_signed(), 0) })
    }

    /// Finds out which fences were signalled.
    pub(super) fn poll(&mut self) {
        // SAFETY: the library is initialised, this is its thread; its callback only stores a number.
        unsafe { (self.api().poll)() }
    }

    /// The last fence that was retired.
    pub(super) fn retired(&self) -> u32 {
        SHARED.retired.load(Ordering::Relaxed)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // Elsewhere than on its thread, it can only be left as it is: the process ends.
        if std::thread::current().id() != self.thread {
            std::mem::take(&mut self.attached)
                .into_values()
                .for_each(std::mem::forget);
            return;
        }
        // SAFETY: the library is initialised, this is its thread. What it still has of the guest's
        // pages is dropped after it.
        unsafe { (self.api.cleanup)((&raw const SHARED).cast_mut().cast()) };
        TAKEN.store(false, Ordering::Release);
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
