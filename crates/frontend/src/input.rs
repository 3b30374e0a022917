// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-input: the guest's driver (virtio 1.2, section 5.8).

use std::mem::offset_of;
use std::time::Duration;

use virtio_bindings::virtio_input as v;

use crate::features::{EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES, VERSION_1};
use crate::{Buffer, DEFAULT_LIMIT, Deadline, Error, Memory, Offer, Queue, Result, Session};

const EVENTS: u32 = 0;
const STATUS: u32 = 1;
/// Size of a `virtio_input_event` in bytes.
const EVENT_SIZE: u32 = size_of::<v::virtio_input_event>() as u32;
/// Size of a `virtio_input_config` in bytes.
pub const CONFIG_SIZE: u32 = size_of::<v::virtio_input_config>() as u32;
/// Size in bytes of what precedes the union of a `virtio_input_config`.
pub const CONFIG_HEADER_SIZE: usize = offset_of!(v::virtio_input_config, u);
/// Size of that union in bytes.
const CONFIG_UNION_SIZE: usize = size_of::<v::virtio_input_config>() - CONFIG_HEADER_SIZE;
/// Features without which no driver starts.
const ALWAYS: u64 = VERSION_1 | PROTOCOL_FEATURES;

/// The selectors of the configuration (virtio 1.2, section 5.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as in the specification")]
pub enum Select {
    Unset = v::virtio_input_config_select_VIRTIO_INPUT_CFG_UNSET as u8,
    IdName = v::virtio_input_config_select_VIRTIO_INPUT_CFG_ID_NAME as u8,
    IdSerial = v::virtio_input_config_select_VIRTIO_INPUT_CFG_ID_SERIAL as u8,
    IdDevids = v::virtio_input_config_select_VIRTIO_INPUT_CFG_ID_DEVIDS as u8,
    PropBits = v::virtio_input_config_select_VIRTIO_INPUT_CFG_PROP_BITS as u8,
    EvBits = v::virtio_input_config_select_VIRTIO_INPUT_CFG_EV_BITS as u8,
    AbsInfo = v::virtio_input_config_select_VIRTIO_INPUT_CFG_ABS_INFO as u8,
}

/// How a VMM passes on what the guest does with the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigAccess {
    /// The whole structure at each read and write, as QEMU.
    #[default]
    Whole,
    /// Byte for byte as the guest does it, as other VMMs.
    Bytes,
}

/// What an axis tells (`virtio_input_absinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsInfo {
    /// Smallest value.
    pub min: u32,
    /// Largest value.
    pub max: u32,
    /// Noise that is filtered.
    pub fuzz: u32,
    /// Dead zone around the middle.
    pub flat: u32,
    /// Units per mm, or per radian.
    pub res: u32,
}

/// An event, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// EV_KEY and the like.
    pub kind: u16,
    /// KEY_A and the like.
    pub code: u16,
    /// What happened to it.
    pub value: i32,
}

impl Event {
    /// An event.
    pub const fn new(kind: u16, code: u16, value: i32) -> Self {
        Self { kind, code, value }
    }

    /// SYN_REPORT: the end of a report.
    pub const fn report() -> Self {
        Self::new(0, 0, 0)
    }

    /// Whether it ends a report.
    pub fn is_report(&self) -> bool {
        (self.kind, self.code) == (0, 0)
    }

    /// As it lies in a buffer.
    pub fn to_bytes(self) -> [u8; EVENT_SIZE as usize] {
        let mut bytes = [0; EVENT_SIZE as usize];
        bytes[..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.code.to_le_bytes());
        bytes[4..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes([a, b, c, d, value @ ..]: [u8; EVENT_SIZE as usize]) -> Self {
        Self::new(
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d]),
            i32::from_le_bytes(value),
        )
    }
}

/// How a driver is set up.
#[derive(Clone, Copy, Debug)]
pub struct InputOptions {
    /// The virtio features the driver takes, where they are offered. VERSION_1 always is.
    pub features: u64,
    /// Entries of both queues: 64 in QEMU 7.2, 4 in QEMU 10.
    pub queue_size: u16,
    /// How the configuration is read and written.
    pub access: ConfigAccess,
    /// Whether all buffers are given to the device at the start, and each again once it was used,
    /// as Linux does. If not, see [`Input::give`].
    pub refill: bool,
}

