// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How memory of the host gets into a guest, message by message: without a VM, but with the real library and its server. The
//! front-end plays QEMU 11.1, and notices what would crash it.

mod guest_copies;
mod rig;

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;
use display_protocol::ResizeResult;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, Framebuffer, Rect, Request as DisplayRequest,
    ResponseKind,
};
use frontend::shared_memory::{MAX_MAPS, Request};
use frontend::{DEFAULT_LIMIT, Session};
use rustix::fs::{SealFlags, fcntl_get_seals};
use virtio_bindings::virtio_gpu as v;

use crate::common::{assert_clean_exit, assert_shows, ok, pattern, picture};
use rig::{
    BLOB, CONTROL, CURSOR, MAP_BLOB, PAGE, REGION, Rig, UNMAP_BLOB, UNREF, connect, create_blob,
    create_context, driver, share_guest_memory, start_rings,
};

/// Much more than the device needs to send a request.
const SOON: Duration = Duration::from_millis(100);

/// A way to stop rings.
type Stop = fn(&mut Session) -> frontend::Result<()>;

const STOPS: [Stop; 4] = [
    |session| session.enable_queue(CONTROL, false),
    |session| session.enable_queue(CURSOR, false),
    |session| session.stop_queue(CONTROL).map(drop),
    |session| session.stop_queue(CURSOR).map(drop),
];

#[test]
fn blob_is_mapped_when_the_guest_sees_it_and_unmapped_before_it_is_destroyed() -> anyhow::Result<()>
{
    let mut rig = Rig::idle(&[])?;
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    rig.gpu.session.set_gpu_socket(&socket)?;
    drop(socket);
    rig.begin(1, BLOB)?;

    let ticket = rig.submit_map(1, BLOB)?;
    let map = rig.asked_to_map()?;
    let place = (map.region, map.offset, map.len);
    assert_eq!(place, (REGION, BLOB.into(), BLOB.into()));
    // QEMU gets SIGBUS if the file becomes shorter.
    let seals = fcntl_get_seals(map.file.as_fd())?;
    ensure!(seals.contains(SealFlags::SHRINK), "{seals:?}");
    rig.waiting(1)?;
    rig.memory.serve(Request::Map(map))?;
    // The guest sees it only when the devices are told.
    rig.waiting(1)?;
    rig.memory.share(&mut rig.gpu.session)?;
    let response = rig.answered(ticket, ResponseKind::OkMapInfo)?;
    assert_eq!(
        response.body[..4],
        v::VIRTIO_GPU_MAP_CACHE_CACHED.to_le_bytes()
    );

    // It is the blob's memory.
    let (size, format) = ((64, 64), Format::B8G8R8X8);
    let whole = Rect::sized(size.0, size.1);
    let pixels = picture(format, size, pattern);
    rig.memory.write(REGION, BLOB.into(), &pixels)?;
    let framebuffer = Framebuffer {
        format,
        size,
        stride: size.0 * 4,
        offset: 0,
    };
    ok(rig.gpu.set_scanout_blob(0, 1, whole, &framebuffer));
    ok(rig.gpu.flush(1, whole));
    display.wait_count(DisplayRequest::Update, 1)?;
    assert_shows(&display, 0, size, pattern);
    ok(rig.gpu.set_scanout(0, 0, Rect::default()));

    let ticket = rig.submit(UNMAP_BLOB, &[1, 0])?;
    let request = rig.memory.receive()?;
    rig.waiting(1)?;
    rig.serve(request)?;
    rig.answered(ticket, ResponseKind::OkNodata)?;

    rig.map(1, 0)?;
    let ticket = rig.submit(UNREF, &[1, 0])?;
    let request = rig.memory.receive()?;
    assert!(
        matches!(request, Request::Unmap { offset: 0, .. }),
        "{request:?}"
    );
    rig.waiting(1)?;
    rig.serve(request)?;
    rig.answered(ticket, ResponseKind::OkNodata)?;
    assert_eq!(rig.memory.count(), 0);
    rig.refused(1, 0, ResponseKind::ErrInvalidResourceId)?;
    rig.finish();
    display.finish()?;
    Ok(())
}

