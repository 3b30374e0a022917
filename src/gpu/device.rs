//! The device behind vhost-user: its queues, its configuration and its events.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::vhost_user::GpuBackend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VringMutex, VringT};
use virtio_bindings::virtio_gpu;
use virtio_queue::QueueT;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;

use super::commands::{Answer, Features, Outcome, QueueKind, State};
use super::display::{Display, DisplayError, UPDATE_LIMIT};
use super::image::Budget;
use super::renderer::SoftRenderer;
#[cfg(feature = "virgl")]
use super::renderer::{VirglRenderer, virgl};
use super::scanout::Takes;
use super::wire::{HEADER_LEN, Header, MAX_SCANOUTS, Response, response};
#[cfg(feature = "virgl")]
use crate::backend::Needs;
use crate::backend::{
    Chain, Device, GuestMemory, Host, LogLimit, MAX_QUEUE_SIZE, Ring, RingError, TRANSPORT_FEATURES,
};
use continuity::Continuity;
use fenced::Fenced;
use worker::{DISPLAY, FENCE, Surroundings, TIMER, WAKE, Worker};

mod continuity;
mod fenced;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod worker;

const CONTROL_QUEUE: u16 = 0;
const CURSOR_QUEUE: u16 = 1;
const NUM_QUEUES: usize = 2;

/// Requests of one queue after which the others have their turn.
const PASS_REQUESTS: usize = 64;
/// Bytes copied out of the guest after which the others have their turn.
const PASS_BYTES: u64 = 32 << 20;
/// Time after which the others have their turn: a driver can make a request of so many descriptors
/// that looking at them takes longer than doing it, and what a 3D command takes is the guest's to
/// say.
const PASS_TIME: Duration = Duration::from_millis(10);

/// `struct virtio_gpu_config`: events_read, events_clear, num_scanouts, num_capsets.
const CONFIG_LEN: usize = 16;
/// Most bytes of configuration that a front-end asks for (`VHOST_USER_CONFIG_SIZE`).
const MAX_CONFIG_LEN: usize = 256;

/// Most bytes of host memory that the guest's resources may take, unless told otherwise.
const MAX_HOSTMEM_2D: u64 = 512 << 20;
#[cfg(feature = "virgl")]
const MAX_HOSTMEM_3D: u64 = 2 << 30;

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
    /// Of what it is made in 3D, until it begins.
    #[cfg(feature = "virgl")]
    options: Option<Options>,
    state: State,
    display: Display,
    memory: Option<GuestMemory>,
    worker: Option<Worker>,
    continuity: Continuity,
    /// Queues in which requests may wait.
    waiting: [bool; NUM_QUEUES],
    /// How many sets of capabilities there are: none without 3D.
    capsets: u32,
    fenced: Fenced,
    /// What the protocol thread leaves to the worker, to whose thread a renderer may be bound.
    reset_due: bool,
    memory_changed: bool,
    /// What was said last of what the scanouts show: sizes, and whether as dmabufs.
    status: Vec<((u32, u32), bool)>,
    takes: Takes,
    complaints: LogLimit,
    troubles: LogLimit,
}

impl Gpu {
    /// A device to which no driver did anything yet.
    pub fn new(options: Options) -> Self {
        let budget = Budget::new(options.max_hostmem.unwrap_or(MAX_HOSTMEM_2D));
        Self {
            #[cfg(feature = "virgl")]
            options: Some(options),
            state: State::new(Box::new(SoftRenderer::new(budget))),
            display: Display::default(),
            memory: None,
            worker: None,
            continuity: Continuity::default(),
            waiting: [false; NUM_QUEUES],
            capsets: 0,
            fenced: Fenced::default(),
            reset_due: false,
            memory_changed: false,
            status: Vec::new(),
            takes: Takes::default(),
            complaints: LogLimit::default(),
            troubles: LogLimit::default(),
        }
    }

    /// A device that draws with `renderer`.
    #[cfg(test)]
    fn with_renderer(renderer: Box<dyn super::renderer::Renderer>) -> Self {
        Self {
            state: State::new(renderer),
            ..Self::new(Options::default())
        }
    }

