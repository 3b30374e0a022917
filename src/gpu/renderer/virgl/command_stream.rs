// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands in a virgl command stream (virglrenderer, virgl_protocol.h).

use crate::gpu::protocol::{Box3, Transfer3d};

/// `VIRGL_CCMD_*` that copy between a resource and memory. All begin with the same fields.
const RESOURCE_INLINE_WRITE: u32 = 9;
const TRANSFER3D: u32 = 43;
const COPY_TRANSFER3D: u32 = 45;

/// An undecoded command. In the stream, its first word is the header: the command in the lowest byte,
/// an object type in the next, and the number of the words that follow in the upper half.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawCommand<'a> {
    /// `VIRGL_CCMD_*`.
    pub(super) command: u32,
    /// `VIRGL_OBJECT_*`, for commands on objects.
    pub(super) object_type: u32,
    /// The words behind the header.
    pub(super) fields: &'a [u32],
}

/// The first command of a stream, and the stream behind it; `None` if the stream ends before its end.
fn split_first(stream: &[u32]) -> Option<(RawCommand<'_>, &[u32])> {
    let (header, behind) = stream.split_first()?;
    let (fields, rest) = behind.split_at_checked((header >> 16) as usize)?;
    let command = RawCommand {
        command: header & 0xff,
        object_type: header >> 8 & 0xff,
        fields,
    };
    Some((command, rest))
}

/// The commands of a stream. A last one that is cut off is left out.
pub(super) fn commands(stream: &[u32]) -> impl Iterator<Item = RawCommand<'_>> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        let (command, next) = split_first(rest)?;
        rest = next;
        Some(command)
    })
}

/// Whether the stream ends where its last command does.
pub(super) fn is_whole(stream: &[u32]) -> bool {
    let mut rest = stream;
    while let Some((_, next)) = split_first(rest) {
        rest = next;
    }
    rest.is_empty()
}

/// A transfer in a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamTransfer {
    pub(super) transfer: Transfer3d,
    /// The resource whose backing is the other side; `None` if the stream has the data.
    pub(super) backing: Option<u32>,
}

/// The transfers in a stream.
pub(super) fn transfers(stream: &[u32]) -> impl Iterator<Item = StreamTransfer> {
    commands(stream).filter_map(|raw| {
        let backing = match raw.command {
            RESOURCE_INLINE_WRITE => None,
            TRANSFER3D => raw.fields.first().copied(),
            COPY_TRANSFER3D => raw.fields.get(11).copied(),
            _ => return None,
        };
        let transfer = transfer(raw.fields)?;
        Some(StreamTransfer { transfer, backing })
    })
}

fn transfer(fields: &[u32]) -> Option<Transfer3d> {
    let (fields, _) = fields.split_first_chunk()?;
    let [
        id,
        level,
        _usage,
        stride,
        layer_stride,
        x,
        y,
        z,
        width,
        height,
        depth,
    ] = *fields;
    Some(Transfer3d {
        part: Box3 {
            x,
            y,
            z,
            width,
            height,
            depth,
        },
        // The library adds the offset with 64 bits.
        offset: 0,
        id,
        level,
        stride,
        layer_stride,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_end_with_a_command() {
        for whole in [&[][..], &[7], &[1 << 16, 0], &[0, 2 << 16, 9, 9, 5]] {
            assert!(is_whole(whole), "{whole:?}");
        }
        for cut in [&[1 << 16][..], &[0, 2 << 16, 9], &[u32::MAX; 9]] {
            assert!(!is_whole(cut), "{cut:?}");
        }
    }

    #[test]
    fn transfers_are_found_among_other_commands() {
        let fields: Vec<u32> = (1..=11).collect();
        let mut stream = vec![7 | 2 << 16, TRANSFER3D, TRANSFER3D];
        stream.push(TRANSFER3D | 13 << 16);
        stream.extend(&fields);
        stream.extend([0, 1]);
        // Too short.
        stream.extend([COPY_TRANSFER3D | 1 << 16, 5]);
        stream.push(RESOURCE_INLINE_WRITE | 0x300 | 11 << 16);
        stream.extend(&fields);
        let found: Vec<_> = transfers(&stream).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].backing, Some(1));
        assert_eq!(found[1].backing, None);
        for StreamTransfer { transfer, .. } in found {
            assert_eq!((transfer.id, transfer.level, transfer.stride), (1, 2, 4));
            assert_eq!((transfer.layer_stride, transfer.part.x), (5, 6));
            assert_eq!(transfer.part.depth, 11);
        }
        assert_eq!(transfers(&[TRANSFER3D | 11 << 16, 1]).count(), 0);
    }
}
