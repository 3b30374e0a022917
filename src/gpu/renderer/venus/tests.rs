// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderer with a fake library.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{SealFlags, fcntl_get_seals};

use super::limits::{BLOB_COST, CONTEXT_COST, MAX_CONTEXTS};
use super::renewal::CONTEXT_PATIENCE;
use super::testing::{
    CONTEXT_HANGS, DMABUF, DRIVERS_OWN, HANGS, LAVAPIPE, MEMFD, PATIENCE, REFUSED, SHORT, STUCK,
    connect_anew, crash, draw, end_connector, population, retire, streams,
};
use super::*;
use crate::backend::GuestMemory;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{
    BlobMemory, CapsetInfo, Format, FramebufferLayout, ResourceCreateBlob, RingId,
};
use crate::gpu::renderer::{ContextError, Renderer as _, Renderer3d as _};
use crate::gpu::resource::{Budget, ResourceError};

const PAGE: u64 = 4096;
const VENUS: u32 = CapsetInfo::VENUS;

fn host_blob(id: u32, context: u32, blob_id: u64) -> ResourceCreateBlob {
    ResourceCreateBlob {
        id,
        memory: BlobMemory::Host3d,
        count: 0,
        len: 2 * PAGE,
        flags: 1,
        context,
        blob_id,
    }
}

fn budget() -> Budget {
    Budget::new(64 << 20)
}

fn renderer(budget: &Budget) -> (VenusRenderer, OwnedFd) {
    testing::renderer(budget, GuestMemory::new(Default::default()))
}

fn is_readable(renderer: &VenusRenderer) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(
        renderer.fence_event(),
        PollFlags::IN,
    )];
    poll(&mut fds, Some(&Timespec::default())) == Ok(1)
}

#[test]
fn contexts_are_for_venus_only_and_bounded() {
    let budget = budget();
    let (mut renderer, _server) = renderer(&budget);
    assert_eq!(renderer.capsets().len(), 1);
    assert_eq!(renderer.capset(VENUS, 0), Some(vec![0x5a; 160]));
    assert_eq!(renderer.capset(VENUS, 1), None);
    for capset in [0, 1, 2, 5, 6, 255] {
        let error = renderer.create_context(1, b"", capset).unwrap_err();
        assert!(matches!(error, ContextError::Capset { .. }), "{error}");
    }
    renderer.create_context(1, b"a\0b", VENUS).unwrap();
    let error = renderer.create_context(1, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::Exists(1)));
    let error = renderer.create_context(0, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::Zero));
    for id in 2..=MAX_CONTEXTS as u32 {
        renderer.create_context(id, b"", VENUS).unwrap();
    }
    let error = renderer.create_context(999, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::TooMany(_)));
    assert_eq!(budget.used(), MAX_CONTEXTS as u64 * CONTEXT_COST);
    renderer.destroy_context(1).unwrap();
    let error = renderer.destroy_context(1).unwrap_err();
    assert!(matches!(error, ContextError::Unknown(1)));
    renderer.reset();
    assert_eq!(population(), (vec![], vec![]));
    assert_eq!(budget.used(), 0);
}

#[test]
fn blobs_of_the_host_are_charged_and_can_be_mapped() {
    let budget = budget();
    let (mut renderer, _server) = renderer(&budget);
    renderer.create_context(1, b"", VENUS).unwrap();
    let before = budget.used();
    for (id, name, offset) in [(5, MEMFD, 0), (6, DMABUF, 0), (7, LAVAPIPE, PAGE)] {
        renderer.new_blob_backing(&host_blob(id, 1, name)).unwrap();
        renderer.create_blob(&host_blob(id, 1, name), None).unwrap();
        let memory = renderer.host_memory(id).unwrap();
        assert_eq!((memory.offset, memory.len), (offset, 2 * PAGE));
        assert_eq!(memory.caching, 3);
        // The server did not seal it.
        let seals = fcntl_get_seals(&*memory.file).unwrap();
        assert!(seals.contains(SealFlags::SHRINK), "{seals:?}");
    }
    assert_eq!(budget.used() - before, 3 * (2 * PAGE + BLOB_COST));
    // They have neither pixels of their own nor a place in the guest's memory.
    for error in [
        renderer.new_backing(5, 1).map(drop).unwrap_err(),
        renderer.detach_backing(5).unwrap_err(),
        renderer.size(5).map(drop).unwrap_err(),
        renderer.image_or_create(5).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, ResourceError::IsBlob(5)));
    }
    assert!(renderer.existing_image(5).unwrap().is_none());
    assert_eq!(
        renderer.assign_uuid(5).unwrap(),
        renderer.assign_uuid(5).unwrap()
    );
    // A context leaves its blobs.
    renderer.destroy_context(1).unwrap();
    assert_eq!(population(), (vec![], vec![5, 6, 7]));
    renderer.host_memory(7).unwrap();
    for id in [5, 6, 7] {
        renderer.unref(id).unwrap();
    }
    let error = renderer.unref(5).unwrap_err();
    assert!(matches!(error, ResourceError::Unknown(5)));
    assert_eq!((population().1, budget.used()), (vec![], 0));
}

