// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps of host memory in the guest: RESOURCE_MAP_BLOB and RESOURCE_UNMAP_BLOB (virtio 1.2, 5.7.6.8).
//!
//! The front-end maps and unmaps, one after the other and in the order of the commands. Commands wait for it, and so does
//! RESOURCE_UNREF of a resource that is mapped: its memory is charged to the budget until the guest can no longer reach it.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};

use super::CommandError;
use super::mapping_error::MappingError;
use crate::backend::{SHARED_MEMORY_PAGE, SharedMemoryOutcome, SharedMemoryRequest};
use crate::gpu::protocol::Response;
use crate::gpu::resource::{HostMemory, is_dmabuf};

/// Most maps at the same time. QEMU 11.1 ends when it has more than 512 of them and pieces of the guest's memory.
pub(crate) const MAX_MAPPINGS: usize = 256;

/// Names a command that waits for the front-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingCommand(u64);

/// A map, from its command on until the front-end has removed it.
#[derive(Debug)]
struct Mapping {
    resource: u32,
    offset: u64,
    len: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    BeingMapped,
    Mapped,
    BeingUnmapped,
}

/// What is to be done next, and for which command.
#[derive(Debug)]
enum Step {
    Map {
        resource: u32,
        offset: u64,
        len: u64,
        memory: HostMemory,
        command: WaitingCommand,
    },
    /// `command` is none for the first step of RESOURCE_UNREF.
    Unmap {
        resource: u32,
        offset: u64,
        len: u64,
        command: Option<WaitingCommand>,
    },
    /// Nothing for the front-end: the resource is unmapped.
    Unref {
        resource: u32,
        command: WaitingCommand,
    },
    /// Removes a map of a driver that is gone.
    Remove { offset: u64, len: u64 },
}

/// What the front-end is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFlight {
    /// The first step.
    Step,
    /// Something for a driver that is gone: to map this, or nothing that would have to be undone.
    Stale(Option<(u64, u64)>),
}

/// A command that waited, and how it ends.
pub(crate) type CompletedCommand = (WaitingCommand, Result<Response, CommandError>);

/// The maps of a driver's resources.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    /// Length of the region, if the front-end maps anything into it.
    region: Option<u64>,
    mappings: Vec<Mapping>,
    steps: VecDeque<Step>,
    in_flight: Option<InFlight>,
    completed: Vec<CompletedCommand>,
    next: u64,
}

impl Mappings {
    /// The front-end maps into a region of this length; `None` if into none. What waits for it fails then.
    pub(crate) fn set_region(&mut self, region: Option<u64>) {
        self.region = region;
        if region.is_none() && self.in_flight.is_none() && !self.is_empty() {
            self.fail_all();
        }
    }

    fn is_empty(&self) -> bool {
        self.mappings.is_empty() && self.steps.is_empty()
    }

    fn name_command(&mut self) -> WaitingCommand {
        self.next = self.next.wrapping_add(1);
        WaitingCommand(self.next)
    }

    /// The mapping of a resource that no command unmaps.
    fn mapped(&mut self, resource: u32) -> Option<&mut Mapping> {
        self.mappings
            .iter_mut()
            .find(|mapping| mapping.resource == resource && mapping.phase != Phase::BeingUnmapped)
    }

    /// Checks that a resource can be mapped, before its memory is asked for.
    pub(super) fn check_new(&mut self, resource: u32) -> Result<(), MappingError> {
        if self.region.is_none() {
            return Err(MappingError::Unavailable);
        }
        if self.mapped(resource).is_some() {
            return Err(MappingError::IsMapped(resource));
        }
        let is_destroyed =
            |step: &Step| matches!(step, Step::Unref { resource: id, .. } if *id == resource);
        if self.steps.iter().any(is_destroyed) {
            return Err(MappingError::Destroyed(resource));
        }
        // What is being unmapped is unmapped before another one is mapped.
        let stays = |mapping: &&Mapping| mapping.phase != Phase::BeingUnmapped;
        match self.mappings.iter().filter(stays).count() >= MAX_MAPPINGS {
            true => Err(MappingError::TooMany(MAX_MAPPINGS)),
            false => Ok(()),
        }
    }

