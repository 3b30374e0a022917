// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A fake libvirglrenderer with a render server, which runs nothing and asserts what the renderer has to ensure: ids exist or
//! do not, and contexts get no memory that the library cannot give them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use virglrenderer_sys as sys;

use super::VenusRenderer;
use super::api::Api;
use super::connector::{self, Connector};
use super::fences::RetiredFences;
use super::library::{Library, write_context_fence};
use super::library_thread::LibraryThread;
use super::render_server::RenderServer;
use super::renewal::{OpenLibrary, Renewal};
use crate::backend::GuestMemory;
use crate::gpu::resource::Budget;

/// Names of blobs, and what the library exports for them. It refuses all others.
pub(super) const MEMFD: u64 = 0;
pub(super) const DMABUF: u64 = 1;
pub(super) const LAVAPIPE: u64 = 2;
pub(super) const DRIVERS_OWN: u64 = 3;
/// A memfd shorter than the blob.
pub(super) const SHORT: u64 = 5;
#[cfg(test)]
pub(super) const REFUSED: u64 = 4;

/// The server never answers a stream that begins so. The library waits for it as long as their connection lasts.
#[cfg(test)]
pub(super) const HANGS: u32 = 0xdead;
/// The library never returns from a stream that begins so.
#[cfg(test)]
pub(super) const STUCK: u32 = 0xdeaf;
/// The process of the context never answers a stream that begins so. Its connection can be shut down.
#[cfg(test)]
pub(super) const CONTEXT_HANGS: u32 = 0xdeae;
/// How long the device waits for a server that hangs: longer than a busy machine takes for a call.
#[cfg(test)]
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

const EINVAL: c_int = 22;
const PAGE: u64 = 4096;

#[derive(Default)]
struct State {
    cookie: usize,
    capset: u32,
    /// The connection that the library took.
    connection: Option<OwnedFd>,
    /// Both ends of each one's connection. The server's is closed when its process ends.
    contexts: HashMap<u32, (OwnedFd, Option<OwnedFd>)>,
    blobs: HashMap<u32, Blob>,
    fences: Vec<PendingFence>,
    #[cfg(test)]
    streams: Vec<(u32, Vec<u32>)>,
    /// How many streams were accepted.
    #[cfg(feature = "fuzzing")]
    accepted: usize,
}