#[test]
fn blobs_that_cannot_be_are_refused() {
    let budget = budget();
    let (mut renderer, _server) = renderer(&budget);
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer
        .create_2d(1, Format::B8G8R8X8, Size::new(1, 1))
        .unwrap();
    let before = budget.used();
    let mut refused = |new: ResourceCreateBlob| {
        let error = renderer.create_blob(&new, None).unwrap_err();
        let code = crate::gpu::virtio_gpu::CommandError::from(error);
        assert_eq!(budget.used(), before, "{new:?}");
        code.to_string()
    };
    assert!(refused(host_blob(1, 1, MEMFD)).contains("exists already"));
    assert!(refused(host_blob(0, 1, MEMFD)).contains("not a valid"));
    assert!(refused(host_blob(5, 2, MEMFD)).contains("no context 2"));
    assert!(refused(host_blob(5, 1, REFUSED)).contains("refuses"));
    let new = host_blob(5, 1, MEMFD);
    assert!(refused(ResourceCreateBlob { count: 1, ..new }).contains("entries"));
    assert!(refused(ResourceCreateBlob { len: 0, ..new }).contains("0 bytes"));
    let len = u64::MAX;
    assert!(refused(ResourceCreateBlob { len, ..new }).contains("budget"));
    let memory = BlobMemory::Host3dGuest;
    assert!(refused(ResourceCreateBlob { memory, ..new }).contains("a copy in the guest's"));
    assert!(population().1.is_empty());
    // A 2D resource cannot take a blob's id either.
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    let taken = renderer.create_2d(5, Format::B8G8R8X8, Size::new(1, 1));
    assert!(matches!(taken, Err(ResourceError::Exists(5))));
}

#[test]
fn memory_of_an_unknown_layout_is_neither_mapped_nor_shown() {
    let (mut renderer, _server) = renderer(&budget());
    renderer.create_context(1, b"", VENUS).unwrap();
    for (id, name, why) in [
        (5, DRIVERS_OWN, "a form of its own"),
        (6, SHORT, "has 8191 bytes"),
    ] {
        renderer.create_blob(&host_blob(id, 1, name), None).unwrap();
        let error = renderer.host_memory(id).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let shown = renderer.framebuffer(id, LAYOUT, &RECT).unwrap_err();
        assert!(shown.to_string().contains(why), "{shown}");
        assert!(renderer.cursor(id).is_err());
        renderer.unref(id).unwrap();
    }
    let error = renderer.host_memory(5).unwrap_err();
    assert!(matches!(error, ResourceError::Unknown(5)));
}

const LAYOUT: FramebufferLayout = FramebufferLayout {
    format: Format::B8G8R8X8,
    size: Size {
        width: 8,
        height: 4,
    },
    stride: 64,
    offset: 128,
};
const RECT: Rect = Rect {
    x: 1,
    y: 2,
    width: 2,
    height: 1,
};

#[test]
fn displays_see_what_is_drawn_in_a_blob() {
    let (mut renderer, _server) = renderer(&budget());
    renderer.create_context(1, b"", VENUS).unwrap();
    for (id, name, header) in [(5, MEMFD, 0), (6, LAVAPIPE, PAGE)] {
        renderer.create_blob(&host_blob(id, 1, name), None).unwrap();
        let framebuffer = renderer.framebuffer(id, LAYOUT, &RECT).unwrap();
        draw(id, header + 128 + 2 * 64 + 4, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let mut pixels = [9; 8];
        framebuffer.read(&RECT, 0, &mut pixels);
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6, 7, 8]);
        // What was shown is black once it is gone.
        renderer.unref(id).unwrap();
        framebuffer.read(&RECT, 0, &mut pixels);
        assert_eq!(pixels, [0; 8]);
    }
}