impl Default for InputOptions {
    /// As Linux on QEMU 7.2.
    fn default() -> Self {
        Self {
            features: EVENT_IDX | INDIRECT_DESC,
            queue_size: 64,
            access: ConfigAccess::Whole,
            refill: true,
        }
    }
}

/// A guest with a virtio-input driver.
#[derive(Debug)]
pub struct Input {
    /// The connection.
    pub session: Session,
    /// The queue of events to the guest.
    pub events: Queue,
    /// The queue of events to the device.
    pub status: Queue,
    /// What the backend offered.
    pub offer: Offer,
    options: InputOptions,
    memory: Memory,
    features: u64,
    /// The events' buffers, one for each entry, and by head which one it has.
    buffers: u64,
    spare: Vec<u16>,
    by_head: Vec<u16>,
    status_buffer: u64,
}

impl Input {
    /// Connects a driver that has not begun: the configuration can be read, no ring runs. See
    /// [`Input::run`].
    ///
    /// # Errors
    /// As [`Session::request`]; [`Error::Protocol`] if VERSION_1 is not offered.
    pub fn connect(mut session: Session, memory: &Memory, options: InputOptions) -> Result<Self> {
        let offer = session.negotiate(Session::usual_protocol_features())?;
        Self::on(session, offer, memory, options)
    }

    /// A driver on a connection that its caller negotiated and starts the rings of.
    ///
    /// # Errors
    /// As [`Queue::new`]; [`Error::Protocol`] if VERSION_1 is not offered.
    pub fn on(
        session: Session,
        offer: Offer,
        memory: &Memory,
        options: InputOptions,
    ) -> Result<Self> {
        if offer.features & ALWAYS != ALWAYS {
            let features = offer.features;
            return Err(Error::Protocol(format!(
                "features {features:#x} lack VERSION_1"
            )));
        }
        let features = offer.features & (options.features | ALWAYS);
        let event_idx = features & EVENT_IDX != 0;
        let size = options.queue_size;
        let bytes = u64::from(size) * u64::from(EVENT_SIZE);
        Ok(Self {
            session,
            events: Queue::new(memory, size, event_idx)?,
            status: Queue::new(memory, size, event_idx)?,
            offer,
            options,
            memory: memory.clone(),
            features,
            buffers: memory.alloc(bytes, 8)?,
            spare: (0..size).collect(),
            by_head: vec![0; usize::from(size)],
            status_buffer: memory.alloc(bytes, 8)?,
        })
    }

    /// [`Input::connect`] and [`Input::run`].
    ///
    /// # Errors
    /// As these.
    pub fn start(session: Session, memory: &Memory, options: InputOptions) -> Result<Self> {
        let mut input = Self::connect(session, memory, options)?;
        input.run()?;
        Ok(input)
    }

