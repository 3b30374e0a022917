// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device behind vhost-user: routes events and messages to its queues, displays and renderer.

mod completion;
mod config_space;
mod control_queue;
mod cursor_order;
mod cursor_queue;
mod displays;
mod driver_records;
mod driver_session;
mod error_log;
mod fenced_requests;
mod host_memory;
mod mapping_requests;
mod options;
mod queue_turn;
mod resizes;
mod service_status;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
mod tokens;
mod watched_fds;

pub use host_memory::{HostVisibleMemory, HostVisibleMemoryError};
pub use options::Options;

use std::io;
use std::time::Instant;

use display_protocol::{Resize, ResizeResult};
use virtio_bindings::virtio_gpu::{
    VIRTIO_GPU_F_CONTEXT_INIT, VIRTIO_GPU_F_EDID, VIRTIO_GPU_F_RESOURCE_BLOB,
    VIRTIO_GPU_F_RESOURCE_UUID, VIRTIO_GPU_F_VIRGL,
};
use vm_memory::GuestAddressSpace;

use crate::backend::continuity::Slot;
use crate::backend::{
    ClientListener, Device, DeviceContext, DisplaySocket, EventSet, GuestMemory, Vring,
};
use crate::geometry::Size;
use crate::gpu::display::KeptStream;
use crate::gpu::display_info::Resolutions;
use crate::gpu::kept_state::{DriverRecord, KeptState, KeptStateError};
use crate::gpu::protocol::{MAX_SCANOUTS, NegotiatedFeatures};
use crate::gpu::renderer::Renderer;
use crate::gpu::virtio_gpu::VirtioGpu;
use config_space::ConfigSpace;
use control_queue::ControlQueue;
use cursor_queue::CursorQueue;
use displays::{Displays, MAX_CONSOLES};
use driver_records::DriverRecords;
use driver_session::{Driver, DriverSession};
use error_log::ErrorLog;
use host_memory::HostMemoryRegion;
use resizes::Resizes;
use service_status::GpuStatus;
use tokens::{CONFIG_CHANGE, CONSOLE_LISTENER, FENCE, HOST_MEMORY, TIMER, WAKE};
use watched_fds::WatchedFds;

/// The name of the socket on which consoles connect (`FileDescriptorName=`).
pub const CONSOLE_SOCKET: &str = "display";

const CONTROL_QUEUE: u16 = 0;
const CURSOR_QUEUE: u16 = 1;
const NUM_QUEUES: usize = 2;

/// A virtio GPU.
pub struct Gpu {
    virtio_gpu: VirtioGpu,
    control_queue: ControlQueue,
    cursor_queue: CursorQueue,
    session: DriverSession,
    displays: Displays,
    /// Where consoles connect, if they can.
    consoles: Option<ClientListener>,
    resizes: Resizes,
    host_memory: HostMemoryRegion,
    watched: WatchedFds,
    status: GpuStatus,
    config: ConfigSpace,
    /// Whether rendering contexts are of the kinds that drivers ask for.
    has_context_init: bool,
    deferred: Deferred,
    records: DriverRecords,
    log: ErrorLog,
}

/// What the protocol thread leaves to the worker: a renderer may be bound to its thread.
struct Deferred {
    memory: GuestMemory,
    reset: bool,
    memory_changed: bool,
}

