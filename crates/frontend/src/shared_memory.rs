// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The front-end's end of the back-end's channel: shared memory regions, into which the back-end has files mapped.
//!
//! It notices what QEMU 11.1 does not survive: a request while the device does not run, more maps than it has room for, a
//! file that may become shorter, and regions whose sizes have a sum that is no power of two.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};
use vhost::vhost_user::message::{BackendReq, FrontendReq};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes as _, FileOffset, VolatileMemory as _};

use crate::channel::{NEED_REPLY, REPLY, VERSION};
use crate::{Channel, Deadline, Error, Message, Region, Result, Session};

/// Regions that a device may have.
const REGIONS: usize = 256;
/// Bytes before the sizes of the regions.
const CONFIG_HEADER: usize = 8;
/// Most maps and pieces of the guest's memory together that QEMU has room for, less what a guest with plugged memory has.
pub const MAX_MAPS: usize = 256;
const PAGE: u64 = 4096;
/// `VHOST_USER_FLAG_MAP_RW`.
const WRITABLE: u64 = 1;
/// Where the first region lies in the guest's addresses, and where the front-end would have it.
const GUEST_BASE: u64 = 1 << 40;
const USER_BASE: u64 = 0x6000_0000_0000;

/// What a region has mapped.
#[derive(Debug)]
pub struct Map {
    /// The region's number.
    pub region: u8,
    /// Where it begins in the region.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// What the guest sees.
    pub file: File,
    /// Where that begins in the file.
    pub file_offset: u64,
}

/// A request of the back-end, which waits for its answer.
#[derive(Debug)]
pub enum Request {
    /// To map a file (`VHOST_USER_BACKEND_SHMEM_MAP`).
    Map(Map),
    /// To unmap what was mapped by one request (`VHOST_USER_BACKEND_SHMEM_UNMAP`).
    Unmap {
        /// The region's number.
        region: u8,
        /// Where it begins in the region.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// To have the guest read its configuration (`VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`).
    ConfigChange,
    /// One that QEMU does not know, and ignores.
    Unknown,
}

/// A map that the guest sees.
#[derive(Debug)]
struct Mapped {
    map: Map,
    memory: MmapRegion,
    /// Whether the device has it as a part of the guest's memory.
    is_shared: bool,
}

impl Mapped {
    fn new(map: Map) -> Result<Self> {
        let file = map.file.try_clone();
        let file = file.map_err(Error::io("duplicating a file to map"))?;
        let len = usize::try_from(map.len).map_err(|_| wrong("a map is too long"))?;
        let memory = MmapRegion::from_file(FileOffset::new(file, map.file_offset), len);
        Ok(Self {
            memory: memory.map_err(|error| Error::Memory(error.to_string()))?,
            map,
            is_shared: false,
        })
    }

    fn region(&self) -> Region<'_> {
        let Map { region, offset, .. } = self.map;
        let at = (u64::from(region) << 41) + offset;
        Region {
            guest_address: GUEST_BASE + at,
            size: self.map.len,
            user_address: USER_BASE + at,
            mmap_offset: self.map.file_offset,
            fd: self.map.file.as_fd(),
        }
    }
}

/// The shared memory regions of a device, and what is mapped into them.
#[derive(Debug)]
pub struct SharedMemory {
    channel: Channel,
    sizes: Vec<u64>,
    maps: Vec<Mapped>,
    /// Unmapped, and still a part of the guest's memory for the device.
    unmapped: Vec<Mapped>,
    is_running: bool,
}

impl SharedMemory {
    /// Gives the back-end a channel, and asks it for its regions, as QEMU does before a driver is there. REPLY_ACK,
    /// BACKEND_REQ and SHMEM have been negotiated.
    ///
    /// # Errors
    /// [`Error::Protocol`] if QEMU would end because of the regions; as [`Session::call`].
    pub fn connect(session: &mut Session) -> Result<Self> {
        let (channel, theirs) =
            UnixStream::pair().map_err(Error::io("making a channel for the back-end"))?;
        session.set_backend_channel(theirs)?;
        Ok(Self {
            channel: Channel::new(channel),
            sizes: sizes(session)?,
            maps: Vec::new(),
            unmapped: Vec::new(),
            is_running: false,
        })
    }

    /// The size of a region; 0 if there is none.
    pub fn size(&self, region: u8) -> u64 {
        self.sizes.get(usize::from(region)).copied().unwrap_or(0)
    }

