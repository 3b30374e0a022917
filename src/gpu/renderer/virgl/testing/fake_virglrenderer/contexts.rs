// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Contexts and capability sets of the fake library.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::state::{EINVAL, state};

/// The library refuses a context with this id.
const REFUSED_CONTEXT: u32 = 13;
/// Capability sets: id, version, bytes.
const CAPSETS: [(u32, u32, u32); 2] = [(1, 1, 308), (2, 2, 1376)];

pub(super) unsafe extern "C" fn get_cap_set(id: u32, version: *mut u32, size: *mut u32) {
    let set = CAPSETS.iter().find(|set| set.0 == id);
    let (_, has, len) = set.copied().unwrap_or_default();
    // SAFETY: there is room for both results.
    unsafe {
        *version = has;
        *size = len;
    }
}

pub(super) unsafe extern "C" fn fill_caps(id: u32, version: u32, into: *mut c_void) {
    let set = CAPSETS.iter().find(|set| set.0 == id);
    let (_, has, len) = set.expect("a known set");
    assert!(version <= *has, "a known version");
    // SAFETY: the caller has room for what get_cap_set says.
    unsafe { into.cast::<u8>().write_bytes(0x5a, *len as usize) }
}

pub(super) unsafe extern "C" fn context_create(id: u32, len: u32, name: *const c_char) -> c_int {
    // SAFETY: the name is a string.
    let name = unsafe { CStr::from_ptr(name) };
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

pub(super) unsafe extern "C" fn context_destroy(id: u32) {
    assert!(state(|state| state.contexts.remove(&id)), "no context {id}");
}

fn both_exist(context: c_int, id: c_int) {
    state(|state| {
        assert!(state.contexts.contains(&(context as u32)));
        assert!(state.resources.contains_key(&(id as u32)));
    });
}

pub(super) unsafe extern "C" fn context_attach(context: c_int, id: c_int) {
    both_exist(context, id);
}

pub(super) unsafe extern "C" fn context_detach(context: c_int, id: c_int) {
    both_exist(context, id);
}
