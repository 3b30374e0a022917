//! The device's side of its displays: queries go to them and scanouts are shown by them.
//!
//! There may be several: queries go to the first that can answer, updates to each at its own pace.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use super::error_log::ErrorLog;
use crate::backend::EventSet;
use crate::gpu::display::{ACK_LIMIT, Display, DisplayError, PixelFallback};
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::scanout::{DisplayId, DmabufSupport, Scanouts};
use crate::gpu::virtio_gpu::VirtioGpu;

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
}

impl Displays {
    /// The VMM's display, not connected yet; its socket's events have `token`. It is passed dmabufs if
    /// there are any.
    pub(super) fn new(token: u16, has_dmabufs: bool) -> Self {
        let vmm = DisplayEntry {
            id: DisplayId::VMM,
            token,
            display: Display::new(has_dmabufs),
            support: DmabufSupport::default(),
        };
        Self { entries: vec![vmm] }
    }

    /// Adds a display that is not connected yet, to be asked after those before it.
    #[cfg(test)]
    pub(super) fn add(&mut self, id: DisplayId, token: u16) {
        self.entries.push(DisplayEntry {
            id,
            token,
            display: Display::default(),
            support: DmabufSupport::default(),
        });
    }

    /// Uses `socket` for a display from now on. It is sent what the scanouts show.
    pub(super) fn attach(&mut self, id: DisplayId, socket: UnixStream, scanouts: &mut Scanouts) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.display.attach(socket, Instant::now());
            scanouts.attach_display(id);
        }
    }

    /// Whether a display's socket has this token.
    pub(super) fn has_token(&self, token: u16) -> bool {
        self.entries.iter().any(|entry| entry.token == token)
    }

    /// Reads what came by the socket with this token.
    pub(super) fn receive(&mut self, token: u16, scanouts: &mut Scanouts, log: &mut ErrorLog) {
        for entry in &mut self.entries {
            if entry.token == token {
                let result = entry.display.receive(Instant::now());
                entry.handle(result, scanouts, log);
            }
        }
    }

    /// Sends queries, and what the scanouts show if the `driver_is_known`, as far as the displays read.
    pub(super) fn send(
        &mut self,
        scanouts: &mut Scanouts,
        driver_is_known: bool,
        log: &mut ErrorLog,
    ) {
        for entry in &mut self.entries {
            let updates = scanouts
                .pending_updates(entry.id)
                .filter(|_| driver_is_known);
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
                log.device(
                    "the front-end did not answer on the display socket in time; \
                     the guest gets what the device knows itself",
                );
            }
        }
    }

    /// Calls `watch` with each display's token, its socket, and the events to watch that for.
    /// A display that cannot be watched is disconnected.
    pub(super) fn watch(
        &mut self,
        mut watch: impl FnMut(u16, Option<(&Arc<UnixStream>, EventSet)>) -> io::Result<()>,
        log: &mut ErrorLog,
    ) {
        for entry in &mut self.entries {
            if let Err(e) = watch(entry.token, entry.display.interest()) {
                log.device(format_args!("cannot watch the display socket: {e}"));
                entry.display.detach();
            }
        }
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
            DisplayError::Closed => log::debug!("{error}"),
            DisplayError::Socket(_) | DisplayError::Protocol { .. } => log.device(error),
        }
    }
}