impl Gpu {
    /// A device that draws with `renderer`, and to which no driver did anything yet; or the one that a predecessor left in
    /// `kept`, like the resources of `renderer`. If that has memory of the host for the guest, `host_visible_memory` of the
    /// guest's addresses is for it.
    ///
    /// # Errors
    /// If what was left cannot be used (`InvalidData`), or the host has no descriptors left.
    fn new(
        context: DeviceContext,
        renderer: Box<dyn Renderer>,
        resolutions: &Resolutions,
        allow_resize: bool,
        kept: &KeptState,
        host_visible_memory: HostVisibleMemory,
    ) -> io::Result<Self> {
        let refused = |e: KeptStateError| io::Error::new(io::ErrorKind::InvalidData, e);
        let mut virtio_gpu = VirtioGpu::resume(renderer, resolutions, kept).map_err(refused)?;
        let records = DriverRecords::new(kept.clone());
        let left = records.left().map_err(refused)?;
        let memory = context.memory();
        let control_queue = ControlQueue::new(memory.clone());
        let cursor_queue = CursorQueue::new(memory.clone());
        let deferred = Deferred {
            memory: memory.clone(),
            reset: left.is_some_and(|left| left.reset_pending),
            memory_changed: false,
        };
        let session = left.map(|left| {
            let position = context
                .kept_position(CONTROL_QUEUE)
                .unwrap_or(left.position);
            DriverSession::resume(&left, position)
        });
        let stream = match kept.is_kept() {
            true => {
                let outgoing = context.continuity().slot(Slot::DisplayOut)?;
                let incoming = context.continuity().slot(Slot::DisplayIn)?;
                Some(KeptStream::new(kept.clone(), outgoing, incoming))
            }
            false => None,
        };
        let displays = Displays::new(virtio_gpu.exports(), stream).map_err(refused)?;
        let status = GpuStatus::new(context.clone(), virtio_gpu.renderer_name());
        let consoles = context.listen(CONSOLE_SOCKET, CONSOLE_LISTENER, MAX_CONSOLES)?;
        let mut resizes = Resizes::new(&context, allow_resize)?;
        if virtio_gpu.has_driver_read_sizes() && !virtio_gpu.does_driver_know_sizes() {
            // Whether the predecessor's message has reached it is not known; a second one does no harm.
            resizes.changed();
        }
        let host_memory = match virtio_gpu.has_host_memory() {
            true => HostMemoryRegion::new(&context, host_visible_memory)?,
            false => HostMemoryRegion::none(),
        };
        let watched = WatchedFds::new(context)?;
        if deferred.reset {
            watched.wake();
        }
        let mut num_capsets = 0;
        let mut has_context_init = false;
        if let Some(renderer) = virtio_gpu.renderer_3d_mut() {
            watched.watch_fences(renderer.fence_event())?;
            has_context_init = renderer.has_context_init();
            num_capsets = renderer.capsets().len() as u32;
        }
        let mut config = ConfigSpace::new(resolutions.heads() as u32, num_capsets);
        if let Some(left) = left {
            config.resume(left.events);
        }
        Ok(Self {
            control_queue,
            cursor_queue,
            session: session.unwrap_or_default(),
            displays,
            consoles,
            resizes,
            host_memory,
            virtio_gpu,
            watched,
            status,
            config,
            has_context_init,
            deferred,
            records,
            log: ErrorLog::default(),
        })
    }

    /// Drops what the last driver set up.
    fn reset(&mut self) {
        self.host_memory.cancel(&mut self.virtio_gpu);
        self.virtio_gpu.reset();
        self.displays.cancel_query();
        self.control_queue.reset();
        self.resizes.forget();
        self.config.reset();
    }

    /// Keeps the state that no other part of the device keeps. Called when it has changed, before anything else is made
    /// valid.
    fn keep_driver(&self) {
        self.records.put(|| {
            let mut record = DriverRecord {
                events: self.config.events(),
                reset_pending: self.deferred.reset,
                ..DriverRecord::default()
            };
            self.session.record(&mut record);
            record
        });
    }

    /// Does what the protocol thread left to the worker.
    fn apply_deferred(&mut self) {
        if std::mem::take(&mut self.deferred.reset) {
            self.reset();
            self.session = DriverSession::default();
        }
        if std::mem::take(&mut self.deferred.memory_changed) {
            let memory = self.deferred.memory.memory();
            self.virtio_gpu.memory_changed(&memory);
            // What was outside the memory may be inside now, and no kick tells of it again.
            self.control_queue.notify();
            self.cursor_queue.notify();
        }
    }

    /// Serves the queues that were notified, for one turn each.
    fn serve(&mut self, vrings: &[Vring]) {
        let driver = self.session.identify(vrings);
        match driver {
            Driver::New => self.reset(),
            Driver::SameWithNewQueue => self.control_queue.drop_waiting(),
            Driver::Same | Driver::Stopped => {}
        }
        // The first request makes it valid that the last driver's state is gone, and then that this driver is known too.
        self.keep_driver();
        if self.host_memory.receive(&mut self.virtio_gpu) {
            self.control_queue.notify();
        }
        if driver != Driver::Stopped {
            self.serve_queues(vrings);
            if self.host_memory.send(&mut self.virtio_gpu) {
                self.control_queue.notify();
            }
        }
        self.virtio_gpu.follow_drawing();
        self.show();
    }