    fn begin(&mut self, host: Box<dyn Surroundings>) -> io::Result<()> {
        let worker = Worker::new(host)?;
        #[cfg(feature = "virgl")]
        if let Some(options) = self.options.take()
            && let Some(virgl) = options.virgl
        {
            let budget = Budget::new(options.max_hostmem.unwrap_or(MAX_HOSTMEM_3D));
            let renderer = VirglRenderer::new(virgl, budget).map_err(io::Error::other)?;
            self.state = State::new(Box::new(renderer));
        }
        if let Some(renderer) = self.state.renderer_3d_mut() {
            worker.watch_fences(renderer.fence_event())?;
            self.capsets = renderer.capsets().len() as u32;
        }
        if self.state.exports() {
            self.display.pass_dmabufs();
        }
        self.worker = Some(worker);
        Ok(())
    }

    /// Drops what the last driver set up.
    fn reset(&mut self) {
        self.state.reset();
        self.display.forget_question();
        self.fenced.forget();
        self.continuity = Continuity::default();
    }

    /// Does what the protocol thread left to the worker.
    fn catch_up(&mut self) {
        if std::mem::take(&mut self.reset_due) {
            self.reset();
        }
        if std::mem::take(&mut self.memory_changed)
            && let Some(memory) = &self.memory
        {
            self.state.memory_changed(&memory.memory());
        }
    }

    /// Whether what the driver set up is there to be shown.
    fn is_settled(&self) -> bool {
        !self.continuity.is_stopped() && !self.reset_due
    }

    /// Whether the queues may be served: false while, after a stop, it is not yet known who comes.
    fn decide_who_comes(&mut self, vrings: &[VringMutex]) -> bool {
        let ready = |queue: u16| {
            let state = vrings.get(usize::from(queue))?.get_ref();
            let usable = state.is_enabled() && state.get_queue().ready();
            usable.then(|| state.get_queue().next_avail())
        };
        if self.continuity.is_stopped() {
            let Some(position) = ready(CONTROL_QUEUE) else {
                return false;
            };
            if self.continuity.is_new_driver(position) {
                log::debug!("a new driver begins");
                self.reset();
            } else {
                log::debug!("the driver goes on");
                self.continuity.go_on();
            }
        }
        if ready(CURSOR_QUEUE).is_some() {
            self.continuity.cursor_runs();
        }
        true
    }

    /// Serves all that waits, as far as it should be done in one go.
    fn serve(&mut self, vrings: &[VringMutex]) {
        if self.decide_who_comes(vrings) {
            // Cursors are few and small, and should not wait for a screen full of pixels.
            for (queue, kind) in [
                (CURSOR_QUEUE, QueueKind::Cursor),
                (CONTROL_QUEUE, QueueKind::Control),
            ] {
                let index = usize::from(queue);
                let Some((vring, waiting)) = vrings.get(index).zip(self.waiting.get(index)) else {
                    continue;
                };
                if !*waiting {
                    continue;
                }
                let more = self.pass(vring, kind).unwrap_or_else(|e| {
                    self.troubles.warn(format_args!("{kind:?} queue: {e}"));
                    false
                });
                if let Some(waiting) = self.waiting.get_mut(index) {
                    *waiting = more;
                }
            }
            if let Some(control) = vrings.get(usize::from(CONTROL_QUEUE)) {
                let position = control.get_ref().get_queue().next_avail();
                self.continuity.stands_at(position);
            }
        }
        self.state.follow_drawing();
        self.settle();
    }

    /// Has screens shown in the way that the display takes.
    fn look_at_display(&mut self) {
        let takes = self.display.takes();
        if takes != self.takes {
            log::debug!("the display takes {takes:?}");
        }
        self.takes = takes;
        self.state.set_takes(takes);
        if let Some(complaint) = self.state.take_complaint() {
            self.complaints.warn(complaint);
        }
    }

    /// Serves one queue; `true` where requests are left that nobody will announce.
    fn pass(&mut self, vring: &VringMutex, kind: QueueKind) -> Result<bool, RingError> {
        let Some(memory) = &self.memory else {
            return Ok(false);
        };
        let Some(mut ring) = Ring::begin(vring, memory) else {
            return Ok(false);
        };
        let began = Instant::now();
        if kind == QueueKind::Control
            && let Some(renderer) = self.state.renderer_3d_mut()
        {
            self.fenced.answer(&mut ring, renderer);
        }
        for _ in 0..PASS_REQUESTS {
            if kind == QueueKind::Control && self.display.is_asked() {
                ring.publish()?;
                // The answer makes it go on.
                return Ok(false);
            }
            if kind == QueueKind::Control && self.fenced.is_full(vring) {
                ring.publish()?;
                // The next fence that is retired makes it go on.
                return Ok(false);
            }
            match ring.next_chain() {
                Ok(Some(chain)) => self.request(vring, &mut ring, chain, kind),
                Ok(None) => {
                    ring.publish()?;
                    return ring.rearm();
                }
                Err(e) => {
                    ring.publish()?;
                    return Err(e);
                }
            }
            if self.state.take_moved() >= PASS_BYTES || began.elapsed() >= PASS_TIME {
                break;
            }
        }
        ring.publish()?;
        Ok(true)
    }