    /// RESOURCE_MAP_BLOB of a resource that lies in `memory`. The command waits.
    pub(super) fn map(
        &mut self,
        resource: u32,
        offset: u64,
        memory: HostMemory,
    ) -> Result<WaitingCommand, MappingError> {
        self.check_new(resource)?;
        let region = self.region.ok_or(MappingError::Unavailable)?;
        if offset % SHARED_MEMORY_PAGE != 0 {
            let id = resource;
            return Err(MappingError::Unaligned { id, offset });
        }
        let len = memory.len.checked_next_multiple_of(SHARED_MEMORY_PAGE);
        let end = len.and_then(|len| offset.checked_add(len));
        let (Some(len), Some(end)) = (len.filter(|len| *len != 0), end) else {
            return Err(MappingError::OutsideRegion {
                id: resource,
                offset,
                len: memory.len,
                region,
            });
        };
        if end > region {
            return Err(MappingError::OutsideRegion {
                id: resource,
                offset,
                len,
                region,
            });
        }
        // What is being unmapped is unmapped before this is mapped.
        let overlaps = |other: &&Mapping| {
            other.phase != Phase::BeingUnmapped
                && other.offset < end
                && offset < other.offset.saturating_add(other.len)
        };
        if let Some(other) = self.mappings.iter().find(overlaps) {
            let (id, other) = (resource, other.resource);
            return Err(MappingError::Overlap { id, other });
        }
        if !is_mappable(&memory.file, memory.offset, len) {
            return Err(MappingError::File {
                id: resource,
                offset: memory.offset,
                len,
            });
        }
        let command = self.name_command();
        self.mappings.push(Mapping {
            resource,
            offset,
            len,
            phase: Phase::BeingMapped,
        });
        self.steps.push_back(Step::Map {
            resource,
            offset,
            len,
            memory,
            command,
        });
        Ok(command)
    }

    /// RESOURCE_UNMAP_BLOB. The command waits.
    pub(super) fn unmap(&mut self, resource: u32) -> Result<WaitingCommand, MappingError> {
        let command = self.name_command();
        match self.begin_unmapping(resource, Some(command)) {
            true => Ok(command),
            false => Err(MappingError::NotMapped(resource)),
        }
    }

    /// RESOURCE_UNREF. If the resource is mapped the command waits, and the resource stays until
    /// [`Mappings::take_unref`].
    pub(super) fn unref(&mut self, resource: u32) -> Option<WaitingCommand> {
        let mut mappings = self.mappings.iter();
        if !mappings.any(|mapping| mapping.resource == resource) {
            return None;
        }
        self.begin_unmapping(resource, None);
        let command = self.name_command();
        self.steps.push_back(Step::Unref { resource, command });
        Some(command)
    }

    fn begin_unmapping(&mut self, resource: u32, command: Option<WaitingCommand>) -> bool {
        let Some(mapping) = self.mapped(resource) else {
            return false;
        };
        mapping.phase = Phase::BeingUnmapped;
        let (offset, len) = (mapping.offset, mapping.len);
        self.steps.push_back(Step::Unmap {
            resource,
            offset,
            len,
            command,
        });
        true
    }

    /// The resource that is to be destroyed now, if that is the next step. Its command waits for
    /// [`Mappings::complete`].
    pub(super) fn take_unref(&mut self) -> Option<(u32, WaitingCommand)> {
        match self.steps.front()? {
            Step::Unref { resource, command } => {
                let unref = (*resource, *command);
                self.steps.pop_front();
                Some(unref)
            }
            Step::Map { .. } | Step::Unmap { .. } | Step::Remove { .. } => None,
        }
    }

    /// What the front-end is to do next, if it does nothing else.
    pub(super) fn next_request(&mut self) -> Option<SharedMemoryRequest> {
        if self.in_flight.is_some() {
            return None;
        }
        let request = match self.steps.front()? {
            Step::Map {
                offset,
                len,
                memory,
                ..
            } => SharedMemoryRequest::Map {
                file: memory.file.clone(),
                file_offset: memory.offset,
                offset: *offset,
                len: *len,
            },
            Step::Unmap { offset, len, .. } | Step::Remove { offset, len } => {
                SharedMemoryRequest::Unmap {
                    offset: *offset,
                    len: *len,
                }
            }
            Step::Unref { .. } => return None,
        };
        self.in_flight = Some(InFlight::Step);
        Some(request)
    }

    /// What became of [`Mappings::next_request`].
    pub(crate) fn finish(&mut self, outcome: SharedMemoryOutcome) {
        let in_flight = self.in_flight.take();
        match (outcome, in_flight) {
            (_, None) => {}
            (SharedMemoryOutcome::Lost, _) => self.fail_all(),
            (SharedMemoryOutcome::Done, Some(InFlight::Stale(Some((offset, len))))) => {
                // Whether the front-end mapped it before or after it removed the last driver's maps, nobody knows. What is
                // mapped by now is no map of this driver's: those come after this.
                self.steps.push_front(Step::Remove { offset, len });
            }
            // The same again.
            (SharedMemoryOutcome::Withdrawn, _) | (_, Some(InFlight::Stale(_))) => {}
            (SharedMemoryOutcome::Done, Some(InFlight::Step)) => self.step_done(),
            (SharedMemoryOutcome::Refused, Some(InFlight::Step)) => self.step_refused(),
        }
    }

