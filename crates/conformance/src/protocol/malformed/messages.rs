// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages with a wrong header or size.

use frontend::FrontendReq as Req;

use super::{VERSION, message, try_each};
use crate::outcome::Seen;
use crate::trial::Trial;

pub(super) fn requests(trial: &Trial) -> Seen {
    let numbers = [0, 50, 200, 0x7fff_ffff, u32::MAX];
    try_each(
        trial,
        numbers.map(|number| {
            (
                format!("request {number}"),
                message(number, VERSION, &[]),
                Vec::new(),
            )
        }),
    )
}

pub(super) fn versions(trial: &Trial) -> Seen {
    let flags = [0_u32, 2, 3, VERSION | 4, u32::MAX];
    try_each(
        trial,
        flags.map(|flags| {
            (
                format!("flags {flags:#x}"),
                message(1, flags, &[]),
                Vec::new(),
            )
        }),
    )
}

pub(super) fn sizes(trial: &Trial) -> Seen {
    let right = [
        (Req::SET_FEATURES, 8),
        (Req::GET_FEATURES, 0),
        (Req::SET_OWNER, 0),
        (Req::SET_VRING_NUM, 8),
        (Req::SET_VRING_ADDR, 40),
        (Req::GET_VRING_BASE, 8),
        (Req::SET_VRING_CALL, 8),
        (Req::SET_MEM_TABLE, 40),
        (Req::SET_CONFIG, 13),
    ];
    let mut cases = Vec::new();
    for (request, right) in right {
        for size in [0, 1, right + 1, 4096_usize] {
            let what = format!("{request:?} of {size} bytes");
            cases.push((
                what,
                message(request.into(), VERSION, &vec![0; size]),
                Vec::new(),
            ));
        }
    }
    for size in [4097, 0x7fff_ffff, u32::MAX] {
        let header = [2, VERSION, size].map(u32::to_ne_bytes).concat();
        cases.push((
            format!("a header that says {size} bytes"),
            [header, vec![0; 64]].concat(),
            Vec::new(),
        ));
    }
    cases.push((
        "5 bytes of a header".into(),
        vec![1, 0, 0, 0, 1],
        Vec::new(),
    ));
    try_each(trial, cases)
}

pub(super) fn config(trial: &Trial) -> Seen {
    let get = |offset: u32, size: u32, body: usize| {
        let header = [offset, size, 0].map(u32::to_ne_bytes).concat();
        message(
            Req::GET_CONFIG.into(),
            VERSION,
            &[header, vec![0; body]].concat(),
        )
    };
    let set = |offset: u32, size: u32, body: usize| {
        let header = [offset, size, 0].map(u32::to_ne_bytes).concat();
        message(
            Req::SET_CONFIG.into(),
            VERSION,
            &[header, vec![0; body]].concat(),
        )
    };
    let cases = vec![
        ("GET_CONFIG of more bytes than it carries", get(0, 200, 8)),
        ("GET_CONFIG of fewer", get(0, 4, 64)),
        ("GET_CONFIG of none", get(0, 0, 0)),
        ("GET_CONFIG of 2^32 - 1 bytes", get(0, u32::MAX, 8)),
        ("SET_CONFIG of more bytes than it carries", set(0, 200, 8)),
        ("SET_CONFIG of fewer", set(0, 4, 64)),
        ("SET_CONFIG of none", set(0, 0, 0)),
        ("SET_CONFIG beyond the end", set(4000, 8, 8)),
        ("SET_CONFIG at 2^32 - 1", set(u32::MAX, 8, 8)),
    ];
    try_each(
        trial,
        cases
            .into_iter()
            .map(|(what, bytes)| (what.to_owned(), bytes, Vec::new())),
    )
}