    fn request(&mut self, vring: &VringMutex, ring: &mut Ring<'_>, chain: Chain, kind: QueueKind) {
        let head = chain.head_index();
        let memory = ring.memory().clone();
        let outcome = match chain.clone().reader(&memory) {
            Ok(reader) => self.state.execute(kind, &memory, reader),
            Err(e) => {
                let trouble = format_args!("{kind:?} queue: unreadable request: {e}");
                self.troubles.warn(trouble);
                let unreadable = Response::Plain(response::ERR_UNSPEC);
                Outcome::Done(unreadable.to_bytes(&Header::default()))
            }
        };
        if let Some(complaint) = self.state.take_complaint() {
            self.complaints.warn(complaint);
        }
        match outcome {
            Outcome::Done(response) => ring.complete(head, respond(chain, &memory, &response)),
            Outcome::Fenced(response, fence) => self.fenced.keep(vring, chain, response, fence),
            Outcome::Ask(question) => {
                // It stays in the queue, so that a ring that is stopped meanwhile loses nothing.
                ring.put_back();
                if !self.display.ask(question, Instant::now()) {
                    self.state.answer = Some(Answer::Nothing);
                }
            }
        }
    }

    /// Uses a new display socket, and sends it what the driver has set up, unless that has yet to
    /// show that it is still the same driver.
    fn adopt(&mut self, socket: UnixStream) {
        self.display.attach(socket, Instant::now());
        self.state.screen.new_display();
        self.settle();
    }

    /// Does what follows from a change: sends, waits, and says what is shown.
    fn settle(&mut self) {
        let screen = self.is_settled().then_some(&mut self.state.screen);
        if let Err(e) = self.display.send(screen) {
            self.lost_display(&e);
        }
        if let Some(worker) = &mut self.worker {
            if let Err(e) = worker.watch_display(self.display.interest()) {
                self.troubles
                    .warn(format_args!("cannot watch the display socket: {e}"));
                self.display.detach();
            }
            if let Err(e) = worker.set_timer(self.display.deadline()) {
                self.troubles
                    .warn(format_args!("cannot set the display's timer: {e}"));
            }
        }
        self.take_answer();
        // A ring that starts again brings an event of its own.
        if self.waiting.contains(&true)
            && self.is_settled()
            && let Some(worker) = &self.worker
        {
            worker.wake();
        }
        self.tell_status();
    }

    /// Has the control queue go on where the front-end has answered.
    fn take_answer(&mut self) {
        if let Some(answer) = self.display.take_answer() {
            self.state.answer = Some(answer);
            self.waiting[usize::from(CONTROL_QUEUE)] = true;
        }
    }

    /// Has the worker look after what there is to do.
    fn wake(&self) {
        if let Some(worker) = &self.worker {
            worker.wake();
        }
    }

    fn lost_display(&mut self, error: &DisplayError) {
        match error {
            DisplayError::Closed => log::debug!("{error}"),
            DisplayError::Socket(_) | DisplayError::Protocol { .. } => self.troubles.warn(error),
        }
    }

    fn tell_status(&mut self) {
        if self.status.iter().copied().eq(self.state.screen.shown()) {
            return;
        }
        self.status = self.state.screen.shown().collect();
        if let Some(worker) = &self.worker {
            let mut text = String::from("vm connected");
            for (i, ((width, height), _)) in self.status.iter().enumerate() {
                let separator = if i == 0 { ", " } else { " + " };
                text.push_str(&format!("{separator}{width}x{height}"));
            }
            if let Some(renderer) = self.state.describe_renderer() {
                let by_dmabuf = |(_, by_dmabuf): &(_, bool)| *by_dmabuf;
                let how = match () {
                    () if self.status.is_empty() => "",
                    () if self.status.iter().all(by_dmabuf) => ", screens as dmabufs",
                    () if self.status.iter().any(by_dmabuf) => ", some screens as dmabufs",
                    () => ", screens read back",
                };
                text.push_str(&format!(", {renderer}{how}"));
            }
            worker.status(&text);
        }
    }
}

