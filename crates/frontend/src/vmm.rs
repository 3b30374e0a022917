// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user messages of each VMM, from its source (2026): how it sets a device up, resets it and pauses it.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
};

use crate::features::PROTOCOL_FEATURES;
use crate::input::CONFIG_SIZE;

use crate::{Error, Memory, Offer, Queue, Region, Result, Session};

/// A VMM that knows vhost-user devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// QEMU 7.2.
    Qemu7,
    /// QEMU 10.0 to 11.1.
    Qemu10,
    /// libkrun.
    Libkrun,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// openvmm.
    OpenVmm,
    /// crosvm.
    Crosvm,
}

/// All of them.
pub const ALL: [FrontEnd; 6] = [
    FrontEnd::Qemu7,
    FrontEnd::Qemu10,
    FrontEnd::Libkrun,
    FrontEnd::CloudHypervisor,
    FrontEnd::OpenVmm,
    FrontEnd::Crosvm,
];

/// Those that pause a guest: libkrun does not.
pub fn pausing() -> impl Iterator<Item = FrontEnd> {
    ALL.into_iter().filter(|vmm| *vmm != FrontEnd::Libkrun)
}

impl FrontEnd {
    /// Entries of its queues.
    pub fn queue_size(self) -> u16 {
        match self {
            Self::Qemu7 => 64,
            Self::Qemu10 => 4,
            Self::Libkrun => 1024,
            Self::CloudHypervisor | Self::OpenVmm => 256,
            Self::Crosvm => 32768,
        }
    }

    fn is_qemu(self) -> bool {
        matches!(self, Self::Qemu7 | Self::Qemu10)
    }

    /// Whether it has a display for the GPU.
    pub fn has_display(self) -> bool {
        self.is_qemu() || self == Self::Libkrun
    }

    fn protocol_features(self) -> Protocol {
        let more = match self {
            Self::Qemu7 => {
                Protocol::all() - Protocol::XEN_MMAP - Protocol::DEVICE_STATE - Protocol::STATUS
            }
            Self::Qemu10 => Protocol::all() - Protocol::XEN_MMAP - Protocol::DEVICE_STATE,
            Self::Libkrun => Protocol::empty(),
            Self::CloudHypervisor => {
                Protocol::CONFIGURE_MEM_SLOTS
                    | Protocol::REPLY_ACK
                    | Protocol::INFLIGHT_SHMFD
                    | Protocol::LOG_SHMFD
                    | Protocol::DEVICE_STATE
                    | Protocol::BACKEND_REQ
            }
            Self::OpenVmm => Protocol::REPLY_ACK | Protocol::RESET_DEVICE,
            Self::Crosvm => {
                Protocol::BACKEND_REQ
                    | Protocol::DEVICE_STATE
                    | Protocol::SHMEM
                    | Protocol::REPLY_ACK
            }
        };
        more | Protocol::CONFIG | Protocol::MQ
    }

