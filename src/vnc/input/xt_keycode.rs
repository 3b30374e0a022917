// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keycodes of RFB's Extended Key Event: scancodes of a PC's keyboard (XT, set 1).

use evdev::KeyCode;

/// The evdev code (`KEY_*`) of the key with the keycode `keycode`; `None` if no key has it.
///
/// A keycode is the make code of set 1; one that follows a byte 0xe0 has bit 7 set. Viewers also send these as 0xe0xx,
/// and Pause as all its three bytes.
pub(crate) fn key_of_xt_keycode(keycode: u32) -> Option<u16> {
    const PAUSE: u32 = 0xe1_1d_45;
    // With the prefix 0xe1 alone, and what PCs send for Ctrl+Pause.
    const PAUSE_SHORT: u32 = 0xe1_1d;
    match keycode {
        PAUSE | PAUSE_SHORT => Some(KeyCode::KEY_PAUSE.0),
        0xe000..=0xe07f => key_of_byte((keycode & 0x7f) as u8 | 0x80),
        0..=0xff => key_of_byte(keycode as u8),
        _ => None,
    }
}

/// Linux numbers the keys of the first PCs as their scancodes. The other ones came later.
fn key_of_byte(byte: u8) -> Option<u16> {
    let key = match byte {
        0x01..=0x53 | 0x56..=0x58 => return Some(byte.into()),
        0x54 => KeyCode::KEY_SYSRQ,
        0x55 => KeyCode::KEY_F16,
        0x59 => KeyCode::KEY_KPEQUAL,
        0x5a => KeyCode::KEY_F20,
        0x5b => KeyCode::KEY_LINEFEED,
        0x5c => KeyCode::KEY_KPJPCOMMA,
        0x5d => KeyCode::KEY_F13,
        0x5e => KeyCode::KEY_F14,
        0x5f => KeyCode::KEY_F15,
        0x63 => KeyCode::KEY_PHONE,
        0x64 => KeyCode::KEY_OPEN,
        0x65 => KeyCode::KEY_PASTE,
        0x66 => KeyCode::KEY_SETUP,
        0x67 => KeyCode::KEY_FILE,
        0x68 => KeyCode::KEY_SENDFILE,
        0x69 => KeyCode::KEY_DELETEFILE,
        0x6a => KeyCode::KEY_MSDOS,
        0x6b => KeyCode::KEY_DIRECTION,
        0x6c => KeyCode::KEY_EJECTCD,
        0x6d => KeyCode::KEY_F23,
        0x6f => KeyCode::KEY_F24,
        0x70 => KeyCode::KEY_KATAKANAHIRAGANA,
        // Keyboards of Sun had Exit and Move here; those of Korea are what viewers have.
        0x71 => KeyCode::KEY_HANJA,
        0x72 => KeyCode::KEY_HANGEUL,
        0x73 => KeyCode::KEY_RO,
        0x74 => KeyCode::KEY_F21,
        0x75 => KeyCode::KEY_SCROLLUP,
        0x76 => KeyCode::KEY_ZENKAKUHANKAKU,
        0x77 => KeyCode::KEY_HIRAGANA,
        0x78 => KeyCode::KEY_KATAKANA,
        0x79 => KeyCode::KEY_HENKAN,
        0x7b => KeyCode::KEY_MUHENKAN,
        0x7d => KeyCode::KEY_YEN,
        0x7e => KeyCode::KEY_KPCOMMA,
        0x81 => KeyCode::KEY_CONFIG,
        0x82 => KeyCode::KEY_WWW,
        0x83 => KeyCode::KEY_F17,
        0x84 => KeyCode::KEY_F19,
        0x85 => KeyCode::KEY_AGAIN,
        0x86 => KeyCode::KEY_PROPS,
        0x87 => KeyCode::KEY_UNDO,
        0x88 => KeyCode::KEY_EDIT,
        0x89 => KeyCode::KEY_NEW,
        0x8a => KeyCode::KEY_REDO,
        0x8b => KeyCode::KEY_SCALE,
        0x8c => KeyCode::KEY_FRONT,
        0x8d => KeyCode::KEY_HANJA,
        0x8e => KeyCode::KEY_FORWARDMAIL,
        0x8f => KeyCode::KEY_SCROLLDOWN,
        0x90 => KeyCode::KEY_PREVIOUSSONG,
        0x92 => KeyCode::KEY_COFFEE,
        0x93 => KeyCode::KEY_XFER,
        0x94 => KeyCode::KEY_ALTERASE,
        0x97 => KeyCode::KEY_PROG2,
        0x98 => KeyCode::KEY_REWIND,
        0x99 => KeyCode::KEY_NEXTSONG,
        0x9c => KeyCode::KEY_KPENTER,
        0x9d => KeyCode::KEY_RIGHTCTRL,
        0x9e => KeyCode::KEY_MENU,
        0x9f => KeyCode::KEY_PROG1,
        0xa0 => KeyCode::KEY_MUTE,
        0xa1 => KeyCode::KEY_CALC,
        0xa2 => KeyCode::KEY_PLAYPAUSE,
        0xa3 => KeyCode::KEY_CLOSECD,
        0xa4 => KeyCode::KEY_STOPCD,
        0xa5 => KeyCode::KEY_SUSPEND,
        0xa6 => KeyCode::KEY_CYCLEWINDOWS,
        0xa8 => KeyCode::KEY_PLAYCD,
        0xa9 => KeyCode::KEY_PAUSECD,
        0xab => KeyCode::KEY_PROG3,
        0xac => KeyCode::KEY_PROG4,
        0xad => KeyCode::KEY_DASHBOARD,
        0xae => KeyCode::KEY_VOLUMEDOWN,
        0xaf => KeyCode::KEY_CLOSE,
        0xb0 => KeyCode::KEY_VOLUMEUP,
        0xb1 => KeyCode::KEY_RECORD,
        0xb2 => KeyCode::KEY_HOMEPAGE,
        0xb3 => KeyCode::KEY_PLAY,
        0xb4 => KeyCode::KEY_FASTFORWARD,
        0xb5 => KeyCode::KEY_KPSLASH,
        0xb6 => KeyCode::KEY_BASSBOOST,
        0xb7 => KeyCode::KEY_SYSRQ,
        0xb8 => KeyCode::KEY_RIGHTALT,
        0xb9 => KeyCode::KEY_PRINT,
        0xba => KeyCode::KEY_HP,
        0xbb => KeyCode::KEY_CAMERA,
        0xbc => KeyCode::KEY_CUT,
        0xbd => KeyCode::KEY_SOUND,
        0xbe => KeyCode::KEY_QUESTION,
        0xbf => KeyCode::KEY_EMAIL,
        0xc0 => KeyCode::KEY_CHAT,
        0xc1 => KeyCode::KEY_FIND,
        0xc2 => KeyCode::KEY_CONNECT,
        0xc3 => KeyCode::KEY_FINANCE,
        0xc4 => KeyCode::KEY_SPORT,
        0xc5 => KeyCode::KEY_SHOP,
        0xc6 => KeyCode::KEY_PAUSE,
        0xc7 => KeyCode::KEY_HOME,
        0xc8 => KeyCode::KEY_UP,
        0xc9 => KeyCode::KEY_PAGEUP,
        0xca => KeyCode::KEY_CANCEL,
        0xcb => KeyCode::KEY_LEFT,
        0xcc => KeyCode::KEY_BRIGHTNESSDOWN,
        0xcd => KeyCode::KEY_RIGHT,
        0xce => KeyCode::KEY_KPPLUSMINUS,
        0xcf => KeyCode::KEY_END,
        0xd0 => KeyCode::KEY_DOWN,
        0xd1 => KeyCode::KEY_PAGEDOWN,
        0xd2 => KeyCode::KEY_INSERT,
        0xd3 => KeyCode::KEY_DELETE,
        0xd4 => KeyCode::KEY_BRIGHTNESSUP,
        0xd5 => KeyCode::KEY_SAVE,
        0xd6 => KeyCode::KEY_SWITCHVIDEOMODE,
        0xd7 => KeyCode::KEY_KBDILLUMTOGGLE,
        0xd8 => KeyCode::KEY_KBDILLUMDOWN,
        0xd9 => KeyCode::KEY_KBDILLUMUP,
        0xda => KeyCode::KEY_SEND,
        0xdb => KeyCode::KEY_LEFTMETA,
        0xdc => KeyCode::KEY_RIGHTMETA,
        0xdd => KeyCode::KEY_COMPOSE,
        0xde => KeyCode::KEY_POWER,
        0xdf => KeyCode::KEY_SLEEP,
        0xe3 => KeyCode::KEY_WAKEUP,
        0xe4 => KeyCode::KEY_REPLY,
        0xe5 => KeyCode::KEY_SEARCH,
        0xe6 => KeyCode::KEY_BOOKMARKS,
        0xe7 => KeyCode::KEY_REFRESH,
        0xe8 => KeyCode::KEY_STOP,
        0xe9 => KeyCode::KEY_FORWARD,
        0xea => KeyCode::KEY_BACK,
        0xeb => KeyCode::KEY_COMPUTER,
        0xec => KeyCode::KEY_MAIL,
        0xed => KeyCode::KEY_MEDIA,
        0xef => KeyCode::KEY_MACRO,
        0xf0 => KeyCode::KEY_DOCUMENTS,
        0xf1 => KeyCode::KEY_BATTERY,
        0xf2 => KeyCode::KEY_BLUETOOTH,
        0xf3 => KeyCode::KEY_WLAN,
        0xf4 => KeyCode::KEY_UWB,
        0xf5 => KeyCode::KEY_HELP,
        0xf6 => KeyCode::KEY_KPLEFTPAREN,
        0xf7 => KeyCode::KEY_F18,
        0xf8 => KeyCode::KEY_COPY,
        0xf9 => KeyCode::KEY_F22,
        0xfb => KeyCode::KEY_KPRIGHTPAREN,
        0xfd => KeyCode::KEY_EJECTCLOSECD,
        _ => return None,
    };
    Some(key.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a PC's keyboard sends, by its labels.
    #[test]
    fn keycodes_of_a_pc_keyboard_are_its_keys() {
        let keys = [
            (0x01, KeyCode::KEY_ESC),
            (0x1c, KeyCode::KEY_ENTER),
            (0x1e, KeyCode::KEY_A),
            (0x2a, KeyCode::KEY_LEFTSHIFT),
            (0x36, KeyCode::KEY_RIGHTSHIFT),
            (0x53, KeyCode::KEY_KPDOT),
            (0x56, KeyCode::KEY_102ND),
            (0x58, KeyCode::KEY_F12),
            (0x45, KeyCode::KEY_NUMLOCK),
            (0x46, KeyCode::KEY_SCROLLLOCK),
            (0x54, KeyCode::KEY_SYSRQ),
            (0xb7, KeyCode::KEY_SYSRQ),
            (0xc6, KeyCode::KEY_PAUSE),
            (0xe046, KeyCode::KEY_PAUSE),
            (0xe11d45, KeyCode::KEY_PAUSE),
            (0x9d, KeyCode::KEY_RIGHTCTRL),
            (0xe01d, KeyCode::KEY_RIGHTCTRL),
            (0xb8, KeyCode::KEY_RIGHTALT),
            (0xe038, KeyCode::KEY_RIGHTALT),
            (0xdb, KeyCode::KEY_LEFTMETA),
            (0xdd, KeyCode::KEY_COMPOSE),
            (0xd3, KeyCode::KEY_DELETE),
            (0xe053, KeyCode::KEY_DELETE),
            (0x9c, KeyCode::KEY_KPENTER),
            (0x70, KeyCode::KEY_KATAKANAHIRAGANA),
            (0x79, KeyCode::KEY_HENKAN),
            (0x7b, KeyCode::KEY_MUHENKAN),
            (0x7d, KeyCode::KEY_YEN),
            (0x73, KeyCode::KEY_RO),
            (0x72, KeyCode::KEY_HANGEUL),
            (0x71, KeyCode::KEY_HANJA),
            (0xa0, KeyCode::KEY_MUTE),
            (0xa2, KeyCode::KEY_PLAYPAUSE),
        ];
        for (keycode, key) in keys {
            assert_eq!(key_of_xt_keycode(keycode), Some(key.0), "{keycode:#x}");
        }
    }

    #[test]
    fn other_numbers_are_no_keys() {
        // 0xaa and 0xe02a are the fake shifts around the keys of the cursor block.
        for keycode in [
            0,
            0xaa,
            0xe02a,
            0xff,
            0x100,
            0xe080,
            0xe1,
            0xe1_1d_46,
            u32::MAX,
        ] {
            assert_eq!(key_of_xt_keycode(keycode), None, "{keycode:#x}");
        }
    }

    /// All keys that a PC's or a multimedia keyboard has can be typed.
    #[test]
    fn every_key_of_linux_up_to_the_media_keys_has_a_keycode() {
        let reached: BTreeSet<u16> = (0..=0xff).filter_map(key_of_xt_keycode).collect();
        let missing: Vec<u16> = (1..=237).filter(|code| !reached.contains(code)).collect();
        // 84 and 195 to 199 are no keys. Of the others, set 1 has no code: LEFTPAREN and such are there.
        let none = [84, 161 - 1, 170, 174, 175, 195, 196, 197, 198, 199];
        let unexpected: Vec<u16> = missing
            .into_iter()
            .filter(|code| !none.contains(code))
            .collect();
        assert_eq!(unexpected, Vec::<u16>::new());
    }
}
