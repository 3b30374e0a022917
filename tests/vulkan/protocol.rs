// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How memory of the host gets into a guest, message by message: without a VM, but with the real library and its server. The
//! front-end plays QEMU 11.1, and notices what would crash it.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{bail, ensure};
use frontend::VhostUserProtocolFeatures as Protocol;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, Framebuffer, Gpu, GpuOptions, HEADER_SIZE, Rect,
    Request as DisplayRequest, Response, ResponseKind, Ticket,
};
use frontend::shared_memory::{MAX_MAPS, Map, Request, SharedMemory};
use frontend::vmm::FrontEnd;
use frontend::{DEFAULT_LIMIT, FrontendReq, Offer, Program, Session, SocketForm};
use rustix::fs::{SealFlags, fcntl_get_seals};
use tempfile::TempDir;
use virtio_bindings::virtio_gpu as v;

use crate::common::{
    assert_clean_exit, assert_shows, gpu_command, guest_memory, ok, pattern, picture,
};
use crate::machine::RenderServer;

const CREATE_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB;
const MAP_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB;
const UNMAP_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB;
const UNREF: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
const FEATURES: u64 = 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB | 1 << v::VIRTIO_GPU_F_CONTEXT_INIT;

const CONTROL: u32 = 0;
const CURSOR: u32 = 1;
const QUEUES: u32 = 2;
const CONTEXT: u32 = 1;
/// The region's number.
const REGION: u8 = v::virtio_gpu_shm_id_VIRTIO_GPU_SHM_ID_HOST_VISIBLE as u8;
const PAGE: u32 = 4096;
const BLOB: u32 = 64 << 10;
/// Much more than the device needs to send a request.
const SOON: Duration = Duration::from_millis(100);

/// The GPU and its server, a front-end that maps memory, and the guest's driver.
struct Rig {
    gpu: Gpu,
    memory: SharedMemory,
    /// Where the rings go on.
    bases: [u16; 2],
    program: Program,
    _server: RenderServer,
    _folder: TempDir,
}

/// Starts a GPU, and asks what QEMU asks before it asks for regions.
fn connect(options: &[&str]) -> anyhow::Result<(Session, Offer, (Program, RenderServer, TempDir))> {
    let folder = tempfile::tempdir()?;
    let server = RenderServer::listen(folder.path())?;
    let mut program = gpu_command(SocketForm::Connected(7))
        .arg("--venus")
        .arg(format!("--render-server={}", server.path().display()))
        .args(options)
        .spawn()?;
    let mut session = program.session()?;
    let offer = FrontEnd::Qemu10.connect(&mut session, QUEUES)?;
    let offered = offer.protocol_features;
    let needed = Protocol::SHMEM | Protocol::BACKEND_REQ | Protocol::CONFIGURE_MEM_SLOTS;
    ensure!(
        offered.contains(needed | Protocol::REPLY_ACK),
        "{offered:?}"
    );
    session.acknowledge = true;
    Ok((session, offer, (program, server, folder)))
}

/// A driver with all that Linux takes.
fn driver(session: Session, offer: Offer) -> anyhow::Result<Gpu> {
    let options = GpuOptions::virgl();
    let features = options.features | FEATURES;
    let options = GpuOptions {
        features,
        ..options
    };
    let gpu = Gpu::on(session, offer, &guest_memory(), options)?;
    ensure!(gpu.features() & FEATURES == FEATURES);
    Ok(gpu)
}

fn share_guest_memory(gpu: &mut Gpu) -> anyhow::Result<()> {
    gpu.session.set_features(gpu.features())?;
    for region in gpu.memory().clone().regions() {
        gpu.session.add_region(&region)?;
    }
    Ok(())
}

fn start_rings(gpu: &mut Gpu, [control, cursor]: [u16; 2]) -> anyhow::Result<()> {
    let session = &mut gpu.session;
    session.start_queue_at(CONTROL, &gpu.control.queue, control)?;
    session.start_queue_at(CURSOR, &gpu.cursor.queue, cursor)?;
    Ok(())
}

fn create_context(gpu: &mut Gpu) {
    let mut words = vec![0, v::VIRTIO_GPU_CAPSET_VENUS];
    words.resize(18, 0);
    let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
    ok(gpu.command_on(CONTEXT, create, &words));
}

/// Memory that the server shares.
fn create_blob(gpu: &mut Gpu, id: u32, len: u32) {
    let memory = v::VIRTIO_GPU_BLOB_MEM_HOST3D;
    let flags = v::VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE;
    let words = [id, memory, flags, 0, 0, 0, len, 0];
    ok(gpu.command_on(CONTEXT, CREATE_BLOB, &words));
}

impl Rig {
    /// There is no driver yet.
    fn idle(options: &[&str]) -> anyhow::Result<Self> {
        let (mut session, offer, (program, server, folder)) = connect(options)?;
        Ok(Self {
            memory: SharedMemory::connect(&mut session)?,
            gpu: driver(session, offer)?,
            bases: [0; 2],
            program,
            _server: server,
            _folder: folder,
        })
    }

