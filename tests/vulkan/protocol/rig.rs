// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs, the front-end and the driver, and what each of them does.

use std::time::Duration;

use anyhow::{bail, ensure};
use frontend::VhostUserProtocolFeatures as Protocol;
use frontend::gpu::{Gpu, GpuOptions, HEADER_SIZE, Response, ResponseKind, Ticket};
use frontend::shared_memory::{Map, Request, SharedMemory};
use frontend::vmm::FrontEnd;
use frontend::{FrontendReq, Offer, Program, Session, SocketForm};
use tempfile::TempDir;
use virtio_bindings::virtio_gpu as v;

use crate::common::asker::Asker;
use crate::common::{assert_clean_exit, gpu_command, guest_memory, ok};
use crate::machine::RenderServer;

pub(super) const CREATE_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB;
pub(super) const MAP_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB;
pub(super) const UNMAP_BLOB: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB;
pub(super) const UNREF: u32 = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
const FEATURES: u64 = 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB | 1 << v::VIRTIO_GPU_F_CONTEXT_INIT;

pub(super) const CONTROL: u32 = 0;
pub(super) const CURSOR: u32 = 1;
const QUEUES: u32 = 2;
pub(super) const CONTEXT: u32 = 1;
/// The region's number.
pub(super) const REGION: u8 = v::virtio_gpu_shm_id_VIRTIO_GPU_SHM_ID_HOST_VISIBLE as u8;
pub(super) const PAGE: u32 = 4096;
pub(super) const BLOB: u32 = 64 << 10;

/// The GPU and its server, a front-end that maps memory, and the guest's driver.
pub(super) struct Rig {
    pub(super) gpu: Gpu,
    pub(super) memory: SharedMemory,
    /// Where the rings go on.
    bases: [u16; 2],
    program: Program,
    _server: RenderServer,
    _folder: TempDir,
}

