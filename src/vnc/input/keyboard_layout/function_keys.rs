// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keys that are the same on every layout, whatever modifiers are pressed: all that type no character.

use evdev::KeyCode;
use xkeysym::key;

/// The evdev code of the key that has the keysym `keysym` on every layout; `None` for the keysyms of characters.
pub(super) fn key_of_function_keysym(keysym: u32) -> Option<u16> {
    let key = match keysym {
        key::BackSpace => KeyCode::KEY_BACKSPACE,
        key::Tab | key::ISO_Left_Tab | key::KP_Tab => KeyCode::KEY_TAB,
        key::Linefeed => KeyCode::KEY_LINEFEED,
        key::Return => KeyCode::KEY_ENTER,
        key::Escape => KeyCode::KEY_ESC,
        key::space | key::KP_Space => KeyCode::KEY_SPACE,
        key::Pause | key::Break => KeyCode::KEY_PAUSE,
        key::Print | key::Sys_Req | key::_3270_PrintScreen => KeyCode::KEY_SYSRQ,
        key::Scroll_Lock => KeyCode::KEY_SCROLLLOCK,
        key::Num_Lock => KeyCode::KEY_NUMLOCK,
        key::Caps_Lock | key::Shift_Lock | key::Eisu_toggle => KeyCode::KEY_CAPSLOCK,
        key::Delete => KeyCode::KEY_DELETE,
        key::Insert => KeyCode::KEY_INSERT,
        key::Home => KeyCode::KEY_HOME,
        key::End => KeyCode::KEY_END,
        key::Prior => KeyCode::KEY_PAGEUP,
        key::Next => KeyCode::KEY_PAGEDOWN,
        key::Left => KeyCode::KEY_LEFT,
        key::Up => KeyCode::KEY_UP,
        key::Right => KeyCode::KEY_RIGHT,
        key::Down => KeyCode::KEY_DOWN,
        // Viewers have F1 to F24 here; F25 to F35 are on no keyboard of Linux.
        key::F1..=key::F24 => return function_key(keysym - key::F1),
        key::Shift_L => KeyCode::KEY_LEFTSHIFT,
        key::Shift_R => KeyCode::KEY_RIGHTSHIFT,
        key::Control_L => KeyCode::KEY_LEFTCTRL,
        key::Control_R => KeyCode::KEY_RIGHTCTRL,
        key::Alt_L => KeyCode::KEY_LEFTALT,
        key::Alt_R | key::ISO_Level3_Shift | key::Mode_switch => KeyCode::KEY_RIGHTALT,
        key::Super_L | key::Meta_L | key::Hyper_L => KeyCode::KEY_LEFTMETA,
        key::Super_R | key::Meta_R | key::Hyper_R => KeyCode::KEY_RIGHTMETA,
        // What PCs label as the menu key is Linux' KEY_COMPOSE.
        key::Menu | key::Multi_key => KeyCode::KEY_COMPOSE,
        key::Find => KeyCode::KEY_FIND,
        key::Help => KeyCode::KEY_HELP,
        key::Cancel => KeyCode::KEY_CANCEL,
        key::Undo => KeyCode::KEY_UNDO,
        key::Redo => KeyCode::KEY_REDO,
        key::KP_Enter => KeyCode::KEY_KPENTER,
        key::KP_Add => KeyCode::KEY_KPPLUS,
        key::KP_Subtract => KeyCode::KEY_KPMINUS,
        key::KP_Multiply => KeyCode::KEY_KPASTERISK,
        key::KP_Divide => KeyCode::KEY_KPSLASH,
        key::KP_Equal => KeyCode::KEY_KPEQUAL,
        key::KP_Separator => KeyCode::KEY_KPCOMMA,
        key::Hangul => KeyCode::KEY_HANGEUL,
        key::Hangul_Hanja => KeyCode::KEY_HANJA,
        key::Muhenkan => KeyCode::KEY_MUHENKAN,
        key::Henkan_Mode => KeyCode::KEY_HENKAN,
        key::Hiragana => KeyCode::KEY_HIRAGANA,
        key::Katakana => KeyCode::KEY_KATAKANA,
        key::Hiragana_Katakana | key::Romaji => KeyCode::KEY_KATAKANAHIRAGANA,
        key::Zenkaku | key::Hankaku | key::Zenkaku_Hankaku | key::Kanji => {
            KeyCode::KEY_ZENKAKUHANKAKU
        }
        _ => return key_of_multimedia_keysym(keysym),
    };
    Some(key.0)
}