    /// The driver begins: features, memory, rings, buffers.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn run(&mut self) -> Result<()> {
        self.session.set_features(self.features)?;
        self.session.set_memory(&self.memory)?;
        self.session.start_queue(EVENTS, &self.events)?;
        self.session.start_queue(STATUS, &self.status)?;
        if self.options.refill {
            self.give(self.options.queue_size)?;
        }
        Ok(())
    }

    /// Stops both rings, as QEMU does when the guest resets the device.
    ///
    /// # Errors
    /// As [`Session::stop_queue`].
    pub fn stop(&mut self) -> Result<()> {
        for index in [EVENTS, STATUS] {
            self.session.stop_queue(index)?;
        }
        Ok(())
    }

    /// Begins anew after [`Input::stop`], as a driver that is loaded again.
    ///
    /// # Errors
    /// As [`Input::run`].
    pub fn restart(&mut self) -> Result<()> {
        self.begin_anew()?;
        self.run()
    }

    /// The driver forgets all, as one that is loaded again; its rings must be stopped.
    ///
    /// # Errors
    /// As [`Queue::reset`].
    pub fn begin_anew(&mut self) -> Result<()> {
        self.events.reset()?;
        self.status.reset()?;
        self.spare = (0..self.options.queue_size).collect();
        Ok(())
    }

    /// The features both sides agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// What the device has for this selector; empty where it has nothing.
    ///
    /// # Errors
    /// As [`Session::config`]; [`Error::Protocol`] for a size beyond the union's 128 bytes, or if
    /// the device has something and does not give back what was selected.
    pub fn config(&mut self, select: Select, subsel: u8) -> Result<Vec<u8>> {
        let [select, size] = match self.options.access {
            ConfigAccess::Whole => {
                let mut whole = vec![0; CONFIG_SIZE as usize];
                (whole[0], whole[1]) = (select as u8, subsel);
                self.session.set_config(0, &whole)?;
                let mut read = self.session.config(0, CONFIG_SIZE)?;
                // QEMU's vhost-user-input answers with zeros only where there is nothing.
                if (read[0], read[1]) != (select as u8, subsel) && read[2] != 0 {
                    return Err(Error::Protocol(format!(
                        "selector {}, {} after {}, {subsel} was written",
                        read[0], read[1], select as u8
                    )));
                }
                let size = usize::from(read[2]);
                let union = read.split_off(CONFIG_HEADER_SIZE);
                if let Some(found) = union.get(..size) {
                    return Ok(found.to_vec());
                }
                [select as usize, size]
            }
            ConfigAccess::Bytes => {
                self.session.set_config(0, &[select as u8])?;
                self.session.set_config(1, &[subsel])?;
                let size = self.session.config(2, 1)?[0];
                if usize::from(size) <= CONFIG_UNION_SIZE {
                    let union =
                        CONFIG_HEADER_SIZE as u32..CONFIG_HEADER_SIZE as u32 + u32::from(size);
                    return union.map(|n| Ok(self.session.config(n, 1)?[0])).collect();
                }
                [select as usize, usize::from(size)]
            }
        };
        Err(Error::Protocol(format!(
            "selector {select} has size {size}"
        )))
    }

    /// The device's name.
    ///
    /// # Errors
    /// As [`Input::config`].
    pub fn name(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.config(Select::IdName, 0)?).into_owned())
    }

    /// The device's serial; empty if it has none.
    ///
    /// # Errors
    /// As [`Input::config`].
    pub fn serial(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.config(Select::IdSerial, 0)?).into_owned())
    }

    /// Bus type, vendor, product and version.
    ///
    /// # Errors
    /// As [`Input::config`]; [`Error::Protocol`] if there are not 8 bytes.
    pub fn devids(&mut self) -> Result<[u16; 4]> {
        let bytes = self.config(Select::IdDevids, 0)?;
        let bytes: [u8; 8] = exact(&bytes, "ID_DEVIDS")?;
        Ok([0, 2, 4, 6].map(|n| u16::from_le_bytes([bytes[n], bytes[n + 1]])))
    }

    /// The input properties the device has, by number.
    ///
    /// # Errors
    /// As [`Input::config`].
    pub fn properties(&mut self) -> Result<Vec<u16>> {
        Ok(bits(&self.config(Select::PropBits, 0)?))
    }

    /// The codes of event type `kind` the device has, by number; none if it has no such events.
    ///
    /// # Errors
    /// As [`Input::config`].
    pub fn codes(&mut self, kind: u16) -> Result<Vec<u16>> {
        let Ok(subsel) = u8::try_from(kind) else {
            return Ok(Vec::new());
        };
        Ok(bits(&self.config(Select::EvBits, subsel)?))
    }

    /// What axis `axis` tells; none if the device has not that one.
    ///
    /// # Errors
    /// As [`Input::config`]; [`Error::Protocol`] if there are not 20 bytes.
    pub fn abs_info(&mut self, axis: u8) -> Result<Option<AbsInfo>> {
        let bytes = self.config(Select::AbsInfo, axis)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes: [u8; 20] = exact(&bytes, "ABS_INFO")?;
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[n + i]));
        let (min, max, fuzz, flat, res) = (word(0), word(4), word(8), word(12), word(16));
        Ok(Some(AbsInfo {
            min,
            max,
            fuzz,
            flat,
            res,
        }))
    }

    /// Gives the device `count` more buffers for events, fewer if there are not as many.
    ///
    /// # Errors
    /// As [`Queue::add`] and [`Queue::submit`].
    pub fn give(&mut self, count: u16) -> Result<()> {
        for _ in 0..count {
            let Some(buffer) = self.spare.pop() else {
                break;
            };
            let address = self.buffers + u64::from(buffer) * u64::from(EVENT_SIZE);
            let head = self.events.add(&[Buffer::writable(address, EVENT_SIZE)])?;
            self.by_head[usize::from(head)] = buffer;
        }
        self.events.submit()
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// As [`Queue::wait_used`]; [`Error::Protocol`] if the device did not write 8 bytes.
    pub fn next_event(&mut self, limit: Duration) -> Result<Event> {
        let used = self.events.wait_used(limit)?;
        if used.len != EVENT_SIZE {
            return Err(Error::Protocol(format!("an event of {} bytes", used.len)));
        }
        let buffer = self.by_head[usize::from(used.head)];
        let mut bytes = [0; EVENT_SIZE as usize];
        let address = self.buffers + u64::from(buffer) * u64::from(EVENT_SIZE);
        self.memory.read(address, &mut bytes)?;
        self.spare.push(buffer);
        if self.options.refill {
            self.give(1)?;
        }
        Ok(Event::from_bytes(bytes))
    }

    /// Waits for a whole report: the events up to its SYN_REPORT, that one included.
    ///
    /// # Errors
    /// As [`Input::next_event`], with the events that did come.
    pub fn next_report(&mut self) -> Result<Vec<Event>> {
        let deadline = Deadline::after(DEFAULT_LIMIT);
        let mut report = Vec::new();
        loop {
            match self.next_event(deadline.left()) {
                Ok(event) => report.push(event),
                Err(e) if e.is_timeout() => {
                    return Err(deadline.missed(format!("a report, got {report:?} of it")));
                }
                Err(e) => return Err(e),
            }
            if report.last().is_some_and(Event::is_report) {
                return Ok(report);
            }
        }
    }

    /// That no event comes for as long as `limit`.
    ///
    /// # Errors
    /// [`Error::Protocol`] with the event that did come; as [`Input::next_event`].
    pub fn no_event(&mut self, limit: Duration) -> Result<()> {
        match self.next_event(limit) {
            Err(e) if e.is_timeout() => Ok(()),
            Err(e) => Err(e),
            Ok(event) => Err(Error::Protocol(format!(
                "{event:?} when there should be none"
            ))),
        }
    }

    /// Sends events to the device, an LED's state for one, and waits until it has taken them.
    ///
    /// # Errors
    /// As [`Queue::add`] and [`Queue::wait_used`].
    pub fn send_status(&mut self, events: &[Event]) -> Result<()> {
        for chunk in events.chunks(usize::from(self.options.queue_size)) {
            self.submit_status(chunk)?;
            self.wait_status(chunk.len())?;
        }
        Ok(())
    }

    /// Sends events to the device, at most as many as the queue has entries, and waits for nothing: see
    /// [`Input::wait_status`].
    ///
    /// # Errors
    /// As [`Queue::add`].
    pub fn submit_status(&mut self, events: &[Event]) -> Result<()> {
        for (n, event) in events.iter().enumerate() {
            let address = self.status_buffer + n as u64 * u64::from(EVENT_SIZE);
            self.memory.write(address, &event.to_bytes())?;
            self.status.add(&[Buffer::readable(address, EVENT_SIZE)])?;
        }
        self.status.submit()
    }

    /// Waits until the device has taken `count` events.
    ///
    /// # Errors
    /// As [`Queue::wait_used`].
    pub fn wait_status(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.status.wait_used(DEFAULT_LIMIT)?;
        }
        Ok(())
    }
}

fn exact<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N]> {
    let wrong = |_| Error::Protocol(format!("{what} has {} bytes instead of {N}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

/// The numbers of the bits that are set.
fn bits(bytes: &[u8]) -> Vec<u16> {
    let all = 0..bytes.len() * 8;
    all.filter(|n| bytes[n / 8] >> (n % 8) & 1 == 1)
        .map(|n| n as u16)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_eight_little_endian_bytes() {
        let event = Event::new(1, 0x1e, -2);
        assert_eq!(event.to_bytes(), [1, 0, 0x1e, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(Event::from_bytes(event.to_bytes()), event);
    }

    #[test]
    fn bitmap_lists_its_bit_numbers() {
        assert_eq!(bits(&[0b1000_0001, 0, 2]), [0, 7, 17]);
        assert!(bits(&[]).is_empty());
    }
}
