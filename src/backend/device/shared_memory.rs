// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A shared memory region of a device (virtio 1.2, 2.10), into which the front-end maps files.
//!
//! The device asks for one map after another, on the worker. The main thread sends the request, as it alone knows what the
//! front-end has said last (`BackendChannel` of the transport), and nobody waits for the answer: the device gets an event.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::wake_event::WakeEvent;
use crate::backend::lock::lock;
use crate::backend::service::main_thread_channel::{MainThreadEvent, MainThreadHandle};

/// Bytes of a page: regions, and what is mapped into them, consist of whole ones.
pub const SHARED_MEMORY_PAGE: u64 = 4096;

/// Most bytes of a region: more than addresses of guests have room for.
const MAX_LEN: u64 = 1 << 40;

/// A shared memory region of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemoryRegion {
    id: u8,
    len: u64,
}

/// There is no such region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a shared memory region of {0} bytes is impossible: the size must be a power of two, from 4K to 1T"
)]
pub struct RegionError(u64);

impl SharedMemoryRegion {
    /// Region `id` (virtio 1.2, 2.10.2) of `len` bytes.
    ///
    /// # Errors
    /// If `len` is not a power of two, as QEMU 11.1 ends when it is none, or out of bounds.
    pub const fn new(id: u8, len: u64) -> Result<Self, RegionError> {
        if len.is_power_of_two() && len >= SHARED_MEMORY_PAGE && len <= MAX_LEN {
            return Ok(Self { id, len });
        }
        Err(RegionError(len))
    }

