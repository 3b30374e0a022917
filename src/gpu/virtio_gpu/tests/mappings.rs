// SPDX-License-Identifier: Apache-2.0 OR MIT
//! RESOURCE_MAP_BLOB and RESOURCE_UNMAP_BLOB, and a front-end that maps when the test says so.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_get_seals, fstat, ftruncate, memfd_create,
};

use super::*;
use crate::backend::SharedMemoryOutcome;
use crate::gpu::protocol::{BlobMemory, ErrorCode, ResourceCreateBlob, ResourceMapBlob};
use crate::gpu::renderer::fake_host_memory::{CACHING, FakeHostMemory};
use crate::gpu::resource::HostMemory;
use crate::gpu::virtio_gpu::mapping_error::MappingError;
use crate::gpu::virtio_gpu::mappings::MAX_MAPPINGS;

const REGION: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A request to the front-end, without its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Map(u64, u64),
    Unmap(u64, u64),
}

struct Mapper {
    gpu: VirtioGpu,
    budget: Budget,
    memory: MemoryGuard,
}

type Completed = Vec<(WaitingCommand, Result<Response, ErrorCode>)>;

impl Mapper {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let budget = Budget::new(8 << 20);
        let renderer = FakeHostMemory::new(budget.clone(), memory.clone());
        let mut gpu = VirtioGpu::resume(
            Box::new(renderer),
            &Resolutions::default(),
            &KeptState::default(),
        )
        .unwrap();
        gpu.mappings_mut().set_region(Some(REGION));
        let memory = memory.memory();
        Self {
            gpu,
            budget,
            memory,
        }
    }

    /// With blobs 1 to `count` of one page each.
    fn with_blobs(count: u32) -> Self {
        let mut mapper = Self::new();
        for id in 1..=count {
            mapper.create(id, PAGE);
        }
        mapper
    }

    fn execute(&mut self, command: Command) -> Result<CommandResult, CommandError> {
        let request = Request {
            header: Header::default(),
            command: Ok(command),
        };
        let mut data = RequestReader::new(&[][..]);
        let execution = self.gpu.execute(request, &mut data, &self.memory, None);
        execution.result
    }

    #[track_caller]
    fn create(&mut self, id: u32, len: u64) {
        let created = self.execute(Command::ResourceCreateBlob(ResourceCreateBlob {
            id,
            memory: BlobMemory::Host3d,
            count: 0,
            len,
            flags: 1,
            context: 1,
            blob_id: PAGE,
        }));
        let complete = CommandResult::Complete(Response::OkNoData);
        assert_eq!(created.unwrap(), complete);
    }

    #[track_caller]
    fn waits(&mut self, command: Command) -> WaitingCommand {
        match self.execute(command).unwrap() {
            CommandResult::Waits(command) => command,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn map(&mut self, resource: u32, offset: u64) -> WaitingCommand {
        self.waits(map(resource, offset))
    }

    #[track_caller]
    fn refused(&mut self, command: Command) -> MappingError {
        match self.execute(command) {
            Err(CommandError::Mapping(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn asked(&mut self) -> Option<Asked> {
        Some(match self.gpu.next_mapping()? {
            SharedMemoryRequest::Map {
                file_offset,
                offset,
                len,
                ..
            } => {
                assert_eq!(file_offset, PAGE);
                Asked::Map(offset, len)
            }
            SharedMemoryRequest::Unmap { offset, len } => Asked::Unmap(offset, len),
        })
    }

    fn finish(&mut self, outcome: SharedMemoryOutcome) -> Completed {
        self.gpu.mappings_mut().finish(outcome);
        self.completed()
    }

    fn completed(&mut self) -> Completed {
        let completed = self.gpu.mappings_mut().take_completed().into_iter();
        let coded = completed.map(|(id, result)| (id, result.map_err(|error| error.code())));
        coded.collect()
    }

    /// The front-end does all it is asked, and tells what that was.
    fn run(&mut self) -> (Vec<Asked>, Completed) {
        let (mut all, mut completed) = (Vec::new(), Vec::new());
        while let Some(asked) = self.asked() {
            all.push(asked);
            completed.extend(self.finish(SharedMemoryOutcome::Done));
        }
        completed.extend(self.completed());
        (all, completed)
    }
}

fn map(resource: u32, offset: u64) -> Command {
    Command::ResourceMapBlob(ResourceMapBlob { resource, offset })
}

fn unmap(resource: u32) -> Command {
    Command::ResourceUnmapBlob { resource }
}

fn unref(resource: u32) -> Command {
    Command::ResourceUnref { resource }
}

const MAPPED: Result<Response, ErrorCode> = Ok(Response::MapInfo(CACHING));
const DONE: Result<Response, ErrorCode> = Ok(Response::OkNoData);
const REFUSED: Result<Response, ErrorCode> = Err(ErrorCode::Unspec);

#[test]
fn maps_are_made_and_removed_in_the_order_of_the_commands() {
    let mut mapper = Mapper::with_blobs(2);
    assert_eq!(mapper.asked(), None);
    let first = mapper.map(1, PAGE);
    let second = mapper.map(2, 0);
    assert_eq!(mapper.asked(), Some(Asked::Map(PAGE, PAGE)));
    // One at a time.
    assert_eq!(mapper.asked(), None);
    assert!(mapper.completed().is_empty());
    let completed = mapper.finish(SharedMemoryOutcome::Done);
    assert_eq!(completed, [(first, MAPPED)]);
    // The guest need not wait.
    let third = mapper.waits(unmap(2));
    let (asked, completed) = mapper.run();
    assert_eq!(asked, [Asked::Map(0, PAGE), Asked::Unmap(0, PAGE)]);
    assert_eq!(completed, [(second, MAPPED), (third, DONE)]);
    assert_eq!(mapper.refused(unmap(2)), MappingError::NotMapped(2));
}

#[test]
fn maps_lie_apart_within_the_region() {
    let mut mapper = Mapper::with_blobs(3);
    mapper.create(4, 2 * PAGE - 1);
    mapper.map(1, 2 * PAGE);
    // Its last page is not whole, and is mapped all the same.
    mapper.map(4, 0);
    for offset in [0, PAGE, 2 * PAGE] {
        let error = mapper.refused(map(2, offset));
        let other = if offset == 2 * PAGE { 1 } else { 4 };
        assert_eq!(error, MappingError::Overlap { id: 2, other });
    }
    for offset in [1, PAGE + 512, u64::MAX] {
        let error = mapper.refused(map(2, offset));
        assert_eq!(error, MappingError::Unaligned { id: 2, offset });
    }
    for offset in [REGION, REGION + PAGE, !(PAGE - 1)] {
        let error = mapper.refused(map(2, offset));
        assert!(matches!(error, MappingError::OutsideRegion { id: 2, .. }));
        assert_eq!(
            CommandError::from(error).code(),
            ErrorCode::InvalidParameter
        );
    }
    assert_eq!(mapper.refused(map(1, 0)), MappingError::IsMapped(1));
    mapper.map(2, REGION - PAGE);
    mapper.map(3, 3 * PAGE);
    let (asked, _) = mapper.run();
    let maps = [
        Asked::Map(2 * PAGE, PAGE),
        Asked::Map(0, 2 * PAGE),
        Asked::Map(REGION - PAGE, PAGE),
        Asked::Map(3 * PAGE, PAGE),
    ];
    assert_eq!(asked, maps);
}

#[test]
fn only_memory_of_the_host_is_mapped() {
    let mut mapper = Mapper::new();
    for (id, known) in [(1, true), (2, false)] {
        if known {
            let new = ResourceCreateBlob {
                id,
                memory: BlobMemory::Guest,
                count: 0,
                len: PAGE,
                flags: 1,
                context: 0,
                blob_id: 0,
            };
            mapper.execute(Command::ResourceCreateBlob(new)).unwrap();
        }
        let error = mapper.execute(map(id, 0)).unwrap_err();
        assert!(matches!(error, CommandError::Resource(_)), "{error}");
    }
    assert_eq!(mapper.asked(), None);
}

#[test]
fn resource_is_destroyed_once_the_guest_cannot_reach_it() {
    let mut mapper = Mapper::with_blobs(1);
    let first = mapper.map(1, 0);
    mapper.run();
    let second = mapper.waits(unref(1));
    assert!(first != second);
    // Nothing makes it live longer.
    assert_eq!(mapper.refused(map(1, 0)), MappingError::Destroyed(1));
    let used = mapper.budget.used();
    assert_eq!(mapper.asked(), Some(Asked::Unmap(0, PAGE)));
    assert_eq!(mapper.budget.used(), used);
    assert!(mapper.finish(SharedMemoryOutcome::Done).is_empty());
    let (asked, completed) = mapper.run();
    assert!(asked.is_empty());
    assert_eq!(completed, [(second, DONE)]);
    assert_eq!(mapper.budget.used(), used - PAGE);
    // As Linux does it.
    mapper.create(1, PAGE);
    let commands = [map(1, 0), unmap(1), unref(1)].map(|command| mapper.waits(command));
    let (asked, completed) = mapper.run();
    assert_eq!(asked, [Asked::Map(0, PAGE), Asked::Unmap(0, PAGE)]);
    let done = commands.into_iter().zip([MAPPED, DONE, DONE]);
    assert_eq!(completed, done.collect::<Vec<_>>());
    // A second command finds none.
    mapper.create(1, PAGE);
    let commands = [map(1, 0), unref(1), unref(1)].map(|command| mapper.waits(command));
    let (_, completed) = mapper.run();
    let results = [MAPPED, DONE, Err(ErrorCode::InvalidResourceId)];
    assert_eq!(
        completed,
        commands.into_iter().zip(results).collect::<Vec<_>>()
    );
}

#[test]
fn maps_are_limited_in_number() {
    let count = MAX_MAPPINGS as u32;
    let mut mapper = Mapper::with_blobs(count + 1);
    mapper.gpu.mappings_mut().set_region(Some(1 << 30));
    for id in 1..=count {
        mapper.map(id, u64::from(id) * PAGE);
    }
    let error = mapper.refused(map(count + 1, 0));
    assert_eq!(error, MappingError::TooMany(MAX_MAPPINGS));
    assert_eq!(CommandError::from(error).code(), ErrorCode::OutOfMemory);
    assert_eq!(mapper.run().0.len(), MAX_MAPPINGS);
    assert_eq!(
        mapper.refused(map(count + 1, 0)),
        MappingError::TooMany(MAX_MAPPINGS)
    );
    // It is unmapped first.
    mapper.waits(unmap(7));
    mapper.map(count + 1, 7 * PAGE);
    let asked = [Asked::Unmap(7 * PAGE, PAGE), Asked::Map(7 * PAGE, PAGE)];
    assert_eq!(mapper.run().0, asked);
}

#[test]
fn refusals_of_the_front_end_reach_the_guest() {
    let mut mapper = Mapper::with_blobs(2);
    let first = mapper.map(1, 0);
    let unmapped = mapper.waits(unmap(1));
    mapper.asked();
    let refused = |mapper: &mut Mapper| mapper.finish(SharedMemoryOutcome::Refused);
    assert_eq!(refused(&mut mapper), [(first, REFUSED)]);
    assert_eq!(mapper.asked(), Some(Asked::Unmap(0, PAGE)));
    assert_eq!(refused(&mut mapper), [(unmapped, REFUSED)]);
    // There is room again.
    let again = mapper.map(1, 0);
    assert_eq!(mapper.run().1, [(again, MAPPED)]);
    let other = mapper.map(2, PAGE);
    mapper.asked();
    assert_eq!(refused(&mut mapper), [(other, REFUSED)]);
    assert_eq!(mapper.refused(unmap(2)), MappingError::NotMapped(2));
}

#[test]
fn what_is_not_sent_is_asked_for_again() {
    let mut mapper = Mapper::with_blobs(1);
    let command = mapper.map(1, 0);
    for _ in 0..3 {
        assert_eq!(mapper.asked(), Some(Asked::Map(0, PAGE)));
        assert!(mapper.finish(SharedMemoryOutcome::Withdrawn).is_empty());
    }
    assert_eq!(mapper.run().1, [(command, MAPPED)]);
}

#[test]
fn commands_fail_when_the_front_end_cannot_be_asked() {
    let mut mapper = Mapper::with_blobs(3);
    mapper.map(1, 0);
    mapper.run();
    let commands = [map(2, PAGE), unmap(1), unref(2)].map(|command| mapper.waits(command));
    mapper.asked();
    let lost = mapper.finish(SharedMemoryOutcome::Lost);
    assert_eq!(lost, [(commands[0], REFUSED), (commands[1], REFUSED)]);
    let used = mapper.budget.used();
    let (asked, completed) = mapper.run();
    assert!(asked.is_empty());
    assert_eq!(completed, [(commands[2], DONE)]);
    assert_eq!(mapper.budget.used(), used - PAGE);
    // While nothing is under way.
    let command = mapper.map(3, 0);
    mapper.gpu.mappings_mut().set_region(None);
    assert_eq!(mapper.completed(), [(command, REFUSED)]);
    let error = mapper.refused(map(3, 0));
    assert_eq!(error, MappingError::Unavailable);
    assert_eq!(mapper.asked(), None);
}

/// The front-end removes maps when it resets the device.
#[test]
fn maps_of_a_driver_that_is_gone_are_forgotten() {
    let mut mapper = Mapper::with_blobs(2);
    mapper.map(1, 0);
    mapper.run();
    mapper.waits(unmap(1));
    mapper.map(2, PAGE);
    mapper.gpu.reset();
    assert_eq!((mapper.asked(), mapper.budget.used()), (None, 0));
    mapper.create(1, PAGE);
    let command = mapper.map(1, PAGE);
    let (asked, completed) = mapper.run();
    assert_eq!(asked, [Asked::Map(PAGE, PAGE)]);
    assert_eq!(completed, [(command, MAPPED)]);
}

/// It may be there or not, where the next driver's are to be.
#[test]
fn map_that_was_under_way_for_the_last_driver_is_removed() {
    for outcome in [
        SharedMemoryOutcome::Done,
        SharedMemoryOutcome::Refused,
        SharedMemoryOutcome::Withdrawn,
    ] {
        let mut mapper = Mapper::with_blobs(1);
        mapper.map(1, 0);
        assert_eq!(mapper.asked(), Some(Asked::Map(0, PAGE)));
        mapper.gpu.reset();
        mapper.create(1, PAGE);
        let command = mapper.map(1, 0);
        // Not before its outcome is known.
        assert_eq!(mapper.asked(), None);
        assert!(mapper.finish(outcome).is_empty());
        if outcome == SharedMemoryOutcome::Done {
            assert_eq!(mapper.asked(), Some(Asked::Unmap(0, PAGE)));
            // The front-end removed it with the others.
            assert!(mapper.finish(SharedMemoryOutcome::Refused).is_empty());
        }
        let (asked, completed) = mapper.run();
        assert_eq!(asked, [Asked::Map(0, PAGE)]);
        assert_eq!(completed, [(command, MAPPED)]);
    }
    let mut mapper = Mapper::with_blobs(1);
    mapper.map(1, 0);
    mapper.run();
    mapper.waits(unmap(1));
    mapper.asked();
    mapper.gpu.reset();
    assert!(mapper.finish(SharedMemoryOutcome::Done).is_empty());
    assert_eq!(mapper.asked(), None);
}

/// The VMM gets SIGBUS where a file that it maps becomes shorter.
#[test]
fn files_that_are_mapped_cannot_become_shorter() {
    let mut mapper = Mapper::with_blobs(1);
    mapper.map(1, 0);
    let Some(SharedMemoryRequest::Map { file, .. }) = mapper.gpu.next_mapping() else {
        panic!("nothing is mapped");
    };
    let seals = fcntl_get_seals(&*file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW));
    ftruncate(&*file, PAGE).unwrap_err();
}

fn file(len: u64, flags: MemfdFlags) -> Arc<OwnedFd> {
    let file = memfd_create("host", MemfdFlags::CLOEXEC | flags).unwrap();
    ftruncate(&file, len).unwrap();
    Arc::new(file)
}

#[test]
fn only_what_lies_within_its_file_is_mapped() {
    let try_to_map = |file: &Arc<OwnedFd>, offset, len| {
        let mut mappings = Mappings::default();
        mappings.set_region(Some(REGION));
        let memory = HostMemory {
            file: file.clone(),
            offset,
            len,
            caching: 1,
        };
        mappings.map(1, 0, memory).is_ok()
    };
    let sealable = file(3 * PAGE, MemfdFlags::ALLOW_SEALING);
    for (offset, len, expected) in [
        (0, 3 * PAGE, true),
        (2 * PAGE, 1, true),
        (2 * PAGE, 2 * PAGE, false),
        (3 * PAGE, 1, false),
        (1, PAGE, false),
        (0, 0, false),
        (0, u64::MAX, false),
        (!(PAGE - 1), PAGE, false),
    ] {
        let mapped = try_to_map(&sealable, offset, len);
        assert_eq!(mapped, expected, "{offset:#x} {len:#x}");
    }
    // Whoever has it could shorten it.
    assert!(!try_to_map(&file(3 * PAGE, MemfdFlags::empty()), 0, PAGE));
    let device: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
    let mode = fstat(&device).unwrap().st_mode;
    assert_eq!(FileType::from_raw_mode(mode), FileType::CharacterDevice);
    assert!(!try_to_map(&Arc::new(device), 0, PAGE));
}
