//! Its display: what is shown, in which way, and what is said of it.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::super::display::DisplayError;
use super::super::scanout::{ActiveScanout, DisplayId};
use super::{CONTROL_QUEUE, Gpu};

impl Gpu {
    /// Has screens shown in the way that the display takes.
    pub(super) fn update_dmabuf_support(&mut self) {
        let takes = self.display.dmabuf_support();
        if takes != self.takes {
            log::debug!("the display takes {takes:?}");
        }
        self.takes = takes;
        if let Err(error) = self.state.set_dmabuf_support(DisplayId::VMM, takes) {
            self.guest_errors
                .warn(format_args!("a scanout cannot be read: {error}"));
        }
    }

    /// Uses a new display socket, and sends it what the driver has set up, unless that has yet to
    /// show that it is still the same driver.
    pub(super) fn adopt(&mut self, socket: UnixStream) {
        self.display.attach(socket, Instant::now());
        self.state.scanouts_mut().attach_display(DisplayId::VMM);
        self.settle();
    }

    /// Does what follows from a change: sends, waits, and says what is shown.
    pub(super) fn settle(&mut self) {
        let is_settled = self.is_settled();
        let scanouts = Some(self.state.scanouts_mut()).filter(|_| is_settled);
        let updates = scanouts.and_then(|scanouts| scanouts.pending_updates(DisplayId::VMM));
        if let Err(e) = self.display.send(updates, Instant::now()) {
            self.lost_display(&e);
        }
        if let Err(e) = self.events.watch_display(self.display.interest()) {
            self.device_errors
                .warn(format_args!("cannot watch the display socket: {e}"));
            self.display.detach();
        }
        if let Err(e) = self.events.set_timer(self.display.deadline()) {
            self.device_errors
                .warn(format_args!("cannot set the display's timer: {e}"));
        }
        self.take_answer();
        // A ring that starts again brings an event of its own.
        if self.waiting.contains(&true) && self.is_settled() {
            self.events.wake();
        }
        self.tell_status();
    }

    /// Has the control queue go on where the front-end has answered.
    pub(super) fn take_answer(&mut self) {
        if let Some(answer) = self.display.take_reply() {
            self.display_reply = Some(answer);
            self.waiting[usize::from(CONTROL_QUEUE)] = true;
        }
    }

    pub(super) fn lost_display(&mut self, error: &DisplayError) {
        self.state.scanouts_mut().detach_display(DisplayId::VMM);
        match error {
            DisplayError::Closed => log::debug!("{error}"),
            DisplayError::Socket(_) | DisplayError::Protocol { .. } => {
                self.device_errors.warn(error)
            }
        }
    }

    fn tell_status(&mut self) {
        if self
            .status
            .iter()
            .copied()
            .eq(self.state.scanouts().active_scanouts())
        {
            return;
        }
        self.status = self.state.scanouts().active_scanouts().collect();
        let mut text = String::new();
        for (i, scanout) in self.status.iter().enumerate() {
            let separator = if i == 0 { "" } else { " + " };
            text.push_str(&format!("{separator}{}", scanout.size));
        }
        if let Some(renderer) = self.state.renderer_name() {
            let by_dmabuf = |scanout: &ActiveScanout| scanout.by_dmabuf;
            let how = match () {
                () if self.status.is_empty() => "",
                () if self.status.iter().all(by_dmabuf) => ", screens as dmabufs",
                () if self.status.iter().any(by_dmabuf) => ", some screens as dmabufs",
                () => ", screens read back",
            };
            let separator = if text.is_empty() { "" } else { ", " };
            text.push_str(&format!("{separator}{renderer}{how}"));
        }
        self.events.host.status(text);
    }
}
