// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The fuzzing input as a sequence of choices. After its end every choice is 0.

use arbitrary::Unstructured;

/// What is left of an input.
pub struct Bytes<'a>(Unstructured<'a>);

impl<'a> Bytes<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(Unstructured::new(data))
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// One of `choices`.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }

    /// One of `choices`, or, one time in sixteen, any number.
    pub fn mostly(&mut self, choices: &[u32]) -> u32 {
        match self.u8() {
            0xf0..=0xff => self.u32(),
            choice => choices[usize::from(choice) % choices.len()],
        }
    }

    /// Up to `most` bytes: as many as the next two say, and as there are.
    pub fn some(&mut self, most: usize) -> &'a [u8] {
        let wanted = usize::from(self.u16()).min(most).min(self.0.len());
        self.0.bytes(wanted).unwrap_or_default()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.0.bytes(self.0.len()).unwrap_or_default()
    }
}
