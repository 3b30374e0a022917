// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Wrong descriptors, and wrong memory tables.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use frontend::{FrontendReq as Req, Memory};

use super::{VERSION, event, message, try_each};
use crate::outcome::Seen;
use crate::trial::Trial;

/// "No descriptor follows" in the payload of SET_VRING_KICK.
const NO_FD: u64 = 1 << 8;
const PAGE: u64 = 4096;
const REGION: [u64; 4] = [0, 16 * PAGE, 0x7000_0000_0000, 0];

pub(super) fn descriptors(trial: &Trial) -> Seen {
    let guest = Memory::with_size(16 * PAGE)?;
    let regions = guest.regions();
    let file = regions[0].fd;
    let event = event()?;
    let event = event.as_fd();
    let folder = File::open(trial.folder())?;
    let folder = folder.as_fd();
    let number = |request: Req, value: u64| message(request.into(), VERSION, &value.to_ne_bytes());
    let empty = |request: Req| message(request.into(), VERSION, &[]);
    let many = vec![event; 30];
    let add = [&[0; 8], REGION.map(u64::to_ne_bytes).concat().as_slice()].concat();
    let add = message(Req::ADD_MEM_REG.into(), VERSION, &add);
    let inflight = message(Req::SET_INFLIGHT_FD.into(), VERSION, &[0; 24]);
    let cases: Vec<(&str, Vec<u8>, Vec<BorrowedFd<'_>>)> = vec![
        (
            "SET_MEM_TABLE without a descriptor",
            table(1, &[REGION]),
            vec![],
        ),
        (
            "SET_MEM_TABLE with a surplus one",
            table(1, &[REGION]),
            vec![file, file],
        ),
        (
            "SET_MEM_TABLE with an eventfd",
            table(1, &[REGION]),
            vec![event],
        ),
        (
            "SET_MEM_TABLE with a folder",
            table(1, &[REGION]),
            vec![folder],
        ),
        ("ADD_MEM_REG without a descriptor", add.clone(), vec![]),
        ("ADD_MEM_REG with two", add, vec![file, file]),
        (
            "SET_VRING_KICK without its descriptor",
            number(Req::SET_VRING_KICK, 0),
            vec![],
        ),
        (
            "SET_VRING_KICK with two",
            number(Req::SET_VRING_KICK, 0),
            vec![event, event],
        ),
        (
            "SET_VRING_KICK with one that it says is not there",
            number(Req::SET_VRING_KICK, NO_FD),
            vec![event],
        ),
        (
            "SET_VRING_KICK with a folder",
            number(Req::SET_VRING_KICK, 0),
            vec![folder],
        ),
        (
            "SET_VRING_CALL without its descriptor",
            number(Req::SET_VRING_CALL, 0),
            vec![],
        ),
        (
            "SET_VRING_CALL with a folder",
            number(Req::SET_VRING_CALL, 0),
            vec![folder],
        ),
        (
            "SET_VRING_ERR with two",
            number(Req::SET_VRING_ERR, 0),
            vec![event, event],
        ),
        (
            "SET_BACKEND_REQ_FD without a descriptor",
            empty(Req::SET_BACKEND_REQ_FD),
            vec![],
        ),
        (
            "GPU_SET_SOCKET without a descriptor",
            empty(Req::GPU_SET_SOCKET),
            vec![],
        ),
        ("SET_INFLIGHT_FD without a descriptor", inflight, vec![]),
        ("GET_FEATURES with 30", empty(Req::GET_FEATURES), many),
    ];
    try_each(
        trial,
        cases
            .into_iter()
            .map(|(what, bytes, fds)| (what.to_owned(), bytes, fds)),
    )
}

pub(super) fn memory(trial: &Trial) -> Seen {
    let guest = Memory::with_size(16 * PAGE)?;
    let regions = guest.regions();
    let file = regions[0].fd;
    let [address, size, user, _] = REGION;
    let beyond = 1 << 20;
    let one = |what: &str, region: [u64; 4]| (what.to_owned(), table(1, &[region]), vec![file]);
    let cases = vec![
        ("no region".to_owned(), table(0, &[]), vec![]),
        (
            "2^32 - 1 regions".to_owned(),
            table(u32::MAX, &[REGION]),
            vec![file],
        ),
        (
            "a region that is not there".to_owned(),
            table(2, &[REGION]),
            vec![file],
        ),
        (
            "the same region twice".to_owned(),
            table(2, &[REGION, REGION]),
            vec![file, file],
        ),
        (
            "regions that overlap".to_owned(),
            table(2, &[REGION, [PAGE, size, user + PAGE, 0]]),
            vec![file, file],
        ),
        (
            "100 regions".to_owned(),
            table(100, &[REGION; 100]),
            vec![file; 100],
        ),
        one("an empty region", [address, 0, user, 0]),
        one("a region beyond its file", [address, size, user, beyond]),
        one("a region larger than its file", [address, 1 << 40, user, 0]),
        one("a region of 2^64 - 1 bytes", [address, u64::MAX, user, 0]),
        one(
            "an offset of 2^64 - 4096",
            [address, size, user, u64::MAX - 4095],
        ),
        one(
            "a region at the end of the address space",
            [u64::MAX - 4095, size, user, 0],
        ),
        one(
            "a front-end's address at the end",
            [address, size, u64::MAX - 4095, 0],
        ),
        one("an offset of 1", [address, size, user, 1]),
    ];
    try_each(trial, cases)
}

/// A memory table of these regions: address, size, front-end's address, offset.
fn table(count: u32, regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = [count, 0].map(u32::to_ne_bytes).concat();
    body.extend(regions.iter().flatten().flat_map(|word| word.to_ne_bytes()));
    message(Req::SET_MEM_TABLE.into(), VERSION, &body)
}