    /// What it asks before a driver is there, of a device of so many rings.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn connect(self, session: &mut Session, queues: u32) -> Result<Offer> {
        session.acknowledge = matches!(self, Self::CloudHypervisor | Self::OpenVmm);
        let owner_first = matches!(self, Self::CloudHypervisor | Self::Crosvm);
        if owner_first {
            session.request(FrontendReq::SET_OWNER, &[], &[])?;
        }
        let features = session.get_u64(FrontendReq::GET_FEATURES)?;
        let bits = session.get_u64(FrontendReq::GET_PROTOCOL_FEATURES)?;
        let offered = Protocol::from_bits_truncate(bits);
        let taken = offered & self.protocol_features();
        session.set_protocol_features(taken)?;
        if self == Self::OpenVmm {
            session.request(FrontendReq::SET_OWNER, &[], &[])?;
        }
        let offered_queues = match taken.contains(Protocol::MQ) {
            true => session.get_u64(FrontendReq::GET_QUEUE_NUM)?,
            false => 1,
        };
        if self.is_qemu() {
            if taken.contains(Protocol::CONFIGURE_MEM_SLOTS) {
                session.get_u64(FrontendReq::GET_MAX_MEM_SLOTS)?;
            }
            session.request(FrontendReq::SET_OWNER, &[], &[])?;
            session.get_u64(FrontendReq::GET_FEATURES)?;
            for queue in 0..queues {
                for request in [FrontendReq::SET_VRING_CALL, FrontendReq::SET_VRING_ERR] {
                    let event = event()?;
                    let fd = Some(event.as_fd());
                    session.set_vring_fd(request, queue, fd)?;
                }
            }
        }
        Ok(Offer {
            features,
            protocol_features: offered,
            queues: offered_queues,
        })
    }

    /// The name of an input device, as its guest's driver reads it.
    ///
    /// # Errors
    /// As [`Session::config`].
    pub fn device_name(self, session: &mut Session) -> Result<String> {
        let name = match self {
            Self::Qemu7 | Self::Qemu10 => {
                let mut config = vec![0; CONFIG_SIZE as usize];
                config[0] = 1;
                session.set_config(0, &config)?;
                let config = session.config(0, CONFIG_SIZE)?;
                config[8..][..config[2].into()].to_vec()
            }
            Self::OpenVmm => {
                // A driver's byte is read, changed and written as a word.
                for (byte, value) in [(0, 1), (1, 0)] {
                    let mut word = session.config(0, 4)?;
                    word[byte] = value;
                    session.set_config(0, &word)?;
                }
                let size = session.config(0, 4)?[2];
                let words = (0..u32::from(size).div_ceil(4)).map(|word| 8 + 4 * word);
                let mut name = Vec::new();
                for offset in words {
                    name.extend(session.config(offset, 4)?);
                }
                name.truncate(size.into());
                name
            }
            Self::Libkrun | Self::CloudHypervisor | Self::Crosvm => {
                let written = u32::from(self == Self::CloudHypervisor);
                let read = u32::from(self == Self::Crosvm);
                for (offset, byte) in [(0, 1), (1, 0)] {
                    session.set_config_with(offset, &[byte], written)?;
                }
                let size = session.config_with(2, 1, read)?[0];
                let mut name = Vec::new();
                for offset in (8..).take(size.into()) {
                    name.extend(session.config_with(offset, 1, read)?);
                }
                name
            }
        };
        String::from_utf8(name).map_err(|error| Error::Protocol(error.to_string()))
    }

    /// Where it has the guest's memory.
    fn user_address(self, memory: &Memory, guest: u64) -> u64 {
        match self {
            Self::OpenVmm => guest + (1 << 52),
            _ => memory.user_address(guest),
        }
    }

    /// Has the backend make the file in which it notes requests in flight, and gives it back, where INFLIGHT_SHMFD was
    /// negotiated. QEMU does so for disks, before it starts the rings of a driver; Cloud Hypervisor for all devices, as it
    /// starts them.
    ///
    /// # Errors
    /// As [`Session::call`].
    pub fn share_inflight(
        self,
        session: &mut Session,
        features: u64,
        queues: &[&Queue],
    ) -> Result<()> {
        if !session
            .protocol_features()
            .contains(Protocol::INFLIGHT_SHMFD)
        {
            return Ok(());
        }
        if self.is_qemu() {
            session.set_features(features | PROTOCOL_FEATURES)?;
        }
        let size = queues.first().map_or(0, |queue| queue.size());
        let mut body = vec![0; 16];
        body.extend((queues.len() as u16).to_ne_bytes());
        body.extend(size.to_ne_bytes());
        // The structure ends at a multiple of 8 bytes.
        body.resize(24, 0);
        let reply = session.call(FrontendReq::GET_INFLIGHT_FD, &body, &[])?;
        let fds: Vec<_> = reply.fds.iter().map(|fd| fd.as_fd()).collect();
        session.request(FrontendReq::SET_INFLIGHT_FD, &reply.body, &fds)
    }

    /// Starts the rings for a driver; `again` if it did so before.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn start(
        self,
        session: &mut Session,
        (memory, features): (&Memory, u64),
        queues: &[&Queue],
        again: bool,
    ) -> Result<()> {
        let regions = memory.regions().into_iter().map(|region| Region {
            user_address: self.user_address(memory, region.guest_address),
            ..region
        });
        let regions: Vec<_> = regions.collect();
        let features = features | PROTOCOL_FEATURES;
        match self {
            Self::Qemu7 | Self::Qemu10 => {
                session.set_features(features)?;
                add_status(session, FEATURES_OK)?;
                let slots = Protocol::CONFIGURE_MEM_SLOTS;
                if !session.protocol_features().contains(slots) {
                    session.set_regions(&regions)?;
                } else if !again {
                    session.acknowledge = true;
                    for region in &regions {
                        session.add_region(region)?;
                    }
                    session.acknowledge = false;
                }
            }
            Self::Libkrun => {
                session.request(FrontendReq::SET_OWNER, &[], &[])?;
                session.set_regions(&regions)?;
                session.set_features(features)?;
            }
            Self::OpenVmm => {
                if !again {
                    session.set_regions(&regions)?;
                }
                session.set_features(features)?;
            }
            Self::CloudHypervisor => {
                session.set_features(features)?;
                session.set_regions(&regions)?;
            }
            Self::Crosvm => {
                if !again {
                    session.set_features(features)?;
                }
                session.set_regions(&regions)?;
            }
        }
        let vrings = || (0..).zip(queues);
        if self == Self::CloudHypervisor {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Num])?;
            }
            self.share_inflight(session, features, queues)?;
        }
        let steps = match self {
            Self::Qemu7 | Self::Qemu10 => {
                &[Step::Num, Step::Base, Step::Addr, Step::Kick, Step::Call][..]
            }
            Self::Libkrun => &[
                Step::Num,
                Step::Base,
                Step::Addr,
                Step::Kick,
                Step::Call,
                Step::Enable,
            ],
            Self::CloudHypervisor => &[Step::Addr, Step::Base, Step::Call, Step::Kick],
            Self::OpenVmm => &[
                Step::Num,
                Step::Addr,
                Step::Base,
                Step::Kick,
                Step::Call,
                Step::Enable,
            ],
            Self::Crosvm => &[
                Step::Num,
                Step::Addr,
                Step::Base,
                Step::Call,
                Step::Kick,
                Step::Enable,
            ],
        };
        for (index, queue) in vrings() {
            self.place(session, memory, index, queue, steps)?;
        }
        if !steps.contains(&Step::Enable) {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Enable])?;
            }
        }
        if self == Self::Qemu10 {
            add_status(session, ACKNOWLEDGE | DRIVER | DRIVER_OK)?;
        }
        Ok(())
    }

    /// A VMM that connects again when a backend ends sets the next one up, for a driver that runs and hears nothing of it. It
    /// asks for nothing that it knows: `protocol_features` are those that the first backend offered. Of Cloud Hypervisor: the others do not.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn reconnect(
        self,
        session: &mut Session,
        protocol_features: Protocol,
        (memory, features): (&Memory, u64),
        queues: &[&Queue],
    ) -> Result<()> {
        session.request(FrontendReq::SET_OWNER, &[], &[])?;
        session.get_u64(FrontendReq::GET_FEATURES)?;
        let taken = protocol_features & self.protocol_features();
        session.set_protocol_features(taken)?;
        session.acknowledge = true;
        let features = features | PROTOCOL_FEATURES;
        session.set_features(features)?;
        session.set_regions(&memory.regions())?;
        for steps in [
            &[Step::Num][..],
            &[Step::Addr, Step::BaseAtAvailable, Step::Call, Step::Kick],
            &[Step::Enable],
        ] {
            for (index, queue) in (0..).zip(queues) {
                self.place(session, memory, index, queue, steps)?;
            }
        }
        Ok(())
    }

    fn place(
        self,
        session: &mut Session,
        memory: &Memory,
        index: u32,
        queue: &Queue,
        steps: &[Step],
    ) -> Result<()> {
        for step in steps {
            match step {
                Step::Num => {
                    let size = queue.size().into();
                    session.set_vring_state(FrontendReq::SET_VRING_NUM, index, size)
                }
                Step::Base => {
                    // All that the device took is used.
                    let base = queue.used_index()?.into();
                    session.set_vring_state(FrontendReq::SET_VRING_BASE, index, base)
                }
                Step::BaseAtAvailable => {
                    let base = queue.next_available().into();
                    session.set_vring_state(FrontendReq::SET_VRING_BASE, index, base)
                }
                Step::Addr => {
                    let places = queue.addresses();
                    let [table, available, used] = places.map(|at| self.user_address(memory, at));
                    session.set_vring_addresses(index, table, available, used)
                }
                Step::Kick => {
                    let kick = Some(queue.kick_fd());
                    session.set_vring_fd(FrontendReq::SET_VRING_KICK, index, kick)
                }
                Step::Call => {
                    let call = Some(queue.call_fd());
                    session.set_vring_fd(FrontendReq::SET_VRING_CALL, index, call)
                }
                Step::Enable => session.enable_queue(index, true),
            }?;
        }
        Ok(())
    }

    /// Stops so many rings: the guest is paused, or its driver goes.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn pause(self, session: &mut Session, queues: u32) -> Result<()> {
        for queue in 0..queues {
            session.enable_queue(queue, false)?;
            if !self.is_qemu() && self != Self::Libkrun {
                session.stop_queue(queue)?;
            }
        }
        if self.is_qemu() {
            for queue in 0..queues {
                session.stop_queue(queue)?;
            }
        }
        Ok(())
    }

    /// The guest resets a device of so many rings.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn reset(self, session: &mut Session, queues: u32) -> Result<()> {
        self.pause(session, queues)?;
        if session.protocol_features().contains(Protocol::STATUS) {
            session.set_u64(FrontendReq::SET_STATUS, 0)?;
        }
        let resets = matches!(self, Self::Qemu10 | Self::OpenVmm);
        if resets && session.protocol_features().contains(Protocol::RESET_DEVICE) {
            session.request(FrontendReq::RESET_DEVICE, &[], &[])?;
        }
        Ok(())
    }
}

/// Adds bits to the device's status, where STATUS was negotiated: QEMU from 8.1 on.
fn add_status(session: &mut Session, bits: u32) -> Result<()> {
    if !session.protocol_features().contains(Protocol::STATUS) {
        return Ok(());
    }
    let status = session.get_u64(FrontendReq::GET_STATUS)?;
    let wanted = status | u64::from(bits);
    match status == wanted {
        true => Ok(()),
        false => session.set_u64(FrontendReq::SET_STATUS, wanted),
    }
}

fn event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::os("eventfd"))
}

/// A message about a ring that starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Num,
    Base,
    /// After all that the driver made available, done or not.
    BaseAtAvailable,
    Addr,
    Kick,
    Call,
    Enable,
}
