// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Headers, responses and modes as bytes.

use super::display_info::{DisplayMode, MODES_LEN};
use super::response::decode_edid;
use super::*;
use crate::geometry::{Rect, Size};

const REQUEST: Header = Header {
    kind: command::RESOURCE_FLUSH,
    flags: 1,
    fence_id: 0x0102_0304_0506_0708,
    ctx_id: 9,
    ring_idx: 3,
};

fn header(bytes: &[u8]) -> Header {
    RequestReader::new(bytes).header().unwrap()
}

#[test]
fn headers_are_read_as_they_are_written() {
    let mut bytes = Vec::new();
    REQUEST.append_to(&mut bytes);
    assert_eq!(bytes.len(), HEADER_LEN);
    assert_eq!(header(&bytes), REQUEST);
}

#[test]
fn fences_are_returned_only_to_fenced_requests() {
    let fenced = Response::OkNoData.encode(&REQUEST);
    assert_eq!(
        header(&fenced),
        Header {
            kind: response::OK_NODATA,
            ..REQUEST
        }
    );
    let unfenced = Response::OkNoData.encode(&Header {
        flags: 0,
        ..REQUEST
    });
    let header = header(&unfenced);
    assert_eq!((header.flags, header.fence_id, header.ctx_id), (0, 0, 0));
}

#[test]
fn unknown_flags_are_not_returned() {
    let request = Header {
        flags: u32::MAX,
        ..REQUEST
    };
    let bytes = Response::OkNoData.encode(&request);
    assert_eq!(header(&bytes).flags, 3);
}

#[test]
fn modes_are_read_as_they_are_written() {
    let mut modes = DisplayInfo::default();
    modes.0[15] = DisplayMode {
        rect: Rect {
            x: 1,
            y: 2,
            width: 3,
            height: 4,
        },
        enabled: true,
        flags: 5,
    };
    let bytes = Response::DisplayInfo(Box::new(modes)).encode(&REQUEST);
    assert_eq!(bytes.len(), HEADER_LEN + MODES_LEN);
    assert_eq!(DisplayInfo::decode_response(&bytes).unwrap(), modes);
    assert!(DisplayInfo::decode_response(&bytes[1..]).is_err());
}

#[test]
fn edid_responses_have_their_full_length() {
    let bytes = Response::Edid(vec![7; 128]).encode(&REQUEST);
    assert_eq!(bytes.len(), HEADER_LEN + 8 + MAX_EDID_LEN);
    assert_eq!(bytes[HEADER_LEN..HEADER_LEN + 4], 128_u32.to_le_bytes());
    assert_eq!(bytes[HEADER_LEN + 8 + 127], 7);
    assert_eq!(bytes[HEADER_LEN + 8 + 128], 0);
    let long = Response::Edid(vec![7; 5000]).encode(&REQUEST);
    assert_eq!(long.len(), bytes.len());
}

#[test]
fn edids_are_read_as_they_are_written() {
    let bytes = Response::Edid(vec![7; 128]).encode(&REQUEST);
    assert_eq!(decode_edid(&bytes).unwrap(), Some(vec![7; 128]));
    assert!(decode_edid(&bytes[1..]).is_err());
    let error = Response::Error(ErrorCode::Unspec).encode(&REQUEST);
    let error = [&error[..], &bytes[HEADER_LEN..]].concat();
    assert_eq!(decode_edid(&error).unwrap(), None);
    for size in [0, MAX_EDID_LEN as u32 + 1, u32::MAX] {
        let mut bytes = bytes.to_vec();
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&size.to_le_bytes());
        assert_eq!(decode_edid(&bytes).unwrap(), None);
    }
}

