//! Requests that the daemon would not survive. Those that are right, and with which the guest alone
//! would have it end the connection or its worker, are passed on in a form that it survives; memory
//! that is not there is refused.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use vhost::vhost_user::message::FrontendReq;

use crate::backend::log_limit::LogLimit;

const SET_MEM_TABLE: u32 = FrontendReq::SET_MEM_TABLE as u32;
const SET_VRING_ADDR: u32 = FrontendReq::SET_VRING_ADDR as u32;
const SET_VRING_KICK: u32 = FrontendReq::SET_VRING_KICK as u32;
const ADD_MEM_REG: u32 = FrontendReq::ADD_MEM_REG as u32;

/// Bytes before the first region of a memory table, or the only one, and of each region.
const TABLE_HEADER: usize = 8;
const REGION: usize = 32;

/// In the payload of `SET_VRING_ADDR`: where the three parts of a ring have their addresses, and
/// how they are aligned (virtio 1.2, 2.7): descriptor table, used ring, available ring.
const RING_PARTS: [(usize, u64); 3] = [(8, 16), (16, 4), (24, 2)];
/// Bytes that the daemon reads of a ring as soon as it is told of it.
const RING_HEADER: u64 = 4;

/// Guest memory of which a part lies beyond the end of its file. Whoever touches it, as the guest can
/// have this process do, is ended by a signal (SIGBUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the front-end shares {size} bytes of guest memory from byte {offset} of a file, which has only {file} bytes"
)]
pub(in crate::backend) struct NoMemory {
    size: u64,
    offset: u64,
    file: u64,
}

/// What is remembered of the requests before.
#[derive(Default)]
pub(super) struct Mender {
    memory: Vec<Region>,
    trouble: LogLimit,
}

/// A region of the guest's memory, in the front-end's address space.
#[derive(Clone, Copy)]
struct Region {
    guest: u64,
    user: u64,
    size: u64,
    /// Where it begins in its file.
    offset: u64,
}

impl Region {
    fn contains(&self, user: u64) -> bool {
        user.checked_sub(self.user)
            .is_some_and(|offset| offset < self.size)
    }

    /// Sees that `file` has all of it. Of what is no regular file, such as a device, no size is known.
    fn lies_in(&self, file: &OwnedFd) -> Result<(), NoMemory> {
        let Ok(stat) = fstat(file) else {
            return Ok(());
        };
        let len = u64::try_from(stat.st_size).unwrap_or_default();
        let end = self.offset.checked_add(self.size);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || end.is_some_and(|end| end <= len)
        {
            return Ok(());
        }
        Err(NoMemory {
            size: self.size,
            offset: self.offset,
            file: len,
        })
    }
}