/// Starts a GPU, and asks what QEMU asks before it asks for regions.
pub(super) fn connect(
    options: &[&str],
) -> anyhow::Result<(Session, Offer, (Program, RenderServer, TempDir))> {
    let folder = tempfile::tempdir()?;
    let server = RenderServer::listen(folder.path())?;
    let mut program = gpu_command(SocketForm::Connected(7))
        .listen("display")
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
pub(super) fn driver(session: Session, offer: Offer) -> anyhow::Result<Gpu> {
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

pub(super) fn share_guest_memory(gpu: &mut Gpu) -> anyhow::Result<()> {
    gpu.session.set_features(gpu.features())?;
    for region in gpu.memory().clone().regions() {
        gpu.session.add_region(&region)?;
    }
    Ok(())
}

pub(super) fn start_rings(gpu: &mut Gpu, [control, cursor]: [u16; 2]) -> anyhow::Result<()> {
    let session = &mut gpu.session;
    session.start_queue_at(CONTROL, &gpu.control.queue, control)?;
    session.start_queue_at(CURSOR, &gpu.cursor.queue, cursor)?;
    Ok(())
}

pub(super) fn create_context(gpu: &mut Gpu) {
    let mut words = vec![0, v::VIRTIO_GPU_CAPSET_VENUS];
    words.resize(18, 0);
    let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
    ok(gpu.command_on(CONTEXT, create, &words));
}

/// Memory that the server shares.
pub(super) fn create_blob(gpu: &mut Gpu, id: u32, len: u32) {
    let memory = v::VIRTIO_GPU_BLOB_MEM_HOST3D;
    let flags = v::VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE;
    let words = [id, memory, flags, 0, 0, 0, len, 0];
    ok(gpu.command_on(CONTEXT, CREATE_BLOB, &words));
}

impl Rig {
    /// There is no driver yet.
    pub(super) fn idle(options: &[&str]) -> anyhow::Result<Self> {
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
    pub(super) fn with_blobs(count: u32, len: u32) -> anyhow::Result<Self> {
        let mut rig = Self::idle(&[])?;
        rig.begin(count, len)?;
        Ok(rig)
    }

    pub(super) fn begin(&mut self, count: u32, len: u32) -> anyhow::Result<()> {
        share_guest_memory(&mut self.gpu)?;
        self.resume()?;
        self.create(count, len);
        Ok(())
    }

    pub(super) fn create(&mut self, count: u32, len: u32) {
        create_context(&mut self.gpu);
        for id in 1..=count {
            create_blob(&mut self.gpu, id, len);
        }
    }

    /// Stops the rings as QEMU does.
    pub(super) fn pause(&mut self) -> anyhow::Result<()> {
        self.memory.set_running(false);
        for queue in [CONTROL, CURSOR] {
            self.gpu.session.enable_queue(queue, false)?;
        }
        for (queue, base) in [CONTROL, CURSOR].into_iter().zip(&mut self.bases) {
            *base = self.gpu.session.stop_queue(queue)?;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.memory.share(&mut self.gpu.session)?;
        start_rings(&mut self.gpu, self.bases)?;
        self.memory.set_running(true);
        Ok(())
    }

    /// The guest resets the device, and its next driver begins.
    pub(super) fn reset(&mut self) -> anyhow::Result<()> {
        self.pause()?;
        self.memory.reset();
        self.gpu.control.reset()?;
        self.gpu.cursor.reset()?;
        self.bases = [0; 2];
        self.gpu.session.set_features(self.gpu.features())?;
        self.resume()
    }

    /// The driver sends a command, and does not wait.
    pub(super) fn submit(&mut self, command: u32, words: &[u32]) -> anyhow::Result<Ticket> {
        let request = self.gpu.request(command, words);
        let ticket = self.gpu.control.push(&request, HEADER_SIZE as u32 + 8)?;
        self.gpu.control.queue.submit()?;
        Ok(ticket)
    }

    pub(super) fn submit_map(&mut self, id: u32, offset: u32) -> anyhow::Result<Ticket> {
        self.submit(MAP_BLOB, &[id, 0, offset, 0])
    }

    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        kind: ResponseKind,
    ) -> anyhow::Result<Response> {
        let response = self.gpu.control.wait(ticket)?;
        Ok(response.expect("a command", kind)?)
    }

    /// The front-end does what it is asked, and tells its devices.
    pub(super) fn serve(&mut self, request: Request) -> anyhow::Result<()> {
        self.memory.serve(request)?;
        self.memory.share(&mut self.gpu.session)?;
        Ok(())
    }

    /// The front-end is asked to map.
    pub(super) fn asked_to_map(&mut self) -> anyhow::Result<Map> {
        match self.memory.receive()? {
            Request::Map(map) => Ok(map),
            other => bail!("{other:?}"),
        }
    }

    /// The front-end is asked to unmap this, and does.
    pub(super) fn unmap_at(&mut self, at: u32) -> anyhow::Result<()> {
        let request = self.memory.receive()?;
        let is_it = matches!(request, Request::Unmap { offset, .. } if offset == u64::from(at));
        ensure!(is_it, "{request:?}");
        self.serve(request)
    }

    /// A command is executed, with all that the front-end has to do for it.
    pub(super) fn map(&mut self, id: u32, offset: u32) -> anyhow::Result<Response> {
        let ticket = self.submit_map(id, offset)?;
        let map = self.asked_to_map()?;
        ensure!(
            (map.region, map.offset) == (REGION, offset.into()),
            "{map:?}"
        );
        self.serve(Request::Map(map))?;
        self.answered(ticket, ResponseKind::OkMapInfo)
    }

    pub(super) fn unmap(&mut self, id: u32, offset: u32) -> anyhow::Result<()> {
        let ticket = self.submit(UNMAP_BLOB, &[id, 0])?;
        self.unmap_at(offset)?;
        self.answered(ticket, ResponseKind::OkNodata)?;
        Ok(())
    }

    /// A map is refused without the front-end.
    pub(super) fn refused(
        &mut self,
        id: u32,
        offset: u32,
        kind: ResponseKind,
    ) -> anyhow::Result<()> {
        let ticket = self.submit_map(id, offset)?;
        self.answered(ticket, kind)?;
        self.silent()
    }

    /// The front-end is asked for nothing. What the device wanted so far would have come.
    pub(super) fn silent(&mut self) -> anyhow::Result<()> {
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
    pub(super) fn waiting(&mut self, count: usize) -> anyhow::Result<()> {
        self.silent()?;
        for _ in 0..2 {
            self.gpu.get_display_info()?;
        }
        assert_eq!(self.gpu.control.queue.outstanding(), count);
        Ok(())
    }

    /// Waits until the GPU has said this.
    pub(super) fn wait_said(&self, text: &str) -> anyhow::Result<()> {
        Ok(self.program.wait_stderr(text)?)
    }

    /// A console that asks for other sizes.
    pub(super) fn asker(&mut self) -> Asker {
        Asker::connect(&mut self.program)
    }

    /// The processes beside the GPU's program.
    pub(super) fn helpers(&self) -> anyhow::Result<Vec<u32>> {
        let pid = self.program.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children)?;
        let pids = children.split_whitespace().map(str::parse);
        Ok(pids.collect::<Result<_, _>>()?)
    }

    /// The VM ends.
    pub(super) fn finish(mut self) {
        drop((self.gpu, self.memory));
        assert_clean_exit(&mut self.program);
    }
}
