// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Command streams of the fake library.

use std::ffi::{c_int, c_void};
use std::slice;

use super::state::{EINVAL, state};
use super::transfers::reach;

pub(super) unsafe extern "C" fn submit(stream: *mut c_void, context: c_int, words: c_int) -> c_int {
    /// `VIRGL_CCMD_*` that copy: RESOURCE_INLINE_WRITE, TRANSFER3D, COPY_TRANSFER3D.
    const TRANSFERS: [u32; 3] = [9, 43, 45];
    /// Those that allocate memory outside the budget: PIPE_RESOURCE_CREATE and video.
    const UNACCOUNTED: [u32; 3] = [48, 53, 55];
    /// The first number that is no command.
    const MAX_COMMANDS: u32 = 64;
    let mut result = 0;
    let words = usize::try_from(words).expect("a length of at least 0");
    // SAFETY: `words` is their number, and they may be written.
    let stream = unsafe { slice::from_raw_parts_mut(stream.cast::<u32>(), words) };
    state(|state| {
        assert!(state.contexts.contains(&(context as u32)));
        let mut rest = &stream[..];
        while let Some((header, behind)) = rest.split_first() {
            let (fields, next) = behind.split_at((header >> 16) as usize);
            rest = next;
            assert!(!UNACCOUNTED.contains(&(header & 0xff)), "{header:#x}");
            if header & 0xff >= MAX_COMMANDS {
                // The commands before it were executed.
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