impl Mender {
    /// Looks at one of the front-end's requests before the daemon does, and changes what it would
    /// not survive.
    ///
    /// # Errors
    /// Where it shares memory that is not there.
    pub(super) fn request(
        &mut self,
        request: u32,
        payload: &mut [u8],
        fds: &[OwnedFd],
    ) -> Result<(), NoMemory> {
        match request {
            SET_MEM_TABLE | ADD_MEM_REG => {
                let memory = regions(payload);
                for (region, file) in memory.iter().zip(fds) {
                    region.lies_in(file)?;
                }
                if request == SET_MEM_TABLE {
                    self.memory = memory;
                }
            }
            SET_VRING_ADDR => self.place_ring(payload),
            SET_VRING_KICK => {
                if let Some(kick) = fds.first() {
                    kick_once(kick);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A driver says where its rings lie, and no front-end is bound to look at it. One that says
    /// what cannot be is given a ring that ends outside the guest's memory: of that the device
    /// knows that it is broken, and goes on with the others.
    fn place_ring(&mut self, payload: &mut [u8]) {
        let addresses = RING_PARTS.map(|(at, align)| (word(payload, at), align));
        let possible = addresses.iter().all(|(address, align)| {
            address.is_some_and(|address| {
                address.is_multiple_of(*align) && self.memory.iter().any(|r| r.contains(address))
            })
        });
        let last = self.memory.iter().max_by_key(|region| region.guest);
        let end = last.and_then(|last| last.user.checked_add(last.size));
        let (false, Some(nowhere)) = (possible, end.and_then(|end| end.checked_sub(RING_HEADER)))
        else {
            return;
        };
        self.trouble
            .warn("the guest's driver placed a virtqueue where none can lie; it is not served");
        for (at, align) in RING_PARTS {
            if let Some(to) = payload.get_mut(at..at.saturating_add(8)) {
                to.copy_from_slice(&(nowhere & !(align - 1)).to_ne_bytes());
            }
        }
    }
}

fn regions(payload: &[u8]) -> Vec<Region> {
    let table = payload.get(TABLE_HEADER..).unwrap_or_default();
    let regions = table.chunks_exact(REGION).filter_map(|region| {
        Some(Region {
            guest: word(region, 0)?,
            size: word(region, 8)?,
            user: word(region, 16)?,
            offset: word(region, 24)?,
        })
    });
    regions.collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Kicks a ring that starts, once. The worker may have an event of the same ring under way, from
/// before it was stopped, and would end with an error when it finds nothing in the new eventfd (or
/// wait for ever, in one that blocks). A kick too many is nothing to a device.
fn kick_once(kick: &OwnedFd) {
    let now = Timespec::default();
    let mut fds = [PollFd::new(kick, PollFlags::OUT)];
    // One that is full has been kicked; and it may be one that blocks.
    if poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        && let Err(e) = rustix::io::write(kick.as_fd(), &1_u64.to_ne_bytes())
    {
        log::debug!("cannot kick a ring that starts: {e}");
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn table(regions: &[[u64; 3]]) -> Vec<u8> {
        let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
        for [guest, size, user] in regions {
            payload.extend([*guest, *size, *user, 0].map(u64::to_ne_bytes).concat());
        }
        payload
    }

    fn placed(mender: &mut Mender, [descriptors, used, available]: [u64; 3]) -> [u64; 3] {
        let mut payload = [0, descriptors, used, available, 0]
            .map(u64::to_ne_bytes)
            .concat();
        mender.request(SET_VRING_ADDR, &mut payload, &[]).unwrap();
        RING_PARTS.map(|(at, _)| word(&payload, at).unwrap())
    }

    #[test]
    fn a_ring_that_can_be_is_left_alone_and_one_that_cannot_ends_outside() {
        let mut mender = Mender::default();
        let mut memory = table(&[[1 << 32, 0x2000, 0x7000_0000], [0, 0x1000, 0x6000_0000]]);
        mender.request(SET_MEM_TABLE, &mut memory, &[]).unwrap();
        let sound = [0x6000_0010, 0x6000_0204, 0x7000_0402];
        assert_eq!(placed(&mut mender, sound), sound);
        // Of the region with the highest addresses of the guest, so that none follows.
        let nowhere = [0x7000_1ff0, 0x7000_1ffc, 0x7000_1ffc];
        for wrong in [
            [0x6000_0018, sound[1], sound[2]],
            [sound[0], 0x6000_0206, sound[2]],
            [sound[0], sound[1], 0x7000_0403],
            [0x6000_1000, sound[1], sound[2]],
            [sound[0], 0x5fff_fffc, sound[2]],
            [sound[0], sound[1], u64::MAX - 1],
        ] {
            assert_eq!(placed(&mut mender, wrong), nowhere, "{wrong:x?}");
        }
    }

    #[test]
    fn what_is_no_request_of_its_own_is_survived() {
        let mut mender = Mender::default();
        // Without memory there is nowhere to place it.
        assert_eq!(placed(&mut mender, [1, 2, 3]), [1, 2, 3]);
        for cut in [0, 7, 8, 39, 40] {
            let mut memory = table(&[[0, 2, u64::MAX]]);
            memory.truncate(cut);
            mender.request(SET_MEM_TABLE, &mut memory, &[]).unwrap();
            mender
                .request(SET_VRING_ADDR, &mut [0xff; 12], &[])
                .unwrap();
            assert_eq!(placed(&mut mender, [1, 2, 3]), [1, 2, 3]);
        }
        mender.request(SET_VRING_KICK, &mut [], &[]).unwrap();
    }

    #[test]
    fn a_ring_that_starts_is_kicked_once_and_nothing_blocks() {
        let mut mender = Mender::default();
        let read = |kick: &OwnedFd| {
            let mut count = [0; 8];
            rustix::io::read(kick, &mut count).unwrap();
            u64::from_ne_bytes(count)
        };
        let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let fds = [kick];
        mender.request(SET_VRING_KICK, &mut [0; 8], &fds).unwrap();
        assert_eq!(read(&fds[0]), 1);
        // One that blocks, and has no room.
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let fds = [full];
        mender.request(SET_VRING_KICK, &mut [0; 8], &fds).unwrap();
        assert_eq!(read(&fds[0]), u64::MAX - 1);
    }

    #[test]
    fn memory_beyond_the_end_of_its_file_is_refused() {
        let memfd = || {
            let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&memory, 0x3000).unwrap();
            memory
        };
        let fds = [memfd(), memfd()];
        let request = |kind, regions: &[[u64; 2]]| {
            let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
            for [size, offset] in regions {
                payload.extend([0, *size, 0, *offset].map(u64::to_ne_bytes).concat());
            }
            Mender::default().request(kind, &mut payload, &fds)
        };
        let short = |size, offset| {
            Err(NoMemory {
                size,
                offset,
                file: 0x3000,
            })
        };
        for kind in [SET_MEM_TABLE, ADD_MEM_REG] {
            assert_eq!(request(kind, &[[0x3000, 0]]), Ok(()));
            assert_eq!(request(kind, &[[0x1000, 0x2000]]), Ok(()));
            assert_eq!(request(kind, &[[0x3001, 0]]), short(0x3001, 0));
            assert_eq!(request(kind, &[[0x1000, 0x2001]]), short(0x1000, 0x2001));
            assert_eq!(request(kind, &[[2, u64::MAX]]), short(2, u64::MAX));
        }
        let second = [[0x1000, 0], [0x1000, 0x3000]];
        assert_eq!(request(SET_MEM_TABLE, &second), short(0x1000, 0x3000));
        // A device has no size that could be looked at.
        let device: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
        let mut payload = table(&[[0, 0x1000, 0]]);
        let taken = Mender::default().request(SET_MEM_TABLE, &mut payload, &[device]);
        assert_eq!(taken, Ok(()));
    }
}