/// As above, for the keys that X.Org's extension XF86keysym names.
fn key_of_multimedia_keysym(keysym: u32) -> Option<u16> {
    let key = match keysym {
        key::XF86_AudioMute => KeyCode::KEY_MUTE,
        key::XF86_AudioLowerVolume => KeyCode::KEY_VOLUMEDOWN,
        key::XF86_AudioRaiseVolume => KeyCode::KEY_VOLUMEUP,
        key::XF86_AudioMicMute => KeyCode::KEY_MICMUTE,
        key::XF86_AudioPlay => KeyCode::KEY_PLAYPAUSE,
        key::XF86_AudioPause => KeyCode::KEY_PAUSECD,
        key::XF86_AudioStop => KeyCode::KEY_STOPCD,
        key::XF86_AudioPrev => KeyCode::KEY_PREVIOUSSONG,
        key::XF86_AudioNext => KeyCode::KEY_NEXTSONG,
        key::XF86_AudioRecord => KeyCode::KEY_RECORD,
        key::XF86_AudioRewind => KeyCode::KEY_REWIND,
        key::XF86_AudioForward => KeyCode::KEY_FASTFORWARD,
        key::XF86_AudioMedia => KeyCode::KEY_MEDIA,
        key::XF86_Eject => KeyCode::KEY_EJECTCD,
        key::XF86_HomePage => KeyCode::KEY_HOMEPAGE,
        key::XF86_WWW => KeyCode::KEY_WWW,
        key::XF86_Mail => KeyCode::KEY_MAIL,
        key::XF86_MailForward => KeyCode::KEY_FORWARDMAIL,
        key::XF86_Reply => KeyCode::KEY_REPLY,
        key::XF86_Send => KeyCode::KEY_SEND,
        key::XF86_Search => KeyCode::KEY_SEARCH,
        key::XF86_Favorites => KeyCode::KEY_BOOKMARKS,
        key::XF86_Back => KeyCode::KEY_BACK,
        key::XF86_Forward => KeyCode::KEY_FORWARD,
        key::XF86_Stop => KeyCode::KEY_STOP,
        key::XF86_Refresh | key::XF86_Reload => KeyCode::KEY_REFRESH,
        key::XF86_Calculator | key::XF86_Calculater => KeyCode::KEY_CALC,
        key::XF86_MyComputer => KeyCode::KEY_COMPUTER,
        key::XF86_Explorer => KeyCode::KEY_FILE,
        key::XF86_Documents => KeyCode::KEY_DOCUMENTS,
        key::XF86_Tools => KeyCode::KEY_CONFIG,
        key::XF86_New => KeyCode::KEY_NEW,
        key::XF86_Open => KeyCode::KEY_OPEN,
        key::XF86_Close => KeyCode::KEY_CLOSE,
        key::XF86_Save => KeyCode::KEY_SAVE,
        key::XF86_Copy => KeyCode::KEY_COPY,
        key::XF86_Cut => KeyCode::KEY_CUT,
        key::XF86_Paste => KeyCode::KEY_PASTE,
        key::XF86_ScrollUp => KeyCode::KEY_SCROLLUP,
        key::XF86_ScrollDown => KeyCode::KEY_SCROLLDOWN,
        key::XF86_PowerOff | key::XF86_PowerDown => KeyCode::KEY_POWER,
        key::XF86_Sleep => KeyCode::KEY_SLEEP,
        key::XF86_Suspend => KeyCode::KEY_SUSPEND,
        key::XF86_WakeUp => KeyCode::KEY_WAKEUP,
        key::XF86_ScreenSaver => KeyCode::KEY_COFFEE,
        key::XF86_Display => KeyCode::KEY_SWITCHVIDEOMODE,
        key::XF86_MonBrightnessUp => KeyCode::KEY_BRIGHTNESSUP,
        key::XF86_MonBrightnessDown => KeyCode::KEY_BRIGHTNESSDOWN,
        key::XF86_KbdLightOnOff => KeyCode::KEY_KBDILLUMTOGGLE,
        key::XF86_KbdBrightnessUp => KeyCode::KEY_KBDILLUMUP,
        key::XF86_KbdBrightnessDown => KeyCode::KEY_KBDILLUMDOWN,
        key::XF86_WebCam => KeyCode::KEY_CAMERA,
        key::XF86_Battery => KeyCode::KEY_BATTERY,
        key::XF86_Bluetooth => KeyCode::KEY_BLUETOOTH,
        key::XF86_WLAN => KeyCode::KEY_WLAN,
        key::XF86_Phone => KeyCode::KEY_PHONE,
        key::XF86_Finance => KeyCode::KEY_FINANCE,
        key::XF86_Shop => KeyCode::KEY_SHOP,
        key::XF86_DOS => KeyCode::KEY_MSDOS,
        key::XF86_Xfer => KeyCode::KEY_XFER,
        key::XF86_Launch1 => KeyCode::KEY_PROG1,
        key::XF86_Launch2 => KeyCode::KEY_PROG2,
        key::XF86_Launch3 => KeyCode::KEY_PROG3,
        key::XF86_Launch4 => KeyCode::KEY_PROG4,
        _ => return None,
    };
    Some(key.0)
}

