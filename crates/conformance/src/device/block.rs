// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-blk: the file that it serves.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use conventions::DeviceType;
use frontend::{Buffer, VhostUserProtocolFeatures as Protocol};
use virtio_bindings::virtio_blk as blk;

use crate::guest::Guest;
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::target::FILE;
use crate::trial::{DISK_SIZE, Trial};
use crate::work::SECTOR;

const BLOCK: &[DeviceType] = &[DeviceType::Block];
const OPERATION: &str = "virtio 1.2, 5.2.6";

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "device/blk-capacity",
        "virtio 1.2, 5.2.4",
        "The configuration tells the size of the file, in sectors of 512 bytes.",
        capacity,
    )
    .of(BLOCK)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/blk-read",
        OPERATION,
        "A sector that is read has the bytes that the file has there.",
        read,
    )
    .of(BLOCK),
    Point::required(
        "device/blk-write",
        OPERATION,
        "A sector that is written is in the file, once it is read again.",
        write,
    )
    .of(BLOCK),
    Point::required(
        "device/blk-flush",
        OPERATION,
        "A device that offers VIRTIO_BLK_F_FLUSH flushes.",
        flush,
    )
    .of(BLOCK),
    Point::required(
        "device/blk-beyond-end",
        OPERATION,
        "Reading and writing beyond the end is answered with an error.",
        beyond_end,
    )
    .of(BLOCK),
    Point::required(
        "device/blk-unsupported",
        OPERATION,
        "A request that does not exist is answered with an error, VIRTIO_BLK_S_UNSUPP at best.",
        unsupported,
    )
    .of(BLOCK),
    Point::required(
        "device/blk-read-only",
        "vhost-user.rst, Backend program conventions; virtio 1.2, 5.2.6",
        "With --read-only VIRTIO_BLK_F_RO is offered, and writing is answered with an error.",
        read_only,
    )
    .of(BLOCK),
];

/// That the file is the check's: what others have in theirs is not written to.
fn file(trial: &Trial) -> Result<File, Flaw> {
    match trial.target.names(FILE) {
        true => Ok(File::options().read(true).write(true).open(trial.disk())?),
        false => not_tried(format!("none of its arguments is {FILE}")),
    }
}

/// A request's status, and what it read.
fn request(
    trial: &Trial,
    guest: &mut Guest,
    kind: u32,
    sector: u64,
    data: Option<&[u8]>,
) -> Result<(u8, Vec<u8>), Flaw> {
    let memory = guest.memory.clone();
    let header = [kind.to_le_bytes(), [0; 4]].concat();
    let header = [header, sector.to_le_bytes().to_vec()].concat();
    let [head, body, status] = [
        memory.alloc(16, 8)?,
        memory.alloc(SECTOR.into(), 512)?,
        memory.alloc(1, 1)?,
    ];
    memory.write(head, &header)?;
    memory.fill(status, 0xff, 1)?;
    let body_buffer = match data {
        Some(data) => {
            memory.write(body, data)?;
            Buffer::readable(body, SECTOR)
        }
        None => Buffer::writable(body, SECTOR),
    };
    let has_body = kind != blk::VIRTIO_BLK_T_FLUSH;
    let mut buffers = vec![Buffer::readable(head, 16)];
    buffers.extend(has_body.then_some(body_buffer));
    buffers.push(Buffer::writable(status, 1));
    guest.queue().add(&buffers)?;
    guest.queue().submit()?;
    guest.queue().wait_used(trial.left())?;
    let mut answer = [0];
    memory.read(status, &mut answer)?;
    let mut bytes = vec![0; SECTOR as usize];
    memory.read(body, &mut bytes)?;
    Ok((answer[0], bytes))
}

fn is_ok(what: &str, status: u8) -> Result<(), Flaw> {
    match u32::from(status) {
        blk::VIRTIO_BLK_S_OK => Ok(()),
        status => fails(format!("{what} ends with status {status}")),
    }
}

fn is_error(what: &str, status: u8) -> Result<(), Flaw> {
    match u32::from(status) {
        blk::VIRTIO_BLK_S_IOERR | blk::VIRTIO_BLK_S_UNSUPP => Ok(()),
        status => fails(format!("{what} ends with status {status}")),
    }
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..SECTOR)
        .map(|n| (n as u8).wrapping_mul(7) ^ seed)
        .collect()
}

fn capacity(trial: &Trial) -> Seen {
    file(trial)?;
    let mut guest = Guest::connect(trial)?;
    let bytes = guest.session.config(0, 8)?;
    let sectors = <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_le_bytes);
    match sectors * u64::from(SECTOR) == DISK_SIZE {
        true => Ok(format!("{sectors} sectors")),
        false => fails(format!("{sectors} sectors for {DISK_SIZE} bytes")),
    }
}

