// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Preloaded into a program (`LD_PRELOAD`), has named pipes answer the questions of evdev, as the
//! device described in the file that `BENCH_EVDEV` names. Reads, writes and waits are the kernel's
//! own, so that a report costs a program what it costs with a device; umockdev makes of each read a
//! conversation with another process.

use std::collections::HashMap;
use std::sync::OnceLock;

use libc::{c_int, c_ulong, c_void};

/// What a device answers.
#[derive(Default)]
struct Device {
    id: [u16; 4],
    name: String,
    properties: Vec<u8>,
    /// The codes of each event type; those of 0 are the types.
    bits: HashMap<u8, Vec<u8>>,
    /// Value, minimum, maximum, fuzz, flat, resolution.
    axes: HashMap<u8, [i32; 6]>,
}

impl Device {
    /// From a description in the form of `crates/harness/devices`.
    fn parse(text: &str) -> Self {
        let mut device = Self::default();
        for line in text.lines() {
            let Some((kind, rest)) = line.split_once(' ') else {
                continue;
            };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ranges = words.iter().filter_map(|word| {
                let (first, last) = word.split_once('-').unwrap_or((word, word));
                Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
            });
            let codes = ranges.flatten();
            match kind {
                "name" => device.name = rest.to_owned(),
                "id" => {
                    for (to, word) in device.id.iter_mut().zip(&words) {
                        *to = u16::from_str_radix(word, 16).unwrap_or(0);
                    }
                }
                "prop" => codes.for_each(|code| set(&mut device.properties, code)),
                "key" => device.add(1, codes),
                "rel" => device.add(2, codes),
                "msc" => device.add(4, codes),
                "abs" => {
                    let numbers = words.iter().filter_map(|word| word.parse().ok());
                    let numbers: Vec<i32> = numbers.collect();
                    if let Some((axis, range)) = numbers.split_first() {
                        let mut info = [0; 6];
                        for (to, number) in info.iter_mut().skip(1).zip(range) {
                            *to = *number;
                        }
                        device.add(3, std::iter::once(*axis as u16));
                        device.axes.insert(*axis as u8, info);
                    }
                }
                _ => {}
            }
        }
        device
    }

    fn add(&mut self, kind: u8, codes: impl Iterator<Item = u16>) {
        set(self.bits.entry(0).or_default(), kind.into());
        let bits = self.bits.entry(kind).or_default();
        codes.for_each(|code| set(bits, code));
    }

    /// The answer to the evdev request `number`; `None` where the device has none.
    fn answer(&self, number: u8) -> Option<Vec<u8>> {
        let text = |text: &str| Some([text.as_bytes(), &[0]].concat());
        Some(match number {
            0x01 => 0x1_0001_u32.to_ne_bytes().to_vec(),
            0x02 => self.id.iter().flat_map(|id| id.to_ne_bytes()).collect(),
            0x06 => return text(&self.name),
            0x09 => self.properties.clone(),
            // Keys, LEDs, sounds, switches: none is on.
            0x18..=0x1b => Vec::new(),
            0x20..=0x3f => self.bits.get(&(number - 0x20)).cloned().unwrap_or_default(),
            0x40..=0x7f => {
                let info = self.axes.get(&(number - 0x40))?;
                info.iter().flat_map(|value| value.to_ne_bytes()).collect()
            }
            // Grabbing, and which clock the events have.
            0x90 | 0xa0 => Vec::new(),
            _ => return None,
        })
    }
}

/// Sets a bit in a set of them, as evdev has it.
fn set(bits: &mut Vec<u8>, code: u16) {
    let at = usize::from(code / 8);
    if bits.len() <= at {
        bits.resize(at + 1, 0);
    }
    if let Some(byte) = bits.get_mut(at) {
        *byte |= 1 << (code % 8);
    }
}

fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let read = || {
        let text = std::fs::read_to_string(std::env::var_os("BENCH_EVDEV")?).ok()?;
        Some(Device::parse(&text))
    };
    DEVICE.get_or_init(read).as_ref()
}

/// `ioctl(2)`: evdev's requests are answered here, all others by the kernel.
///
/// # Safety
/// As that of libc: `argument` is what the request takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let [number, kind, ..] = request.to_le_bytes();
    let length = (request >> 16 & 0x3fff) as usize;
    let reads = request >> 30 & 2 != 0;
    let Some(device) = device().filter(|_| kind == b'E') else {
        // SAFETY: passed on as it came.
        return unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int };
    };
    const MT_SLOTS: u8 = 0x0a;
    if number == MT_SLOTS && reads && length >= 4 && device.axes.contains_key(&0x2f) {
        // Nothing is touched: after the axis that is asked for, -1 for each slot.
        // SAFETY: the request says that as many bytes are to be written there.
        unsafe { std::ptr::write_bytes(argument.cast::<u8>().add(4), 0xff, length - 4) };
        return 0;
    }
    let Some(mut answer) = device.answer(number) else {
        // SAFETY: the calling thread's own.
        unsafe { *libc::__errno_location() = libc::EINVAL };
        return -1;
    };
    if !reads {
        return 0;
    }
    let told = answer.len().min(length);
    answer.resize(length, 0);
    // SAFETY: the request says that as many bytes are to be written there.
    unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), argument.cast(), length) };
    // The length, where evdev tells one.
    if number <= 0x02 || number >= 0x40 {
        0
    } else {
        told as c_int
    }
}