    fn serve_queues(&mut self, vrings: &[Vring]) {
        let control_vring = vrings.get(usize::from(CONTROL_QUEUE));
        // Cursors are few and small, and most should not wait for a screen full of pixels.
        self.serve_cursors(vrings);
        let Some(control_vring) = control_vring else {
            return;
        };
        self.control_queue.turn(
            control_vring,
            &mut self.virtio_gpu,
            &mut self.displays,
            &mut self.log,
        );
        let position = control_vring.next_available();
        self.session.control_at(position);
        // A display replies or its time runs out; a fence may never be retired.
        let goes_on = self.control_queue.is_notified() || self.displays.is_query_pending();
        if self.cursor_queue.control_went_on(position, goes_on) {
            self.serve_cursors(vrings);
        }
    }

    fn serve_cursors(&mut self, vrings: &[Vring]) {
        let control_vring = vrings.get(usize::from(CONTROL_QUEUE));
        let Some(cursor_vring) = vrings.get(usize::from(CURSOR_QUEUE)) else {
            return;
        };
        let waits_for_control = self.cursor_queue.turn(
            cursor_vring,
            control_vring,
            &mut self.virtio_gpu,
            &mut self.log,
        );
        if waits_for_control {
            // The kick for the requests that it waits for may still come.
            self.control_queue.notify();
        }
    }

    /// Sends what changed to the displays, watches them for what comes next, and updates the status.
    fn show(&mut self) {
        let driver_is_known = self.driver_is_known();
        let scanouts = self.virtio_gpu.scanouts_mut();
        self.displays.send(scanouts, driver_is_known, &mut self.log);
        let deadlines = [self.tell_sizes(), self.virtio_gpu.drawing_deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        let scanouts = self.virtio_gpu.scanouts_mut();
        let gone = self
            .watched
            .rearm(&mut self.displays, scanouts, deadline, &mut self.log);
        if let Some(consoles) = &mut self.consoles {
            (0..gone).for_each(|_| consoles.leave());
        }
        self.resume_control_queue();
        let has_work = self.control_queue.is_notified() || self.cursor_queue.is_notified();
        // A virtqueue that is started again brings an event of its own.
        if has_work && driver_is_known {
            self.watched.wake();
        }
        self.status.publish(&self.virtio_gpu);
        self.keep_driver();
    }

    /// Whether the current driver is identified. Scanouts are sent only then.
    fn driver_is_known(&self) -> bool {
        !self.session.is_stopped() && !self.deferred.reset
    }

    /// Continues the control queue's request if a display has replied.
    fn resume_control_queue(&mut self) {
        if let Some(reply) = self.displays.take_reply() {
            self.control_queue.resume(reply);
        }
    }

    /// Answers the consoles that ask for another size.
    fn answer_resizes(&mut self) {
        while let Some((console, wanted)) = self.displays.take_resize() {
            let result = self.resize(&wanted);
            self.displays.answer_resize(console, result);
        }
    }

    /// A console asks for another size of a head. The VMM decides where it has a display. Elsewhere the guest has to be
    /// told by a configuration change, which is done only with `--allow-resize`: one that reaches QEMU while it stops
    /// the device ends QEMU (tried with 10.0 and 11.1), and a backend cannot exclude that.
    fn resize(&mut self, wanted: &Resize) -> ResizeResult {
        let heads = match self.displays.has_vmm() {
            // How many of them it uses, only the VMM knows.
            true => MAX_SCANOUTS as u32,
            false => self.config.num_scanouts(),
        };
        if wanted.scanout >= heads {
            return ResizeResult::NoSuchScanout;
        }
        let size = Size::new(wanted.width, wanted.height);
        if !Resolutions::is_valid(size) {
            return ResizeResult::InvalidSize;
        }
        if !self.may_tell_sizes() || !self.resizes.are_possible(Instant::now()) {
            return ResizeResult::Refused;
        }
        if self.virtio_gpu.resize(wanted.scanout, size) {
            self.resizes.changed();
        }
        ResizeResult::Done
    }

    /// Whether a driver runs that has read the sizes from this device, and so reads them again when it is told.
    fn may_tell_sizes(&self) -> bool {
        let is_ours = !self.displays.has_vmm() && self.virtio_gpu.has_driver_read_sizes();
        is_ours && self.driver_is_known()
    }

    /// Tells the guest that sizes changed, if it can be told and does not know. Returns when this is due otherwise.
    fn tell_sizes(&mut self) -> Option<Instant> {
        if !self.may_tell_sizes() {
            return None;
        }
        let now = Instant::now();
        if self.resizes.are_due(now) {
            if self.virtio_gpu.does_driver_know_sizes() {
                self.resizes.forget();
            } else {
                self.config.set_display_event();
                self.resizes.tell(now);
            }
        }
        self.resizes.deadline()
    }

    /// After every event: applies display replies and changed dmabuf support, then serves the queues.
    fn after_event(&mut self, vrings: &[Vring]) {
        self.resume_control_queue();
        self.displays
            .update_dmabuf_support(&mut self.virtio_gpu, &mut self.log);
        self.serve(vrings);
    }
}

impl Device for Gpu {
    const QUEUES: usize = NUM_QUEUES;

