// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a process left for its successor, which may be anything.

use vhost_user_backends::backend::fuzzing::{HostileState, Part, Successor};

use crate::bytes::Bytes;

const MAX_STEPS: usize = 100;
const MAX_VALUE: usize = 600;

/// Processes that go on with what others wrote.
///
/// # Panics
/// If a promise is broken.
pub fn kept_state(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (state, first) = HostileState::new().expect("descriptors");
    let mut process = Some(first);
    // Whether the log was written to behind the process's back.
    let mut disturbed = false;
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() {
            0..=79 => record(&mut bytes, process.as_ref()),
            80..=149 => {
                write(&mut bytes, &state);
                disturbed = true;
            }
            150..=164 => {
                let (reverse, with_descriptor) = (bytes.u8() > 240, bytes.u8() & 1 == 0);
                let packet = match bytes.u8() {
                    0..=199 => u64::from(bytes.u8()).to_le_bytes().to_vec(),
                    _ => bytes.some(20).to_vec(),
                };
                let sent = state.send(reverse, &packet, with_descriptor);
                sent.expect("descriptors");
            }
            165..=229 => {
                // The process dies, and another one goes on or begins nothing.
                drop(process.take());
                process = state.successor().expect("descriptors");
                disturbed = false;
                if let Some(process) = &process {
                    explore(&mut bytes, process);
                }
            }
            _ if disturbed => {}
            _ => check_next(&mut bytes, &state, &mut process),
        }
    }
}

/// A process records something.
fn record(bytes: &mut Bytes<'_>, process: Option<&Successor>) {
    let Some(process) = process else {
        return;
    };
    let device = bytes.u8() & 1 == 0;
    let table = bytes.mostly(&[0, 1, 2, 16, 17, 18, 19, 32, 48, 63]) as u16;
    let id = u64::from(bytes.mostly(&[0, 1, 2, 3]));
    match bytes.u8() {
        0..=99 => process.put(device, table, id, bytes.some(MAX_VALUE)),
        100..=149 => process.put_often(device, table, id, bytes.some(60)),
        150..=179 => process.remove(device, table, id),
        180..=189 => process.remove_table(device, table),
        // Enough to have the log written anew.
        190..=199 => (0..20).for_each(|n| process.put(device, table, id, &[n; 4096])),
        _ => process.commit(device),
    }
}

/// A process that a guest broke into writes something.
fn write(bytes: &mut Bytes<'_>, state: &HostileState) {
    let part = match bytes.u8() {
        0..=59 => Part::Header,
        60..=89 => Part::Slots,
        90..=99 => Part::Buffers,
        100..=119 => Part::Inbox,
        choice @ 120..=135 => Part::Cells {
            device: choice & 1 == 0,
        },
        136..=143 => Part::Lists,
        choice => Part::Log {
            device: choice & 1 == 0,
            second: choice & 6 == 0,
        },
    };
    let at = match bytes.u8() {
        0..=199 => u64::from(bytes.u8()) * 4,
        200..=249 => u64::from(bytes.u16()),
        _ => bytes.u64(),
    };
    let number;
    let written = match bytes.u8() {
        0..=99 => {
            let choices = [0, 1, 2, 8, 16, 24, 1 << 31, u32::MAX];
            number = bytes.mostly(&choices).to_le_bytes();
            &number[..]
        }
        _ => bytes.some(64),
    };
    state.write(part, at, written).expect("memory");
}

/// All that a successor reads.
fn explore(bytes: &mut Bytes<'_>, process: &Successor) {
    for device in [false, true] {
        let records = process.records(device);
        assert!(records.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }
    let _ = process.events();
    match bytes.u8() {
        0..=49 => {
            let (slot, sent) = (bytes.u8(), bytes.some(300));
            process.transfer(slot, sent).expect("descriptors");
        }
        50..=99 => {
            let count = bytes.u8();
            let extents: Vec<_> = (0..count % 8).map(|_| extent(bytes)).collect();
            match count {
                0..=127 => process.adopt(&extents),
                _ => process.adopt_lists(&extents),
            }
        }
        100..=149 => {
            let ids = [0, 1, 2, 3, bytes.u64()];
            process.take(&ids).expect("descriptors");
        }
        _ => {}
    }
}

fn extent(bytes: &mut Bytes<'_>) -> (u64, u32) {
    let offset = match bytes.u8() {
        0..=199 => u64::from(bytes.u8()) * 4096,
        _ => bytes.u64(),
    };
    (offset, bytes.mostly(&[0, 1, 4096, 5000, 1 << 20, 1 << 24]))
}

/// What a process records and makes valid, the next one reads.
fn check_next(bytes: &mut Bytes<'_>, state: &HostileState, process: &mut Option<Successor>) {
    let Some(before) = process.take() else {
        return;
    };
    before.settle();
    let device = bytes.u8() & 1 == 0;
    before.commit(device);
    let written = before.records(device);
    drop(before);
    *process = state.successor().expect("descriptors");
    if let Some(next) = &*process {
        assert_eq!(next.records(device), written);
    }
}
