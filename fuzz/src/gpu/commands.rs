// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of a driver: mostly right, of resources that may exist, with any field wrong now and then.

use std::collections::BTreeSet;
use std::ops::Range;

use vhost_user_backends::gpu::fuzzing::command::*;
use vhost_user_backends::gpu::fuzzing::fake_virglrenderer;

use crate::bytes::Bytes;

/// One field of a command.
#[derive(Clone, Copy)]
enum Field {
    Id,
    Coordinate,
    Size,
    Format,
    Scanout,
    Small,
    Offset,
    Stride,
    Bind,
    /// Whose memory a blob is.
    BlobMemory,
    /// The same, of blobs that are mostly of the host's.
    HostMemory,
    BlobFlags,
    BlobLength,
    /// Venus's capability set, or another.
    Capset,
    Zero,
}

use Field as F;

const RECT: [Field; 4] = [F::Coordinate, F::Coordinate, F::Size, F::Size];

/// The commands of a 2D driver, and a few that are none.
const COMMANDS_2D: [(u32, &[Field]); 18] = [
    (GET_DISPLAY_INFO, &[]),
    (GET_EDID, &[F::Scanout, F::Zero]),
    (RESOURCE_CREATE_2D, &[F::Id, F::Format, F::Size, F::Size]),
    (RESOURCE_CREATE_2D, &[F::Id, F::Format, F::Size, F::Size]),
    (RESOURCE_UNREF, &[F::Id, F::Zero]),
    (
        SET_SCANOUT,
        &[RECT[0], RECT[1], RECT[2], RECT[3], F::Scanout, F::Id],
    ),
    (
        RESOURCE_FLUSH,
        &[RECT[0], RECT[1], RECT[2], RECT[3], F::Id, F::Zero],
    ),
    (
        RESOURCE_FLUSH,
        &[RECT[0], RECT[1], RECT[2], RECT[3], F::Id, F::Zero],
    ),
    (
        TRANSFER_TO_HOST_2D,
        &[
            RECT[0],
            RECT[1],
            RECT[2],
            RECT[3],
            F::Offset,
            F::Zero,
            F::Id,
            F::Zero,
        ],
    ),
    (RESOURCE_ATTACH_BACKING, &[F::Id]),
    (RESOURCE_DETACH_BACKING, &[F::Id, F::Zero]),
    (RESOURCE_ASSIGN_UUID, &[F::Id, F::Zero]),
    (GET_CAPSET_INFO, &[F::Small, F::Zero]),
    (GET_CAPSET, &[F::Small, F::Small]),
    (0, &[F::Id, F::Small]),
    (RESOURCE_CREATE_BLOB, &[F::Id, F::BlobMemory, F::BlobFlags]),
    (SET_SCANOUT_BLOB, SCANOUT_BLOB),
    (SET_SCANOUT_BLOB, SCANOUT_BLOB),
];

const SCANOUT_BLOB: &[Field] = &[
    RECT[0],
    RECT[1],
    RECT[2],
    RECT[3],
    F::Scanout,
    F::Id,
    F::Size,
    F::Size,
    F::Format,
    F::Zero,
    F::Stride,
    F::Zero,
    F::Zero,
    F::Zero,
    F::Offset,
    F::Zero,
    F::Zero,
    F::Zero,
];

/// What a 3D driver has besides.
const COMMANDS_3D: [(u32, &[Field]); 10] = [
    (CTX_CREATE, &[F::Small, F::Zero]),
    (CTX_DESTROY, &[]),
    (CTX_ATTACH_RESOURCE, &[F::Id, F::Zero]),
    (CTX_DETACH_RESOURCE, &[F::Id, F::Zero]),
    (
        RESOURCE_CREATE_3D,
        &[
            F::Id,
            F::Small,
            F::Format,
            F::Bind,
            F::Size,
            F::Size,
            F::Small,
            F::Small,
            F::Small,
            F::Small,
            F::Small,
        ],
    ),
    (TRANSFER_TO_HOST_3D, TRANSFER),
    (TRANSFER_FROM_HOST_3D, TRANSFER),
    (SUBMIT_3D, &[]),
    (SUBMIT_3D, &[]),
    (RESOURCE_ATTACH_BACKING, &[F::Id]),
];

