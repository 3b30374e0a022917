// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keymaps of libxkbcommon, which is loaded at run time and only for a layout that is not built in.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use evdev::KeyCode;
use xkbcommon_dl::{
    XkbCommon, xkb_context, xkb_context_flags, xkb_keymap, xkb_keymap_compile_flags, xkb_log_level,
    xkb_rule_names, xkb_state, xkbcommon_option,
};
use xkeysym::key;

use super::LayoutError;
use super::modifiers::Modifiers;

/// X's keycodes are evdev's plus this.
const FIRST_KEYCODE: u32 = 8;

/// A compiled keymap and a state of it, which is changed for each question.
pub(super) struct XkbKeymap {
    library: &'static XkbCommon,
    context: NonNull<xkb_context>,
    keymap: NonNull<xkb_keymap>,
    state: NonNull<xkb_state>,
    shift: u32,
    caps_lock: u32,
    num_lock: u32,
    alt_gr: u32,
}

impl XkbKeymap {
    /// Compiles the keymap of a PC's keyboard with this layout, which messages call `name`.
    ///
    /// # Errors
    /// If the library or the layout is missing.
    pub(super) fn load(name: &str, layout: &str, variant: &str) -> Result<Self, LayoutError> {
        let unknown = || LayoutError::Unknown(name.to_owned());
        let no_library = || LayoutError::NoLibrary(name.to_owned());
        let library = xkbcommon_option().ok_or_else(no_library)?;
        let layout = CString::new(layout).map_err(|_| unknown())?;
        let variant = CString::new(variant).map_err(|_| unknown())?;
        let names = xkb_rule_names {
            rules: c"evdev".as_ptr(),
            model: c"pc105".as_ptr(),
            layout: layout.as_ptr(),
            variant: variant.as_ptr(),
            options: c"".as_ptr(),
        };
        // The default folders are added once it is silent. The environment is asked for names that are not given, and all
        // are given.
        let flags = xkb_context_flags::XKB_CONTEXT_NO_DEFAULT_INCLUDES;
        // SAFETY: the library's functions have the types that its header gives them. The pointers that are passed are
        // results of these functions, checked for null, and strings that outlive the calls. What was made is freed
        // once, here if a later step fails, else by `drop`.
        unsafe {
            let context = NonNull::new((library.xkb_context_new)(flags)).ok_or_else(unknown)?;
            // Its complaints would go to stderr, beside the log.
            (library.xkb_context_set_log_level)(
                context.as_ptr(),
                xkb_log_level::XKB_LOG_LEVEL_CRITICAL,
            );
            if (library.xkb_context_include_path_append_default)(context.as_ptr()) == 0 {
                (library.xkb_context_unref)(context.as_ptr());
                return Err(unknown());
            }
            let compile_flags = xkb_keymap_compile_flags::XKB_KEYMAP_COMPILE_NO_FLAGS;
            let keymap =
                (library.xkb_keymap_new_from_names)(context.as_ptr(), &names, compile_flags);
            let Some(keymap) = NonNull::new(keymap) else {
                (library.xkb_context_unref)(context.as_ptr());
                return Err(unknown());
            };
            let Some(state) = NonNull::new((library.xkb_state_new)(keymap.as_ptr())) else {
                (library.xkb_keymap_unref)(keymap.as_ptr());
                (library.xkb_context_unref)(context.as_ptr());
                return Err(unknown());
            };
            let mask = |name: &CStr| modifier_mask(library, keymap, name);
            Ok(Self {
                library,
                context,
                keymap,
                state,
                shift: mask(c"Shift"),
                caps_lock: mask(c"Lock"),
                num_lock: mask(c"Mod2"),
                alt_gr: mask(c"Mod5"),
            })
        }
    }

    /// The keysym that the key `key` (evdev) types with `modifiers`; `None` if it types none, or several at once.
    pub(super) fn keysym(&self, key: u16, modifiers: Modifiers) -> Option<u32> {
        let mask = |on: bool, mask: u32| if on { mask } else { 0 };
        let pressed = mask(modifiers.shift, self.shift) | mask(modifiers.alt_gr, self.alt_gr);
        let locked =
            mask(modifiers.caps_lock, self.caps_lock) | mask(modifiers.num_lock, self.num_lock);
        let state = self.state.as_ptr();
        // SAFETY: the state lives as long as `self`, and no other thread has it. Keycodes that the keymap lacks have no
        // keysym.
        let keysym = unsafe {
            (self.library.xkb_state_update_mask)(state, pressed, 0, locked, 0, 0, 0);
            (self.library.xkb_state_key_get_one_sym)(state, u32::from(key) + FIRST_KEYCODE)
        };
        (keysym != key::NoSymbol).then_some(keysym)
    }

    /// The character of a keysym.
    pub(super) fn unicode(&self, keysym: u32) -> Option<u32> {
        // SAFETY: the function takes any number.
        let character = unsafe { (self.library.xkb_keysym_to_utf32)(keysym) };
        (character != 0).then_some(character)
    }

    /// Whether the right Alt key is AltGr.
    pub(super) fn has_alt_gr(&self) -> bool {
        self.keysym(KeyCode::KEY_RIGHTALT.0, Modifiers::default()) == Some(key::ISO_Level3_Shift)
    }
}

/// The bit of a modifier in masks; 0 if the keymap lacks it.
///
/// # Safety
/// `keymap` is a keymap of `library`.
unsafe fn modifier_mask(library: &XkbCommon, keymap: NonNull<xkb_keymap>, name: &CStr) -> u32 {
    // SAFETY: the caller's promise, and `name` ends with a zero.
    let index = unsafe { (library.xkb_keymap_mod_get_index)(keymap.as_ptr(), name.as_ptr()) };
    // XKB_MOD_INVALID is all ones.
    1_u32.checked_shl(index).unwrap_or(0)
}

impl Drop for XkbKeymap {
    fn drop(&mut self) {
        // SAFETY: `load` made these, and nothing uses them any more.
        unsafe {
            (self.library.xkb_state_unref)(self.state.as_ptr());
            (self.library.xkb_keymap_unref)(self.keymap.as_ptr());
            (self.library.xkb_context_unref)(self.context.as_ptr());
        }
    }
}