    fn step_done(&mut self) {
        match self.steps.pop_front() {
            Some(Step::Map {
                resource,
                memory,
                command,
                ..
            }) => {
                let is_it = |mapping: &&mut Mapping| {
                    mapping.resource == resource && mapping.phase == Phase::BeingMapped
                };
                if let Some(mapping) = self.mappings.iter_mut().find(is_it) {
                    mapping.phase = Phase::Mapped;
                }
                self.complete(command, Ok(Response::MapInfo(memory.caching)));
            }
            Some(Step::Unmap {
                resource, command, ..
            }) => {
                self.forget(resource, Phase::BeingUnmapped);
                if let Some(command) = command {
                    self.complete(command, Ok(Response::OkNoData));
                }
            }
            Some(Step::Remove { .. }) | None => {}
            Some(other @ Step::Unref { .. }) => self.steps.push_front(other),
        }
    }

    fn step_refused(&mut self) {
        let (resource, command) = match self.steps.pop_front() {
            Some(Step::Map {
                resource, command, ..
            }) => {
                self.forget(resource, Phase::BeingMapped);
                (resource, Some(command))
            }
            Some(Step::Unmap {
                resource, command, ..
            }) => {
                // Were it still mapped, the front-end would refuse to map another resource there.
                self.forget(resource, Phase::BeingUnmapped);
                (resource, command)
            }
            Some(Step::Remove { .. }) | None => return,
            Some(other @ Step::Unref { .. }) => return self.steps.push_front(other),
        };
        if let Some(command) = command {
            self.complete(command, Err(MappingError::Refused(resource).into()));
        }
    }

    /// Forgets the first mapping of a resource that is in this phase: the front-end does one after the other.
    fn forget(&mut self, resource: u32, phase: Phase) {
        let is_it = |mapping: &Mapping| mapping.resource == resource && mapping.phase == phase;
        if let Some(at) = self.mappings.iter().position(is_it) {
            self.mappings.remove(at);
        }
    }

    /// The front-end maps nothing any more: commands fail, and resources that are to be destroyed are.
    fn fail_all(&mut self) {
        self.mappings.clear();
        for step in std::mem::take(&mut self.steps) {
            let command = match step {
                Step::Map { command, .. } => Some(command),
                Step::Unmap { command, .. } => command,
                Step::Remove { .. } => None,
                Step::Unref { .. } => {
                    self.steps.push_back(step);
                    None
                }
            };
            if let Some(command) = command {
                self.complete(command, Err(MappingError::Unavailable.into()));
            }
        }
    }

    /// A command that waited is complete.
    pub(super) fn complete(
        &mut self,
        command: WaitingCommand,
        result: Result<Response, CommandError>,
    ) {
        self.completed.push((command, result));
    }

    /// Whether [`Mappings::take_completed`] has any.
    pub(crate) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// The commands that are complete since the last time.
    pub(crate) fn take_completed(&mut self) -> Vec<CompletedCommand> {
        std::mem::take(&mut self.completed)
    }

    /// Forgets the driver's maps: the front-end removed them when it reset the device.
    pub(super) fn reset(&mut self) {
        let stale = match (self.in_flight, self.steps.front()) {
            (None, _) => None,
            (Some(InFlight::Step), Some(Step::Map { offset, len, .. })) => {
                Some(InFlight::Stale(Some((*offset, *len))))
            }
            (Some(InFlight::Step), _) => Some(InFlight::Stale(None)),
            (stale, _) => stale,
        };
        *self = Self {
            region: self.region,
            in_flight: stale,
            // A name that is used again could be taken for that of a command of the last driver.
            next: self.next,
            ..Self::default()
        };
    }
}

/// Whether this part of a file can be mapped into the front-end for good. Where a file becomes shorter while it is mapped,
/// the front-end gets SIGBUS.
fn is_mappable(file: &Arc<OwnedFd>, offset: u64, len: u64) -> bool {
    let fixed = SealFlags::SHRINK | SealFlags::GROW;
    if let Ok(seals) = fcntl_get_seals(file.as_fd()) {
        if !seals.contains(fixed) && !seals.contains(SealFlags::SEAL) {
            // Another process that has the file could seal it first: then the seals decide.
            let _ = fcntl_add_seals(file.as_fd(), fixed);
        }
    }
    let Ok(stat) = fstat(file) else {
        return false;
    };
    let is_fixed = is_dmabuf(file)
        || fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let end = offset.checked_add(len);
    offset % SHARED_MEMORY_PAGE == 0 && is_fixed && end.is_some_and(|end| end <= size)
}