#[test]
fn contexts_share_dmabufs_only() {
    let (mut renderer, _server) = renderer(&budget());
    for context in [1, 2] {
        renderer.create_context(context, b"", VENUS).unwrap();
    }
    renderer
        .create_2d(4, Format::B8G8R8X8, Size::new(1, 1))
        .unwrap();
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    renderer
        .create_blob(&host_blob(6, 1, DMABUF), None)
        .unwrap();
    // Drivers attach all that a program has.
    for resource in [4, 5, 6] {
        renderer.attach_resource(1, resource).unwrap();
        renderer.attach_resource(1, resource).unwrap();
    }
    renderer.attach_resource(2, 4).unwrap();
    renderer.attach_resource(2, 6).unwrap();
    let error = renderer.attach_resource(2, 5).unwrap_err();
    assert!(matches!(error, ContextError::NotShareable { .. }));
    // Once its own context has let go of it, that is another one too.
    renderer.detach_resource(1, 5).unwrap();
    assert!(renderer.attach_resource(1, 5).is_err());
    renderer.destroy_context(1).unwrap();
    renderer.create_context(1, b"", VENUS).unwrap();
    assert!(renderer.attach_resource(1, 5).is_err());
    assert!(renderer.attach_resource(3, 6).is_err());
    assert!(renderer.attach_resource(2, 7).is_err());
}

#[test]
fn fences_of_timelines_retire_apart() {
    let (mut renderer, _server) = renderer(&budget());
    for context in [1, 2] {
        renderer.create_context(context, b"", VENUS).unwrap();
    }
    let ring = |context, index| Some(RingId { context, index });
    let fences = [(1, 0), (1, 1), (2, 0)];
    let fences = fences.map(|(context, index)| renderer.fence(ring(context, index)).unwrap());
    assert!(!is_readable(&renderer));
    retire(|fence| fence.ring == 1);
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
    let retired = fences.map(|fence| renderer.is_retired(fence));
    assert_eq!(retired, [false, true, false]);
    renderer.destroy_context(2).unwrap();
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    let retired = fences.map(|fence| renderer.is_retired(fence));
    assert_eq!(retired, [false, true, true]);
    // All else is done already: 2D, and what there is not.
    for ring in [None, ring(2, 0), ring(1, 64), ring(1, 255), ring(0, 0)] {
        assert_eq!(renderer.fence(ring), None);
    }
}

#[test]
fn context_ends_with_its_process_of_the_server() {
    let budget = budget();
    let (mut renderer, _server) = renderer(&budget);
    for context in [1, 2] {
        renderer.create_context(context, b"", VENUS).unwrap();
    }
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    let ring = |context| Some(RingId { context, index: 0 });
    let fences = [1, 2].map(|context| renderer.fence(ring(context)).unwrap());
    crash(1);
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
    assert_eq!(population(), (vec![2], vec![5]));
    assert_eq!(
        fences.map(|fence| renderer.is_retired(fence)),
        [true, false]
    );
    let error = renderer.submit(1, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Ended(1)));
    assert!(renderer.attach_resource(1, 5).is_err());
    assert!(renderer.create_blob(&host_blob(6, 1, MEMFD), None).is_err());
    assert_eq!(renderer.fence(ring(1)), None);
    renderer.submit(2, &mut [1]).unwrap();
    // The driver destroys it, and may use the id again.
    let error = renderer.create_context(1, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::Exists(1)));
    renderer.destroy_context(1).unwrap();
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer.reset();
    assert_eq!((population(), budget.used()), ((vec![], vec![]), 0));
}

#[test]
fn streams_reach_the_context() {
    let (mut renderer, _server) = renderer(&budget());
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer.submit(1, &mut [1, 2, 3]).unwrap();
    let error = renderer.submit(1, &mut [0xbad]).unwrap_err();
    assert!(matches!(error, ContextError::Refused(1)));
    let error = renderer.submit(2, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Unknown(2)));
    // The server may have got a part of what was refused.
    let error = renderer.submit(1, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Ended(1)));
    assert_eq!(streams(), [(1, vec![1, 2, 3]), (1, vec![0xbad])]);
}

