// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn classified(keys: &[&str]) -> Vec<InputKind> {
    kinds(|key| keys.contains(&key))
}

#[test]
fn the_special_word_counts() {
    assert_eq!(
        classified(&["ID_INPUT", "ID_INPUT_KEY", "ID_INPUT_KEYBOARD"]),
        [InputKind::Keyboard]
    );
    assert_eq!(
        classified(&["ID_INPUT_MOUSE", "ID_INPUT_POINTINGSTICK"]),
        [InputKind::PointingStick]
    );
    assert_eq!(
        classified(&["ID_INPUT_MOUSE", "ID_INPUT_TRACKBALL"]),
        [InputKind::Trackball]
    );
    assert_eq!(
        classified(&["ID_INPUT_TABLET", "ID_INPUT_TABLET_PAD"]),
        [InputKind::TabletPad]
    );
    assert_eq!(classified(&["ID_INPUT_KEY"]), [InputKind::Button]);
    assert_eq!(
        classified(&["ID_INPUT_KEY", "ID_INPUT_SWITCH"]),
        [InputKind::Switch]
    );
    assert_eq!(classified(&["ID_INPUT"]), [InputKind::Other]);
}

#[test]
fn a_device_can_be_several_things() {
    assert_eq!(
        classified(&["ID_INPUT_KEY", "ID_INPUT_KEYBOARD", "ID_INPUT_MOUSE"]),
        [InputKind::Keyboard, InputKind::Mouse]
    );
}

#[test]
fn json_and_table_use_the_same_words() {
    for kind in [
        InputKind::PointingStick,
        InputKind::TabletPad,
        InputKind::Keyboard,
        InputKind::Other,
    ] {
        let json = serde_json::to_string(&kind).expect("a string");
        assert_eq!(json, format!("\"{kind}\""));
    }
}

#[test]
fn buses_have_words() {
    assert_eq!(bus("0003"), Some("usb"));
    assert_eq!(bus("0018"), Some("i2c"));
    assert_eq!(bus("0011"), Some("i8042"));
    assert_eq!(bus("00ff"), None);
    assert_eq!(bus("what"), None);
}
