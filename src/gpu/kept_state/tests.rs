// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fmt::Debug;

use super::*;
use crate::backend::continuity::Owner;
use crate::backend::continuity::value::testing::assert_version;
use crate::backend::testing::kept_state::KeptState as Processes;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{DisplayInfo, Format, FramebufferLayout};

fn encode<R: Record>(record: &R) -> Vec<u8> {
    let mut writer = ValueWriter::default();
    record.encode(&mut writer);
    writer.as_bytes().to_vec()
}

fn decode<R: Record>(value: &[u8]) -> Result<R, RecordError> {
    value::read(value, R::decode)
}

/// A record survives, and no other bytes of its kind do harm: what is read is written in the same way.
fn check<R: Record + PartialEq + Debug>(all: &mut Vec<u8>, record: &R) {
    let value = encode(record);
    all.extend(&value);
    assert_eq!(decode::<R>(&value).as_ref(), Ok(record));
    for len in 0..value.len() {
        if let Ok(other) = decode::<R>(&value[..len]) {
            assert_eq!(encode(&other), value[..len], "{len} bytes of {record:?}");
        }
    }
    let mut longer = value.clone();
    longer.push(0);
    assert_ne!(decode::<R>(&longer).as_ref(), Ok(record));
    for at in 0..value.len() {
        for bit in 0..8 {
            let mut changed = value.clone();
            changed[at] ^= 1 << bit;
            if let Ok(other) = decode::<R>(&changed) {
                assert_ne!(&other, record, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn records_are_read_as_they_were_written() {
    let mut all = Vec::new();
    let rect = Rect {
        x: 1,
        y: u32::MAX,
        width: 640,
        height: 480,
    };
    check(&mut all, &DriverRecord::default());
    check(
        &mut all,
        &DriverRecord {
            events: 1,
            control_stopped: true,
            position: 65535,
            cursor_runs: true,
            config_was_read: true,
            reset_pending: true,
        },
    );
    let mut modes = DisplayInfo::default();
    check(&mut all, &SizesRecord { modes, read: None });
    modes.0[15].rect = rect;
    modes.0[15].flags = 7;
    let read = Some(DisplayInfo::default());
    check(&mut all, &SizesRecord { modes, read });
    for uuid in [None, Some([9; 16])] {
        for format in Format::ALL {
            check(
                &mut all,
                &ResourceRecord {
                    format,
                    size: Size::new(16384, 1),
                    offset: u64::MAX,
                    uuid,
                },
            );
        }
        let len = u64::MAX;
        check(&mut all, &BlobRecord { len, uuid });
    }
    check(
        &mut all,
        &BackingRecord {
            place: 64,
            runs: 3,
            len: u64::MAX,
        },
    );
    for framebuffer in [
        None,
        Some(FramebufferLayout {
            format: Format::X8B8G8R8,
            size: Size::new(1, 16384),
            stride: u32::MAX,
            offset: 3,
        }),
    ] {
        check(
            &mut all,
            &ScanoutRecord {
                resource: 1,
                rect,
                framebuffer,
                is_flushed: true,
            },
        );
    }
    check(
        &mut all,
        &CursorPositionRecord {
            x: 1,
            y: 2,
            visible: false,
        },
    );
    check(
        &mut all,
        &CursorShapeRecord {
            hot_x: 3,
            hot_y: 4,
            offset: 5 << 12,
        },
    );
    let mut display = DisplayRecord::default();
    check(&mut all, &display);
    display.cursors[3] = true;
    display.scanouts[15] = SentScanout::Pixels(Size::new(3, 4));
    check(&mut all, &display);
    assert_version(&all, (3, 0x0717_5971_cf26_4d6a));
}

#[test]
fn tables_are_apart_and_errors_say_which_record_it_is() {
    let mut processes = Processes::new().unwrap();
    let ledger = processes.next_process().unwrap().ledger(Owner::Device);
    let state = KeptState::new(ledger.clone(), None);
    assert!(state.is_kept() && !KeptState::default().is_kept());
    let position = |x| CursorPositionRecord {
        x,
        y: 0,
        visible: true,
    };
    state.put(3, &position(30));
    state.put(1, &position(10));
    let backing = BackingRecord {
        place: 0,
        runs: 0,
        len: 0,
    };
    state.put(1, &backing);
    state.clear::<BackingRecord>();
    assert_eq!(state.all().unwrap(), [(1, position(10)), (3, position(30))]);
    state.remove::<CursorPositionRecord>(3);
    assert_eq!(state.get::<CursorPositionRecord>(3).unwrap(), None);
    assert_eq!(state.get(1).unwrap(), Some(position(10)));
    let put = |id, value: &[u8]| ledger.put(RecordKey::new(CursorPositionRecord::TABLE, id), value);
    put(1 << 32, &encode(&position(1)));
    let error = state.all::<CursorPositionRecord>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kept position of cursor 4294967296 cannot be used: its id is out of bounds"
    );
    put(1, &[2, 0]);
    let error = state.get::<CursorPositionRecord>(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kept position of cursor 1 cannot be used: it is too short"
    );
}
