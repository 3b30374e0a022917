//! What the library says, in our log.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::api::Api;
use crate::backend::RateLimitedLog;

/// What becomes of the library's messages. It is one for the process, as the library is.
static SINK: Mutex<Sink> = Mutex::new(Sink {
    limit: None,
    last: String::new(),
});

struct Sink {
    /// Once guests are served: what they can cause is limited.
    limit: Option<RateLimitedLog>,
    /// The last thing that was said before.
    last: String,
}

/// Takes the library's log over.
pub(super) fn attach(api: &Api) {
    match api.set_log_callback {
        // SAFETY: the callback has the type that the library calls, needs no user data, and lives
        // as long as the process.
        Some(set) => unsafe { set(on_message, std::ptr::null_mut(), None) },
        None => attach_old(api),
    }
}

/// Begins to limit the messages: from here on a guest can cause them.
pub(super) fn limit() {
    lock().limit = Some(RateLimitedLog::default());
}

/// What the library said last before [`limit`].
pub(super) fn last() -> String {
    lock().last.clone()
}

fn lock() -> std::sync::MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(message: &CStr, urgent: bool) {
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
    /// `VIRGL_LOG_LEVEL_WARNING`; errors are above.
    const WARNING: c_int = 2;
    if !message.is_null() {
        // SAFETY: the library gives a string that ends with NUL and lasts for this call.
        say(unsafe { CStr::from_ptr(message) }, level >= WARNING);
    }
}

/// Versions before 1.1 have the message formatted by the callback, and tell no level.
#[cfg(target_arch = "x86_64")]
fn attach_old(api: &Api) {
    use virglrenderer_sys::__va_list_tag;

    unsafe extern "C" {
        fn vsnprintf(
            into: *mut c_char,
            size: usize,
            format: *const c_char,
            arguments: *mut __va_list_tag,
        ) -> c_int;
    }

    unsafe extern "C" fn on_format(format: *const c_char, arguments: *mut __va_list_tag) {
        let mut text = [0_u8; 1024];
        // SAFETY: format and arguments are the library's own and fit each other; no more than the
        // buffer's size is written, its NUL included.
        let len = unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, arguments) };
        if len > 0
            && let Ok(message) = CStr::from_bytes_until_nul(&text)
        {
            let text = message.to_bytes();
            let complains = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
            say(message, complains(b"error") || complains(b"fail"));
        }
    }

    // SAFETY: the callback has the type that the library calls, and lives as long as the process.
    unsafe { (api.set_debug_callback)(Some(on_format)) };
}

/// Elsewhere than on x86-64 the arguments of such a callback have no type in Rust: these versions
/// write to stderr themselves, where the journal finds it.
#[cfg(not(target_arch = "x86_64"))]
fn attach_old(_: &Api) {}