/// QEMU crashes if it reads a request while it does not run the device.
#[test]
fn request_under_way_is_withdrawn_when_rings_stop() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(1, BLOB)?;
    for stop in STOPS {
        for command in [MAP_BLOB, UNMAP_BLOB] {
            let ticket = rig.submit(command, &[1, 0, 0, 0])?;
            ensure!(rig.memory.is_asked(DEFAULT_LIMIT)?);
            rig.memory.set_running(false);
            stop(&mut rig.gpu.session)?;
            let request = rig.memory.receive()?;
            assert!(matches!(request, Request::Unknown), "{request:?}");
            rig.serve(request)?;
            rig.silent()?;
            rig.pause()?;
            rig.silent()?;
            rig.resume()?;
            let request = rig.memory.receive()?;
            let is_map = matches!(request, Request::Map(_));
            assert_eq!(is_map, command == MAP_BLOB, "{request:?}");
            rig.serve(request)?;
            let kind = match is_map {
                true => ResponseKind::OkMapInfo,
                false => ResponseKind::OkNodata,
            };
            rig.answered(ticket, kind)?;
        }
    }
    rig.finish();
    Ok(())
}

#[test]
fn rings_that_are_only_disabled_and_enabled_bring_the_request_again() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(1, BLOB)?;
    let ticket = rig.submit_map(1, 0)?;
    ensure!(rig.memory.is_asked(DEFAULT_LIMIT)?);
    for enabled in [false, true] {
        for queue in [CONTROL, CURSOR] {
            rig.gpu.session.enable_queue(queue, enabled)?;
        }
    }
    let request = rig.memory.receive()?;
    assert!(matches!(request, Request::Unknown), "{request:?}");
    let map = rig.asked_to_map()?;
    rig.serve(Request::Map(map))?;
    rig.answered(ticket, ResponseKind::OkMapInfo)?;
    rig.finish();
    Ok(())
}

#[test]
fn front_end_is_asked_for_nothing_while_rings_do_not_run() -> anyhow::Result<()> {
    let mut rig = Rig::idle(&[])?;
    rig.silent()?;
    share_guest_memory(&mut rig.gpu)?;
    rig.silent()?;
    rig.resume()?;
    rig.create(2, BLOB);
    for stop in STOPS {
        let ticket = rig.submit_map(1, 0)?;
        let first = Request::Map(rig.asked_to_map()?);
        // The device has this one already, and it is the next when the first is answered.
        let waiting = rig.submit_map(2, BLOB)?;
        rig.waiting(2)?;
        rig.memory.set_running(false);
        stop(&mut rig.gpu.session)?;
        rig.memory.serve(first)?;
        // Each message of the front-end could withdraw it.
        ensure!(!rig.memory.is_asked(SOON)?, "{:?}", rig.memory.receive());
        rig.pause()?;
        let new = rig.submit(UNMAP_BLOB, &[1, 0])?;
        rig.silent()?;
        rig.resume()?;
        rig.answered(ticket, ResponseKind::OkMapInfo)?;
        let second = rig.asked_to_map()?;
        rig.serve(Request::Map(second))?;
        rig.answered(waiting, ResponseKind::OkMapInfo)?;
        rig.unmap_at(0)?;
        rig.answered(new, ResponseKind::OkNodata)?;
        rig.unmap(2, BLOB)?;
    }
    rig.finish();
    Ok(())
}

#[test]
fn maps_outlive_a_pause_and_end_with_a_reset() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(2, BLOB)?;
    rig.map(1, 0)?;
    rig.map(2, BLOB)?;
    rig.pause()?;
    rig.resume()?;
    rig.silent()?;
    rig.refused(1, 2 * BLOB, ResponseKind::ErrInvalidParameter)?;
    rig.unmap(1, 0)?;
    rig.refused(1, BLOB, ResponseKind::ErrInvalidParameter)?;
    rig.map(1, 0)?;

    // The front-end removes the maps itself.
    rig.reset()?;
    rig.silent()?;
    rig.refused(1, 0, ResponseKind::ErrInvalidResourceId)?;
    rig.create(2, BLOB);
    rig.map(1, BLOB)?;
    rig.map(2, 0)?;
    rig.unmap(1, BLOB)?;
    rig.finish();
    Ok(())
}

