//! The device behind vhost-user: its queues, its configuration and its events.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use conventions::GpuMemory;
use virtio_bindings::virtio_gpu;
use vm_memory::GuestAddressSpace;

use super::display::{Display, PixelFallback, UPDATE_LIMIT};
use super::display_info::DisplayReply;
use super::protocol::{Features, MAX_SCANOUTS};
use super::renderer::{Renderer, SoftwareRenderer};
#[cfg(feature = "virgl")]
use super::renderer::{VirglRenderer, virgl};
use super::resource::Budget;
use super::scanout::{ActiveScanout, DmabufSupport};
use super::virtio_gpu::VirtioGpu;
use crate::backend::{
    Device, DeviceBuilder, DeviceContext, EventSet, GuestMemory, RateLimitedLog, SandboxPolicy,
    Vring,
};
use continuity::DriverSession;
use cursor_order::CursorOrder;
use events::{DISPLAY, EventSources, FENCE, TIMER, WAKE};
use fenced::FencedRequests;

mod continuity;
mod cursor_order;
mod events;
mod fenced;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod queues;
mod shown;

const CONTROL_QUEUE: u16 = 0;
const CURSOR_QUEUE: u16 = 1;
const NUM_QUEUES: usize = 2;

/// `struct virtio_gpu_config`: events_read, events_clear, num_scanouts, num_capsets.
const CONFIG_LEN: usize = 16;
/// Most bytes of configuration that a front-end asks for (`VHOST_USER_CONFIG_SIZE`).
const MAX_CONFIG_LEN: usize = 256;

/// What a device can be told when it is made.
#[derive(Debug, Default)]
pub struct Options {
    /// Most bytes of host memory that the guest's resources may take; by default, half a gigabyte
    /// in 2D and two in 3D.
    pub max_hostmem: Option<u64>,
    /// 3D by virglrenderer, and on what.
    #[cfg(feature = "virgl")]
    pub virgl: Option<virgl::Options>,
}

/// A virtio GPU.
pub struct Gpu {
    state: VirtioGpu,
    /// The features that the driver accepted.
    features: Features,
    display: Display,
    /// The front-end's reply to the query of the control queue's next request.
    display_reply: Option<DisplayReply>,
    memory: GuestMemory,
    events: EventSources,
    continuity: DriverSession,
    /// Queues in which requests may wait.
    waiting: [bool; NUM_QUEUES],
    cursor_order: CursorOrder,
    /// How many sets of capabilities there are: none without 3D.
    capsets: u32,
    fenced: FencedRequests,
    /// What the protocol thread leaves to the worker, to whose thread a renderer may be bound.
    reset_due: bool,
    memory_changed: bool,
    /// What was said last of what the scanouts show: sizes, and whether as dmabufs.
    status: Vec<ActiveScanout>,
    takes: DmabufSupport,
    guest_errors: RateLimitedLog,
    device_errors: RateLimitedLog,
}

impl Gpu {
    /// A device that draws with `renderer`, and to which no driver did anything yet.
    fn new(context: DeviceContext, renderer: Box<dyn Renderer>) -> io::Result<Self> {
        let mut state = VirtioGpu::new(renderer);
        let mut display = Display::default();
        let mut capsets = 0;
        if let Some(renderer) = state.renderer_3d_mut() {
            context.watch(renderer.fence_event(), EventSet::IN, FENCE)?;
            capsets = renderer.capsets().len() as u32;
        }
        if state.exports() {
            display.enable_dmabufs();
        }
        Ok(Self {
            state,
            features: Features::default(),
            display,
            display_reply: None,
            memory: context.memory().clone(),
            events: EventSources::new(context)?,
            continuity: DriverSession::default(),
            waiting: [false; NUM_QUEUES],
            cursor_order: CursorOrder::default(),
            capsets,
            fenced: FencedRequests::default(),
            reset_due: false,
            memory_changed: false,
            status: Vec::new(),
            takes: DmabufSupport::default(),
            guest_errors: RateLimitedLog::default(),
            device_errors: RateLimitedLog::default(),
        })
    }

    /// Drops what the last driver set up.
    fn reset(&mut self) {
        self.state.reset();
        self.display.cancel_query();
        self.display_reply = None;
        self.fenced.forget();
        self.continuity = DriverSession::default();
    }

    /// Does what the protocol thread left to the worker.
    fn apply_deferred(&mut self) {
        if std::mem::take(&mut self.reset_due) {
            self.reset();
        }
        if std::mem::take(&mut self.memory_changed) {
            self.state.memory_changed(&self.memory.memory());
            // What did not lie in the memory may do so now, and nobody kicks for it again.
            self.waiting = [true; NUM_QUEUES];
        }
    }

    /// Whether what the driver set up is there to be shown.
    fn is_settled(&self) -> bool {
        !self.continuity.is_stopped() && !self.reset_due
    }
}

impl DeviceBuilder for Options {
    type Device = Gpu;
    type Error = io::Error;

    #[cfg(feature = "virgl")]
    fn sandbox_policy(&self) -> SandboxPolicy {
        let virgl = self.virgl.as_ref();
        virgl
            .map(virgl::Options::sandbox_policy)
            .unwrap_or_default()
    }

