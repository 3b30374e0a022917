//! virglrenderer's messages, in the log of the program.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::api::Api;
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

/// Redirects the library's messages to the log.
pub(super) fn attach(api: &Api) {
    match api.set_log_callback {
        // SAFETY: the callback has the type that the library declares, needs no user data, and lives
        // as long as the process.
        Some(set) => unsafe { set(on_message, std::ptr::null_mut(), None) },
        None => attach_old(api),
    }
}

/// Limits the messages from now on, since a guest can cause them.
pub(super) fn limit() {
    lock().limit = Some(RateLimitedLog::default());
}

/// The last message before [`limit`].
pub(super) fn last_message() -> String {
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

/// For versions before 1.1, whose callback formats the message and gets no level.
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
        // SAFETY: format and arguments are the library's and match; vsnprintf(3) writes at most the
        // buffer's size, including the NUL.
        let len = unsafe { vsnprintf(text.as_mut_ptr().cast(), text.len(), format, arguments) };
        if let (1.., Ok(message)) = (len, CStr::from_bytes_until_nul(&text)) {
            let text = message.to_bytes();
            let contains = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
            write(message, contains(b"error") || contains(b"fail"));
        }
    }

    // SAFETY: the callback has the type that the library declares, and lives as long as the process.
    unsafe { (api.set_debug_callback)(Some(on_format)) };
}

/// On other architectures, Rust has no type for the callback's va_list. These versions keep writing to
/// stderr, which goes to the journal as well.
#[cfg(not(target_arch = "x86_64"))]
fn attach_old(_: &Api) {}
