//! A stand-in for libvirglrenderer that draws nothing and asserts what it is promised: that what it
//! is asked about exists, that sizes are bounded, that no transfer reaches further than 32 bits, that
//! a stream consists of whole commands, and that pages stay for as long as it has their addresses.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::slice;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, memfd_create};
use virglrenderer_sys as sys;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::super::api::Api;
use super::super::egl::Handle;
use super::super::export::Exporter;
use super::super::guest_iovecs::IoVec;
use super::super::holdings::Kept;
use super::super::{MAX_RESOURCES, VirglRenderer};
use super::{Library, SHARED, write_fence};
use crate::backend::RateLimitedLog;
use crate::gpu::protocol::CapsetInfo;
use crate::gpu::resource::Budget;
use crate::gpu::resource::ResourceTable;
use crate::gpu::resource::{MODIFIER_INVALID, MODIFIER_LINEAR};

/// With this bit of `bind` a resource is refused.
pub const REFUSED_BIND: u32 = 1 << 30;
/// A context with this id is refused.
pub const REFUSED_CONTEXT: u32 = 13;

const EINVAL: c_int = 22;
/// Sets of capabilities: id, version, bytes.
const CAPSETS: [(u32, u32, u32); 2] = [(1, 1, 308), (2, 2, 1376)];
/// What the renderer promises of sizes.
const MAX_SIDE: u32 = 16384;
const MAX_BUFFER: u32 = 1 << 30;
const MAX_LAYERS: u32 = 2048;
/// And of how often it is to look at a vector for the rows that it is given.
const MAX_STEPS: usize = 1 << 18;

struct Resource {
    args: sys::virgl_renderer_resource_create_args,
    vectors: Option<(*const IoVec, usize)>,
}

#[derive(Default)]
struct State {
    contexts: HashSet<u32>,
    resources: HashMap<u32, Resource>,
    images: HashSet<u32>,
    fences: VecDeque<u32>,
    done: usize,
    event: Option<EventFd>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn state<T>(f: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(f)
}

/// A renderer on it, on this thread.
///
/// # Panics
/// Where the host has no descriptors left.
pub fn renderer(budget: Budget) -> VirglRenderer {
    let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).expect("cannot make an eventfd");
    let poll_fd = event.as_raw_fd();
    state(|state| {
        *state = State {
            event: Some(event),
            ..State::default()
        };
    });
    SHARED.retired.store(0, Ordering::Relaxed);
    let library = Library {
        api: api(),
        thread: std::thread::current().id(),
        poll_fd,
        attached: HashMap::new(),
    };
    let capsets = CapsetInfo::VIRGL.map(|id| library.capset(id));
    VirglRenderer {
        capsets: capsets.into_iter().flatten().collect(),
        library,
        exporter: Some(exporter()),
        description: "a stand-in".to_owned(),
        resources: ResourceTable::new(MAX_RESOURCES, budget),
        away: HashMap::new(),
        contexts: HashMap::new(),
        lost: Kept::default(),
        resident: None,
        streams: 0,
        last_fence: 0,
        band: Vec::new(),
        device_errors: RateLimitedLog::default(),
    }
}

/// Has the work before the next `count` fences be done.
#[cfg(feature = "fuzzing")]
pub fn retire(count: usize) {
    state(|state| {
        state.done = state.done.saturating_add(count).min(state.fences.len());
        if let Some(event) = &state.event {
            let _ = event.write(1);
        }
    });
}

/// How many resources and contexts it has.
#[cfg(feature = "fuzzing")]
pub fn population() -> (usize, usize) {
    state(|state| (state.resources.len(), state.contexts.len()))
}

fn api() -> Api {
    Api {
        init,
        cleanup,
        poll,
        get_poll_fd,
        force_ctx_0,
        get_cap_set,
        fill_caps,
        context_create,
        context_destroy,
        context_attach,
        context_detach,
        resource_create,
        resource_unref,
        resource_attach,
        resource_detach,
        resource_info,
        transfer_read,
        transfer_write,
        submit,
        create_fence,
        set_debug_callback,
        set_log_callback: None,
    }
}

