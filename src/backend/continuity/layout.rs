// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where what lies in the state memfd.
//!
//! ```text
//! header | cells of each ledger | I/O slots | buffers of the slots, a page each | inbox | lists | logs: two areas for each ledger
//! ```

pub(super) const PAGE: u64 = 4096;

/// `"VHUSTATE"`.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"VHUSTATE");
/// The one version of all that is kept: of the layout of this memory, of the ledgers, and of the tables and values of all
/// programs. Whoever changes how one of them is written raises it; a successor understands no other.
pub(super) const VERSION: u32 = 3;

// The header, by offset.
/// [`MAGIC`], 64 bits, written last.
pub(super) const AT_MAGIC: u64 = 0;
/// [`VERSION`], 32 bits.
pub(super) const AT_VERSION: u64 = 8;
/// Why no successor may go on, 0 if one may; 32 bits.
pub(super) const AT_ENDED: u64 = 12;
/// The tails of the ledgers, 64 bits each: what of a ledger is valid.
pub(super) const AT_TAILS: u64 = 32;
/// The program's name, padded with zeros.
pub(super) const AT_NAME: u64 = 64;
pub(super) const NAME_LEN: usize = 64;
/// Which work is under way, and how many processes died in it: 32 bits for each kind of work.
pub(super) const AT_WORKS: u64 = 128;
pub(super) const WORKS: u16 = 32;

pub(super) const LEDGERS: u64 = 2;

/// The cells of the ledgers, two copies of each. Each commit writes to them and to the tails, so they share a page.
pub(super) const AT_CELLS: u64 = 1024;
pub(super) const CELLS: usize = 12;
/// Bytes of a copy: a cache line of most processors.
pub(super) const CELL_LEN: u64 = 64;

/// The I/O slots.
pub(super) const AT_SLOTS: u64 = PAGE;
pub(super) const SLOT_LEN: u64 = 256;
pub(super) const SLOTS: u64 = 32;

/// A buffer for each slot.
pub(super) const AT_BUFFERS: u64 = AT_SLOTS + SLOTS * SLOT_LEN;
pub(super) const BUFFER_LEN: u64 = PAGE;

/// The inbox of evdev events.
pub(super) const AT_INBOX: u64 = AT_BUFFERS + SLOTS * BUFFER_LEN;
pub(super) const INBOX_LEN: u64 = 2 * PAGE;

/// The lists of the device. They take memory only where they were written. Its size is for 128 MiB in lists of 64 bytes to
/// 64 MiB, wherever the others lie (see `arena.rs`).
pub(super) const AT_LISTS: u64 = AT_INBOX + INBOX_LEN;
pub(super) const LISTS_LEN: u64 = 2 << 30;
/// Lists begin at multiples of this.
pub(super) const LIST_GRANULE: u64 = 64;
/// Memory of lists that is kept while it is free.
pub(super) const WARM_LISTS: u64 = 256 << 10;

/// The areas of the ledgers' logs. They take memory only where they are used.
pub(super) const AT_LOGS: u64 = AT_LISTS + LISTS_LEN;
pub(super) const AREA_LEN: u64 = 64 << 20;

pub(super) const LEN: u64 = AT_LOGS + LEDGERS * 2 * AREA_LEN;

const _: () = assert!(AT_SLOTS % PAGE == 0 && AT_BUFFERS % PAGE == 0);
const _: () = assert!(AT_LISTS % PAGE == 0 && AT_LOGS % PAGE == 0);
const _: () = assert!(AT_WORKS + WORKS as u64 * 4 <= AT_CELLS && AT_CELLS % CELL_LEN == 0);
const _: () = assert!(AT_TAILS + LEDGERS * 8 <= AT_NAME && AT_NAME + NAME_LEN as u64 <= AT_WORKS);
const _: () = assert!(cells(LEDGERS) <= PAGE);

/// The beginning of the cells of a ledger.
pub(super) const fn cells(ledger: u64) -> u64 {
    AT_CELLS + ledger * CELLS as u64 * 2 * CELL_LEN
}

/// The beginning of an area of a ledger.
pub(super) const fn area(ledger: u64, second: bool) -> u64 {
    AT_LOGS + (ledger * 2 + second as u64) * AREA_LEN
}