/// The watchdog waits for 30 seconds, and each event of the worker may meet another program that hangs.
#[test]
fn programs_that_hang_at_once_are_not_each_waited_for_as_long() {
    let (mut renderer, _server) = renderer(&budget());
    for id in 1..=4 {
        renderer.create_context(id, b"", VENUS).unwrap();
    }
    let began = Instant::now();
    let error = renderer.submit(1, &mut [CONTEXT_HANGS]).unwrap_err();
    assert!(matches!(error, ContextError::Refused(1)), "{error}");
    assert!(began.elapsed() >= PATIENCE);
    let began = Instant::now();
    for id in 2..=3 {
        let error = renderer.submit(id, &mut [CONTEXT_HANGS]).unwrap_err();
        assert!(matches!(error, ContextError::Refused(_)), "{error}");
    }
    assert!(began.elapsed() < PATIENCE);
    renderer.submit(4, &mut [1]).unwrap();
}

#[test]
fn library_that_never_returns_is_not_waited_for() {
    let (mut renderer, _server) = renderer(&budget());
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    let ring = Some(RingId {
        context: 1,
        index: 0,
    });
    let fence = renderer.fence(ring).unwrap();
    let error = renderer.submit(1, &mut [STUCK]).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded));
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    assert!(renderer.is_retired(fence));
    assert!(renderer.name().unwrap().contains("does not answer"));
    // No new server helps as long as the library does not return, and nothing waits any more.
    let _next = connect_anew(true).unwrap();
    let _ = renderer.create_context(2, b"", VENUS).unwrap_err();
    let began = Instant::now();
    let error = renderer.create_context(2, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded));
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
    renderer
        .create_2d(6, Format::B8G8R8X8, Size::new(1, 1))
        .unwrap();
    renderer.unref(5).unwrap();
    renderer.reset();
    drop(renderer);
    assert!(began.elapsed() < CONTEXT_PATIENCE);
}

#[test]
fn context_that_keeps_the_library_waiting_is_the_only_one_that_ends() {
    let (mut renderer, _server) = renderer(&budget());
    for context in [1, 2] {
        renderer.create_context(context, b"", VENUS).unwrap();
    }
    let error = renderer.submit(1, &mut [CONTEXT_HANGS]).unwrap_err();
    assert!(matches!(error, ContextError::Refused(1)), "{error:?}");
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    assert_eq!(population(), (vec![2], vec![]));
    let error = renderer.submit(1, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Ended(1)), "{error:?}");
    renderer.submit(2, &mut [1]).unwrap();
    assert_eq!(renderer.name(), Some("a fake"));
}

/// Waits for what the renderer does meanwhile.
fn poll_until(renderer: &mut VenusRenderer, done: impl Fn(&VenusRenderer) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done(renderer) {
        assert!(Instant::now() < deadline, "{:?}", renderer.name());
        if is_readable(renderer) {
            renderer.poll_fences();
        }
    }
}

#[test]
fn vulkan_ends_with_the_render_server_and_2d_goes_on() {
    let budget = budget();
    let (mut renderer, server) = renderer(&budget);
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    let ring = Some(RingId {
        context: 1,
        index: 0,
    });
    let fence = renderer.fence(ring).unwrap();
    drop(server);
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    assert!(renderer.is_retired(fence));
    assert!(renderer.name().unwrap().contains("has ended"));
    let error = renderer.submit(1, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Ended(1)));
    // There is no other one.
    assert!(connect_anew(false).unwrap().is_none());
    let error = renderer.create_context(2, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded));
    // The event comes once more, for the fences, and then no more.
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
    // The guest may still have it mapped.
    renderer.host_memory(5).unwrap();
    renderer
        .create_2d(6, Format::B8G8R8X8, Size::new(1, 1))
        .unwrap();
    renderer.unref(5).unwrap();
    renderer.destroy_context(1).unwrap();
    renderer.reset();
    assert_eq!(budget.used(), 0);
}

