// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The smallest request of each device: what shows that its virtqueue is served.

use conventions::DeviceType;
use frontend::{Buffer, Memory, Result, Used};
use virtio_bindings::{virtio_blk as blk, virtio_gpu as gpu};

/// Bytes that a random number generator is asked for.
const RANDOM: u32 = 64;
/// Bytes of a sector.
pub(crate) const SECTOR: u32 = 512;
/// The answer to FUSE_INIT (`fuse_out_header` and `fuse_init_out`), in bytes.
const FUSE_ANSWER: u32 = 16 + 64;
/// `virtio_scsi_cmd_resp` with 96 bytes of sense data, in bytes.
const SCSI_ANSWER: u32 = 12 + 96;
/// `virtio_net_hdr_v1`, in bytes.
pub(crate) const NET_HEADER: usize = 12;

/// What a device is asked to do, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    device_type: DeviceType,
    /// How many virtqueues a driver sets up.
    pub(crate) queues: u32,
    /// The one that gets the requests.
    pub(crate) ring: u32,
}

/// Where a device writes its answer, and for how many bytes there is room.
type Answer = (u64, u32);

/// A request in a virtqueue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) head: u16,
    number: u32,
    answer: Option<Answer>,
}

impl Work {
    /// For a device of this type, if one is known.
    pub(crate) fn of(device_type: DeviceType) -> Option<Self> {
        let (queues, ring) = match device_type {
            DeviceType::Gpu => (2, 0),
            DeviceType::Input => (2, 1),
            DeviceType::Rng | DeviceType::Block => (1, 0),
            DeviceType::Fs | DeviceType::Net => (2, 1),
            DeviceType::Console => (2, 1),
            DeviceType::Scsi => (3, 2),
            // The third, for events, is the VMM's own: QEMU tells the backend of two.
            DeviceType::Vsock => (2, 1),
            _ => return None,
        };
        Some(Self {
            device_type,
            queues,
            ring,
        })
    }

    /// The buffers of request `number`, and where the device writes its answer.
    pub(crate) fn buffers(
        &self,
        number: u32,
        memory: &Memory,
        part: usize,
    ) -> Result<(Vec<Buffer>, Option<Answer>)> {
        let place = |len: u32| memory.alloc_in(part, len.into(), 8);
        let write = |bytes: &[u8]| -> Result<(u64, u32)> {
            let len = bytes.len() as u32;
            let at = memory.alloc_in(part, len.into(), 8)?;
            memory.write(at, bytes)?;
            Ok((at, len))
        };
        let answer = |len: u32| -> Result<(u64, u32)> {
            let at = place(len)?;
            memory.fill(at, 0xa5, len as usize)?;
            Ok((at, len))
        };
        let readable = |(at, len)| Buffer::readable(at, len);
        let writable = |(at, len)| Buffer::writable(at, len);
        Ok(match self.device_type {
            DeviceType::Gpu => {
                let create = gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
                let xrgb = gpu::virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM;
                let words = [create, 0, 0, 0, 0, 0, number + 1, xrgb, 8, 8];
                let (request, response) =
                    (write(&words.map(u32::to_le_bytes).concat())?, answer(24)?);
                (vec![readable(request), writable(response)], Some(response))
            }
            // EV_LED of LED_NUML, as a driver sends it.
            DeviceType::Input => {
                let event = [&[0x11, 0, 0, 0][..], &(number % 2).to_le_bytes()].concat();
                (vec![readable(write(&event)?)], None)
            }
            DeviceType::Rng => {
                let bytes = answer(RANDOM)?;
                (vec![writable(bytes)], Some(bytes))
            }
            DeviceType::Block => {
                let request = write(
                    &[blk::VIRTIO_BLK_T_IN, 0, 0, 0]
                        .map(u32::to_le_bytes)
                        .concat(),
                )?;
                let (sector, status) = (answer(SECTOR)?, answer(1)?);
                let buffers = vec![readable(request), writable(sector), writable(status)];
                (buffers, Some(status))
            }
            DeviceType::Fs => {
                let (request, response) = (write(&fuse_init(number))?, answer(FUSE_ANSWER)?);
                (vec![readable(request), writable(response)], Some(response))
            }
            DeviceType::Net => {
                let frame = [vec![0; NET_HEADER], arp_request()].concat();
                (vec![readable(write(&frame)?)], None)
            }
            DeviceType::Console => (vec![readable(write(b"x")?)], None),
            DeviceType::Scsi => {
                let request = write(&scsi_test_unit_ready(number))?;
                let response = answer(SCSI_ANSWER)?;
                (vec![readable(request), writable(response)], Some(response))
            }
            _ => (vec![readable(write(&vsock_reset())?)], None),
        })
    }