/// QEMU ends when it has twice as many maps and pieces of the guest's memory.
#[test]
fn maps_are_limited() -> anyhow::Result<()> {
    let most = MAX_MAPS as u32;
    let mut rig = Rig::with_blobs(most + 1, PAGE)?;
    for id in 1..=most {
        rig.map(id, id * PAGE)?;
    }
    assert_eq!(rig.memory.count(), MAX_MAPS);
    rig.refused(most + 1, 0, ResponseKind::ErrOutOfMemory)?;
    rig.unmap(7, 7 * PAGE)?;
    rig.map(most + 1, 0)?;
    rig.finish();
    Ok(())
}

/// QEMU ends at its start if regions have any other size.
#[test]
fn region_has_a_power_of_two() -> anyhow::Result<()> {
    for (options, size) in [
        (&[][..], 1 << 30),
        (&["--host-visible-memory=64M"], 64 << 20),
    ] {
        let mut rig = Rig::idle(options)?;
        for region in 0..=u8::MAX {
            let expected = if region == REGION { size } else { 0 };
            assert_eq!(rig.memory.size(region), expected, "region {region}");
        }
        rig.begin(1, BLOB)?;
        let end = u32::try_from(size)?;
        rig.refused(1, end - PAGE, ResponseKind::ErrInvalidParameter)?;
        rig.map(1, end - BLOB)?;
        rig.finish();
    }
    Ok(())
}

/// They go by the same channel as maps.
#[test]
fn sizes_are_not_told_to_a_guest_that_is_being_stopped() -> anyhow::Result<()> {
    let mut rig = Rig::idle(&["--allow-resize"])?;
    let mut asker = rig.asker();
    rig.begin(1, BLOB)?;
    rig.gpu.get_display_info()?;
    for (height, stop) in (700..).zip(STOPS) {
        assert_eq!(asker.ask((0, 1000, height)), ResizeResult::Done);
        ensure!(rig.memory.is_asked(DEFAULT_LIMIT)?);
        rig.memory.set_running(false);
        stop(&mut rig.gpu.session)?;
        let request = rig.memory.receive()?;
        assert!(matches!(request, Request::Unknown), "{request:?}");
        rig.serve(request)?;
        rig.pause()?;
        assert_eq!(asker.ask((0, 1000, 1000)), ResizeResult::Refused);
        rig.silent()?;
        rig.resume()?;
        let request = rig.memory.receive()?;
        assert!(matches!(request, Request::ConfigChange), "{request:?}");
        rig.serve(request)?;
        let heads = rig.gpu.get_display_info()?;
        ensure!(heads[0].rect == Rect::sized(1000, height), "{heads:?}");
        rig.map(1, 0)?;
        rig.unmap(1, 0)?;
    }
    drop(asker);
    rig.finish();
    Ok(())
}

/// Whatever the front-end has done of it by then.
#[test]
fn map_under_way_at_a_reset_is_none_of_the_next_driver() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(1, BLOB)?;
    // The guest does not see it yet.
    rig.submit_map(1, 0)?;
    let map = rig.asked_to_map()?;
    rig.memory.serve(Request::Map(map))?;
    rig.reset()?;
    rig.silent()?;
    rig.create(1, BLOB);
    rig.map(1, 0)?;
    rig.unmap(1, 0)?;

    // The front-end has not answered, as it has begun to stop the device.
    rig.submit_map(1, 0)?;
    ensure!(rig.memory.is_asked(DEFAULT_LIMIT)?);
    rig.memory.set_running(false);
    for queue in [CONTROL, CURSOR] {
        rig.gpu.session.enable_queue(queue, false)?;
    }
    let request = rig.memory.receive()?;
    assert!(matches!(request, Request::Unknown), "{request:?}");
    rig.serve(request)?;
    rig.reset()?;
    rig.silent()?;
    rig.create(1, BLOB);
    rig.map(1, 0)?;
    rig.finish();
    Ok(())
}

