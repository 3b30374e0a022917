// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vhost-user connection, from the features to running rings.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

use crate::channel::{NEED_REPLY, REPLY, VERSION, VERSION_MASK};
use crate::features::PROTOCOL_FEATURES;
use crate::{Channel, Error, Memory, Message, PackedQueue, Queue, Result};

/// "No descriptor follows" in the payload of SET_VRING_KICK and SET_VRING_CALL.
const NO_FD: u64 = 1 << 8;

/// A region of guest memory as the memory table tells it.
#[derive(Clone, Copy, Debug)]
pub struct Region<'fd> {
    /// Guest physical address, in bytes.
    pub guest_address: u64,
    /// Size in bytes.
    pub size: u64,
    /// Where the front-end has it; ring addresses are relative to this one.
    pub user_address: u64,
    /// Where it begins in the file, in bytes.
    pub mmap_offset: u64,
    /// The file.
    pub fd: BorrowedFd<'fd>,
}

impl Region<'_> {
    fn body(&self) -> Vec<u8> {
        let Region {
            guest_address,
            size,
            user_address,
            mmap_offset,
            ..
        } = *self;
        let words = [guest_address, size, user_address, mmap_offset];
        words.map(u64::to_ne_bytes).concat()
    }
}

/// What a backend offers, and what was taken of it.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The virtio features it offers, bit 30 (protocol features) included.
    pub features: u64,
    /// The protocol features it offers.
    pub protocol_features: VhostUserProtocolFeatures,
    /// How many queues it has; 1 without MQ.
    pub queues: u64,
}

/// A vhost-user connection.
#[derive(Debug)]
pub struct Session {
    /// The socket, for what has no method here.
    pub channel: Channel,
    /// Whether each message asks for its acknowledgement, where REPLY_ACK was negotiated. QEMU asks
    /// for few; with it on, a refused message is an error at once.
    pub acknowledge: bool,
    features: u64,
    protocol_features: VhostUserProtocolFeatures,
}