    /// The request that was put under `head`.
    pub(crate) fn request(&self, head: u16, number: u32, answer: Option<Answer>) -> Request {
        Request {
            head,
            number,
            answer,
        }
    }

    /// What is wrong with an answer.
    pub(crate) fn problem(
        &self,
        request: &Request,
        used: Used,
        memory: &Memory,
    ) -> Result<Option<String>> {
        let Some((at, len)) = request.answer else {
            return Ok(None);
        };
        let mut bytes = vec![0; len as usize];
        memory.read(at, &mut bytes)?;
        let word = |n: usize| {
            let bytes: [u8; 4] =
                std::array::from_fn(|i| bytes.get(4 * n + i).copied().unwrap_or(0));
            u32::from_le_bytes(bytes)
        };
        let number = request.number;
        Ok(match self.device_type {
            DeviceType::Gpu if word(0) != gpu::virtio_gpu_ctrl_type_VIRTIO_GPU_RESP_OK_NODATA => {
                Some(format!(
                    "RESOURCE_CREATE_2D {number} is answered {:#x}",
                    word(0)
                ))
            }
            DeviceType::Rng if used.len == 0 || used.len > RANDOM => {
                Some(format!("{} bytes of {RANDOM} are written", used.len))
            }
            DeviceType::Rng if bytes.iter().all(|byte| *byte == 0xa5) => {
                Some("nothing is written".to_owned())
            }
            DeviceType::Block if u32::from(bytes[0]) != blk::VIRTIO_BLK_S_OK => {
                Some(format!("reading sector 0 ends with status {}", bytes[0]))
            }
            // The byte after sense_len, residual, status_qualifier and status: VIRTIO_SCSI_S_OK, or BAD_TARGET of a
            // device without disks.
            DeviceType::Scsi if !matches!(bytes[11], 0 | 3) => {
                Some(format!("TEST UNIT READY ends with response {}", bytes[11]))
            }
            // fuse_out_header: length, error, and the request's number.
            DeviceType::Fs if used.len < 16 || word(2) != number => Some(format!(
                "FUSE_INIT {number} is answered with {} bytes",
                used.len
            )),
            _ => None,
        })
    }
}

/// A FUSE_INIT request of protocol 7.31, with this number.
pub(crate) fn fuse_init(number: u32) -> Vec<u8> {
    const FUSE_INIT: u32 = 26;
    let body = [7_u32, 31, 0x2_0000, 0];
    let length = 40 + 16;
    // fuse_in_header: length, opcode, unique (64 bits), nodeid (64 bits), uid, gid, pid, padding.
    let header = [length, FUSE_INIT, number, 0, 0, 0, 0, 0, 1, 0];
    [
        header.map(u32::to_le_bytes).concat(),
        body.map(u32::to_le_bytes).concat(),
    ]
    .concat()
}

/// An ARP request for an address that is not the guest's own, as an Ethernet frame of 60 bytes.
pub(crate) fn arp_request() -> Vec<u8> {
    let own = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(own);
    // Ethernet type ARP; Ethernet and IPv4 addresses of 6 and 4 bytes; a request.
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend([192, 0, 2, 15]);
    frame.extend([0; 6]);
    frame.extend([192, 0, 2, 1]);
    frame.resize(60, 0);
    frame
}

/// TEST UNIT READY to target 0, as a `virtio_scsi_req_cmd` with a command of 32 bytes.
fn scsi_test_unit_ready(number: u32) -> Vec<u8> {
    let lun = [1, 0, 0x40, 0, 0, 0, 0, 0];
    let mut request = lun.to_vec();
    request.extend(u64::from(number).to_le_bytes());
    // Attribute, priority, CRN, and the command, which is all zeros.
    request.resize(19 + 32, 0);
    request
}

/// A packet that resets a connection that there never was: it has no answer.
fn vsock_reset() -> Vec<u8> {
    const GUEST: u64 = 3;
    const HOST: u64 = 2;
    const STREAM: u16 = 1;
    const RST: u16 = 3;
    let mut packet = Vec::with_capacity(44);
    packet.extend(GUEST.to_le_bytes());
    packet.extend(HOST.to_le_bytes());
    packet.extend(1024_u32.to_le_bytes());
    packet.extend(1024_u32.to_le_bytes());
    packet.extend(0_u32.to_le_bytes());
    packet.extend(STREAM.to_le_bytes());
    packet.extend(RST.to_le_bytes());
    packet.extend([0; 12]);
    packet
}
