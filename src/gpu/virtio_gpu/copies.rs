//! The requests that may take long: attaching a backing, and copying out of it. They are done in parts,
//! so that nobody has to wait for a list or a picture as large as the budget.

use std::io::Read;

use super::super::protocol::{ENTRY_LEN, RequestReader, Response, Source, Transfer2d};
use super::super::region::Region;
use super::super::renderer::WORK;
use super::super::resource::Backing;
use super::super::resource::ResourceError;
use super::{CommandError, Done, MemoryGuard, VirtioGpu};

/// Entries that are read at a time.
const BATCH: usize = 256;
/// What an entry of a backing counts for in a pass, in bytes copied.
const ENTRY_WORK: u64 = 128;

/// What is done of a request. It is found by what the request says: a driver may change it meanwhile.
#[derive(Debug)]
pub(super) enum InPart {
    /// A list of `count` entries, of which `read` are in the backing.
    Backing {
        id: u32,
        count: u32,
        read: u32,
        backing: Backing,
    },
    /// The rows of a transfer.
    Transfer { transfer: Transfer2d, rows: u32 },
}

impl VirtioGpu {
    pub(super) fn attach_backing(
        &mut self,
        begun: Option<InPart>,
        memory: &MemoryGuard,
        fields: &mut RequestReader<impl Source>,
    ) -> Result<Done, CommandError> {
        let (id, count) = (fields.u32()?, fields.u32()?);
        let (mut read, mut backing) = match begun {
            Some(InPart::Backing {
                id: same_id,
                count: same_count,
                read,
                backing,
            }) if (same_id, same_count) == (id, count) => (read, backing),
            _ => (0, self.renderer.new_backing(id)?),
        };
        fields.skip((read as usize).saturating_mul(ENTRY_LEN))?;
        let failed = |source| ResourceError::Backing { id, source };
        let mut buffer = [[0; ENTRY_LEN]; BATCH];
        let mut work: u64 = 0;
        while read < count {
            if work >= WORK {
                self.moved = self.moved.saturating_add(work);
                self.begun = Some(InPart::Backing {
                    id,
                    count,
                    read,
                    backing,
                });
                return Ok(Done::InPart);
            }
            let left = count.saturating_sub(read);
            let pieces = fields.entries(left as usize, &mut buffer)?;
            read = read.saturating_add(pieces.len() as u32);
            work = work.saturating_add(pieces.len() as u64 * ENTRY_WORK);
            backing.add(pieces, memory).map_err(failed)?;
        }
        backing.finish();
        self.moved = self.moved.saturating_add(work);
        self.renderer.attach_backing(id, backing, memory)?;
        Ok(Response::OK.into())
    }

    pub(super) fn transfer(
        &mut self,
        begun: Option<InPart>,
        memory: &MemoryGuard,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        let transfer = Transfer2d::read(fields)?;
        let first = match begun {
            Some(InPart::Transfer {
                transfer: same,
                rows,
            }) if same == transfer => rows,
            _ => 0,
        };
        let mut changed = Region::default();
        let result = self
            .renderer
            .transfer_to_host_2d(&transfer, first, memory, &mut changed);
        let image = match changed.is_empty() {
            true => None,
            false => self.renderer.scanout_image(transfer.id)?,
        };
        if let Some(image) = image {
            self.screen.add_damage(&image, &changed);
        }
        let copied = result?;
        self.moved = self.moved.saturating_add(copied.work);
        let rows = first.saturating_add(copied.rows);
        if rows < transfer.rect.height && copied.rows != 0 {
            self.begun = Some(InPart::Transfer { transfer, rows });
            return Ok(Done::InPart);
        }
        Ok(Response::OK.into())
    }
}
