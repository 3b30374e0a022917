// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-fs: as far as FUSE_INIT.

use conventions::DeviceType;
use frontend::Buffer;

use crate::guest::Guest;
use crate::outcome::{Seen, fails};
use crate::point::Point;
use crate::trial::Trial;
use crate::work::fuse_init;

const FS: &[DeviceType] = &[DeviceType::Fs];

pub(super) const POINTS: &[Point] = &[Point::required(
    "device/fs-init",
    "virtio 1.2, 5.11.6; FUSE protocol, FUSE_INIT",
    "FUSE_INIT in the first request queue is answered with version 7 of the protocol, and no error.",
    init,
)
.of(FS)];

fn init(trial: &Trial) -> Seen {
    const ROOM: u32 = 16 + 64;
    let mut guest = Guest::start(trial)?;
    let memory = guest.memory.clone();
    let request = fuse_init(77);
    let len = request.len() as u32;
    let [at, answer] = [memory.alloc(len.into(), 8)?, memory.alloc(ROOM.into(), 8)?];
    memory.write(at, &request)?;
    let buffers = [Buffer::readable(at, len), Buffer::writable(answer, ROOM)];
    guest.queue().add(&buffers)?;
    guest.queue().submit()?;
    let used = guest.queue().wait_used(trial.left())?;
    let mut bytes = [0; ROOM as usize];
    memory.read(answer, &mut bytes)?;
    let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[4 * n + i]));
    // fuse_out_header: length, error, number; fuse_init_out: major, minor.
    let (error, number, major, minor) = (word(1) as i32, word(2), word(4), word(5));
    match (error, number, major) {
        (0, 77, 7) => Ok(format!("version {major}.{minor}, {} bytes", used.len)),
        _ => fails(format!(
            "error {error}, request {number}, version {major}.{minor}"
        )),
    }
}
