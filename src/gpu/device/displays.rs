// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device's side of its displays: queries go to them and scanouts are shown by them.
//!
//! There may be several: the VMM's, which is asked and may be passed dmabufs, and those of consoles. Each gets updates at
//! its own pace.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use display_protocol::{Resize, ResizeResult};

use super::error_log::ErrorLog;
use super::tokens::{CONSOLES, DISPLAY};
use crate::backend::{DisplaySocket, EventSet};
use crate::gpu::display::{
    ACK_LIMIT, Display, DisplayError, DisplayRole, KeptStream, PixelFallback,
};
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::kept_state::KeptStateError;
use crate::gpu::scanout::{DisplayId, DmabufSupport, Scanouts};
use crate::gpu::virtio_gpu::VirtioGpu;

/// Most consoles at the same time.
pub(super) const MAX_CONSOLES: usize = 4;

/// One of the displays.
struct DisplayEntry {
    id: DisplayId,
    /// The token of its socket's events.
    token: u16,
    display: Display,
    /// Which dmabufs the scanouts give it.
    support: DmabufSupport,
}

/// The displays of a device.
pub(super) struct Displays {
    entries: Vec<DisplayEntry>,
    has_vmm: bool,
}

impl Displays {
    /// The VMM's display, not connected yet. It is passed dmabufs if the renderer exports them. Its sockets are `kept` for a
    /// successor, or not.
    ///
    /// # Errors
    /// If what a predecessor left cannot be used.
    pub(super) fn new(has_dmabufs: bool, kept: Option<KeptStream>) -> Result<Self, KeptStateError> {
        let role = DisplayRole::Vmm { has_dmabufs };
        let display = match kept {
            Some(kept) => Display::resume(role, kept)?,
            None => Display::new(role),
        };
        let has_vmm = display.had_display();
        let vmm = DisplayEntry {
            id: DisplayId::VMM,
            token: DISPLAY,
            display,
            support: DmabufSupport::default(),
        };
        Ok(Self {
            entries: vec![vmm],
            has_vmm,
        })
    }