fn read(trial: &Trial) -> Seen {
    let file = file(trial)?;
    for sector in [0, 5, 2047] {
        file.write_all_at(&pattern(sector as u8), sector * u64::from(SECTOR))?;
    }
    let mut guest = Guest::start(trial)?;
    for sector in [5, 0, 2047] {
        let (status, bytes) = request(trial, &mut guest, blk::VIRTIO_BLK_T_IN, sector, None)?;
        is_ok(&format!("reading sector {sector}"), status)?;
        if bytes != pattern(sector as u8) {
            return fails(format!("sector {sector} has other bytes"));
        }
    }
    Ok("3 sectors are equal".into())
}

fn write(trial: &Trial) -> Seen {
    let file = file(trial)?;
    let mut guest = Guest::start(trial)?;
    let data = pattern(0x33);
    let (status, _) = request(trial, &mut guest, blk::VIRTIO_BLK_T_OUT, 9, Some(&data))?;
    is_ok("writing sector 9", status)?;
    let (status, bytes) = request(trial, &mut guest, blk::VIRTIO_BLK_T_IN, 9, None)?;
    is_ok("reading sector 9", status)?;
    if bytes != data {
        return fails("the device reads other bytes");
    }
    let mut bytes = vec![0; SECTOR as usize];
    file.read_exact_at(&mut bytes, 9 * u64::from(SECTOR))?;
    match bytes == data {
        true => Ok("the sector is in the file".into()),
        false => fails("the file has other bytes"),
    }
}

fn flush(trial: &Trial) -> Seen {
    let flush = 1 << blk::VIRTIO_BLK_F_FLUSH;
    trial.form()?;
    if trial.facts.features & flush == 0 {
        return not_tried("not offered: VIRTIO_BLK_F_FLUSH");
    }
    let mut guest = Guest::connect(trial)?;
    guest.features |= flush;
    guest.run()?;
    let (status, _) = request(trial, &mut guest, blk::VIRTIO_BLK_T_FLUSH, 0, None)?;
    is_ok("VIRTIO_BLK_T_FLUSH", status)?;
    Ok("flushed".into())
}

fn beyond_end(trial: &Trial) -> Seen {
    file(trial)?;
    let mut guest = Guest::start(trial)?;
    let end = DISK_SIZE / u64::from(SECTOR);
    for sector in [end, end + 1000, u64::MAX >> 9, u64::MAX] {
        for (what, kind, data) in [
            ("reading", blk::VIRTIO_BLK_T_IN, None),
            ("writing", blk::VIRTIO_BLK_T_OUT, Some(pattern(1))),
        ] {
            let (status, _) = request(trial, &mut guest, kind, sector, data.as_deref())?;
            is_error(&format!("{what} sector {sector:#x}"), status)?;
        }
    }
    guest.work(1)?;
    Ok("8 requests are refused".into())
}

fn unsupported(trial: &Trial) -> Seen {
    let mut guest = Guest::start(trial)?;
    let (status, _) = request(trial, &mut guest, 0x7777, 0, None)?;
    is_error("request 0x7777", status)?;
    guest.work(1)?;
    Ok(format!("status {status}"))
}

fn read_only(trial: &Trial) -> Seen {
    let has = |feature| {
        trial
            .facts
            .capabilities
            .as_ref()
            .is_some_and(|told| told.has(feature))
    };
    if !has("read-only") {
        return not_tried("the capabilities do not list read-only");
    }
    let file = file(trial)?;
    file.write_all_at(&pattern(4), 0)?;
    let mut served = trial.serve_with(trial.form()?, |launch| launch.arg("--read-only"))?;
    let features = served
        .session
        .get_u64(frontend::FrontendReq::GET_FEATURES)?;
    if features & 1 << blk::VIRTIO_BLK_F_RO == 0 {
        return fails("VIRTIO_BLK_F_RO is not offered");
    }
    let mut guest = Guest::on(trial, served)?;
    guest.features |= 1 << blk::VIRTIO_BLK_F_RO;
    guest.run()?;
    let data = pattern(0x55);
    let (status, _) = request(trial, &mut guest, blk::VIRTIO_BLK_T_OUT, 0, Some(&data))?;
    is_error("writing", status)?;
    let (status, bytes) = request(trial, &mut guest, blk::VIRTIO_BLK_T_IN, 0, None)?;
    is_ok("reading", status)?;
    match bytes == pattern(4) {
        true => Ok("offered, and writing is refused".into()),
        false => fails("the sector was written"),
    }
}