    /// How many maps there are.
    pub fn count(&self) -> usize {
        self.maps.len()
    }

    /// The device runs from now on, or is about to be stopped.
    pub fn set_running(&mut self, is_running: bool) {
        self.is_running = is_running;
    }

    /// The device was reset: nothing is mapped.
    pub fn reset(&mut self) {
        self.is_running = false;
        self.unmapped.append(&mut self.maps);
    }

    /// Whether there is something to receive within this time.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn is_asked(&self, limit: Duration) -> Result<bool> {
        Deadline::after(limit).ready(self.channel.socket(), PollFlags::IN)
    }

    /// Receives a request, which QEMU could serve.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it could not, or would end; as [`Channel::receive`].
    pub fn receive(&self) -> Result<Request> {
        let message = self.channel.receive()?;
        let known = [
            BackendReq::CONFIG_CHANGE_MSG,
            BackendReq::SHMEM_MAP,
            BackendReq::SHMEM_UNMAP,
        ];
        if !known.map(|known| known as u32).contains(&message.request) {
            return Ok(Request::Unknown);
        }
        if !self.is_running {
            return Err(wrong("a request came while the device does not run"));
        }
        if message.flags != VERSION | NEED_REPLY {
            return Err(wrong(format!(
                "a request has the flags {:#x}",
                message.flags
            )));
        }
        let number = message.request;
        if number == BackendReq::CONFIG_CHANGE_MSG as u32 {
            return match (message.body.len(), message.fds.len()) {
                (0, 0) => Ok(Request::ConfigChange),
                _ => Err(wrong("a configuration change has a payload")),
            };
        }
        let (fields, file) = parse(message)?;
        let [region, file_offset, offset, len, flags] = fields;
        let region = u8::try_from(region).map_err(|_| wrong("a region has no such number"))?;
        let end = offset.checked_add(len).filter(|_| len != 0);
        if end.is_none_or(|end| end > self.size(region)) || (offset | len) % PAGE != 0 {
            return Err(wrong(format!(
                "{len} bytes from byte {offset} on are none of region {region}"
            )));
        }
        let is = |request: BackendReq| number == request as u32;
        match file {
            Some(file) if is(BackendReq::SHMEM_MAP) && flags == WRITABLE => {
                let map = Map {
                    region,
                    offset,
                    len,
                    file: file.into(),
                    file_offset,
                };
                self.check(&map)?;
                Ok(Request::Map(map))
            }
            None if is(BackendReq::SHMEM_UNMAP) => Ok(Request::Unmap {
                region,
                offset,
                len,
            }),
            _ => Err(wrong(format!("request {number} with flags {flags}"))),
        }
    }

    fn check(&self, map: &Map) -> Result<()> {
        let overlaps = |other: &&Map| {
            let ends = [other, &map].map(|map| map.offset.saturating_add(map.len));
            other.region == map.region && other.offset < ends[1] && map.offset < ends[0]
        };
        let mut others = self.maps.iter().map(|mapped| &mapped.map);
        if let Some(other) = others.find(overlaps) {
            return Err(wrong(format!("{map:?} is to be mapped over {other:?}")));
        }
        if self.maps.len() >= MAX_MAPS {
            return Err(wrong(format!("more than {MAX_MAPS} maps")));
        }
        let stat = fstat(&map.file).map_err(Error::os("looking at a file to map"))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let end = map.file_offset.checked_add(map.len);
        if end.is_none_or(|end| end > size) || map.file_offset % PAGE != 0 {
            return Err(wrong(format!(
                "{map:?} is not within a file of {size} bytes"
            )));
        }
        let seals = fcntl_get_seals(map.file.as_fd());
        let is_memfd = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_memfd && seals.is_ok_and(|seals| !seals.contains(SealFlags::SHRINK)) {
            return Err(wrong(format!("the file of {map:?} may become shorter")));
        }
        Ok(())
    }

    /// Does what was asked, and says so. QEMU then calls [`SharedMemory::share`].
    ///
    /// # Errors
    /// [`Error::Protocol`] if nothing like it is mapped; [`Error::Memory`] if it cannot be mapped; as [`Channel::send`].
    pub fn serve(&mut self, request: Request) -> Result<()> {
        let number = number(&request);
        match request {
            Request::Map(map) => self.maps.push(Mapped::new(map)?),
            Request::Unmap {
                region,
                offset,
                len,
            } => {
                let is_it = |Mapped { map, .. }: &Mapped| {
                    (map.region, map.offset, map.len) == (region, offset, len)
                };
                let at = self.maps.iter().position(is_it);
                let at = at.ok_or_else(|| wrong("what is to be unmapped is not mapped"))?;
                self.unmapped.push(self.maps.remove(at));
            }
            Request::ConfigChange | Request::Unknown => {}
        }
        self.answer(number, 0)
    }

    /// Refuses what was asked.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn refuse(&mut self, request: &Request) -> Result<()> {
        self.answer(number(request), 1)
    }

    fn answer(&self, number: Option<u32>, value: u64) -> Result<()> {
        let Some(number) = number else {
            return Ok(());
        };
        let flags = VERSION | REPLY;
        self.channel.send(number, flags, &value.to_ne_bytes(), &[])
    }

    /// Tells the device of the maps as QEMU tells all vhost-user devices: as if they were the guest's memory. A device that
    /// runs may refuse them.
    ///
    /// # Errors
    /// As [`Session::add_region`].
    pub fn share(&mut self, session: &mut Session) -> Result<()> {
        for unmapped in self.unmapped.drain(..) {
            if unmapped.is_shared {
                session.remove_region(&unmapped.region())?;
            }
        }
        for mapped in self.maps.iter_mut().filter(|mapped| !mapped.is_shared) {
            match session.add_region(&mapped.region()) {
                Ok(()) => mapped.is_shared = true,
                Err(Error::Refused { .. }) if self.is_running => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What the guest writes in a region.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no such map.
    pub fn write(&self, region: u8, offset: u64, bytes: &[u8]) -> Result<()> {
        let is_it = |Mapped { map, .. }: &&Mapped| (map.region, map.offset) == (region, offset);
        let mapped = self.maps.iter().find(is_it);
        let mapped =
            mapped.ok_or_else(|| Error::Memory(format!("nothing is mapped at {offset:#x}")))?;
        let memory = mapped.memory.as_volatile_slice();
        memory
            .write_slice(bytes, 0)
            .map_err(|error| Error::Memory(error.to_string()))
    }
}

fn number(request: &Request) -> Option<u32> {
    match request {
        Request::Map(_) => Some(BackendReq::SHMEM_MAP as u32),
        Request::Unmap { .. } => Some(BackendReq::SHMEM_UNMAP as u32),
        Request::ConfigChange => Some(BackendReq::CONFIG_CHANGE_MSG as u32),
        Request::Unknown => None,
    }
}

/// The region, file offset, offset, length and flags of a request, and its file.
fn parse(message: Message) -> Result<([u64; 5], Option<OwnedFd>)> {
    let Message { body, mut fds, .. } = message;
    let fields: Vec<_> = body
        .chunks_exact(8)
        .filter_map(<[u8]>::first_chunk)
        .collect();
    let (true, [region, rest @ ..]) = (body.len() == 40 && fds.len() <= 1, &fields[..]) else {
        return Err(wrong(format!(
            "a request of {} bytes and {} descriptors",
            body.len(),
            fds.len()
        )));
    };
    let mut numbers = [u64::from(region[0]), 0, 0, 0, 0];
    for (number, bytes) in numbers[1..].iter_mut().zip(rest) {
        *number = u64::from_ne_bytes(**bytes);
    }
    Ok((numbers, fds.pop()))
}

/// The sizes of all regions.
fn sizes(session: &mut Session) -> Result<Vec<u64>> {
    let reply = session.call(FrontendReq::GET_SHMEM_CONFIG, &[], &[])?;
    let sizes = reply.body.get(CONFIG_HEADER..).unwrap_or_default();
    let sizes = sizes.chunks_exact(8).filter_map(<[u8]>::first_chunk);
    let sizes: Vec<_> = sizes.map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    let count = reply
        .body
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes));
    let regions = sizes.iter().filter(|size| **size != 0).count();
    if sizes.len() != REGIONS || count != u32::try_from(regions).ok() {
        return Err(wrong(format!("{count:?} regions with the sizes {sizes:?}")));
    }
    let sum = sizes
        .iter()
        .fold(0, |sum: u64, size| sum.saturating_add(*size));
    if sum != 0 && !sum.is_power_of_two() {
        return Err(wrong(format!("regions of {sum} bytes in all")));
    }
    Ok(sizes)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Protocol(what.into())
}
