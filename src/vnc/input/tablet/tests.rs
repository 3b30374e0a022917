// SPDX-License-Identifier: Apache-2.0 OR MIT

use evdev::{AbsoluteAxisCode, RelativeAxisCode};

use super::*;
use crate::evdev_event::EV_ABS;

const A: ViewerId = ViewerId(1);
const B: ViewerId = ViewerId(2);

fn at(x: u16, y: u16) -> Place {
    Place {
        at: (x, y),
        size: (1920, 1080),
    }
}

fn moved(x: i32, y: i32) -> [Event; 2] {
    [
        Event::new(EV_ABS, AbsoluteAxisCode::ABS_X.0, x),
        Event::new(EV_ABS, AbsoluteAxisCode::ABS_Y.0, y),
    ]
}

#[test]
fn corners_of_the_picture_are_the_ends_of_the_axes() {
    for size in [2, 3, 640, 1920, 32767, 32768, 32769, u16::MAX] {
        assert_eq!(scaled(0, size), Some(0));
        assert_eq!(scaled(size - 1, size), Some(32767), "{size}");
        assert_eq!(scaled(u16::MAX, size), Some(32767), "{size}");
    }
    assert_eq!(scaled(0, 1), Some(0));
    assert_eq!(scaled(5, 0), None);
}

/// A guest with the same picture finds the pixel again, as it computes it from the position.
#[test]
fn every_pixel_is_found_again() {
    for size in [640_u16, 1280, 1920, 3840, 8192] {
        for pixel in 0..size {
            let value = f64::from(scaled(pixel, size).unwrap());
            let back = (value / 32767.0 * f64::from(size - 1)).round();
            assert_eq!(back, f64::from(pixel), "of {size}");
        }
    }
}

#[test]
fn pointer_and_buttons_come_in_one_report() {
    let mut tablet = Tablet::default();
    let mut expected = moved(0, 32767).to_vec();
    expected.extend([Event::key(KeyCode::BTN_LEFT.0, true), Event::REPORT]);
    assert_eq!(tablet.point(A, 1, at(0, 1079)), Some(expected));
    assert_eq!(tablet.point(A, 1, at(0, 1079)), None, "nothing changed");
    let released = [Event::key(KeyCode::BTN_LEFT.0, false), Event::REPORT];
    assert_eq!(tablet.point(A, 0, at(0, 1079)), Some(released.to_vec()));
}

#[test]
fn each_bit_is_its_button() {
    let buttons = [
        (0, KeyCode::BTN_LEFT),
        (1, KeyCode::BTN_MIDDLE),
        (2, KeyCode::BTN_RIGHT),
        (7, KeyCode::BTN_SIDE),
        (8, KeyCode::BTN_EXTRA),
    ];
    for (bit, button) in buttons {
        let mut tablet = Tablet::default();
        tablet.point(A, 0, at(1, 1));
        let report = tablet.point(A, 1 << bit, at(1, 1)).unwrap();
        assert_eq!(report, [Event::key(button.0, true), Event::REPORT]);
    }
}

#[test]
fn wheel_turns_once_for_each_press() {
    let wheels = [
        (
            3,
            RelativeAxisCode::REL_WHEEL,
            RelativeAxisCode::REL_WHEEL_HI_RES,
            1,
        ),
        (
            4,
            RelativeAxisCode::REL_WHEEL,
            RelativeAxisCode::REL_WHEEL_HI_RES,
            -1,
        ),
        (
            5,
            RelativeAxisCode::REL_HWHEEL,
            RelativeAxisCode::REL_HWHEEL_HI_RES,
            -1,
        ),
        (
            6,
            RelativeAxisCode::REL_HWHEEL,
            RelativeAxisCode::REL_HWHEEL_HI_RES,
            1,
        ),
    ];
    for (bit, axis, hi_res, direction) in wheels {
        let mut tablet = Tablet::default();
        tablet.point(A, 0, at(1, 1));
        let report = tablet.point(A, 1 << bit, at(1, 1)).unwrap();
        let expected = [
            Event::new(EV_REL, axis.0, direction),
            Event::new(EV_REL, hi_res.0, 120 * direction),
            Event::REPORT,
        ];
        assert_eq!(report, expected);
        assert_eq!(
            tablet.point(A, 1 << bit, at(1, 1)),
            None,
            "it is still pressed"
        );
        assert_eq!(tablet.point(A, 0, at(1, 1)), None, "a wheel has no release");
        assert_eq!(tablet.point(A, 1 << bit, at(1, 1)).unwrap(), expected);
        assert_eq!(tablet.held().keys, KeySet::default());
    }
}

#[test]
fn button_is_pressed_while_any_viewer_presses_it() {
    let mut tablet = Tablet::default();
    tablet.point(A, 0b101, at(1, 1));
    assert_eq!(tablet.point(B, 0b001, at(1, 1)), None);
    let right = [Event::key(KeyCode::BTN_RIGHT.0, false), Event::REPORT];
    assert_eq!(tablet.release(A), Some(right.to_vec()));
    let left = [Event::key(KeyCode::BTN_LEFT.0, false), Event::REPORT];
    assert_eq!(tablet.point(B, 0, at(1, 1)), Some(left.to_vec()));
    assert_eq!(tablet.release(B), None);
}

#[test]
fn empty_picture_moves_nothing() {
    let mut tablet = Tablet::default();
    let nowhere = Place {
        at: (5, 5),
        size: (0, 0),
    };
    assert_eq!(tablet.point(A, 0, nowhere), None);
    let pressed = tablet.point(A, 1, nowhere).unwrap();
    assert_eq!(
        pressed,
        [Event::key(KeyCode::BTN_LEFT.0, true), Event::REPORT]
    );
}
