// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits of what a VM may create with Venus.

/// Most contexts of a VM: each program that draws has one. The server has a thread or a process for each, and virglrenderer
/// here a thread and three descriptors.
pub(super) const MAX_CONTEXTS: usize = 128;
/// Most blobs in the host's memory. Each takes two descriptors.
pub(super) const MAX_HOST_BLOBS: usize = 4096;
/// Bytes charged for a blob besides its memory: its entries in tables, rounded up.
pub(super) const BLOB_COST: u64 = 1024;
/// Bytes charged for a context: a thread's stack, as far as it is used, and tables, rounded up.
pub(super) const CONTEXT_COST: u64 = 256 << 10;
/// Most timelines of a context.
pub(super) const MAX_RINGS: u8 = 64;
/// Descriptors that the process should be able to have: those of blobs and contexts, and its own.
pub(super) const DESCRIPTORS: u64 = 2 * MAX_HOST_BLOBS as u64 + 4 * MAX_CONTEXTS as u64 + 512;