struct Blob {
    kind: u32,
    file: File,
    contexts: HashSet<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PendingFence {
    pub(super) context: u32,
    pub(super) ring: u32,
    fence: u64,
}

thread_local! {
    /// Of the library whose thread this is, or of the test's.
    static STATE: RefCell<Arc<Mutex<State>>> = RefCell::default();
    /// The other end of the renderer's connector.
    static CONNECTOR: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

fn state<T>(with: impl FnOnce(&mut State) -> T) -> T {
    let state = STATE.with_borrow(Arc::clone);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    with(&mut state)
}

/// The ids of contexts and of blobs that the library has.
#[cfg(test)]
pub(super) fn population() -> (Vec<u32>, Vec<u32>) {
    let sorted = |mut ids: Vec<u32>| {
        ids.sort_unstable();
        ids
    };
    state(|state| {
        let contexts = state.contexts.keys().copied().collect();
        (
            sorted(contexts),
            sorted(state.blobs.keys().copied().collect()),
        )
    })
}

/// The streams that were submitted.
#[cfg(test)]
pub(super) fn streams() -> Vec<(u32, Vec<u32>)> {
    state(|state| std::mem::take(&mut state.streams))
}

/// The process of the server for a context ends.
pub(super) fn crash(context: u32) {
    state(|state| {
        if let Some((_, server)) = state.contexts.get_mut(&context) {
            *server = None;
        }
    });
}

/// Retires the pending fences that `which` picks, on another thread.
pub(super) fn retire(which: impl Fn(&PendingFence) -> bool) {
    // The library cleans up after that or before, as its threads end with it.
    state(|state| {
        let fences = std::mem::take(&mut state.fences);
        let (retired, pending): (Vec<_>, _) = fences.into_iter().partition(which);
        state.fences = pending;
        let cookie = state.cookie;
        let thread = std::thread::spawn(move || {
            for PendingFence {
                context,
                ring,
                fence,
            } in retired
            {
                let cookie = std::ptr::with_exposed_provenance_mut(cookie);
                // SAFETY: the library, whose thread this plays, lives on.
                unsafe { write_context_fence(cookie, context, ring, fence) };
            }
        });
        thread.join().expect("retires");
    });
}

/// Writes into a blob, as the guest or the GPU does.
#[cfg(test)]
pub(super) fn draw(blob: u32, offset: u64, bytes: &[u8]) {
    state(|state| {
        let file = &state.blobs.get(&blob).expect("a blob").file;
        file.write_all_at(bytes, offset).expect("is written");
    });
}

/// A new library's state for this thread, and for those that call what is returned.
pub(super) fn share_state() -> impl Fn() + Send + Sync + 'static {
    let shared = Arc::<Mutex<State>>::default();
    STATE.set(Arc::clone(&shared));
    move || STATE.set(Arc::clone(&shared))
}

/// A renderer with a fake library on this thread, and its server's end of the connection.
pub(super) fn renderer(budget: &Budget, memory: GuestMemory) -> (VenusRenderer, OwnedFd) {
    let share = share_state();
    let (ours, theirs) = connection();
    let watched = RenderServer::new(ours.try_clone().expect("a descriptor"));
    let retired = Arc::new(RetiredFences::new().expect("an event"));
    let open: Arc<OpenLibrary> = Arc::new(move |server, retired| {
        share();
        Library::open(api(), None, server, retired)
    });
    let first = Arc::clone(&open);
    let starting = LibraryThread::start(Arc::clone(&retired), false, move |retired| {
        first(ours, retired)
    });
    let library = starting.expect("a thread").wait(Duration::from_secs(60));
    let mut library = library.expect("a result").expect("a library");
    #[cfg(test)]
    library.set_patience(PATIENCE);
    let capset = library.capset(4).expect("an answer").expect("a set");
    let (connector, other) = connection();
    CONNECTOR.set(Some(other));
    let renewal = Renewal::new(Connector::fake(connector), open, retired);
    let name = "a fake".to_owned();
    let renderer = VenusRenderer::with_library(
        library,
        watched,
        renewal,
        capset,
        name,
        budget.clone(),
        memory,
    );
    (renderer.expect("a renderer"), theirs)
}

/// If the renderer wants a new server, it gets this one, or none. Whether it did, and the server's end of the connection.
#[cfg(test)]
pub(super) fn connect_anew(is_there: bool) -> Option<Option<OwnedFd>> {
    use rustix::net::{RecvFlags, recv};
    CONNECTOR.with_borrow(|connector| {
        let connector = connector.as_ref().expect("a connector");
        let mut order = [0_u8; 8];
        recv(connector, &mut order, RecvFlags::DONTWAIT).ok()?;
        let (ours, theirs) = connection();
        let answer = match is_there {
            true => Ok(ours),
            false => Err(rustix::io::Errno::CONNREFUSED.into()),
        };
        connector::answer(connector, answer).expect("an answer");
        Some(is_there.then_some(theirs))
    })
}

/// The connector ends.
#[cfg(test)]
pub(super) fn end_connector() {
    CONNECTOR.set(None);
}

/// A renderer with a fake library on this thread, for a fuzz target.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed_renderer(budget: &Budget, memory: GuestMemory) -> VenusRenderer {
    let (renderer, server) = renderer(budget, memory);
    fuzzing::serve(server);
    renderer
}

/// What the fuzz targets see of the library and its server.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    use super::{Arc, CONNECTOR, Mutex, OwnedFd, PoisonError, RefCell, connection, connector};

    type Server = Arc<Mutex<Option<OwnedFd>>>;

    thread_local! {
        /// The end of the connection of the server that runs.
        static SERVER: RefCell<Server> = RefCell::default();
    }

    fn run(server: &Server, end: Option<OwnedFd>) {
        *server.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// A server runs, and others after it.
    pub(super) fn serve(first: OwnedFd) {
        let server = Server::default();
        run(&server, Some(first));
        SERVER.set(Arc::clone(&server));
        let connector = CONNECTOR.take().expect("a connector");
        std::thread::spawn(move || {
            // Ends with the renderer.
            let _ = connector::serve(&connector, || {
                let (ours, theirs) = connection();
                run(&server, Some(theirs));
                Ok(ours)
            });
        });
    }

    /// Completes the work of a context's timelines whose numbers are not over `ring`.
    pub fn retire(context: u32, ring: u32) {
        super::retire(|fence| fence.context == context && fence.ring <= ring);
    }

    /// The server's process for a context ends.
    pub fn crash(context: u32) {
        super::crash(context);
    }

    /// The server ends.
    pub fn end_server() {
        SERVER.with_borrow(|server| run(server, None));
        super::state(|state| {
            for (_, server) in state.contexts.values_mut() {
                *server = None;
            }
        });
    }

    /// How many streams the library has accepted.
    pub fn accepted() -> usize {
        super::state(|state| state.accepted)
    }

    /// Numbers of contexts and blobs.
    pub fn population() -> (usize, usize) {
        super::state(|state| (state.contexts.len(), state.blobs.len()))
    }
}

