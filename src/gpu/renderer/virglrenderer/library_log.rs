// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virglrenderer's messages, in the log of the program.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::DynamicLibrary;
use crate::backend::RateLimitedLog;

/// Where messages go. There is one for the process, as there is one library.
static SINK: Mutex<Sink> = Mutex::new(Sink {
    limit: None,
    last: String::new(),
});

struct Sink {
    /// Limits the messages once a guest can cause them.
    limit: Option<RateLimitedLog>,
    /// The last message before that.
    last: String,
}

/// `virgl_log_callback_type`: level, message, user data.
type LogCallback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void);
type SetLogCallback =
    unsafe extern "C" fn(LogCallback, *mut c_void, Option<unsafe extern "C" fn(*mut c_void)>);

/// Whether the library is of version 1.1 or newer, which is known by its log callback.
pub(in crate::gpu::renderer) fn is_1_1(library: &DynamicLibrary) -> bool {
    set_log_callback(library).is_some()
}

/// Sets the callback of the log; `None` before version 1.1.
fn set_log_callback(library: &DynamicLibrary) -> Option<SetLogCallback> {
    // SAFETY: the type is that of the header in the versions that declare it.
    let symbol = unsafe { library.get(b"virgl_set_log_callback") };
    symbol.ok().map(|symbol| *symbol)
}

/// Redirects the library's messages to the log.
pub(in crate::gpu::renderer) fn attach(library: &DynamicLibrary) {
    match set_log_callback(library) {
        // SAFETY: the callback has the type that the library declares, needs no user data, and lives
        // as long as the process.
        Some(set) => unsafe { set(on_message, std::ptr::null_mut(), None) },
        None => attach_old(library),
    }
}

/// Limits the messages from now on, since a guest can cause them.
pub(in crate::gpu::renderer) fn limit() {
    lock().limit = Some(RateLimitedLog::default());
}

/// The last message before [`limit`].
pub(in crate::gpu::renderer) fn last_message() -> String {
    lock().last.clone()
}

fn lock() -> std::sync::MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(message: &CStr, urgent: bool) {
    let text = message.to_string_lossy();
    let text = text.trim_end();
    let mut sink = lock();
    match &mut sink.limit {
        Some(limit) if urgent => limit.warn(format_args!("virglrenderer: {text}")),
        Some(_) => log::debug!("virglrenderer: {text}"),
        None => {
            log::debug!("virglrenderer: {text}");
            sink.last = text.to_owned();
        }
    }
}

/// `virgl_log_callback_type`.
unsafe extern "C" fn on_message(level: c_int, message: *const c_char, _: *mut c_void) {
    /// `VIRGL_LOG_LEVEL_WARNING`; errors have a higher level.
    const WARNING: c_int = 2;
    if !message.is_null() {
        // SAFETY: the library passes a NUL-terminated string that is valid during this call.
        write(unsafe { CStr::from_ptr(message) }, level >= WARNING);
    }
}

/// `va_list` as an argument of a function. The types are those of the header: on x86-64 a pointer to the list, on arm64 the
/// list itself, which both Rust and C pass by a pointer to a copy, on riscv64 a pointer to the arguments.
#[cfg(target_arch = "x86_64")]
type VaList = *mut virglrenderer_sys::__va_list_tag;
#[cfg(not(target_arch = "x86_64"))]
type VaList = virglrenderer_sys::va_list;

unsafe extern "C" {
    fn vsnprintf(into: *mut c_char, size: usize, format: *const c_char, arguments: VaList)
    -> c_int;
}

/// `virgl_set_debug_callback`.
type SetDebugCallback = unsafe extern "C" fn(
    virglrenderer_sys::virgl_debug_callback_type,
) -> virglrenderer_sys::virgl_debug_callback_type;

// The type above is that of the header.
const _: SetDebugCallback = virglrenderer_sys::virgl_set_debug_callback;

/// For versions before 1.1, whose callback formats the message and gets no level.
fn attach_old(library: &DynamicLibrary) {
    // SAFETY: the type is checked against the header above.
    let set = unsafe { library.get::<SetDebugCallback>(b"virgl_set_debug_callback") };
    if let Ok(set) = set {
        // SAFETY: the callback has the type that the library declares, and lives as long as the process.
        unsafe { set(Some(on_format)) };
    }
}

/// `virgl_debug_callback_type`.
unsafe extern "C" fn on_format(format: *const c_char, arguments: VaList) {
    let mut text = [0_u8; 1024];
    // SAFETY: format and arguments are the library's and match; vsnprintf(3) writes at most the
    // buffer's size, including the NUL.
    let len = unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, arguments) };
    if let (1.., Ok(message)) = (len, CStr::from_bytes_until_nul(&text)) {
        let text = message.to_bytes();
        let contains = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
        write(message, contains(b"error") || contains(b"fail"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of a function whose arguments are all on the stack, in 8 bytes each, as C's calling conventions lay it out.
    #[cfg(target_arch = "x86_64")]
    fn with_list(arguments: &mut [u64], call: impl FnOnce(VaList)) {
        // Past the registers, of which there are none.
        let mut list = virglrenderer_sys::__va_list_tag {
            gp_offset: 6 * 8,
            fp_offset: 6 * 8 + 8 * 16,
            overflow_arg_area: arguments.as_mut_ptr().cast(),
            reg_save_area: std::ptr::null_mut(),
        };
        call(&raw mut list);
    }

    #[cfg(target_arch = "aarch64")]
    fn with_list(arguments: &mut [u64], call: impl FnOnce(VaList)) {
        // The stack, the ends of the saved registers, and how far before these the next ones lie: at none.
        let stack = arguments.as_mut_ptr().expose_provenance() as u64;
        call(virglrenderer_sys::__BindgenOpaqueArray([stack, 0, 0, 0]));
    }

    #[cfg(target_arch = "riscv64")]
    fn with_list(arguments: &mut [u64], call: impl FnOnce(VaList)) {
        call(arguments.as_mut_ptr().cast());
    }

    #[test]
    fn old_messages_are_formatted() {
        let name = c"shader";
        let name = name.as_ptr().expose_provenance() as u64;
        let mut arguments = [name, 7, 1 << 40, 8, 9, 10, 11, 12, 13];
        with_list(&mut arguments, |list| {
            let format = c"%s: error %d at %llx, %d %d %d %d %d %d\n".as_ptr();
            // SAFETY: the arguments are of the types and the number that the format asks for.
            unsafe { on_format(format, list) };
        });
        let expected = "shader: error 7 at 10000000000, 8 9 10 11 12 13";
        assert_eq!(last_message(), expected);
    }
}
