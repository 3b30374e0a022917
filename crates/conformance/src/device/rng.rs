// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-rng: random bytes.

use conventions::DeviceType;
use frontend::Buffer;

use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::trial::Trial;

const RNG: &[DeviceType] = &[DeviceType::Rng];
const SECTION: &str = "virtio 1.2, 5.4.6";
/// Bytes of a buffer.
const LENGTH: u32 = 256;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "device/rng-bytes",
        SECTION,
        "A buffer gets at least one byte and no more than it has room for, and the used element tells how many.",
        bytes,
    )
    .of(RNG),
    Point::required(
        "device/rng-differs",
        SECTION,
        "Two buffers get different bytes.",
        differs,
    )
    .of(RNG),
];

/// What the device puts into a buffer.
fn draw(trial: &Trial, guest: &mut Guest) -> Result<Vec<u8>, Flaw> {
    const UNTOUCHED: u8 = 0x5a;
    let at = guest.memory.alloc(u64::from(LENGTH) + 64, 8)?;
    guest.memory.fill(at, UNTOUCHED, LENGTH as usize + 64)?;
    guest.queue().add(&[Buffer::writable(at, LENGTH)])?;
    guest.queue().submit()?;
    let used = guest.queue().wait_used(trial.left())?;
    if used.len == 0 || used.len > LENGTH {
        return fails(format!("{} bytes in a buffer of {LENGTH}", used.len));
    }
    let mut bytes = vec![0; LENGTH as usize + 64];
    guest.memory.read(at, &mut bytes)?;
    let (written, rest) = bytes.split_at(used.len as usize);
    match rest.iter().all(|byte| *byte == UNTOUCHED) {
        true => Ok(written.to_vec()),
        false => fails(format!(
            "it writes beyond the {} bytes that it tells",
            used.len
        )),
    }
}

fn bytes(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    let drawn = draw(trial, &mut guest)?;
    Ok(format!("{} of {LENGTH} bytes", drawn.len()))
}

fn differs(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    let [first, second] = [draw(trial, &mut guest)?, draw(trial, &mut guest)?];
    match first == second {
        true => fails("they are the same"),
        false => Ok("they differ".into()),
    }
}
