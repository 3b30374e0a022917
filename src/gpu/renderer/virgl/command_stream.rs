//! What is looked at in a stream of virgl commands before the library executes it.

use crate::gpu::protocol::{Box3, Transfer3d};

/// `VIRGL_CCMD_*` that copy between a resource and memory. All begin with the same fields.
const RESOURCE_INLINE_WRITE: u32 = 9;
const TRANSFER3D: u32 = 43;
const COPY_TRANSFER3D: u32 = 45;

/// The transfers in a stream, each with the resource in whose pages the other side is, where it is in
/// any. Each command begins with a word that has its number in the lowest byte and the number of the
/// words behind it in the upper half.
pub(super) fn transfers(stream: &[u32]) -> impl Iterator<Item = (Transfer3d, Option<u32>)> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        while let Some((header, behind)) = rest.split_first() {
            let len = (header >> 16) as usize;
            let (fields, next) = behind.split_at_checked(len)?;
            rest = next;
            if [RESOURCE_INLINE_WRITE, TRANSFER3D, COPY_TRANSFER3D].contains(&(header & 0xff))
                && let Some(transfer) = transfer(fields)
            {
                let pages = match header & 0xff {
                    TRANSFER3D => Some(transfer.id),
                    COPY_TRANSFER3D => fields.get(11).copied(),
                    _ => None,
                };
                return Some((transfer, pages));
            }
        }
        None
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
        // The library adds it with 64 bits.
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
    fn transfers_are_found_among_other_commands() {
        let fields: Vec<u32> = (1..=11).collect();
        let mut stream = vec![7 | 2 << 16, TRANSFER3D, TRANSFER3D];
        stream.push(TRANSFER3D | 13 << 16);
        stream.extend(&fields);
        stream.extend([0, 1]);
        // Too short to be one.
        stream.extend([COPY_TRANSFER3D | 1 << 16, 5]);
        stream.push(RESOURCE_INLINE_WRITE | 0x300 | 11 << 16);
        stream.extend(&fields);
        let found: Vec<_> = transfers(&stream).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].1, Some(1));
        assert_eq!(found[1].1, None);
        for (transfer, _) in found {
            assert_eq!((transfer.id, transfer.level, transfer.stride), (1, 2, 4));
            assert_eq!((transfer.layer_stride, transfer.part.x), (5, 6));
            assert_eq!(transfer.part.depth, 11);
        }
        assert_eq!(transfers(&[TRANSFER3D | 11 << 16, 1]).count(), 0);
    }
}