/// The texture of a resource has the same number.
unsafe extern "C" fn resource_info(
    id: c_int,
    into: *mut sys::virgl_renderer_resource_info,
) -> c_int {
    let id = id.cast_unsigned();
    assert!(state(|state| state.resources.contains_key(&id)));
    // SAFETY: the caller has room for it.
    unsafe { (*into).tex_id = id }
    0
}

/// Passes on memfds. What becomes of a texture, the flags of its resource say: the driver chooses.
fn exporter() -> Exporter {
    Exporter {
        display: current,
        context: current,
        create: create_image,
        destroy: destroy_image,
        query: query_image,
        export: export_image,
    }
}

/// The names of this thread's buffers begin with it.
fn dmabuf_name() -> String {
    format!("dmabuf of {:?}", std::thread::current().id())
}

/// How many descriptors of its buffers are open, anywhere in the process.
///
/// # Panics
/// Where /proc cannot be read.
#[cfg(feature = "fuzzing")]
pub fn open_dmabufs() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    let name = format!("/memfd:{} (deleted)", dmabuf_name());
    open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.as_os_str() == name.as_str())
        .count()
}

/// The flags of the resource behind an image, without `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP`.
fn whim(image: Handle) -> u32 {
    let id = image as usize as u32;
    state(|state| {
        assert!(state.images.contains(&id), "no image {id}");
        state.resources[&id].args.flags >> 1
    })
}

unsafe extern "C" fn current() -> Handle {
    std::ptr::null_mut()
}

unsafe extern "C" fn create_image(
    _: Handle,
    _: Handle,
    _: c_uint,
    texture: Handle,
    _: *const c_int,
) -> Handle {
    let id = texture as usize as u32;
    state(|state| assert!(state.images.insert(id), "an image of {id} is left"));
    if whim(texture) & 7 == 3 {
        state(|state| state.images.remove(&id));
        return std::ptr::null_mut();
    }
    texture
}

unsafe extern "C" fn destroy_image(_: Handle, image: Handle) -> c_uint {
    let id = image as usize as u32;
    assert!(state(|state| state.images.remove(&id)), "no image {id}");
    1
}

unsafe extern "C" fn query_image(
    _: Handle,
    image: Handle,
    fourcc: *mut c_int,
    planes: *mut c_int,
    modifiers: *mut u64,
) -> c_uint {
    const TILED: u64 = 0x0100_0000_0000_0002;
    let whim = whim(image);
    let kinds = [*b"XR24", *b"AR24", *b"AB24", [0xff; 4]];
    // SAFETY: all results have a place.
    unsafe {
        *fourcc = i32::from_le_bytes(kinds[(whim >> 3 & 3) as usize]);
        *planes = if whim & 7 == 5 { 2 } else { 1 };
        *modifiers = match whim & 7 {
            1 => TILED,
            2 => MODIFIER_INVALID,
            _ => MODIFIER_LINEAR,
        };
    }
    c_uint::from(whim & 7 != 4)
}

