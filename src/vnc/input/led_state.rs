// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The LEDs of the guest's keyboard.

use evdev::LedCode;

/// The LEDs that the guest has switched on. [`LedState::default`] is all off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedState {
    /// Scroll Lock.
    pub scroll_lock: bool,
    /// Num Lock.
    pub num_lock: bool,
    /// Caps Lock.
    pub caps_lock: bool,
}

impl LedState {
    /// The byte of the pseudo-encoding "QEMU LED State" (-261): bit 0 is Scroll Lock, bit 1 Num Lock and bit 2 Caps
    /// Lock.
    pub fn rfb_bits(self) -> u8 {
        u8::from(self.scroll_lock) | u8::from(self.num_lock) << 1 | u8::from(self.caps_lock) << 2
    }

    /// Sets the LED `code` (`LED_*`). Unknown ones are ignored.
    pub(super) fn set(&mut self, code: u16, on: bool) {
        match LedCode(code) {
            LedCode::LED_SCROLLL => self.scroll_lock = on,
            LedCode::LED_NUML => self.num_lock = on,
            LedCode::LED_CAPSL => self.caps_lock = on,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_led_has_its_bit_of_rfb() {
        for (code, bits) in [(0, 2), (1, 4), (2, 1), (3, 0), (u16::MAX, 0)] {
            let mut leds = LedState::default();
            leds.set(code, true);
            assert_eq!(leds.rfb_bits(), bits, "LED {code}");
            leds.set(code, false);
            assert_eq!(leds, LedState::default());
        }
    }
}