fn connection() -> (OwnedFd, OwnedFd) {
    let kind = SocketType::SEQPACKET;
    let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    pair.expect("a pair of sockets")
}

pub(super) fn api() -> Api {
    Api {
        init,
        cleanup,
        get_cap_set,
        fill_caps,
        context_create,
        context_destroy,
        context_attach,
        context_detach,
        context_fence,
        submit,
        create_blob,
        export_blob,
        map_info,
        resource_unref,
    }
}

unsafe extern "C" fn init(
    cookie: *mut c_void,
    flags: c_int,
    table: *mut sys::virgl_renderer_callbacks,
) -> c_int {
    // SAFETY: the table is the caller's.
    let table = unsafe { &*table.cast_const() };
    assert_eq!(table.version, 3);
    let connect = table.get_server_fd.expect("a connection");
    // SAFETY: the callback has its cookie.
    let connection = unsafe { connect(cookie, 0) };
    state(|state| {
        state.cookie = cookie.expose_provenance();
        state.capset = 4;
        if flags as u32 & sys::VIRGL_RENDERER_DRM != 0 {
            state.capset = 6;
            return;
        }
        // SAFETY: the descriptor becomes the library's.
        state.connection = Some(unsafe { OwnedFd::from_raw_fd(connection) });
    });
    0
}

unsafe extern "C" fn cleanup(_: *mut c_void) {
    state(|state| *state = State::default());
}

unsafe extern "C" fn get_cap_set(id: u32, version: *mut u32, size: *mut u32) {
    // SAFETY: there is room for both results.
    unsafe {
        *version = 0;
        *size = if id == state(|state| state.capset) {
            160
        } else {
            0
        };
    }
}

unsafe extern "C" fn fill_caps(id: u32, version: u32, into: *mut c_void) {
    assert_eq!((id, version), (state(|state| state.capset), 0));
    // SAFETY: the caller has room for what get_cap_set says.
    unsafe { into.cast::<u8>().write_bytes(0x5a, 160) }
}

unsafe extern "C" fn context_create(id: u32, flags: u32, len: u32, name: *const c_char) -> c_int {
    // SAFETY: the name is a string.
    let name = unsafe { CStr::from_ptr(name) };
    assert_eq!(name.to_bytes().len(), len as usize);
    assert_eq!(flags, state(|state| state.capset));
    assert_ne!(id, 0);
    let (ours, theirs) = connection();
    let old = state(|state| state.contexts.insert(id, (ours, Some(theirs))));
    assert!(old.is_none(), "{id} twice");
    0
}

unsafe extern "C" fn context_destroy(id: u32) {
    state(|state| {
        assert!(state.contexts.remove(&id).is_some(), "no context {id}");
        state.fences.retain(|fence| fence.context != id);
        for blob in state.blobs.values_mut() {
            blob.contexts.remove(&id);
        }
    });
}

unsafe extern "C" fn context_attach(context: c_int, id: c_int) {
    let context = context as u32;
    state(|state| {
        assert!(state.contexts.contains_key(&context));
        let blob = state.blobs.get_mut(&(id as u32)).expect("a blob");
        let is_new = blob.contexts.insert(context);
        let can_share = blob.kind == sys::VIRGL_RENDERER_BLOB_FD_TYPE_DMABUF;
        assert!(!is_new || can_share, "the server cannot import it");
    });
}

unsafe extern "C" fn context_detach(context: c_int, id: c_int) {
    let context = context as u32;
    state(|state| {
        assert!(state.contexts.contains_key(&context));
        let blob = state.blobs.get_mut(&(id as u32)).expect("a blob");
        blob.contexts.remove(&context);
    });
}

