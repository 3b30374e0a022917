// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's memory, as QEMU's `-m` takes it.

use std::fmt;
use std::str::FromStr;

use super::qemu::QemuOption;

const MIB: u64 = 1 << 20;
/// QEMU rounds the guest's memory up to a multiple of this, and requires the same of the memory backend.
const UNIT: u64 = 8 << 10;
/// The most memory slots of QEMU's machines.
const SLOTS_MAX: u32 = 256;

/// `[size=]SIZE[,slots=N][,maxmem=SIZE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    size: Size,
    slots: Option<u32>,
    most: Option<Size>,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Size(u64);

/// Why QEMU would reject it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("'{0}' is not a size; examples: 2G, 512M, 2048 (in MiB)")]
    Size(String),
    #[error("'{0}' is not a multiple of 8K")]
    Odd(String),
    #[error("'{0}' is not one of size=, slots=, maxmem=")]
    Key(String),
    #[error("'{0}' is not a number of slots (at most {SLOTS_MAX})")]
    Slots(String),
    #[error("'{0}' has slots= but no maxmem=")]
    NoMost(String),
    #[error("'{0}' has a maxmem= smaller than its size")]
    Most(String),
}

impl FromStr for Memory {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let size = size(first.strip_prefix("size=").unwrap_or(first), MIB)?;
        if size.0 % UNIT != 0 {
            return Err(MemoryError::Odd(first.to_owned()));
        }
        let (mut slots, mut most) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("slots", number)) => slots = Some(count(number)?),
                // Without a unit, these are bytes, unlike the size.
                Some(("maxmem", number)) => most = Some(self::size(number, 1)?),
                _ => return Err(MemoryError::Key(part.to_owned())),
            }
        }
        if slots.is_some_and(|slots| slots > 0) && most.is_none() {
            return Err(MemoryError::NoMost(text.to_owned()));
        }
        if most.is_some_and(|most| most < size) {
            return Err(MemoryError::Most(text.to_owned()));
        }
        Ok(Self { size, slots, most })
    }
}

impl Memory {
    /// QEMU's options for memory that backends can map: vhost-user needs it.
    pub(crate) fn shared(&self) -> Vec<QemuOption> {
        let size = self.size;
        vec![
            QemuOption::new("-m", self.to_string()),
            QemuOption::new(
                "-object",
                format!("memory-backend-memfd,id=vhost-user-memory,size={size},share=on"),
            ),
            QemuOption::new("-machine", "memory-backend=vhost-user-memory"),
        ]
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.size)?;
        if let Some(slots) = self.slots {
            write!(f, ",slots={slots}")?;
        }
        match self.most {
            Some(most) => write!(f, ",maxmem={most}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Size {
    /// With a unit, which has the same meaning in all options of QEMU.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (mut number, mut unit) = (self.0, "B");
        for next in ["K", "M", "G"] {
            if number % 1024 != 0 {
                break;
            }
            number /= 1024;
            unit = next;
        }
        write!(f, "{number}{unit}")
    }
}

fn count(text: &str) -> Result<u32, MemoryError> {
    let number = digits(text).and_then(|digits| digits.parse().ok());
    number
        .filter(|number| *number <= SLOTS_MAX)
        .ok_or_else(|| MemoryError::Slots(text.to_owned()))
}

/// A size in the syntax of QEMU: a number, optionally with a fraction and a unit. `default` is the unit of a number
/// without one.
fn size(text: &str, default: u64) -> Result<Size, MemoryError> {
    let read = || {
        let last = text.chars().last()?;
        let (number, unit) = match "BKMGTPE".find(last.to_ascii_uppercase()) {
            Some(power) => (
                text.get(..text.len().checked_sub(1)?)?,
                1_u64.checked_shl(u32::try_from(power).ok()?.checked_mul(10)?)?,
            ),
            None => (text, default),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut bytes = digits(whole)?.parse::<u64>().ok()?.checked_mul(unit)?;
        if number.contains('.') {
            // No size needs more than nine digits.
            let fraction = digits(fraction.get(..9).unwrap_or(fraction))?;
            let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let part =
                u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / u128::from(scale);
            bytes = bytes.checked_add(u64::try_from(part).ok()?)?;
        }
        Some(Size(bytes)).filter(|size| size.0 > 0)
    };
    read().ok_or_else(|| MemoryError::Size(text.to_owned()))
}

/// Digits only: `parse` takes a sign as well.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_qemu_takes_them() {
        for (text, means) in [
            ("2G", "2G"),
            ("2g", "2G"),
            ("2048", "2G"),
            ("384M", "384M"),
            ("1.5G", "1536M"),
            ("0.5", "512K"),
            ("1T", "1024G"),
            ("8K", "8K"),
            ("1048576B", "1M"),
            ("size=1024", "1G"),
            ("1G,slots=2,maxmem=4G", "1G,slots=2,maxmem=4G"),
            ("size=1G,maxmem=4294967296", "1G,maxmem=4G"),
            ("1G,maxmem=8g,slots=256", "1G,slots=256,maxmem=8G"),
        ] {
            let memory = text.parse::<Memory>().map(|memory| memory.to_string());
            assert_eq!(memory.as_deref(), Ok(means), "{text}");
        }
    }

    #[test]
    fn sizes_that_qemu_rejects_are_refused() {
        for text in [
            "",
            "G",
            "0",
            "0G",
            "+2G",
            "-1G",
            "2GB",
            "0x40M",
            "1e3M",
            ".5G",
            "1.G",
            "2 G",
            "1K",
            "1001K",
            "17179869184G",
            "2G,share=off",
            "2G,",
            "2G,slots=2",
            "2G,slots=257,maxmem=4G",
            "2G,slots=-1,maxmem=4G",
            "2G,maxmem=4096",
            "2G,maxmem=1G",
            "2G,2G",
            "µ",
        ] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }
}