impl Session {
    /// Speaks over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            channel: Channel::new(socket),
            acknowledge: true,
            features: 0,
            protocol_features: VhostUserProtocolFeatures::empty(),
        }
    }

    /// The virtio features that were set last.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features that were negotiated.
    pub fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.protocol_features
    }

    /// Begins a connection as a VMM does: features, owner, protocol features (those of `wanted`
    /// that are offered), number of queues. The virtio features are set later, when the driver has
    /// chosen: [`Session::set_features`].
    ///
    /// # Errors
    /// As [`Channel::send`] and [`Channel::receive`].
    pub fn negotiate(&mut self, wanted: VhostUserProtocolFeatures) -> Result<Offer> {
        let features = self.get_u64(FrontendReq::GET_FEATURES)?;
        let mut offer = Offer {
            features,
            protocol_features: VhostUserProtocolFeatures::empty(),
            queues: 1,
        };
        if features & PROTOCOL_FEATURES != 0 {
            let bits = self.get_u64(FrontendReq::GET_PROTOCOL_FEATURES)?;
            offer.protocol_features = VhostUserProtocolFeatures::from_bits_truncate(bits);
            let taken = offer.protocol_features & wanted;
            self.set_protocol_features(taken)?;
            if taken.contains(VhostUserProtocolFeatures::MQ) {
                offer.queues = self.get_u64(FrontendReq::GET_QUEUE_NUM)?;
            }
        }
        self.request(FrontendReq::SET_OWNER, &[], &[])?;
        Ok(offer)
    }

    /// The protocol features QEMU takes for a gpu or input device, and REPLY_ACK.
    pub fn usual_protocol_features() -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    /// Sets the protocol features.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn set_protocol_features(&mut self, features: VhostUserProtocolFeatures) -> Result<()> {
        self.set_u64(FrontendReq::SET_PROTOCOL_FEATURES, features.bits())?;
        self.protocol_features = features;
        Ok(())
    }

    /// Sets the features the driver accepted; protocol features (bit 30) are added where the
    /// backend is asked for them, as QEMU does.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_features(&mut self, features: u64) -> Result<()> {
        self.set_u64(FrontendReq::SET_FEATURES, features)?;
        self.features = features;
        Ok(())
    }

    /// Gives it the guest's memory.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_memory(&mut self, memory: &Memory) -> Result<()> {
        self.set_regions(&memory.regions())
    }

    /// Sends a memory table of any regions, true or not.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_regions(&mut self, regions: &[Region<'_>]) -> Result<()> {
        let count = regions.len() as u32;
        let mut body = Vec::with_capacity(8 + 32 * regions.len());
        body.extend_from_slice(&count.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        for region in regions {
            body.extend(region.body());
        }
        let fds: Vec<_> = regions.iter().map(|r| r.fd).collect();
        self.request(FrontendReq::SET_MEM_TABLE, &body, &fds)
    }

    /// Adds a region, true or not (ADD_MEM_REG).
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn add_region(&mut self, region: &Region<'_>) -> Result<()> {
        let body = [&[0; 8], region.body().as_slice()].concat();
        self.request(FrontendReq::ADD_MEM_REG, &body, &[region.fd])
    }

    /// Takes a region back (REM_MEM_REG).
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn remove_region(&mut self, region: &Region<'_>) -> Result<()> {
        let body = [&[0; 8], region.body().as_slice()].concat();
        self.request(FrontendReq::REM_MEM_REG, &body, &[])
    }

    /// Sets ring `index` up on `queue` and enables it.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn start_queue(&mut self, index: u32, queue: &Queue) -> Result<()> {
        self.start_queue_at(index, queue, queue.next_available())
    }

    /// As [`Session::start_queue`], from where [`Session::stop_queue`] left it: the driver may have added chains since.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn start_queue_at(&mut self, index: u32, queue: &Queue, base: u16) -> Result<()> {
        self.set_vring_state(FrontendReq::SET_VRING_NUM, index, queue.size().into())?;
        self.set_vring_state(FrontendReq::SET_VRING_BASE, index, base.into())?;
        let [descriptors, available, used] = queue.user_addresses();
        self.set_vring_addresses(index, descriptors, available, used)?;
        self.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(queue.call_fd()))?;
        self.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(queue.kick_fd()))?;
        if self.features & PROTOCOL_FEATURES != 0 {
            self.enable_queue(index, true)?;
        }
        Ok(())
    }

    /// As [`Session::start_queue`], of a packed queue: VIRTIO_F_RING_PACKED was negotiated.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn start_packed_queue(&mut self, index: u32, queue: &PackedQueue) -> Result<()> {
        self.set_vring_state(FrontendReq::SET_VRING_NUM, index, queue.size().into())?;
        self.set_vring_state(FrontendReq::SET_VRING_BASE, index, queue.base())?;
        let [ring, driver, device] = queue.user_addresses();
        self.set_vring_addresses(index, ring, driver, device)?;
        self.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(queue.call_fd()))?;
        self.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(queue.kick_fd()))?;
        if self.features & PROTOCOL_FEATURES != 0 {
            self.enable_queue(index, true)?;
        }
        Ok(())
    }

    /// Enables or disables ring `index`.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn enable_queue(&mut self, index: u32, enable: bool) -> Result<()> {
        self.set_vring_state(FrontendReq::SET_VRING_ENABLE, index, enable.into())
    }

    /// Stops ring `index`; gives the index of the next chain the device would have taken.
    ///
    /// # Errors
    /// As [`Channel::send`] and [`Channel::receive`].
    pub fn stop_queue(&mut self, index: u32) -> Result<u16> {
        Ok(self.vring_base(index)? as u16)
    }

    /// As [`Session::stop_queue`], with all bits: those of a packed queue are both its positions.
    ///
    /// # Errors
    /// As [`Session::stop_queue`].
    pub fn vring_base(&mut self, index: u32) -> Result<u32> {
        let body = words(&[index, 0]);
        let reply = self.call(FrontendReq::GET_VRING_BASE, &body, &[])?;
        match reply.body[..] {
            [_, _, _, _, a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d])),
            _ => Err(malformed(FrontendReq::GET_VRING_BASE, &reply)),
        }
    }

    /// Sends a message about ring `index` with one number: SET_VRING_NUM, SET_VRING_BASE,
    /// SET_VRING_ENABLE.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_vring_state(&mut self, request: FrontendReq, index: u32, value: u32) -> Result<()> {
        self.request(request, &words(&[index, value]), &[])
    }

    /// Sends SET_VRING_ADDR with these addresses, true or not, in the front-end's address space.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_vring_addresses(
        &mut self,
        index: u32,
        descriptors: u64,
        available: u64,
        used: u64,
    ) -> Result<()> {
        let mut body = words(&[index, 0]);
        for address in [descriptors, used, available, 0] {
            body.extend_from_slice(&address.to_ne_bytes());
        }
        self.request(FrontendReq::SET_VRING_ADDR, &body, &[])
    }

    /// Sends SET_VRING_KICK, SET_VRING_CALL or SET_VRING_ERR, with or without a descriptor.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_vring_fd(
        &mut self,
        request: FrontendReq,
        index: u32,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let value = u64::from(index) | if fd.is_none() { NO_FD } else { 0 };
        self.request(request, &value.to_ne_bytes(), fd.as_slice())
    }

    /// Reads `len` bytes of the device's configuration at `offset`.
    ///
    /// # Errors
    /// [`Error::Refused`] if the backend answers with none, as the protocol has it for an error.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        self.config_with(offset, len, 0)
    }

    /// As [`Session::config`], with flags.
    ///
    /// # Errors
    /// As [`Session::config`].
    pub fn config_with(&mut self, offset: u32, len: u32, flags: u32) -> Result<Vec<u8>> {
        let mut body = words(&[offset, len, flags]);
        body.resize(body.len() + len as usize, 0);
        let mut reply = self.call(FrontendReq::GET_CONFIG, &body, &[])?;
        let request = || "GET_CONFIG".to_string();
        match reply.body.len() {
            n if n == body.len() => Ok(reply.body.split_off(12)),
            0..=12 => Err(Error::Refused {
                request: request(),
                value: 1,
            }),
            _ => Err(malformed(FrontendReq::GET_CONFIG, &reply)),
        }
    }

    /// Writes `bytes` into the device's configuration at `offset`.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        self.set_config_with(offset, bytes, 0)
    }

    /// As [`Session::set_config`], with flags.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_config_with(&mut self, offset: u32, bytes: &[u8], flags: u32) -> Result<()> {
        let mut body = words(&[offset, bytes.len() as u32, flags]);
        body.extend_from_slice(bytes);
        self.request(FrontendReq::SET_CONFIG, &body, &[])
    }

    /// Hands the backend its end of the display socket.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_gpu_socket(&mut self, socket: impl AsFd) -> Result<()> {
        self.request(FrontendReq::GPU_SET_SOCKET, &[], &[socket.as_fd()])
    }

    /// Gives the backend a channel for messages of its own, by `socket` (VHOST_USER_SET_BACKEND_REQ_FD).
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_backend_channel(&mut self, socket: impl AsFd) -> Result<()> {
        let fds = [socket.as_fd()];
        self.request(FrontendReq::SET_BACKEND_REQ_FD, &[], &fds)
    }

    /// Waits until all messages before were executed, where they are not acknowledged: a kick is not ordered with them, and
    /// some backends lose one that comes before its ring is enabled.
    ///
    /// # Errors
    /// As [`Session::get_u64`].
    pub fn settle(&mut self) -> Result<()> {
        match self.is_acknowledged() {
            true => Ok(()),
            false => self.get_u64(FrontendReq::GET_FEATURES).map(drop),
        }
    }

    fn is_acknowledged(&self) -> bool {
        let reply_ack = VhostUserProtocolFeatures::REPLY_ACK;
        self.acknowledge && self.protocol_features.contains(reply_ack)
    }

    /// Sends a message that has no answer of its own; where REPLY_ACK was negotiated and
    /// [`Session::acknowledge`] is on, waits until the backend has done it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the acknowledgement is not 0; as [`Channel::send`] and
    /// [`Channel::receive`].
    pub fn request(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        if !self.is_acknowledged() {
            return self.channel.send(request.into(), VERSION, body, fds);
        }
        self.channel
            .send(request.into(), VERSION | NEED_REPLY, body, fds)?;
        let reply = self.reply(request)?;
        match number(request, &reply)? {
            0 => Ok(()),
            value => Err(Error::Refused {
                request: format!("{request:?}"),
                value,
            }),
        }
    }

    /// Sends a message that has an answer of its own, and gives it.
    ///
    /// # Errors
    /// As [`Channel::send`] and [`Channel::receive`].
    pub fn call(
        &mut self,
        request: FrontendReq,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message> {
        self.channel.send(request.into(), VERSION, body, fds)?;
        self.reply(request)
    }

    /// Asks for a number: GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM and the like.
    ///
    /// # Errors
    /// As [`Session::call`].
    pub fn get_u64(&mut self, request: FrontendReq) -> Result<u64> {
        let reply = self.call(request, &[], &[])?;
        number(request, &reply)
    }

    /// Sends a number: SET_FEATURES, SET_PROTOCOL_FEATURES and the like.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn set_u64(&mut self, request: FrontendReq, value: u64) -> Result<()> {
        self.request(request, &value.to_ne_bytes(), &[])
    }

    fn reply(&mut self, request: FrontendReq) -> Result<Message> {
        let reply = self.channel.receive()?;
        let is_reply = reply.flags & REPLY != 0 && reply.flags & VERSION_MASK == VERSION;
        if reply.request != u32::from(request) || !is_reply {
            return Err(malformed(request, &reply));
        }
        Ok(reply)
    }
}

fn number(request: FrontendReq, reply: &Message) -> Result<u64> {
    match <[u8; 8]>::try_from(&reply.body[..]) {
        Ok(bytes) => Ok(u64::from_ne_bytes(bytes)),
        Err(_) => Err(malformed(request, reply)),
    }
}

fn malformed(request: FrontendReq, reply: &Message) -> Error {
    let Message {
        request: got,
        flags,
        body,
        ..
    } = reply;
    Error::Protocol(format!(
        "{request:?} is answered by request {got}, flags {flags:#x}, {} bytes",
        body.len()
    ))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}