#[test]
fn front_end_may_refuse_to_map_and_map_something_else() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(2, BLOB)?;
    for _ in 0..2 {
        let ticket = rig.submit_map(1, 0)?;
        let map = rig.asked_to_map()?;
        rig.memory.refuse(&Request::Map(map))?;
        rig.answered(ticket, ResponseKind::ErrUnspec)?;
        rig.silent()?;
    }
    rig.map(2, 0)?;
    rig.map(1, BLOB)?;
    rig.finish();
    Ok(())
}

#[test]
fn front_end_that_does_not_answer_delays_nothing_but_maps() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(2, BLOB)?;
    let first = rig.submit_map(1, 0)?;
    let unanswered = Request::Map(rig.asked_to_map()?);
    let second = rig.submit_map(2, BLOB)?;
    rig.waiting(2)?;
    create_blob(&mut rig.gpu, 3, BLOB);
    rig.pause()?;
    rig.silent()?;
    rig.resume()?;
    rig.waiting(2)?;
    rig.memory.refuse(&unanswered)?;
    rig.answered(first, ResponseKind::ErrUnspec)?;
    let map = rig.asked_to_map()?;
    assert_eq!(map.offset, u64::from(BLOB));
    rig.serve(Request::Map(map))?;
    rig.answered(second, ResponseKind::OkMapInfo)?;
    // And the VM ends while one is unanswered.
    rig.submit_map(3, 0)?;
    rig.asked_to_map()?;
    rig.finish();
    Ok(())
}

/// QEMU says nothing of a map in a BAR that the guest has hidden.
#[test]
fn map_that_the_guest_does_not_see_is_answered_after_a_time() -> anyhow::Result<()> {
    let mut rig = Rig::with_blobs(2, BLOB)?;
    let ticket = rig.submit_map(1, 0)?;
    let map = rig.asked_to_map()?;
    rig.memory.serve(Request::Map(map))?;
    rig.waiting(1)?;
    rig.answered(ticket, ResponseKind::OkMapInfo)?;
    rig.unmap(1, 0)?;
    rig.map(2, 0)?;
    rig.finish();
    Ok(())
}

/// As every front-end but that of QEMU's generic device.
#[test]
fn front_end_that_asks_for_no_region_is_not_asked_to_map() -> anyhow::Result<()> {
    let (mut session, offer, (mut program, _server, _folder)) = connect(&[])?;
    let (channel, theirs) = UnixStream::pair()?;
    session.set_backend_channel(&theirs)?;
    drop(theirs);
    let mut gpu = driver(session, offer)?;
    share_guest_memory(&mut gpu)?;
    start_rings(&mut gpu, [0; 2])?;
    create_context(&mut gpu);
    create_blob(&mut gpu, 1, BLOB);
    let response = gpu.command(MAP_BLOB, &[1, 0, 0, 0])?;
    response.expect("RESOURCE_MAP_BLOB", ResponseKind::ErrUnspec)?;
    drop(gpu);
    assert_clean_exit(&mut program);
    // All that it was sent.
    let sent = std::io::read_to_string(&channel)?;
    assert_eq!(sent, "");
    Ok(())
}

/// The process that connects to the next render server.
#[test]
fn connector_has_a_sandbox_and_no_descriptor_of_the_program() -> anyhow::Result<()> {
    let rig = Rig::idle(&[])?;
    let helpers = rig.helpers()?;
    let [connector] = helpers[..] else {
        anyhow::bail!("{helpers:?}");
    };
    let read = |what: &str| fs::read_to_string(format!("/proc/{connector}/{what}"));
    assert_eq!(read("comm")?.trim_end(), "gpu-connector");
    let status = read("status")?;
    for field in [
        "Threads:\t1",
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
    ] {
        ensure!(status.lines().any(|line| line == field), "{status}");
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("/proc/{connector}/fd"))? {
        let target = fs::read_link(entry?.path())?;
        files.push(target.to_string_lossy().into_owned());
    }
    files.sort();
    let socket = files.pop().unwrap_or_default();
    ensure!(socket.starts_with("socket:["), "{socket}");
    assert_eq!(files, ["/dev/null"; 3]);
    rig.finish();
    Ok(())
}