    /// Uses `socket` for the VMM's display from now on. It is sent what the scanouts show.
    pub(super) fn attach_vmm(&mut self, socket: DisplaySocket, scanouts: &mut Scanouts) {
        self.has_vmm = true;
        let id = DisplayId::VMM;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            match entry.display.attach_vmm(socket, scanouts, Instant::now()) {
                true => scanouts.resume_vmm_display(),
                false => scanouts.attach_display(id),
            }
        }
    }

    /// Whether the VMM has given a display so far. It gives a new one to each driver.
    pub(super) fn has_vmm(&self) -> bool {
        self.has_vmm
    }

    /// Adds the display of a console. It is sent what the scanouts show. Of more than [`MAX_CONSOLES`] the socket is
    /// closed.
    pub(super) fn add_console(&mut self, socket: UnixStream, scanouts: &mut Scanouts) {
        let is_free = |id| !self.entries.iter().any(|entry| entry.id == id);
        let mut free = (CONSOLES..).zip(0..MAX_CONSOLES as u16);
        let free = free.find(|(_, number)| is_free(DisplayId::console(*number)));
        let Some((token, number)) = free else {
            return;
        };
        let id = DisplayId::console(number);
        self.entries.push(DisplayEntry {
            id,
            token,
            display: Display::new(DisplayRole::Console),
            support: DmabufSupport::default(),
        });
        log::debug!("{id} is connected");
        self.attach(id, socket, scanouts);
    }

    fn attach(&mut self, id: DisplayId, socket: UnixStream, scanouts: &mut Scanouts) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.display.attach(socket, Instant::now());
            scanouts.attach_display(id);
        }
    }

    /// Whether a display's socket has this token, or had it: an event may be under way still.
    pub(super) fn has_token(token: u16) -> bool {
        token == DISPLAY
            || (CONSOLES..)
                .take(MAX_CONSOLES)
                .any(|console| console == token)
    }

    /// Reads what came by the socket with this token, which is `ready`.
    pub(super) fn receive(
        &mut self,
        token: u16,
        ready: EventSet,
        scanouts: &mut Scanouts,
        log: &mut ErrorLog,
    ) {
        for entry in &mut self.entries {
            if entry.token == token {
                let is_over = ready.intersects(EventSet::HANG_UP | EventSet::ERROR);
                let result = match is_over {
                    true => entry.display.hung_up(),
                    false => Ok(()),
                };
                let result = result.and_then(|()| entry.display.receive(Instant::now()));
                entry.handle(result, scanouts, log);
            }
        }
    }

    /// The next request of a console for another size, to be answered by [`Displays::answer_resize`].
    pub(super) fn take_resize(&mut self) -> Option<(DisplayId, Resize)> {
        self.entries
            .iter_mut()
            .find_map(|entry| Some((entry.id, entry.display.take_resize()?)))
    }

    /// Answers a request for another size.
    pub(super) fn answer_resize(&mut self, console: DisplayId, result: ResizeResult) {
        let mut entries = self.entries.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.id == console) {
            entry.display.answer_resize(result);
        }
    }

    /// Sends queries, and what the scanouts show, as far as the displays read. The VMM's display is only shown the
    /// scanouts of a driver that is known. Consoles keep what the last driver showed until the next one is known: a
    /// guest that is paused looks the same.
    pub(super) fn send(
        &mut self,
        scanouts: &mut Scanouts,
        driver_is_known: bool,
        log: &mut ErrorLog,
    ) {
        for entry in &mut self.entries {
            let is_shown = driver_is_known || entry.id != DisplayId::VMM;
            let updates = scanouts.pending_updates(entry.id).filter(|_| is_shown);
            let result = entry.display.send(updates, Instant::now());
            entry.handle(result, scanouts, log);
        }
    }

    /// Applies the dmabuf support that each display has now to what it is sent.
    pub(super) fn update_dmabuf_support(&mut self, virtio_gpu: &mut VirtioGpu, log: &mut ErrorLog) {
        for entry in &mut self.entries {
            let support = entry.display.dmabuf_support();
            if support != entry.support {
                log::debug!("{:?} supports dmabufs: {support:?}", entry.id);
                entry.support = support;
            }
            if let Err(error) = virtio_gpu.set_dmabuf_support(entry.id, support) {
                log.guest(format_args!("a scanout cannot be read: {error}"));
            }
        }
    }

    /// Asks the first display that can answer; see [`Display::ask`]. `false` if there is none.
    pub(super) fn ask(&mut self, query: DisplayQuery, now: Instant) -> bool {
        self.entries
            .iter_mut()
            .any(|entry| entry.display.ask(query, now))
    }

    /// Forgets the query; a reply to it is ignored.
    pub(super) fn cancel_query(&mut self) {
        for entry in &mut self.entries {
            entry.display.cancel_query();
        }
    }

    /// Whether a reply is awaited.
    pub(super) fn is_query_pending(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.display.is_query_pending())
    }

    /// The reply to the last query, once it is here.
    pub(super) fn take_reply(&mut self) -> Option<DisplayReply> {
        self.entries
            .iter_mut()
            .find_map(|entry| entry.display.take_reply())
    }

    /// When [`Displays::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries
            .iter()
            .filter_map(|entry| entry.display.deadline())
            .min()
    }

    /// Gives up waiting for replies whose time is over.
    pub(super) fn expire(&mut self, now: Instant, log: &mut ErrorLog) {
        for entry in &mut self.entries {
            let expired = entry.display.expire(now);
            if let Some(pixels) = expired.dmabuf_update {
                let until = match pixels {
                    PixelFallback::UntilAnswered => "until it answers",
                    PixelFallback::Permanent => "from now on, for it was late too often",
                };
                log.device(format_args!(
                    "the front-end did not answer DMABUF_UPDATE within {} s: it is sent pixels \
                     {until}; --no-dmabuf does so from the start",
                    ACK_LIMIT.as_secs()
                ));
            }
            if expired.query {
                match entry.id {
                    DisplayId::VMM => log.device(
                        "the front-end did not answer on the display socket in time; \
                         the guest gets what the device knows itself",
                    ),
                    id => log.device(format_args!(
                        "{id} did not say in time what it can do; it is sent pixels"
                    )),
                }
            }
        }
    }

    /// Messages that are kept for a display or of one: the most of any.
    #[cfg(feature = "fuzzing")]
    pub(super) fn kept_messages(&self) -> usize {
        let displays = self.entries.iter();
        let kept = displays.map(|entry| entry.display.kept_messages());
        kept.max().unwrap_or(0)
    }

    /// Calls `watch` with each display's token, its socket, and the events to watch that for.
    /// A display that cannot be watched is disconnected. Returns how many consoles are gone since the last time.
    pub(super) fn watch(
        &mut self,
        mut watch: impl FnMut(u16, Option<(&Arc<UnixStream>, EventSet)>) -> io::Result<()>,
        scanouts: &mut Scanouts,
        log: &mut ErrorLog,
    ) -> usize {
        for entry in &mut self.entries {
            if let Err(e) = watch(entry.token, entry.display.interest()) {
                log.device(format_args!("cannot watch the socket of {}: {e}", entry.id));
                entry.display.detach();
                scanouts.detach_display(entry.id);
            }
        }
        let before = self.entries.len();
        let stays =
            |entry: &DisplayEntry| entry.id == DisplayId::VMM || entry.display.is_connected();
        self.entries.retain(stays);
        before.saturating_sub(self.entries.len())
    }
}

impl DisplayEntry {
    /// Handles the end of the connection, if that is the `result`.
    fn handle(
        &mut self,
        result: Result<(), DisplayError>,
        scanouts: &mut Scanouts,
        log: &mut ErrorLog,
    ) {
        let Err(error) = result else {
            return;
        };
        scanouts.detach_display(self.id);
        match error {
            DisplayError::Closed => log::debug!("{}: {error}", self.id),
            DisplayError::Socket(_) | DisplayError::Protocol(_) | DisplayError::Unasked => {
                log.device(format_args!("{}: {error}", self.id));
            }
        }
    }
}