/// The commands of a driver with Venus, beside those of 2D.
const COMMANDS_VENUS: [(u32, &[Field]); 12] = [
    (CTX_CREATE, &[F::Zero, F::Capset]),
    (CTX_CREATE, &[F::Zero, F::Capset]),
    (CTX_DESTROY, &[]),
    (CTX_ATTACH_RESOURCE, &[F::Id, F::Zero]),
    (CTX_DETACH_RESOURCE, &[F::Id, F::Zero]),
    (RESOURCE_CREATE_BLOB, &[F::Id, F::HostMemory, F::BlobFlags]),
    (RESOURCE_CREATE_BLOB, &[F::Id, F::HostMemory, F::BlobFlags]),
    (RESOURCE_MAP_BLOB, &[F::Id, F::Zero, F::Offset, F::Zero]),
    (RESOURCE_UNMAP_BLOB, &[F::Id, F::Zero]),
    (SET_SCANOUT_BLOB, SCANOUT_BLOB),
    (SUBMIT_3D, &[]),
    (SUBMIT_3D, &[]),
];

const TRANSFER: &[Field] = &[
    F::Coordinate,
    F::Coordinate,
    F::Coordinate,
    F::Size,
    F::Size,
    F::Small,
    F::Offset,
    F::Zero,
    F::Id,
    F::Small,
    F::Stride,
    F::Stride,
];

