// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one instance of virglrenderer that a process can have, and what its functions return.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::gpu::protocol::CapsetInfo;

/// Whether an [`Instance`] exists.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to initialise the library. There is one in a process; it returns when it is dropped.
#[derive(Debug)]
pub(in crate::gpu::renderer) struct Instance(());

impl Instance {
    /// `None` if this process uses the library already.
    pub(in crate::gpu::renderer) fn take() -> Option<Self> {
        (!TAKEN.swap(true, Ordering::Acquire)).then_some(Self(()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// The library refused a call, with an error number (errno(3)), which some functions negate. Its log has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virglrenderer refuses it (error {0})")]
pub(in crate::gpu::renderer) struct Refused(c_int);

impl Refused {
    /// `EINVAL`.
    pub(in crate::gpu::renderer) const INVALID: Self =
        Self(rustix::io::Errno::INVAL.raw_os_error());
    /// `EBUSY`.
    pub(in crate::gpu::renderer) const BUSY: Self = Self(rustix::io::Errno::BUSY.raw_os_error());
    /// `E2BIG`.
    pub(in crate::gpu::renderer) const TOO_BIG: Self =
        Self(rustix::io::Errno::TOOBIG.raw_os_error());
}

/// What a result of the library's says.
pub(in crate::gpu::renderer) fn accepted(result: c_int) -> Result<(), Refused> {
    match result {
        0 => Ok(()),
        error => Err(Refused(error)),
    }
}

/// `virgl_renderer_get_cap_set`.
pub(in crate::gpu::renderer) type GetCapSet = unsafe extern "C" fn(u32, *mut u32, *mut u32);
/// `virgl_renderer_fill_caps`.
pub(in crate::gpu::renderer) type FillCaps = unsafe extern "C" fn(u32, u32, *mut c_void);

/// The version and size of a capability set; `None` if there is no such set.
///
/// # Safety
/// `get_cap_set` is the library's, which is initialised and may be called here.
pub(in crate::gpu::renderer) unsafe fn capset(
    get_cap_set: GetCapSet,
    id: u32,
) -> Option<CapsetInfo> {
    let (mut max_version, mut max_size) = (0, 0);
    // SAFETY: as the caller ensures; both results have a place.
    unsafe { get_cap_set(id, &raw mut max_version, &raw mut max_size) };
    (max_size != 0).then_some(CapsetInfo {
        id,
        max_version,
        max_size,
    })
}

/// The data of a capability set, in a version of at most [`CapsetInfo::max_version`].
///
/// # Safety
/// `fill_caps` is the library's, which is initialised and may be called here, and has said `set`.
pub(in crate::gpu::renderer) unsafe fn capset_data(
    fill_caps: FillCaps,
    set: &CapsetInfo,
    version: u32,
) -> Vec<u8> {
    /// Enough for the largest set: the library clears as many bytes, whichever set it fills.
    const MIN_BUFFER: usize = 64 << 10;
    let size = set.max_size as usize;
    let mut buffer = vec![0_u64; size.max(MIN_BUFFER).div_ceil(8)];
    // SAFETY: as the caller ensures; the buffer is larger than any set, and aligned for its fields.
    unsafe { fill_caps(set.id, version, buffer.as_mut_ptr().cast()) };
    let mut data: Vec<u8> = buffer.into_iter().flat_map(u64::to_ne_bytes).collect();
    data.truncate(size);
    data
}
