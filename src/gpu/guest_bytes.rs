//! Bytes of the guest that are wanted soon.

use vm_memory::volatile_memory::VolatileSlice;

/// Bytes from one touch of [`fetch`] to the next; the processor guesses those between.
#[cfg(target_arch = "x86_64")]
const STEP: usize = 512;

/// Has the processor get the guest's bytes, which are wanted soon. It follows a stream of bytes by
/// itself, but not from one of the guest's scattered pages to the next.
pub fn fetch(guest: &VolatileSlice<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let guard = guest.ptr_guard();
        for at in (0..guest.len()).step_by(STEP) {
            // SAFETY: a hint that reads nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(guard.as_ptr().wrapping_add(at).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = guest;
}
