// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device without hardware: programs such as a console send its events over a socket.

mod events_client;
mod kept_client;
mod kept_clients;
mod virtual_device;

pub use virtual_device::VirtualDevice;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::backend::{ClientListener, DeviceContext, RateLimitedLog};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::{EV_ABS, EV_KEY, EV_LED};
use crate::input::protocol::{Bitmap, Event};
use crate::input::source::{EventSource, ReadOutcome};

use events_client::{ClientError, EventsClient};
use kept_client::{KeptClient, LeftClient};
use kept_clients::KeptClients;

/// The name of the listening socket, in options (`--events-socket`) and socket activation (`FileDescriptorName=`).
pub const EVENTS_SOCKET: &str = "events";
/// Most clients at the same time.
const MAX_CLIENTS: usize = 4;

/// The source of a virtual device's events: the clients of its events socket.
///
/// A key is pressed while any client presses it. What a client pressed is released when it ends.
pub struct VirtualSource {
    device: VirtualDevice,
    info: DeviceInfo,
    /// From [`EventSource::listen`] on.
    listener: Option<ClientListener>,
    /// Contains the clients.
    epoll: OwnedFd,
    clients: BTreeMap<u64, EventsClient>,
    next_client: u64,
    /// The values of the absolute axes that were told so far.
    axes: BTreeMap<u16, i32>,
    /// The LEDs that the guest has switched on.
    leds: Bitmap,
    kept: KeptClients,
    /// Clients of a predecessor whose connections ended with it, with what they pressed.
    lost_clients: Vec<(KeptClient, Bitmap)>,
    log: RateLimitedLog,
    connected_log: RateLimitedLog,
    disconnected_log: RateLimitedLog,
}

impl VirtualSource {
    /// The device `device`, which nobody uses yet.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)`.
    pub fn new(device: VirtualDevice) -> io::Result<Self> {
        Ok(Self {
            device,
            info: device.info(),
            listener: None,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: BTreeMap::new(),
            next_client: 0,
            axes: BTreeMap::new(),
            leds: Bitmap::default(),
            kept: KeptClients::default(),
            lost_clients: Vec::new(),
            log: RateLimitedLog::default(),
            connected_log: RateLimitedLog::default(),
            disconnected_log: RateLimitedLog::default(),
        })
    }

    fn add_client(&mut self, stream: UnixStream) -> io::Result<()> {
        let id = self.watch(&stream)?;
        let kept = self.kept.keep(&stream);
        let client = EventsClient::new(stream, kept);
        client.put(self.kept.ledger());
        // First: a client that was told the LEDs is served on by a successor.
        self.kept.ledger().commit();
        self.serve_from_now(id, client);
        Ok(())
    }