    /// The driver has a context, and blobs.
    fn with_blobs(count: u32, len: u32) -> anyhow::Result<Self> {
        let mut rig = Self::idle(&[])?;
        rig.begin(count, len)?;
        Ok(rig)
    }

    fn begin(&mut self, count: u32, len: u32) -> anyhow::Result<()> {
        share_guest_memory(&mut self.gpu)?;
        self.resume()?;
        self.create(count, len);
        Ok(())
    }

    fn create(&mut self, count: u32, len: u32) {
        create_context(&mut self.gpu);
        for id in 1..=count {
            create_blob(&mut self.gpu, id, len);
        }
    }

    /// Stops the rings as QEMU does.
    fn pause(&mut self) -> anyhow::Result<()> {
        self.memory.set_running(false);
        for queue in [CONTROL, CURSOR] {
            self.gpu.session.enable_queue(queue, false)?;
        }
        for (queue, base) in [CONTROL, CURSOR].into_iter().zip(&mut self.bases) {
            *base = self.gpu.session.stop_queue(queue)?;
        }
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        self.memory.share(&mut self.gpu.session)?;
        start_rings(&mut self.gpu, self.bases)?;
        self.memory.set_running(true);
        Ok(())
    }

    /// The guest resets the device, and its next driver begins.
    fn reset(&mut self) -> anyhow::Result<()> {
        self.pause()?;
        self.memory.reset();
        self.gpu.control.reset()?;
        self.gpu.cursor.reset()?;
        self.bases = [0; 2];
        self.gpu.session.set_features(self.gpu.features())?;
        self.resume()
    }

    /// The driver sends a command, and does not wait.
    fn submit(&mut self, command: u32, words: &[u32]) -> anyhow::Result<Ticket> {
        let request = self.gpu.request(command, words);
        let ticket = self.gpu.control.push(&request, HEADER_SIZE as u32 + 8)?;
        self.gpu.control.queue.submit()?;
        Ok(ticket)
    }

    fn submit_map(&mut self, id: u32, offset: u32) -> anyhow::Result<Ticket> {
        self.submit(MAP_BLOB, &[id, 0, offset, 0])
    }

    fn answered(&mut self, ticket: Ticket, kind: ResponseKind) -> anyhow::Result<Response> {
        let response = self.gpu.control.wait(ticket)?;
        Ok(response.expect("a command", kind)?)
    }

    /// The front-end does what it is asked, and tells its devices.
    fn serve(&mut self, request: Request) -> anyhow::Result<()> {
        self.memory.serve(request)?;
        self.memory.share(&mut self.gpu.session)?;
        Ok(())
    }

    /// The front-end is asked to map.
    fn asked_to_map(&mut self) -> anyhow::Result<Map> {
        match self.memory.receive()? {
            Request::Map(map) => Ok(map),
            other => bail!("{other:?}"),
        }
    }

    /// The front-end is asked to unmap this, and does.
    fn unmap_at(&mut self, at: u32) -> anyhow::Result<()> {
        let request = self.memory.receive()?;
        let is_it = matches!(request, Request::Unmap { offset, .. } if offset == u64::from(at));
        ensure!(is_it, "{request:?}");
        self.serve(request)
    }

    /// A command is executed, with all that the front-end has to do for it.
    fn map(&mut self, id: u32, offset: u32) -> anyhow::Result<Response> {
        let ticket = self.submit_map(id, offset)?;
        let map = self.asked_to_map()?;
        ensure!(
            (map.region, map.offset) == (REGION, offset.into()),
            "{map:?}"
        );
        self.serve(Request::Map(map))?;
        self.answered(ticket, ResponseKind::OkMapInfo)
    }

    fn unmap(&mut self, id: u32, offset: u32) -> anyhow::Result<()> {
        let ticket = self.submit(UNMAP_BLOB, &[id, 0])?;
        self.unmap_at(offset)?;
        self.answered(ticket, ResponseKind::OkNodata)?;
        Ok(())
    }

    /// A map is refused without the front-end.
    fn refused(&mut self, id: u32, offset: u32, kind: ResponseKind) -> anyhow::Result<()> {
        let ticket = self.submit_map(id, offset)?;
        self.answered(ticket, kind)?;
        self.silent()
    }

    /// The front-end is asked for nothing. What the device wanted so far would have come.
    fn silent(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            self.gpu.session.get_u64(FrontendReq::GET_FEATURES)?;
        }
        ensure!(
            !self.memory.is_asked(Duration::ZERO)?,
            "{:?}",
            self.memory.receive()
        );
        Ok(())
    }

    /// All but these commands are executed.
    fn waiting(&mut self, count: usize) -> anyhow::Result<()> {
        self.silent()?;
        for _ in 0..2 {
            self.gpu.get_display_info()?;
        }
        assert_eq!(self.gpu.control.queue.outstanding(), count);
        Ok(())
    }

    /// The VM ends.
    fn finish(mut self) {
        drop((self.gpu, self.memory));
        assert_clean_exit(&mut self.program);
    }
}

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