#[test]
fn map_responses_say_how_to_cache() {
    let bytes = Response::MapInfo(2).encode(&REQUEST);
    assert_eq!(header(&bytes).kind, response::OK_MAP_INFO);
    assert_eq!(bytes[HEADER_LEN..], [2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn responses_that_do_not_fit_become_errors() {
    let encode = || Response::Edid(vec![7; 128]).encode(&REQUEST);
    let whole = encode().to_vec();
    assert_eq!(encode().fit(whole.len()), whole);
    for room in [HEADER_LEN, HEADER_LEN + 1, whole.len() - 1] {
        let mut response = encode();
        let bytes = response.fit(room);
        assert_eq!(bytes.len(), HEADER_LEN);
        let kind = response::ERR_UNSPEC;
        assert_eq!(header(bytes), Header { kind, ..REQUEST });
    }
    for room in [0, 1, HEADER_LEN - 1] {
        assert!(encode().fit(room).is_empty());
    }
}

/// A request on context 9; `words` follow its header.
fn request(kind: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { kind, ..REQUEST }.append_to(&mut bytes);
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

const ALL: NegotiatedFeatures = NegotiatedFeatures {
    virgl: true,
    blob: true,
    context_init: true,
};

fn decode(kind: u32, words: &[u32]) -> Result<Command, DecodeError> {
    let bytes = request(kind, words);
    let request = Command::decode(&mut RequestReader::new(&bytes[..]), ALL);
    assert_eq!(request.header, Header { kind, ..REQUEST });
    request.command
}

fn decode_cursor(kind: u32, words: &[u32]) -> Result<CursorCommand, DecodeError> {
    let bytes = request(kind, words);
    CursorCommand::decode(&mut RequestReader::new(&bytes[..])).command
}

#[test]
fn commands_have_their_fields_in_the_order_of_the_specification() {
    let rect = Rect {
        x: 1,
        y: 2,
        width: 3,
        height: 4,
    };
    let commands = [
        (command::GET_DISPLAY_INFO, Command::GetDisplayInfo),
        (command::GET_EDID, Command::GetEdid { scanout: 1 }),
        (
            command::RESOURCE_CREATE_2D,
            Command::ResourceCreate2d(ResourceCreate2d {
                id: 1,
                format: Format::B8G8R8X8,
                size: Size::new(3, 4),
            }),
        ),
        (
            command::RESOURCE_UNREF,
            Command::ResourceUnref { resource: 1 },
        ),
        (
            command::SET_SCANOUT,
            Command::SetScanout(SetScanout {
                rect,
                scanout: 5,
                resource: 6,
            }),
        ),
        (
            command::RESOURCE_FLUSH,
            Command::ResourceFlush(ResourceFlush { rect, resource: 5 }),
        ),
        (
            command::TRANSFER_TO_HOST_2D,
            Command::TransferToHost2d(Transfer2d {
                rect,
                offset: 6 << 32 | 5,
                id: 7,
            }),
        ),
        (
            command::RESOURCE_ATTACH_BACKING,
            Command::ResourceAttachBacking(ResourceAttachBacking {
                resource: 1,
                count: 2,
            }),
        ),
        (
            command::RESOURCE_DETACH_BACKING,
            Command::ResourceDetachBacking { resource: 1 },
        ),
        (
            command::RESOURCE_ASSIGN_UUID,
            Command::ResourceAssignUuid { resource: 1 },
        ),
        (
            command::RESOURCE_CREATE_BLOB,
            Command::ResourceCreateBlob(ResourceCreateBlob {
                id: 1,
                memory: BlobMemory::Host3d,
                count: 4,
                len: 8 << 32 | 7,
                flags: 3,
                context: REQUEST.ctx_id,
                blob_id: 6 << 32 | 5,
            }),
        ),
        (
            command::RESOURCE_MAP_BLOB,
            Command::ResourceMapBlob(ResourceMapBlob {
                resource: 1,
                offset: 4 << 32 | 3,
            }),
        ),
        (
            command::RESOURCE_UNMAP_BLOB,
            Command::ResourceUnmapBlob { resource: 1 },
        ),
        (
            command::GET_CAPSET_INFO,
            Command::GetCapsetInfo { index: 1 },
        ),
        (
            command::GET_CAPSET,
            Command::GetCapset { id: 1, version: 2 },
        ),
        (command::CTX_DESTROY, Command::CtxDestroy { context: 9 }),
        (
            command::CTX_ATTACH_RESOURCE,
            Command::CtxAttachResource {
                context: 9,
                resource: 1,
            },
        ),
        (
            command::CTX_DETACH_RESOURCE,
            Command::CtxDetachResource {
                context: 9,
                resource: 1,
            },
        ),
        (
            command::SUBMIT_3D,
            Command::Submit3d(Submit3d {
                context: 9,
                size: 1,
            }),
        ),
    ];
    let words: Vec<u32> = (1..=18).collect();
    for (kind, expected) in commands {
        assert_eq!(decode(kind, &words), Ok(expected));
    }
    let cursor = UpdateCursor {
        scanout: 1,
        x: 2,
        y: 3,
        resource: 5,
        hot_x: 6,
        hot_y: 7,
    };
    let update = decode_cursor(command::UPDATE_CURSOR, &words).unwrap();
    assert_eq!(update, CursorCommand::Update(cursor));
    assert!(update.reads_pixels());
    let moved = decode_cursor(command::MOVE_CURSOR, &words).unwrap();
    assert_eq!(moved, CursorCommand::Move(cursor));
    assert!(!moved.reads_pixels());
    let hidden = decode_cursor(command::UPDATE_CURSOR, &[0; 8]).unwrap();
    assert!(!hidden.reads_pixels());
}

#[test]
fn context_names_have_at_most_64_bytes() {
    let mut words = [0x6161_6161; 18];
    for (len, expected) in [(0, 0), (5, 5), (64, 64)] {
        words[0] = len;
        let Ok(Command::CtxCreate(new)) = decode(command::CTX_CREATE, &words) else {
            panic!("a name of {len} bytes is refused");
        };
        assert_eq!((new.id, new.name.as_bytes()), (9, &[0x61; 64][..expected]));
    }
    for len in [65, u32::MAX] {
        words[0] = len;
        let error = DecodeError::ContextName(len);
        assert_eq!(decode(command::CTX_CREATE, &words), Err(error));
    }
}

#[test]
fn scanouts_and_formats_exist() {
    for (id, expected) in [(15, true), (16, false), (u32::MAX, false)] {
        let error = DecodeError::ScanoutId(id);
        let mut words = [0; 8];
        words[0] = id;
        let edid = decode(command::GET_EDID, &words);
        assert_eq!(edid.is_ok(), expected);
        assert!(expected || edid == Err(error));
        for kind in [command::UPDATE_CURSOR, command::MOVE_CURSOR] {
            let cursor = decode_cursor(kind, &words);
            assert_eq!(cursor.is_ok(), expected);
            assert!(expected || cursor == Err(error));
        }
        let mut words = [0; 8];
        words[4] = id;
        let set = decode(command::SET_SCANOUT, &words);
        assert_eq!(set.is_ok(), expected);
        assert!(expected || set == Err(error));
    }
    let created = decode(command::RESOURCE_CREATE_2D, &[1, 5, 1, 1]);
    assert_eq!(created, Err(DecodeError::Format(5)));
}

#[test]
fn each_queue_has_its_own_commands() {
    let unknown = DecodeError::UnknownCommand;
    let words = [0; 18];
    for kind in [0, 0x10e, 0x1ff, 0x20a, 0x1100, u32::MAX] {
        assert_eq!(decode(kind, &words), Err(unknown), "{kind:#x}");
        assert_eq!(decode_cursor(kind, &words), Err(unknown), "{kind:#x}");
    }
    for kind in [command::UPDATE_CURSOR, command::MOVE_CURSOR] {
        assert_eq!(decode(kind, &words), Err(unknown));
    }
    for kind in [command::RESOURCE_FLUSH, command::SUBMIT_3D] {
        assert_eq!(decode_cursor(kind, &words), Err(unknown));
    }
}

#[test]
fn framebuffers_in_blobs_have_their_fields_in_the_order_of_the_specification() {
    let mut words = [
        1, 2, 3, 4, 5, 6, 7, 8, 134, 10, 11, 12, 13, 14, 15, 16, 17, 18,
    ];
    let set = |words: &[u32]| decode(command::SET_SCANOUT_BLOB, words);
    let rect = Rect {
        x: 1,
        y: 2,
        width: 3,
        height: 4,
    };
    let expected = SetScanoutBlob {
        rect,
        scanout: 5,
        resource: 6,
        layout: FramebufferLayout {
            format: Format::R8G8B8X8,
            size: Size::new(7, 8),
            stride: 11,
            offset: 15,
        },
    };
    assert_eq!(set(&words), Ok(Command::SetScanoutBlob(expected)));
    assert_eq!(set(&words[..17]), Err(ReadError::TooShort.into()));
    words[4] = 16;
    assert_eq!(set(&words), Err(DecodeError::ScanoutId(16)));
    words[4] = 15;
    words[8] = 5;
    assert_eq!(set(&words), Err(DecodeError::Format(5)));
    words[5] = 0;
    let disabled = SetScanout {
        rect,
        scanout: 15,
        resource: 0,
    };
    assert_eq!(set(&words), Ok(Command::SetScanout(disabled)));
}

#[test]
fn blobs_have_the_memory_and_flags_of_the_specification() {
    let create = |memory, flags| {
        let words = [1, memory, flags, 0, 0, 0, 4096, 0];
        decode(command::RESOURCE_CREATE_BLOB, &words)
    };
    for memory in 1..=3 {
        assert!(create(memory, 7).is_ok());
    }
    for memory in [0, 4, u32::MAX] {
        assert_eq!(create(memory, 0), Err(DecodeError::BlobMemory(memory)));
    }
    for flags in [8, u32::MAX] {
        assert_eq!(create(1, flags), Err(DecodeError::BlobFlags(flags)));
    }
    let short = decode(command::RESOURCE_CREATE_BLOB, &[1, 1, 0, 0, 0, 0, 4096]);
    assert_eq!(short, Err(ReadError::TooShort.into()));
}

#[test]
fn commands_on_blobs_need_the_feature() {
    for kind in [
        command::RESOURCE_CREATE_BLOB,
        command::SET_SCANOUT_BLOB,
        command::RESOURCE_MAP_BLOB,
        command::RESOURCE_UNMAP_BLOB,
    ] {
        for len in [0, 18] {
            let bytes = request(kind, &[0; 18][..len]);
            let mut reader = RequestReader::new(&bytes[..]);
            let request = Command::decode(&mut reader, NegotiatedFeatures::default());
            let refused = DecodeError::NotNegotiated("VIRTIO_GPU_F_RESOURCE_BLOB");
            assert_eq!(request.command, Err(refused));
        }
    }
}

/// Whatever follows their header: a driver without the feature has no such commands.
#[test]
fn commands_of_3d_need_the_feature() {
    for kind in command::CTX_CREATE..=command::SUBMIT_3D {
        for len in [0, 18] {
            let bytes = request(kind, &[0; 18][..len]);
            let mut reader = RequestReader::new(&bytes[..]);
            let request = Command::decode(&mut reader, NegotiatedFeatures::default());
            let refused = DecodeError::NotNegotiated("VIRTIO_GPU_F_VIRGL");
            assert_eq!(request.command, Err(refused));
        }
        let short = decode(kind, &[]);
        let whole = kind == command::CTX_DESTROY;
        assert_eq!(short.is_ok(), whole, "{kind:#x}");
        assert!(whole || short == Err(ReadError::TooShort.into()));
    }
}

#[test]
fn requests_without_a_header_have_no_command() {
    let bytes = request(command::GET_DISPLAY_INFO, &[]);
    for len in 0..HEADER_LEN {
        let mut reader = RequestReader::new(&bytes[..len]);
        let request = Command::decode(&mut reader, ALL);
        assert_eq!(request.header, Header::default());
        assert_eq!(request.command, Err(ReadError::TooShort.into()));
    }
}

#[test]
fn commands_are_named_as_in_the_specification() {
    let name = |kind| command::CommandName(kind).to_string();
    assert_eq!(name(command::RESOURCE_FLUSH), "RESOURCE_FLUSH");
    assert_eq!(name(command::MOVE_CURSOR), "MOVE_CURSOR");
    assert_eq!(name(command::SET_SCANOUT_BLOB), "SET_SCANOUT_BLOB");
    assert_eq!(name(0x10e), "command 0x010e");
}