unsafe extern "C" fn context_fence(context: u32, _: u32, ring: u32, fence: u64) -> c_int {
    assert!(ring < 64);
    state(|state| {
        assert!(state.contexts.contains_key(&context));
        state.fences.push(PendingFence {
            context,
            ring,
            fence,
        });
    });
    0
}

unsafe extern "C" fn submit(commands: *mut c_void, context: c_int, len: c_int) -> c_int {
    // SAFETY: the caller has as many words.
    let stream = unsafe { std::slice::from_raw_parts(commands.cast::<u32>(), len as usize) };
    state(|state| {
        assert!(state.contexts.contains_key(&(context as u32)));
        #[cfg(test)]
        state.streams.push((context as u32, stream.to_vec()));
    });
    match stream {
        [0xbad, ..] => EINVAL,
        #[cfg(test)]
        [CONTEXT_HANGS, ..] => {
            let connection = state(|state| {
                let (library, _) = state.contexts.get(&(context as u32)).expect("a context");
                library.try_clone().expect("a descriptor")
            });
            assert_eq!(rustix::io::read(&connection, &mut [0_u8; 8]), Ok(0));
            EINVAL
        }
        #[cfg(test)]
        [HANGS, ..] => {
            let connection = state(|state| {
                let connection = state.connection.as_ref().expect("a connection");
                connection.try_clone().expect("a descriptor")
            });
            assert_eq!(rustix::io::read(&connection, &mut [0_u8; 8]), Ok(0));
            EINVAL
        }
        #[cfg(test)]
        [STUCK, ..] => loop {
            std::thread::park();
        },
        _ => {
            #[cfg(feature = "fuzzing")]
            state(|state| state.accepted += 1);
            0
        }
    }
}

unsafe extern "C" fn create_blob(
    args: *const sys::virgl_renderer_resource_create_blob_args,
) -> c_int {
    // SAFETY: the arguments are the caller's.
    let args = unsafe { &*args };
    assert_eq!(args.blob_mem, sys::VIRGL_RENDERER_BLOB_MEM_HOST3D);
    assert_ne!((args.res_handle, args.size), (0, 0));
    let (kind, size) = match args.blob_id {
        MEMFD => (sys::VIRGL_RENDERER_BLOB_FD_TYPE_SHM, args.size),
        DMABUF => (sys::VIRGL_RENDERER_BLOB_FD_TYPE_DMABUF, args.size),
        LAVAPIPE => (
            sys::VIRGL_RENDERER_BLOB_FD_TYPE_OPAQUE,
            args.size + PAGE + 40,
        ),
        DRIVERS_OWN => (sys::VIRGL_RENDERER_BLOB_FD_TYPE_OPAQUE, args.size),
        SHORT => (sys::VIRGL_RENDERER_BLOB_FD_TYPE_SHM, args.size - 1),
        _ => return -EINVAL,
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("blob", flags).expect("a memfd"));
    ftruncate(&file, size).expect("has a size");
    if args.blob_id == LAVAPIPE {
        for (at, word) in [(0, size), (8, PAGE), (PAGE - 8, PAGE)] {
            file.write_all_at(&word.to_ne_bytes(), at)
                .expect("is written");
        }
    }
    state(|state| {
        assert!(state.contexts.contains_key(&args.ctx_id));
        let blob = Blob {
            kind,
            file,
            contexts: HashSet::from([args.ctx_id]),
        };
        assert!(state.blobs.insert(args.res_handle, blob).is_none());
    });
    0
}

unsafe extern "C" fn export_blob(id: u32, kind: *mut u32, fd: *mut c_int) -> c_int {
    state(|state| {
        let blob = state.blobs.get(&id).expect("a blob");
        let exported = blob.file.try_clone().expect("a descriptor");
        // SAFETY: there is room for both results.
        unsafe {
            *kind = blob.kind;
            *fd = exported.into_raw_fd();
        }
    });
    0
}

unsafe extern "C" fn map_info(id: u32, info: *mut u32) -> c_int {
    assert!(state(|state| state.blobs.contains_key(&id)));
    // SAFETY: there is room for the result.
    unsafe { *info = sys::VIRGL_RENDERER_MAP_CACHE_WC };
    0
}

unsafe extern "C" fn resource_unref(id: u32) {
    assert!(state(|state| state.blobs.remove(&id)).is_some());
}
