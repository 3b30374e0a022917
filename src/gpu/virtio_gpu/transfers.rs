// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that may take long: attaching a backing, and copying from it (virtio 1.2, 5.7.6.8). They
//! are executed in parts of about [`MAX_STEP_WORK`] each, and other events have their turn in between.

use super::CommandError;
use crate::backend::MemoryGuard;
use crate::gpu::protocol::{
    MemEntryBuffer, RequestBytes, RequestReader, ResourceAttachBacking, ResourceCreateBlob,
    Transfer2d,
};
use crate::gpu::region::Region;
use crate::gpu::renderer::{ENTRY_COST, MAX_STEP_WORK, Renderer};
use crate::gpu::resource::{Backing, ResourceError};
use crate::gpu::scanout::Scanouts;

/// The part of a command that is done. Only the same command continues it: the driver may change the
/// request between two parts.
#[derive(Debug)]
pub(super) enum PartialCommand {
    /// The first `read` entries are in the backing.
    AttachBacking {
        attach: ResourceAttachBacking,
        read: u32,
        backing: Backing,
    },
    /// The same of a new blob.
    CreateBlob {
        new: ResourceCreateBlob,
        read: u32,
        backing: Backing,
    },
    /// The first `rows` rows are copied.
    TransferToHost2d { transfer: Transfer2d, rows: u32 },
}

/// How far one execution of such a command came.
pub(super) enum Progress {
    Complete,
    Partial(PartialCommand),
}

/// RESOURCE_ATTACH_BACKING. Entries are read only for a resource that can have a backing.
pub(super) fn attach_backing(
    renderer: &mut dyn Renderer,
    attach: &ResourceAttachBacking,
    partial: Option<PartialCommand>,
    data: &mut RequestReader<impl RequestBytes>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Progress, CommandError> {
    let ResourceAttachBacking { resource, count } = *attach;
    let (read, backing) = match partial {
        Some(PartialCommand::AttachBacking {
            attach: same,
            read,
            backing,
        }) if same == *attach => (read, backing),
        _ => (0, renderer.new_backing(resource, count)?),
    };
    let entries = Entries {
        resource,
        count,
        read,
        backing,
    };
    let entries = read_entries(entries, data, memory, work)?;
    if !entries.are_all_read() {
        return Ok(Progress::Partial(PartialCommand::AttachBacking {
            attach: *attach,
            read: entries.read,
            backing: entries.backing,
        }));
    }
    renderer.attach_backing(resource, entries.backing, memory)?;
    Ok(Progress::Complete)
}

/// The entries of a resource's backing, of which the first `read` are in it.
pub(super) struct Entries {
    pub(super) resource: u32,
    pub(super) count: u32,
    pub(super) read: u32,
    pub(super) backing: Backing,
}

impl Entries {
    pub(super) fn are_all_read(&self) -> bool {
        self.read >= self.count
    }
}

/// Reads entries, up to about [`MAX_STEP_WORK`]. The backing is finished once all are read.
pub(super) fn read_entries(
    mut entries: Entries,
    data: &mut RequestReader<impl RequestBytes>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Entries, CommandError> {
    data.skip_mem_entries(entries.read)?;
    let id = entries.resource;
    let failed = |source| ResourceError::Backing { id, source };
    let mut buffer = MemEntryBuffer::new();
    let mut done: u64 = 0;
    while !entries.are_all_read() && done < MAX_STEP_WORK {
        let left = entries.count.saturating_sub(entries.read);
        let batch = data.mem_entries(left, &mut buffer)?;
        entries.read = entries.read.saturating_add(batch.len() as u32);
        done = done.saturating_add(batch.len() as u64 * ENTRY_COST);
        entries.backing.add(batch, memory).map_err(failed)?;
    }
    if entries.are_all_read() {
        entries.backing.finish();
    }
    *work = done;
    Ok(entries)
}

/// TRANSFER_TO_HOST_2D. Linux sends it for blobs too.
pub(super) fn transfer_to_host_2d(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    transfer: &Transfer2d,
    partial: Option<PartialCommand>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Progress, CommandError> {
    if renderer.blob(transfer.id).is_some() {
        // The host has no copy.
        return Ok(Progress::Complete);
    }
    let first = match partial {
        Some(PartialCommand::TransferToHost2d {
            transfer: same,
            rows,
        }) if same == *transfer => rows,
        _ => 0,
    };
    let mut changed = Region::default();
    let result = renderer.transfer_to_host_2d(transfer, first, memory, &mut changed);
    let image = match changed.is_empty() {
        true => None,
        false => renderer.existing_image(transfer.id)?,
    };
    if let Some(image) = image {
        scanouts.add_damage(&image, &changed);
    }
    let copied = result?;
    *work = copied.work;
    let rows = first.saturating_add(copied.rows);
    if rows < transfer.rect.height && copied.rows != 0 {
        let transfer = *transfer;
        return Ok(Progress::Partial(PartialCommand::TransferToHost2d {
            transfer,
            rows,
        }));
    }
    Ok(Progress::Complete)
}