    #[cfg(not(feature = "virgl"))]
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }

    fn build(self, context: DeviceContext) -> io::Result<Gpu> {
        #[cfg(feature = "virgl")]
        if let Some(options) = self.virgl {
            let budget = Budget::new(self.max_hostmem.unwrap_or(GpuMemory::VIRGL.max_hostmem));
            let renderer = VirglRenderer::new(options, budget).map_err(io::Error::other)?;
            return Gpu::new(context, Box::new(renderer));
        }
        let budget = Budget::new(self.max_hostmem.unwrap_or(GpuMemory::TWO_D.max_hostmem));
        Gpu::new(context, Box::new(SoftwareRenderer::new(budget)))
    }
}

impl Device for Gpu {
    const QUEUES: usize = NUM_QUEUES;

    fn features(&self) -> u64 {
        1 << virtio_gpu::VIRTIO_GPU_F_EDID
            | 1 << virtio_gpu::VIRTIO_GPU_F_RESOURCE_UUID
            | u64::from(self.capsets != 0) << virtio_gpu::VIRTIO_GPU_F_VIRGL
    }

    fn acked_features(&mut self, features: u64) {
        self.features = Features {
            virgl: features & 1 << virtio_gpu::VIRTIO_GPU_F_VIRGL != 0,
        };
    }

    fn reset_device(&mut self) {
        self.fenced.forget();
        self.reset_due = true;
        self.events.wake();
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.continuity.config_was_read();
        let mut config = [0; MAX_CONFIG_LEN];
        // QEMU puts its own number of scanouts and its events over ours.
        config[8..12].copy_from_slice(&(MAX_SCANOUTS as u32).to_le_bytes());
        config[12..16].copy_from_slice(&self.capsets.to_le_bytes());
        let start = offset as usize;
        let end = start.saturating_add(size as usize);
        // What newer versions of the structure have beyond ours is 0.
        config
            .get(start..end)
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    fn set_config(&mut self, offset: u32, buf: &[u8]) -> io::Result<()> {
        let end = (offset as usize).saturating_add(buf.len());
        if end > MAX_CONFIG_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{end} bytes of configuration, there are {CONFIG_LEN}"),
            ));
        }
        // Only events_clear can be written, and all events are the front-end's.
        Ok(())
    }

    fn memory_changed(&mut self) {
        self.memory_changed = true;
        self.events.wake();
    }

    fn set_gpu_socket(&mut self, socket: UnixStream) {
        self.adopt(socket);
    }

    fn stop_vring(&mut self, queue_index: u32) -> io::Result<()> {
        self.continuity.stop(queue_index == u32::from(CURSOR_QUEUE));
        if let Some(waiting) = self.waiting.get_mut(queue_index as usize) {
            *waiting = false;
        }
        if self.cursor_order.forget() && queue_index != u32::from(CURSOR_QUEUE) {
            self.waiting[usize::from(CURSOR_QUEUE)] = true;
        }
        if queue_index == u32::from(CONTROL_QUEUE) {
            self.state.drop_partial();
            self.display.cancel_query();
            self.display_reply = None;
            if let Err(e) = self.fenced.answer_all(&self.memory) {
                self.device_errors.warn(format_args!("Control queue: {e}"));
            }
        }
        self.settle();
        Ok(())
    }

    fn handle_event(
        &mut self,
        device_event: u16,
        _ready: EventSet,
        vrings: &[Vring],
    ) -> io::Result<()> {
        self.apply_deferred();
        match device_event {
            CONTROL_QUEUE | CURSOR_QUEUE => {
                if let Some(waiting) = self.waiting.get_mut(usize::from(device_event)) {
                    *waiting = true;
                }
            }
            DISPLAY => {
                if let Err(e) = self.display.receive(Instant::now()) {
                    self.lost_display(&e);
                }
            }
            TIMER => {
                self.events.timer_rang();
                let expired = self.display.expire(Instant::now());
                if let Some(pixels) = expired.dmabuf_update {
                    let until = match pixels {
                        PixelFallback::UntilAnswered => "until it answers",
                        PixelFallback::Permanent => "from now on, for it was late too often",
                    };
                    self.device_errors.warn(format_args!(
                        "the front-end did not answer DMABUF_UPDATE within {} s: it is sent pixels \
                         {until}; --no-dmabuf does so from the start",
                        UPDATE_LIMIT.as_secs()
                    ));
                }
                if expired.query {
                    self.device_errors.warn(
                        "the front-end did not answer on the display socket in time; \
                         the guest gets what the device knows itself",
                    );
                }
            }
            FENCE => {
                if let Some(renderer) = self.state.renderer_3d_mut() {
                    renderer.poll_fences();
                }
                self.waiting[usize::from(CONTROL_QUEUE)] = true;
            }
            WAKE => self.events.woke(),
            unknown => {
                self.device_errors
                    .warn(format_args!("event {unknown} is none of the device's"));
                return Ok(());
            }
        }
        self.take_answer();
        self.update_dmabuf_support();
        self.serve(vrings);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
