//! A device without hardware: programs such as a console send its events over a socket.

mod events_client;
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
            log: RateLimitedLog::default(),
            connected_log: RateLimitedLog::default(),
            disconnected_log: RateLimitedLog::default(),
        })
    }

    fn add_client(&mut self, stream: UnixStream) -> io::Result<()> {
        let id = self.next_client;
        let mut client = EventsClient::new(stream);
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, &client, epoll::EventData::new_u64(id), flags)?;
        client.tell_leds(&self.leds, &self.info);
        self.next_client = self.next_client.wrapping_add(1);
        self.keep(id, client);
        Ok(())
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
                EV_ABS => self.axes.insert(code, value) != Some(value),
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
        // Its descriptor leaves the epoll descriptor when it is closed: there is no other one for it.
        drop(client);
        if let Some(listener) = &mut self.listener {
            listener.leave();
        }
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
        let ready = self.ready()?;
        if ready.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut more = false;
        for (id, flags) in ready {
            more |= self.serve(id, flags, events);
        }
        Ok(if more {
            ReadOutcome::MaybeMore
        } else {
            ReadOutcome::Drained
        })
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