unsafe extern "C" fn export_image(
    _: Handle,
    image: Handle,
    fd: *mut c_int,
    stride: *mut c_int,
    offset: *mut c_int,
) -> c_uint {
    let whim = whim(image);
    let id = image as usize as u32;
    let width = state(|state| state.resources[&id].args.width);
    if whim & 7 != 6 {
        let memfd = memfd_create(dmabuf_name(), MemfdFlags::CLOEXEC);
        let memfd = memfd.expect("the host has descriptors left");
        // SAFETY: the result has a place; it is the caller's from now on.
        unsafe { *fd = memfd.into_raw_fd() }
    }
    // SAFETY: both results have a place.
    unsafe {
        *stride = match whim >> 5 & 3 {
            1 => 0,
            2 => -1,
            3 => c_int::MAX,
            _ => width.cast_signed() * 4,
        };
        *offset = if whim & 7 == 7 { 64 } else { 0 };
    }
    1
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

unsafe extern "C" fn poll() {
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

unsafe extern "C" fn get_poll_fd() -> c_int {
    -1
}

unsafe extern "C" fn force_ctx_0() {}

unsafe extern "C" fn get_cap_set(id: u32, version: *mut u32, size: *mut u32) {
    let set = CAPSETS.iter().find(|set| set.0 == id);
    let (_, has, len) = set.copied().unwrap_or_default();
    // SAFETY: both results have a place.
    unsafe {
        *version = has;
        *size = len;
    }
}

unsafe extern "C" fn fill_caps(id: u32, version: u32, into: *mut c_void) {
    let set = CAPSETS.iter().find(|set| set.0 == id);
    let (_, has, len) = set.expect("a set that there is");
    assert!(version <= *has, "a version that there is");
    // SAFETY: the caller has room for what get_cap_set says.
    unsafe { into.cast::<u8>().write_bytes(0x5a, *len as usize) }
}

unsafe extern "C" fn context_create(id: u32, len: u32, name: *const c_char) -> c_int {
    // SAFETY: the name is a string.
    let name = unsafe { std::ffi::CStr::from_ptr(name) };
    assert_eq!(name.to_bytes().len(), len as usize);
    assert_ne!(id, 0, "the library's own context");
    if id == REFUSED_CONTEXT {
        return EINVAL;
    }
    assert!(
        state(|state| state.contexts.insert(id)),
        "context {id} twice"
    );
    0
}

unsafe extern "C" fn context_destroy(id: u32) {
    assert!(state(|state| state.contexts.remove(&id)), "no context {id}");
}

fn both_exist(context: c_int, id: c_int) {
    state(|state| {
        assert!(state.contexts.contains(&context.cast_unsigned()));
        assert!(state.resources.contains_key(&id.cast_unsigned()));
    });
}

unsafe extern "C" fn context_attach(context: c_int, id: c_int) {
    both_exist(context, id);
}

unsafe extern "C" fn context_detach(context: c_int, id: c_int) {
    both_exist(context, id);
}

unsafe extern "C" fn resource_create(
    args: *mut sys::virgl_renderer_resource_create_args,
    vectors: *mut sys::iovec,
    count: u32,
) -> c_int {
    assert!(vectors.is_null() && count == 0);
    // SAFETY: the arguments are there for the call.
    let args = unsafe { *args };
    assert_ne!(args.handle, 0);
    let (side, layers) = if args.target == 0 {
        (MAX_BUFFER, 1)
    } else {
        (MAX_SIDE, MAX_LAYERS)
    };
    assert!((1..=side).contains(&args.width), "{args:?}");
    assert!((1..=MAX_SIDE).contains(&args.height), "{args:?}");
    assert!((1..=layers).contains(&args.depth), "{args:?}");
    assert!((1..=layers).contains(&args.array_size), "{args:?}");
    assert!(args.nr_samples <= 32 && args.last_level <= 14, "{args:?}");
    if args.bind & REFUSED_BIND != 0 {
        return EINVAL;
    }
    let resource = Resource {
        args,
        vectors: None,
    };
    let before = state(|state| state.resources.insert(args.handle, resource));
    assert!(before.is_none(), "resource {} twice", args.handle);
    0
}

unsafe extern "C" fn resource_unref(id: u32) {
    let resource = state(|state| state.resources.remove(&id));
    let resource = resource.expect("a resource that there is");
    assert!(resource.vectors.is_none(), "pages of a resource that goes");
}

unsafe extern "C" fn resource_attach(id: c_int, vectors: *mut sys::iovec, count: c_int) -> c_int {
    let count = usize::try_from(count).expect("no count below 0");
    let vectors: *const IoVec = vectors.cast_const().cast();
    // SAFETY: there are as many vectors.
    touch(unsafe { slice::from_raw_parts(vectors, count) });
    state(|state| {
        let resource = state.resources.get_mut(&id.cast_unsigned());
        let place = &mut resource.expect("a resource that there is").vectors;
        assert!(place.is_none(), "pages twice");
        *place = Some((vectors, count));
    });
    0
}

unsafe extern "C" fn resource_detach(id: c_int, _: *mut *mut sys::iovec, _: *mut c_int) {
    let vectors = state(|state| {
        let resource = state.resources.get_mut(&id.cast_unsigned());
        resource.expect("a resource that there is").vectors.take()
    });
    let (vectors, count) = vectors.expect("pages that were attached");
    // SAFETY: they stay until they are detached.
    touch(unsafe { slice::from_raw_parts(vectors, count) });
}

/// Reads both ends of each vector and writes them as they are.
fn touch(vectors: &[IoVec]) {
    for vector in vectors.iter().filter(|vector| vector.len != 0) {
        let base: *mut u8 = vector.base.cast();
        for at in [0, vector.len - 1] {
            // SAFETY: a vector is memory for as long as the library has it, shared with a guest.
            unsafe {
                let byte = base.add(at).read_volatile();
                base.add(at).write_volatile(byte);
            }
        }
    }
}

fn level(side: u32, level: u32) -> u32 {
    side.checked_shr(level).unwrap_or(0).max(1)
}

/// How far a transfer reaches in its vectors from its offset on, as the library computes it, but
/// with 64 bits.
fn reach(
    args: &sys::virgl_renderer_resource_create_args,
    mip: u32,
    stride: u32,
    layer_stride: u32,
    [_, _, _, width, height, depth]: [u32; 6],
) -> u64 {
    let texel: u64 = match args.format {
        1..=4 | 67 | 68 | 121 | 134 => 4,
        _ => 16,
    };
    let row = |width: u32| u64::from(width).saturating_mul(texel);
    let stride = match stride {
        0 => row(level(args.width, mip)),
        given => given.into(),
    };
    let layer = match layer_stride {
        0 => stride.saturating_mul(level(args.height, mip).into()),
        given => given.into(),
    };
    let steps = |count: u32, len: u64| u64::from(count.saturating_sub(1)).saturating_mul(len);
    let rows = steps(height, stride).saturating_add(row(width));
    steps(depth, layer).saturating_add(rows)
}

/// Whether a transfer that the renderer let pass lies within its vectors, which it leaves to the
/// library to refuse.
fn transfer(
    id: u32,
    context: u32,
    mip: u32,
    strides: [u32; 2],
    part: [u32; 6],
    offset: u64,
    own: Option<&[IoVec]>,
) -> c_int {
    state(|state| {
        let resource = state.resources.get(&id).expect("a resource that there is");
        let args = &resource.args;
        assert!(context == 0 || state.contexts.contains(&context));
        assert!(mip <= args.last_level, "level {mip} of {args:?}");
        let layers = if args.target == 3 {
            level(args.depth, mip)
        } else {
            args.array_size.max(args.depth)
        };
        let [x, y, z, width, height, depth] = part.map(u64::from);
        assert!(width != 0 && height != 0 && depth != 0, "an empty {part:?}");
        assert!(
            x + width <= level(args.width, mip).into(),
            "{part:?} {args:?}"
        );
        assert!(
            y + height <= level(args.height, mip).into(),
            "{part:?} {args:?}"
        );
        assert!(z + depth <= layers.into(), "{part:?} {args:?}");
        let reach = reach(args, mip, strides[0], strides[1], part);
        assert!(
            reach.saturating_add(offset) <= u32::MAX.into(),
            "{part:?}, strides {strides:?}, at {offset} of {args:?} reaches {reach}"
        );
        let vectors = own.unwrap_or_else(|| {
            let (vectors, count) = resource.vectors.expect("pages that were attached");
            // SAFETY: they stay until they are detached.
            unsafe { slice::from_raw_parts(vectors, count) }
        });
        // The library looks at all of them for each row.
        assert!(
            own.is_none() || part[4] == 1 || part[4] as usize * vectors.len() <= MAX_STEPS,
            "{part:?} by {} vectors",
            vectors.len()
        );
        touch(vectors);
        let has: u64 = vectors.iter().map(|vector| vector.len as u64).sum();
        assert!(
            own.is_none() || args.format > 134 || reach <= has,
            "no room for what is read"
        );
        if offset + reach <= has { 0 } else { EINVAL }
    })
}

unsafe extern "C" fn transfer_read(
    id: u32,
    context: u32,
    mip: u32,
    stride: u32,
    layer_stride: u32,
    part: *mut sys::virgl_box,
    offset: u64,
    vectors: *mut sys::iovec,
    count: c_int,
) -> c_int {
    // SAFETY: a box is six numbers.
    let part = unsafe { *part.cast::<[u32; 6]>() };
    let own = (!vectors.is_null()).then(|| {
        let count = usize::try_from(count).expect("no count below 0");
        // SAFETY: there are as many vectors.
        unsafe { slice::from_raw_parts(vectors.cast_const().cast::<IoVec>(), count) }
    });
    let strides = [stride, layer_stride];
    let result = transfer(id, context, mip, strides, part, offset, own);
    for vector in own.filter(|_| result == 0).unwrap_or_default() {
        // SAFETY: the caller's vectors are to be written for the length of the call.
        unsafe {
            vector
                .base
                .cast::<u8>()
                .write_bytes(part[0] as u8 ^ id as u8, vector.len)
        }
    }
    result
}

unsafe extern "C" fn transfer_write(
    id: u32,
    context: u32,
    mip: c_int,
    stride: u32,
    layer_stride: u32,
    part: *mut sys::virgl_box,
    offset: u64,
    vectors: *mut sys::iovec,
    count: c_uint,
) -> c_int {
    // SAFETY: a box is six numbers.
    let part = unsafe { *part.cast::<[u32; 6]>() };
    let strides = [stride, layer_stride];
    // SAFETY: there are as many vectors.
    let own = (!vectors.is_null())
        .then(|| unsafe { slice::from_raw_parts(vectors.cast_const().cast(), count as usize) });
    transfer(id, context, mip.cast_unsigned(), strides, part, offset, own)
}

unsafe extern "C" fn submit(stream: *mut c_void, context: c_int, words: c_int) -> c_int {
    /// `VIRGL_CCMD_*` that copy: RESOURCE_INLINE_WRITE, TRANSFER3D, COPY_TRANSFER3D.
    const TRANSFERS: [u32; 3] = [9, 43, 45];
    /// Those that make what is in no account: PIPE_RESOURCE_CREATE and video's.
    const UNACCOUNTED: [u32; 3] = [48, 53, 55];
    /// There are none from here on.
    const MAX_COMMANDS: u32 = 64;
    let mut result = 0;
    let words = usize::try_from(words).expect("no length below 0");
    // SAFETY: there are as many words, which may be written.
    let stream = unsafe { slice::from_raw_parts_mut(stream.cast::<u32>(), words) };
    state(|state| {
        assert!(state.contexts.contains(&context.cast_unsigned()));
        let mut rest = &stream[..];
        while let Some((header, behind)) = rest.split_first() {
            let (fields, next) = behind.split_at((header >> 16) as usize);
            rest = next;
            assert!(!UNACCOUNTED.contains(&(header & 0xff)), "{header:#x}");
            if header & 0xff >= MAX_COMMANDS {
                // What comes before is done.
                result = EINVAL;
                break;
            }
            if !TRANSFERS.contains(&(header & 0xff)) || fields.len() < 11 {
                continue;
            }
            if let Some(resource) = state.resources.get(&fields[0]) {
                let part = [5, 6, 7, 8, 9, 10].map(|at| fields[at]);
                let reach = reach(&resource.args, fields[1], fields[3], fields[4], part);
                assert!(
                    reach <= u32::MAX.into(),
                    "{fields:?} of {:?}",
                    resource.args
                );
            }
        }
    });
    stream.fill(0);
    result
}

unsafe extern "C" fn create_fence(fence: c_int, _: u32) -> c_int {
    state(|state| state.fences.push_back(fence.cast_unsigned()));
    0
}

unsafe extern "C" fn set_debug_callback(
    _: sys::virgl_debug_callback_type,
) -> sys::virgl_debug_callback_type {
    None
}