#[test]
fn new_render_server_serves_the_programs_that_start_from_then_on() {
    let budget = budget();
    let (mut renderer, server) = renderer(&budget);
    renderer.create_context(1, b"", VENUS).unwrap();
    renderer.create_blob(&host_blob(5, 1, MEMFD), None).unwrap();
    renderer
        .create_blob(&host_blob(6, 1, DMABUF), None)
        .unwrap();
    drop(server);
    renderer.poll_fences();
    let _next = connect_anew(true).unwrap();
    // It waits for the server.
    renderer.create_context(2, b"", VENUS).unwrap();
    assert_eq!(renderer.name(), Some("a fake"));
    assert_eq!(population(), (vec![2], vec![]));
    renderer.submit(2, &mut [1, 2]).unwrap();
    renderer.create_blob(&host_blob(7, 2, MEMFD), None).unwrap();
    let fence = renderer.fence(Some(RingId {
        context: 2,
        index: 0,
    }));
    retire(|_| true);
    renderer.poll_fences();
    assert!(renderer.is_retired(fence.unwrap()));
    // What was before has ended, and is not known to the new one.
    assert!(renderer.submit(1, &mut [1]).is_err());
    let error = renderer.create_context(1, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::Exists(1)));
    for resource in [5, 6] {
        assert!(renderer.attach_resource(1, resource).is_err());
        assert!(renderer.attach_resource(2, resource).is_err());
        renderer.detach_resource(2, resource).unwrap();
    }
    renderer.unref(5).unwrap();
    renderer.destroy_context(1).unwrap();
    renderer.create_context(1, b"", VENUS).unwrap();
    assert_eq!(population(), (vec![1, 2], vec![7]));
    renderer.reset();
    assert_eq!((population(), budget.used()), ((vec![], vec![]), 0));
}

#[test]
fn new_render_server_is_there_without_a_program_that_asks_for_it() {
    let (mut renderer, server) = renderer(&budget());
    drop(server);
    renderer.poll_fences();
    let _next = connect_anew(true).unwrap();
    poll_until(&mut renderer, |renderer| renderer.name() == Some("a fake"));
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
}

/// The library waits for it; its connection is ended.
#[test]
fn render_server_that_does_not_answer_is_followed_by_a_new_one() {
    let (mut renderer, _server) = renderer(&budget());
    for context in [1, 2] {
        renderer.create_context(context, b"", VENUS).unwrap();
    }
    let error = renderer.submit(1, &mut [HANGS]).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded));
    assert!(is_readable(&renderer));
    renderer.poll_fences();
    assert!(renderer.name().unwrap().contains("does not answer"));
    let error = renderer.submit(2, &mut [1]).unwrap_err();
    assert!(matches!(error, ContextError::Ended(2)));
    let _next = connect_anew(true).unwrap();
    poll_until(&mut renderer, |renderer| renderer.name() == Some("a fake"));
    renderer.create_context(3, b"", VENUS).unwrap();
    assert_eq!(population(), (vec![3], vec![]));
}

#[test]
fn render_servers_that_end_at_once_are_not_started_in_a_loop() {
    let (mut renderer, server) = renderer(&budget());
    drop(server);
    renderer.poll_fences();
    let next = connect_anew(true).unwrap();
    poll_until(&mut renderer, |renderer| renderer.name() == Some("a fake"));
    drop(next);
    renderer.poll_fences();
    // Neither by itself, nor for a program, before its time.
    for id in 1..100 {
        let error = renderer.create_context(id, b"", VENUS).unwrap_err();
        assert!(matches!(error, ContextError::ServerEnded));
        renderer.poll_fences();
    }
    assert!(connect_anew(true).is_none());
    std::thread::sleep(Duration::from_millis(1100));
    let _ = renderer.create_context(1, b"", VENUS).unwrap_err();
    let _next = connect_anew(true).unwrap();
    poll_until(&mut renderer, |renderer| renderer.name() == Some("a fake"));
}

#[test]
fn guest_does_not_wait_again_for_a_server_that_does_not_come() {
    let (mut renderer, server) = renderer(&budget());
    drop(server);
    renderer.poll_fences();
    let _ = renderer.create_context(1, b"", VENUS).unwrap_err();
    let began = Instant::now();
    for _ in 0..100 {
        let _ = renderer.create_context(1, b"", VENUS).unwrap_err();
    }
    assert!(began.elapsed() < CONTEXT_PATIENCE);
    // It comes late.
    let _next = connect_anew(true).unwrap();
    poll_until(&mut renderer, |renderer| renderer.name() == Some("a fake"));
    renderer.create_context(1, b"", VENUS).unwrap();
}

#[test]
fn vulkan_ends_for_good_with_the_connector() {
    let (mut renderer, server) = renderer(&budget());
    end_connector();
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
    renderer.create_context(1, b"", VENUS).unwrap();
    drop(server);
    renderer.poll_fences();
    let error = renderer.create_context(2, b"", VENUS).unwrap_err();
    assert!(matches!(error, ContextError::ServerEnded));
    renderer.poll_fences();
    assert!(!is_readable(&renderer));
}