    /// Its number, by which the driver knows what it is for.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a region has a page or more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What the front-end is to change in a region. All numbers are bytes, and whole pages.
#[derive(Clone, Debug)]
pub enum SharedMemoryRequest {
    /// Map a part of a file, to be read and written (`VHOST_USER_BACKEND_SHMEM_MAP`).
    Map {
        /// The file, which must not become shorter.
        file: Arc<OwnedFd>,
        /// Where the part begins in the file.
        file_offset: u64,
        /// Where it is to begin in the region.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// Unmap what was mapped by one request (`VHOST_USER_BACKEND_SHMEM_UNMAP`).
    Unmap {
        /// Where it begins in the region.
        offset: u64,
        /// Its length.
        len: u64,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMemoryOutcome {
    /// The front-end has done it.
    Done,
    /// The front-end refuses it.
    Refused,
    /// It was not sent: the front-end stops the device. It may be asked for again once the virtqueues run.
    Withdrawn,
    /// The front-end can be asked nothing any more. Whether this was done, nobody knows.
    Lost,
}

/// Has the front-end map files into the device's region, one request after the other.
/// [`DeviceContext::shared_memory`] makes it.
///
/// A front-end can do so only while it runs the device, and QEMU 11.1 crashes if it is asked at another time. A request
/// is sent only while the front-end has virtqueues running and no message of its own is being read. Whether the
/// front-end stops the device before it reads the request, nobody can know.
///
/// [`DeviceContext::shared_memory`]: crate::backend::DeviceContext::shared_memory
pub struct SharedMemory {
    region: SharedMemoryRegion,
    link: SharedMemoryLink,
    main_thread: MainThreadHandle,
    wake: Arc<WakeEvent>,
}

impl SharedMemory {
    /// The region.
    pub fn region(&self) -> SharedMemoryRegion {
        self.region
    }

    /// Whether the front-end maps anything: it asked for the region, and answers requests.
    pub fn is_available(&self) -> bool {
        let shared = lock(&self.link.0);
        shared.is_asked && shared.has_channel
    }

    /// Sends a request. `false` if the last one has no outcome yet, or the front-end maps nothing. The device's event
    /// comes when there is an outcome.
    pub fn send(&self, request: SharedMemoryRequest) -> bool {
        let mut shared = lock(&self.link.0);
        let can_send = shared.is_asked && shared.has_channel;
        if !can_send || !matches!(shared.progress, Progress::None) {
            return false;
        }
        shared.progress = Progress::Wanted(request);
        drop(shared);
        self.main_thread.tell(MainThreadEvent::RequestMade);
        true
    }

    /// The outcome of the last request, once. The device's event for this came, or not yet.
    pub fn take_outcome(&self) -> Option<SharedMemoryOutcome> {
        let mut shared = lock(&self.link.0);
        match shared.progress {
            Progress::Over(outcome) => {
                self.wake.clear();
                shared.progress = Progress::None;
                Some(outcome)
            }
            _ => None,
        }
    }

    /// Takes the last request back, if it was not sent so far. Returns whether it was.
    pub fn cancel(&self) -> bool {
        let mut shared = lock(&self.link.0);
        let is_unsent = matches!(shared.progress, Progress::Wanted(_));
        if is_unsent {
            shared.progress = Progress::None;
        }
        is_unsent
    }
}

/// What the device, the daemon and the proxy share of it. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct SharedMemoryLink(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    /// The region and the event of the device, if it has a region.
    offered: Option<(SharedMemoryRegion, Arc<WakeEvent>)>,
    /// Whether the front-end asked for the region. One that does not has no place to map anything.
    is_asked: bool,
    /// Whether the front-end takes requests, and answers them.
    has_channel: bool,
    progress: Progress,
}

/// How far the request is.
#[derive(Default)]
enum Progress {
    #[default]
    None,
    Wanted(SharedMemoryRequest),
    Unanswered,
    Over(SharedMemoryOutcome),
}

impl SharedMemoryLink {
    /// The handle of the device, whose event is `wake`.
    pub(super) fn offer(
        &self,
        region: SharedMemoryRegion,
        main_thread: MainThreadHandle,
        wake: WakeEvent,
    ) -> SharedMemory {
        let wake = Arc::new(wake);
        lock(&self.0).offered = Some((region, Arc::clone(&wake)));
        SharedMemory {
            region,
            link: self.clone(),
            main_thread,
            wake,
        }
    }

    /// The device's region, if it has one.
    pub(crate) fn region(&self) -> Option<SharedMemoryRegion> {
        let shared = lock(&self.0);
        shared.offered.as_ref().map(|(region, _)| *region)
    }

    /// The front-end asked for the region.
    pub(crate) fn asked(&self) {
        lock(&self.0).is_asked = true;
    }

    /// Whether the front-end asked for the region.
    pub(crate) fn is_asked(&self) -> bool {
        lock(&self.0).is_asked
    }

    /// Whether the front-end takes requests and answers them. What is under way on another channel ends.
    pub(crate) fn set_channel(&self, is_there: bool) {
        let mut shared = lock(&self.0);
        shared.has_channel = is_there;
        match shared.progress {
            Progress::Wanted(_) | Progress::Unanswered => shared.end(SharedMemoryOutcome::Lost),
            Progress::None | Progress::Over(_) => {}
        }
    }

    /// Whether the device wants a request to be sent.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(lock(&self.0).progress, Progress::Wanted(_))
    }

    /// The region, and the request that the device wants to be sent. It counts as sent from now on.
    pub(crate) fn take_wanted(&self) -> Option<(SharedMemoryRegion, SharedMemoryRequest)> {
        let mut shared = lock(&self.0);
        let (region, _) = shared.offered.as_ref()?;
        let region = *region;
        match std::mem::replace(&mut shared.progress, Progress::Unanswered) {
            Progress::Wanted(request) => Some((region, request)),
            other => {
                shared.progress = other;
                None
            }
        }
    }

    /// The front-end answered the request that was sent.
    pub(crate) fn answered(&self, is_done: bool) {
        let mut shared = lock(&self.0);
        if matches!(shared.progress, Progress::Unanswered) {
            shared.end(match is_done {
                true => SharedMemoryOutcome::Done,
                false => SharedMemoryOutcome::Refused,
            });
        }
    }

    /// The request that counts as sent was not sent in the end: the front-end stops the device.
    pub(crate) fn recall(&self) {
        let mut shared = lock(&self.0);
        if matches!(shared.progress, Progress::Unanswered) {
            shared.end(SharedMemoryOutcome::Withdrawn);
        }
    }

    /// A request that was not sent is not going to be: the front-end stops the device.
    pub(crate) fn withdraw(&self) {
        let mut shared = lock(&self.0);
        if matches!(shared.progress, Progress::Wanted(_)) {
            shared.end(SharedMemoryOutcome::Withdrawn);
        }
    }
}

impl Shared {
    fn end(&mut self, outcome: SharedMemoryOutcome) {
        self.progress = Progress::Over(outcome);
        if let Some((_, wake)) = &self.offered {
            wake.set();
        }
    }
}
