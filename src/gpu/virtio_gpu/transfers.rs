//! Commands that may take long: attaching a backing, and copying from it (virtio 1.2, 5.7.6.8). They
//! are executed in parts of about [`MAX_STEP_WORK`] each, and other events have their turn in between.

use super::CommandError;
use crate::backend::MemoryGuard;
use crate::gpu::protocol::{
    MemEntryBuffer, RequestBytes, RequestReader, ResourceAttachBacking, Transfer2d,
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
    entries: &mut RequestReader<impl RequestBytes>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Progress, CommandError> {
    let ResourceAttachBacking { resource, count } = *attach;
    let (mut read, mut backing) = match partial {
        Some(PartialCommand::AttachBacking {
            attach: same,
            read,
            backing,
        }) if same == *attach => (read, backing),
        _ => (0, renderer.new_backing(resource)?),
    };
    entries.skip_mem_entries(read)?;
    let failed = |source| ResourceError::Backing {
        id: resource,
        source,
    };
    let mut buffer = MemEntryBuffer::new();
    let mut done: u64 = 0;
    while read < count {
        if done >= MAX_STEP_WORK {
            *work = done;
            return Ok(Progress::Partial(PartialCommand::AttachBacking {
                attach: *attach,
                read,
                backing,
            }));
        }
        let batch = entries.mem_entries(count.saturating_sub(read), &mut buffer)?;
        read = read.saturating_add(batch.len() as u32);
        done = done.saturating_add(batch.len() as u64 * ENTRY_COST);
        backing.add(batch, memory).map_err(failed)?;
    }
    backing.finish();
    *work = done;
    renderer.attach_backing(resource, backing, memory)?;
    Ok(Progress::Complete)
}

/// TRANSFER_TO_HOST_2D.
pub(super) fn transfer_to_host_2d(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    transfer: &Transfer2d,
    partial: Option<PartialCommand>,
    memory: &MemoryGuard,
    work: &mut u64,
) -> Result<Progress, CommandError> {
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