    /// Watches a connection, which gets a number.
    fn watch(&mut self, stream: &UnixStream) -> io::Result<u64> {
        let id = self.next_client;
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, stream, epoll::EventData::new_u64(id), flags)?;
        self.next_client = self.next_client.wrapping_add(1);
        Ok(id)
    }

    fn serve_from_now(&mut self, id: u64, mut client: EventsClient) {
        client.tell_leds(&self.leds, &self.info);
        self.keep(id, client);
    }

    /// Goes on with a client of a predecessor.
    fn go_on(&mut self, left: LeftClient) {
        let LeftClient {
            stream,
            kept,
            progress,
        } = left;
        let watched = stream.map(|stream| {
            let id = self.watch(&stream)?;
            io::Result::Ok((id, stream))
        });
        match watched {
            Some(Ok((id, stream))) => {
                if let Some(listener) = &mut self.listener {
                    listener.adopt();
                }
                let mut client = EventsClient::with_progress(stream, Some(kept), progress);
                client.owe_leds();
                self.keep(id, client);
            }
            // It connects again.
            Some(Err(_)) | None => self.lost_clients.push((kept, progress.keys)),
        }
    }

    /// Ends a connection.
    fn close(&mut self, client: EventsClient) {
        if let Some(kept) = client.close() {
            self.kept.remove(kept);
        }
    }

    /// Appends to `events` the release of what clients of a predecessor pressed whose connections ended with it.
    fn release_lost(&mut self, events: &mut Vec<Event>) {
        let mut lost = Bitmap::default();
        for (kept, keys) in std::mem::take(&mut self.lost_clients) {
            self.kept.remove(kept);
            keys.iter().for_each(|key| lost.set(key, true));
        }
        let released = lost.without(&self.keys());
        if !released.is_empty() {
            events.extend(released.iter().map(|code| Event::new(EV_KEY, code, 0)));
            events.push(Event::REPORT);
        }
    }

    /// Keeps a client, and watches it for what it waits for.
    fn keep(&mut self, id: u64, mut client: EventsClient) {
        if let Some(flags) = client.new_interest() {
            let data = epoll::EventData::new_u64(id);
            if let Err(error) = epoll::modify(&self.epoll, &client, data, flags) {
                log::debug!("cannot watch a client of {}: {error}", self.label());
            }
        }
        self.clients.insert(id, client);
    }

    /// Reads a client once, and appends its reports to `events`. Returns whether there may be more to read.
    fn serve(&mut self, id: u64, flags: epoll::EventFlags, events: &mut Vec<Event>) -> bool {
        let Some(mut client) = self.clients.remove(&id) else {
            return false;
        };
        if flags.contains(epoll::EventFlags::OUT) {
            client.send_leds(&self.leds, &self.info);
        }
        let read = client.read(&self.info);
        for report in read.reports {
            self.apply(&mut client, report, events);
        }
        match read.more {
            Ok(more) => {
                client.put(self.kept.ledger());
                self.keep(id, client);
                more
            }
            Err(error) => {
                self.end(client, &error, events);
                false
            }
        }
    }

    /// Appends what a client's report changes to `events`.
    fn apply(&mut self, client: &mut EventsClient, report: Vec<Event>, events: &mut Vec<Event>) {
        let others = self.keys();
        let before = events.len();
        for event in report {
            let Event { kind, code, value } = event;
            let changes = match kind {
                EV_KEY => client.set_key(code, value != 0) && !others.contains(code),
                EV_ABS => self.set_axis(code, value),
                _ => value != 0,
            };
            if changes {
                events.push(event);
            }
        }
        if events.len() > before {
            events.push(Event::REPORT);
        }
    }

    /// Sets an absolute axis. Returns `false` if it has the value already.
    fn set_axis(&mut self, axis: u16, value: i32) -> bool {
        let changes = self.axes.insert(axis, value) != Some(value);
        if changes {
            self.kept.put_axis(axis, value);
        }
        changes
    }

    /// A client is gone, or is disconnected: appends to `events` the release of what only this one pressed.
    fn end(&mut self, client: EventsClient, error: &ClientError, events: &mut Vec<Event>) {
        let label = self.label();
        match error {
            ClientError::Disconnected => self
                .disconnected_log
                .info(format_args!("a program that uses {label} disconnected")),
            error => self.log.warn(format_args!(
                "disconnected a program that uses {label}: {error}"
            )),
        }
        let released = client.keys().without(&self.keys());
        if !released.is_empty() {
            events.extend(released.iter().map(|code| Event::new(EV_KEY, code, 0)));
            events.push(Event::REPORT);
        }
        self.close(client);
        if let Some(listener) = &mut self.listener {
            listener.leave();
        }
    }

    /// Serves clients that are ready, once each. Returns whether there may be more to read.
    fn serve_ready(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let left = self.clients.iter().filter(|(_, client)| client.has_left());
        let mut ready: Vec<_> = left.map(|(id, _)| (*id, epoll::EventFlags::IN)).collect();
        let mut more = !ready.is_empty() || !self.lost_clients.is_empty();
        if more {
            // A predecessor's: nothing new is read before.
            self.release_lost(events);
        } else {
            ready = self.ready()?;
            if ready.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        for (id, flags) in ready {
            more |= self.serve(id, flags, events);
        }
        Ok(more)
    }

    /// What is pressed by any client.
    fn keys(&self) -> Bitmap {
        let mut keys = Bitmap::default();
        for key in self
            .clients
            .values()
            .flat_map(|client| client.keys().iter())
        {
            keys.set(key, true);
        }
        keys
    }

    /// The clients that are ready.
    fn ready(&self) -> io::Result<Vec<(u64, epoll::EventFlags)>> {
        let none = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut ready = [none; MAX_CLIENTS];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let count = match epoll::wait(&self.epoll, ready.as_mut_slice(), Some(&at_once)) {
            Err(Errno::INTR) => return Err(io::ErrorKind::Interrupted.into()),
            count => count?,
        };
        let client = |event: &epoll::Event| {
            let (data, flags) = (event.data, event.flags);
            (data.u64(), flags)
        };
        Ok(ready.iter().take(count).map(client).collect())
    }
}

impl EventSource for VirtualSource {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn label(&self) -> String {
        self.device.label().to_owned()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn listen(&mut self, context: &DeviceContext, token: u16) -> io::Result<()> {
        self.listener = context.listen(EVENTS_SOCKET, token, MAX_CLIENTS)?;
        if self.listener.is_none() {
            log::warn!(
                "no program can use {} until the next start: no socket named \"{EVENTS_SOCKET}\" was passed \
                 (FileDescriptorName=)",
                self.label()
            );
        }
        let (kept, left) = KeptClients::load(context.continuity(), &self.info)?;
        self.kept = kept;
        self.axes = left.axes;
        self.leds = left.leds;
        left.clients
            .into_iter()
            .for_each(|client| self.go_on(client));
        Ok(())
    }

    fn accept(&mut self) {
        let Some(stream) = self.listener.as_mut().and_then(ClientListener::accept) else {
            return;
        };
        let label = self.label();
        match self.add_client(stream) {
            Ok(()) => self
                .connected_log
                .info(format_args!("a program is connected that uses {label}")),
            Err(error) => {
                self.log.warn(format_args!(
                    "cannot serve a program that uses {label}: {error}"
                ));
                if let Some(listener) = &mut self.listener {
                    listener.leave();
                }
            }
        }
    }

    fn keeps_events(&self) -> bool {
        true
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        let more = self.serve_ready(events)?;
        Ok(if more {
            ReadOutcome::MaybeMore
        } else {
            ReadOutcome::Drained
        })
    }

    fn committed(&mut self) {
        self.kept.committed();
    }

    fn state(&self) -> io::Result<DeviceState> {
        Ok(DeviceState {
            keys: self.keys(),
            axes: self.axes.clone(),
            ..DeviceState::new(0)
        })
    }

    fn send(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events.iter().filter(|event| event.kind == EV_LED) {
            self.leds.set(event.code, event.value != 0);
        }
        self.kept.put_leds(&self.leds);
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            if let Some(mut client) = self.clients.remove(&id) {
                client.tell_leds(&self.leds, &self.info);
                self.keep(id, client);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