/// Writes a response into a request's buffers and tells its length. Where it does not fit, an
/// error is written; where even that does not, nothing.
fn respond(chain: Chain, memory: &vm_memory::GuestMemoryMmap, response: &[u8]) -> u32 {
    use std::io::Write;
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    let room = writer.available_bytes();
    let written = if room >= response.len() {
        writer.write_all(response)
    } else if room >= HEADER_LEN {
        let mut error = [0; HEADER_LEN];
        for (to, from) in error.iter_mut().zip(response) {
            *to = *from;
        }
        error[..4].copy_from_slice(&response::ERR_UNSPEC.to_le_bytes());
        writer.write_all(&error)
    } else {
        return 0;
    };
    match written {
        Ok(()) => u32::try_from(writer.bytes_written()).unwrap_or(0),
        Err(_) => 0,
    }
}

impl Device for Gpu {
    fn start(&mut self, host: Host) -> io::Result<()> {
        self.begin(Box::new(host))
    }

    #[cfg(feature = "virgl")]
    fn needs(&self) -> Needs {
        let virgl = self.options.as_ref().and_then(|o| o.virgl.as_ref());
        virgl.map(virgl::Options::needs).unwrap_or_default()
    }
}

impl VhostUserBackendMut for Gpu {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        NUM_QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        TRANSPORT_FEATURES
            | 1 << virtio_gpu::VIRTIO_GPU_F_EDID
            | 1 << virtio_gpu::VIRTIO_GPU_F_RESOURCE_UUID
            | u64::from(self.capsets != 0) << virtio_gpu::VIRTIO_GPU_F_VIRGL
    }

    fn acked_features(&mut self, features: u64) {
        let has = |bit: u32| features & 1 << bit != 0;
        self.state.features = Features {
            edid: has(virtio_gpu::VIRTIO_GPU_F_EDID),
            resource_uuid: has(virtio_gpu::VIRTIO_GPU_F_RESOURCE_UUID),
            virgl: has(virtio_gpu::VIRTIO_GPU_F_VIRGL),
        };
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&mut self) {
        self.fenced.forget();
        self.reset_due = true;
        self.wake();
    }

    fn set_event_idx(&mut self, _enabled: bool) {
        // The rings know it themselves.
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

    fn update_memory(&mut self, memory: GuestMemory) -> io::Result<()> {
        self.memory = Some(memory);
        self.memory_changed = true;
        self.wake();
        Ok(())
    }

    fn set_gpu_socket(&mut self, _blocking: GpuBackend) -> io::Result<()> {
        let worker = self.worker.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        // Where there is none, the message after this one came along already, and its socket, the
        // newer one, is in use. An error would end the connection.
        if let Some(socket) = worker.take_gpu_socket() {
            self.adopt(socket);
        }
        Ok(())
    }

    fn stop_vring(&mut self, queue_index: u32) -> io::Result<()> {
        self.continuity.stop(queue_index == u32::from(CURSOR_QUEUE));
        if let Some(waiting) = self.waiting.get_mut(queue_index as usize) {
            *waiting = false;
        }
        if queue_index == u32::from(CONTROL_QUEUE) {
            self.state.answer = None;
            self.display.forget_question();
            if let Some(memory) = &self.memory
                && let Err(e) = self.fenced.answer_all(memory)
            {
                self.troubles.warn(format_args!("Control queue: {e}"));
            }
        }
        self.settle();
        Ok(())
    }

    fn handle_event(
        &mut self,
        device_event: u16,
        _evset: EventSet,
        vrings: &[VringMutex],
        _thread_id: usize,
    ) -> io::Result<()> {
        self.catch_up();
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
                if let Some(worker) = &mut self.worker {
                    worker.timer_rang();
                }
                let expired = self.display.expire(Instant::now());
                if expired.update {
                    log::warn!(
                        "the front-end did not answer DMABUF_UPDATE within {} s: it is sent pixels \
                         from now on; --no-dmabuf does so from the start",
                        UPDATE_LIMIT.as_secs()
                    );
                }
                if expired.question {
                    self.troubles.warn(
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
            WAKE => {
                if let Some(worker) = &self.worker {
                    worker.woke();
                }
            }
            unknown => {
                self.troubles
                    .warn(format_args!("event {unknown} is none of the device's"));
                return Ok(());
            }
        }
        self.take_answer();
        self.look_at_display();
        self.serve(vrings);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