/// F1 to F24, counted from 0, which Linux numbers in three pieces.
fn function_key(number: u32) -> Option<u16> {
    let number = u16::try_from(number).ok()?;
    match number {
        0..=9 => Some(KeyCode::KEY_F1.0 + number),
        10..=11 => Some(KeyCode::KEY_F11.0 + number - 10),
        12..=23 => Some(KeyCode::KEY_F13.0 + number - 12),
        _ => None,
    }
}

/// A key of the numeric keypad, which Num Lock makes one of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeypadKey {
    /// The key itself.
    pub(super) key: KeyCode,
    /// Whether the keysym is the key's with Num Lock.
    pub(super) with_num_lock: bool,
    /// A keysym that means the same and does not depend on Num Lock.
    pub(super) elsewhere: Option<u32>,
}

/// The key of the keypad that `keysym` is on.
pub(super) fn keypad_key(keysym: u32) -> Option<KeypadKey> {
    // Key, keysym with Num Lock, its character, keysym without, the same elsewhere.
    const KEYS: [(KeyCode, u32, u32, u32, Option<u32>); 11] = [
        (
            KeyCode::KEY_KP0,
            key::KP_0,
            key::_0,
            key::KP_Insert,
            Some(key::Insert),
        ),
        (
            KeyCode::KEY_KP1,
            key::KP_1,
            key::_1,
            key::KP_End,
            Some(key::End),
        ),
        (
            KeyCode::KEY_KP2,
            key::KP_2,
            key::_2,
            key::KP_Down,
            Some(key::Down),
        ),
        (
            KeyCode::KEY_KP3,
            key::KP_3,
            key::_3,
            key::KP_Next,
            Some(key::Next),
        ),
        (
            KeyCode::KEY_KP4,
            key::KP_4,
            key::_4,
            key::KP_Left,
            Some(key::Left),
        ),
        (KeyCode::KEY_KP5, key::KP_5, key::_5, key::KP_Begin, None),
        (
            KeyCode::KEY_KP6,
            key::KP_6,
            key::_6,
            key::KP_Right,
            Some(key::Right),
        ),
        (
            KeyCode::KEY_KP7,
            key::KP_7,
            key::_7,
            key::KP_Home,
            Some(key::Home),
        ),
        (
            KeyCode::KEY_KP8,
            key::KP_8,
            key::_8,
            key::KP_Up,
            Some(key::Up),
        ),
        (
            KeyCode::KEY_KP9,
            key::KP_9,
            key::_9,
            key::KP_Prior,
            Some(key::Prior),
        ),
        (
            KeyCode::KEY_KPDOT,
            key::KP_Decimal,
            key::period,
            key::KP_Delete,
            Some(key::Delete),
        ),
    ];
    let of_key = |with_num_lock: bool, elsewhere: Option<u32>, key: KeyCode| KeypadKey {
        key,
        with_num_lock,
        elsewhere,
    };
    KEYS.iter().find_map(
        |&(key, digit, character, function, elsewhere)| match keysym {
            _ if keysym == digit => Some(of_key(true, Some(character), key)),
            _ if keysym == function => Some(of_key(false, elsewhere, key)),
            _ => None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_keys_are_in_three_pieces() {
        let named = [
            (key::F1, KeyCode::KEY_F1),
            (key::F10, KeyCode::KEY_F10),
            (key::F11, KeyCode::KEY_F11),
            (key::F12, KeyCode::KEY_F12),
            (key::F13, KeyCode::KEY_F13),
            (key::F24, KeyCode::KEY_F24),
        ];
        for (keysym, key) in named {
            assert_eq!(key_of_function_keysym(keysym), Some(key.0));
        }
        assert_eq!(key_of_function_keysym(key::F25), None);
    }

    #[test]
    fn characters_are_no_function_keys() {
        for keysym in (0x21..=0xff).chain([0x0100_0430, 0x20ac, 0, u32::MAX]) {
            assert_eq!(key_of_function_keysym(keysym), None, "{keysym:#x}");
        }
    }
}