fn field(field: Field, ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> u32 {
    match field {
        F::Id => {
            let id = bytes.mostly(&[1, 2, 3, 4, 5, 0]);
            if ids.len() < 64 {
                ids.insert(id);
            }
            id
        }
        F::Coordinate => bytes.mostly(&[0, 0, 1, 7, 16, 63, 64]),
        F::Size => bytes.mostly(&[64, 16, 1, 8, 0, 65, 33, 300, 16384]),
        F::Format => bytes.mostly(&[2, 1, 3, 4, 67, 68, 121, 134, 0, 64, 177]),
        F::Scanout => bytes.mostly(&[0, 1, 15, 2, 16]),
        F::Small => bytes.mostly(&[1, 2, 0, 3, 4, 5, 6, 13]),
        F::Offset => bytes.mostly(&[0, 4, 256, 1024, 4096]),
        F::Stride => bytes.mostly(&[0, 0, 4, 64, 256, 4096, 1 << 27]),
        F::Bind => bytes.mostly(&[2, 8, 0, fake_virglrenderer::REFUSED_BIND]),
        F::BlobMemory => bytes.mostly(&[1, 1, 1, 1, 2, 3, 0]),
        F::HostMemory => bytes.mostly(&[2, 2, 2, 2, 1, 3, 0]),
        F::BlobFlags => bytes.mostly(&[2, 0, 1, 7, 8]),
        F::BlobLength => bytes.mostly(&[16384, 4096, 0x1_0000, 1, 0, 0x4000_0000]),
        F::Capset => bytes.mostly(&[4, 4, 4, 4, 0, 2, 0x104]),
        F::Zero => 0,
    }
}

/// Flags, the two halves of the fence's id, context and ring.
fn header(bytes: &mut Bytes<'_>) -> [u32; 5] {
    let flags = bytes.mostly(&[0, 1, 0, 3]);
    let fence = if flags == 0 { 0 } else { bytes.u8().into() };
    [flags, fence, 0, bytes.mostly(&[1, 2, 3, 0]), 0]
}

/// A command of type `kind`: its header and the words of its body.
pub(super) fn request(kind: u32, header: [u32; 5], words: &[u32]) -> Vec<u8> {
    let mut request = kind.to_le_bytes().to_vec();
    let words = header.iter().chain(words);
    request.extend(words.flat_map(|word| word.to_le_bytes()));
    request
}

/// A command of a 2D driver.
pub(super) fn command_2d(ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (kind, fields) = bytes.of(&COMMANDS_2D);
    let kind = if kind == 0 { bytes.u32() } else { kind };
    command(kind, fields, ids, bytes)
}

/// A command of a 3D driver.
pub(super) fn command_3d(ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (kind, fields) = bytes.of(&COMMANDS_3D);
    let mut request = command(kind, fields, ids, bytes);
    if kind == CTX_CREATE {
        request.extend([b'x'; 64]);
    } else if kind == SUBMIT_3D {
        let stream = stream(ids, bytes);
        let len = match bytes.u8() {
            0..=239 => stream.len() as u32 * 4,
            _ => bytes.u32(),
        };
        request.extend(len.to_le_bytes());
        request.extend([0; 4]);
        request.extend(stream.into_iter().flat_map(u32::to_le_bytes));
    }
    request
}

/// A command of a driver with Venus.
pub(super) fn command_venus(ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (kind, fields) = bytes.of(&COMMANDS_VENUS);
    let mut header = header(bytes);
    let [flags, _, _, _, ring] = &mut header;
    if *flags & 2 != 0 {
        *ring = bytes.mostly(&[0, 1, 2, 63, 64, 255]);
    }
    let mut words: Vec<u32> = fields.iter().map(|f| field(*f, ids, bytes)).collect();
    match kind {
        CTX_CREATE => words.extend([0; 16]),
        RESOURCE_CREATE_BLOB => {
            // No entries, the context's name for the memory, and its length.
            words.extend([0, bytes.mostly(&[0, 1, 2, 3, 4, 5]), 0]);
            words.extend([field(F::BlobLength, ids, bytes), 0]);
        }
        SUBMIT_3D => {
            let stream: Vec<u32> = (0..bytes.u8() % 8)
                .map(|_| bytes.mostly(&[1, 2, 0xbad]))
                .collect();
            words.extend([stream.len() as u32 * 4, 0]);
            words.extend(stream);
        }
        _ => {}
    }
    request(kind, header, &words)
}

fn command(kind: u32, fields: &[Field], ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let header = header(bytes);
    let mut words: Vec<u32> = fields.iter().map(|f| field(*f, ids, bytes)).collect();
    if kind == RESOURCE_ATTACH_BACKING {
        let backing = entries(bytes);
        words.extend(backing);
    } else if kind == RESOURCE_CREATE_BLOB {
        let backing = entries(bytes);
        words.extend(backing.first());
        words.extend([0, 0, field(F::BlobLength, ids, bytes), 0]);
        words.extend(backing.iter().skip(1));
    }
    request(kind, header, &words)
}

/// A backing: how many pieces it says that it has, and these, of the guest's memory and of what is none.
fn entries(bytes: &mut Bytes<'_>) -> Vec<u32> {
    let count = bytes.u8() % 20;
    let mut words = vec![match bytes.u8() {
        0..=239 => count.into(),
        _ => bytes.u32(),
    }];
    for _ in 0..count {
        let at = bytes.mostly(&[0x9000, 0xa000, 0x8ff8, 0xfff0, 0x2_0000, 0x2_3ff0, 0x1_1000]);
        let len = bytes.mostly(&[4096, 1024, 16384, 16, 0, 7, 1]);
        words.extend([at, 0, len, 0]);
    }
    words
}

/// The ranges of the backing that `request` attaches, if that is what it does.
pub(super) fn backing_of(request: &[u8]) -> Vec<Range<u64>> {
    if !request.starts_with(&RESOURCE_ATTACH_BACKING.to_le_bytes()) {
        return Vec::new();
    }
    let entries = request.get(32..).unwrap_or_default();
    entries
        .chunks_exact(16)
        .map(|entry| {
            let [at, len] = [&entry[..8], &entry[8..12]].map(|field| {
                let mut bytes = [0; 8];
                bytes[..field.len()].copy_from_slice(field);
                u64::from_le_bytes(bytes)
            });
            at..at.saturating_add(len)
        })
        .collect()
}

/// A command stream: whole commands, transfers among them, and perhaps something at its end.
fn stream(ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u32> {
    let mut stream = Vec::new();
    for _ in 0..bytes.u8() % 12 {
        let kind = match bytes.mostly(&[9, 43, 45, 1, 7, 50]) {
            // Views, surfaces, queries, targets, shaders, and what holds nothing.
            1 => 1 | bytes.mostly(&[6, 8, 9, 10, 4, 11, 1]) << 8,
            // What binds and destroys, contexts in a context, and what does not exist.
            50 => bytes.mostly(&[
                3, 5, 6, 10, 11, 25, 27, 28, 29, 30, 34, 35, 40, 48, 50, 53, 55, 100,
            ]),
            other => other,
        };
        let count = match kind {
            9 | 43 | 45 => bytes.mostly(&[13, 13, 11, 12, 10, 0]),
            _ => u32::from(bytes.u8() % 24),
        };
        // As many words as there are, whatever it says.
        let fields = [
            F::Id,
            F::Small,
            F::Zero,
            F::Stride,
            F::Stride,
            F::Coordinate,
            F::Coordinate,
            F::Coordinate,
            F::Size,
            F::Size,
            F::Small,
            F::Offset,
            F::Small,
        ];
        stream.push(kind & 0xffff | count << 16);
        let fields = fields
            .into_iter()
            .cycle()
            .take((count & 0xffff).min(24) as usize);
        stream.extend(fields.map(|f| field(f, ids, bytes)));
    }
    for _ in 0..bytes.u8() % 4 {
        stream.push(bytes.u32());
    }
    stream
}

/// A command of the cursor queue, mostly.
pub(super) fn cursor_command(ids: &mut BTreeSet<u32>, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let kind = bytes.mostly(&[UPDATE_CURSOR, MOVE_CURSOR, UPDATE_CURSOR, RESOURCE_FLUSH]);
    let fields = [
        F::Scanout,
        F::Coordinate,
        F::Coordinate,
        F::Zero,
        F::Id,
        F::Coordinate,
        F::Coordinate,
        F::Zero,
    ];
    command(kind, &fields, ids, bytes)
}