    fn features(&self) -> u64 {
        let has_3d = self.config.num_capsets() != 0;
        1 << VIRTIO_GPU_F_EDID
            | 1 << VIRTIO_GPU_F_RESOURCE_UUID
            | u64::from(has_3d) << VIRTIO_GPU_F_VIRGL
            | u64::from(self.virtio_gpu.has_blobs()) << VIRTIO_GPU_F_RESOURCE_BLOB
            | u64::from(self.has_context_init) << VIRTIO_GPU_F_CONTEXT_INIT
    }

    fn acked_features(&mut self, features: u64) {
        self.control_queue.set_features(NegotiatedFeatures {
            virgl: features & 1 << VIRTIO_GPU_F_VIRGL != 0,
            blob: features & 1 << VIRTIO_GPU_F_RESOURCE_BLOB != 0,
            context_init: features & 1 << VIRTIO_GPU_F_CONTEXT_INIT != 0,
        });
    }

    fn reset_device(&mut self) {
        self.control_queue.drop_waiting();
        self.deferred.reset = true;
        self.keep_driver();
        self.watched.wake();
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.session.config_was_read();
        self.keep_driver();
        self.config.read(offset, size)
    }

    fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let written = self.config.write(offset, data);
        self.keep_driver();
        written
    }

    fn memory_changed(&mut self) {
        self.deferred.memory_changed = true;
        self.watched.wake();
    }

    fn set_gpu_socket(&mut self, socket: DisplaySocket) -> io::Result<()> {
        let scanouts = self.virtio_gpu.scanouts_mut();
        self.displays.attach_vmm(socket, scanouts);
        self.show();
        Ok(())
    }

    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        let is_cursor = index == u32::from(CURSOR_QUEUE);
        self.session.stop(is_cursor);
        if is_cursor {
            self.cursor_queue.stop();
        } else {
            self.cursor_queue.control_stopped();
        }
        if index == u32::from(CONTROL_QUEUE) {
            self.virtio_gpu.drop_partial();
            self.displays.cancel_query();
            let sees_work = self.virtio_gpu.has_host_memory();
            self.control_queue.stop(sees_work, &mut self.log);
        }
        self.show();
        Ok(())
    }

    fn handle_event(&mut self, event: u16, ready: EventSet, vrings: &[Vring]) -> io::Result<()> {
        self.apply_deferred();
        match event {
            CONTROL_QUEUE => {
                self.control_queue.notify();
                self.host_memory.queue_event();
            }
            CURSOR_QUEUE => {
                self.cursor_queue.notify();
                self.host_memory.queue_event();
            }
            TIMER => {
                self.watched.timer_expired();
                self.displays.expire(Instant::now(), &mut self.log);
            }
            FENCE => {
                if let Some(renderer) = self.virtio_gpu.renderer_3d_mut() {
                    renderer.poll_fences();
                }
                self.control_queue.notify();
            }
            WAKE => self.watched.woke(),
            CONFIG_CHANGE => self.resizes.woke(),
            // What the event is for is looked at after each one.
            HOST_MEMORY => {}
            CONSOLE_LISTENER => {
                if let Some(console) = self.consoles.as_mut().and_then(ClientListener::accept) {
                    let scanouts = self.virtio_gpu.scanouts_mut();
                    self.displays.add_console(console, scanouts);
                }
            }
            token if Displays::has_token(token) => {
                let scanouts = self.virtio_gpu.scanouts_mut();
                self.displays.receive(token, ready, scanouts, &mut self.log);
                self.answer_resizes();
            }
            unknown => {
                self.log
                    .device(format_args!("event {unknown} is none of the device's"));
                return Ok(());
            }
        }
        self.after_event(vrings);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
