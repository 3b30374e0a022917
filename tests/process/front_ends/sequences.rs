//! The messages of each VMM, in order.

use super::*;
use frontend::features::PROTOCOL_FEATURES;

/// A VMM that knows vhost-user devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrontEnd {
    Qemu7,
    /// And 11.
    Qemu10,
    Libkrun,
    CloudHypervisor,
    OpenVmm,
    Crosvm,
}

pub(crate) const ALL: [FrontEnd; 6] = [
    FrontEnd::Qemu7,
    FrontEnd::Qemu10,
    FrontEnd::Libkrun,
    FrontEnd::CloudHypervisor,
    FrontEnd::OpenVmm,
    FrontEnd::Crosvm,
];

/// Those that pause a guest: libkrun does not.
pub(crate) fn pausing() -> impl Iterator<Item = FrontEnd> {
    ALL.into_iter().filter(|vmm| *vmm != FrontEnd::Libkrun)
}

impl FrontEnd {
    /// Entries of its queues.
    pub(crate) fn queue_size(self) -> u16 {
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
    pub(crate) fn has_display(self) -> bool {
        self.is_qemu() || self == Self::Libkrun
    }

    fn protocol_features(self) -> Protocol {
        let more = match self {
            Self::Qemu7 | Self::Qemu10 => {
                Protocol::all() - Protocol::XEN_MMAP - Protocol::DEVICE_STATE
            }
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

    /// What it asks before a driver is there.
    pub(crate) fn connect(self, session: &mut Session) -> Offer {
        session.acknowledge = matches!(self, Self::CloudHypervisor | Self::OpenVmm);
        let owner_first = matches!(self, Self::CloudHypervisor | Self::Crosvm);
        if owner_first {
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
        }
        let features = session.get_u64(FrontendReq::GET_FEATURES).unwrap();
        let bits = session.get_u64(FrontendReq::GET_PROTOCOL_FEATURES).unwrap();
        let offered = Protocol::from_bits_truncate(bits);
        let taken = offered & self.protocol_features();
        session.set_protocol_features(taken).unwrap();
        if self == Self::OpenVmm {
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
        }
        let queues = session.get_u64(FrontendReq::GET_QUEUE_NUM).unwrap();
        if self.is_qemu() {
            assert!(taken.contains(Protocol::CONFIGURE_MEM_SLOTS));
            let slots = session.get_u64(FrontendReq::GET_MAX_MEM_SLOTS).unwrap();
            assert!(slots >= 509, "{slots} slots");
            session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
            session.get_u64(FrontendReq::GET_FEATURES).unwrap();
            for queue in QUEUES {
                for request in [FrontendReq::SET_VRING_CALL, FrontendReq::SET_VRING_ERR] {
                    let event = event();
                    let fd = Some(event.as_fd());
                    session.set_vring_fd(request, queue, fd).unwrap();
                }
            }
        }
        Offer {
            features,
            protocol_features: offered,
            queues,
        }
    }

    /// The name of an input device, as its guest's driver reads it.
    pub(crate) fn device_name(self, session: &mut Session) -> String {
        let name = match self {
            Self::Qemu7 | Self::Qemu10 => {
                let mut config = vec![0; CONFIG_SIZE as usize];
                config[0] = 1;
                session.set_config(0, &config).unwrap();
                let config = session.config(0, CONFIG_SIZE).unwrap();
                config[8..][..config[2].into()].to_vec()
            }
            Self::OpenVmm => {
                // A driver's byte is read, changed and written as a word.
                for (byte, value) in [(0, 1), (1, 0)] {
                    let mut word = session.config(0, 4).unwrap();
                    word[byte] = value;
                    session.set_config(0, &word).unwrap();
                }
                let size = session.config(0, 4).unwrap()[2];
                let words = (0..u32::from(size).div_ceil(4)).map(|word| 8 + 4 * word);
                let mut name: Vec<u8> = words
                    .flat_map(|offset| session.config(offset, 4).unwrap())
                    .collect();
                name.truncate(size.into());
                name
            }
            Self::Libkrun | Self::CloudHypervisor | Self::Crosvm => {
                let written = u32::from(self == Self::CloudHypervisor);
                let read = u32::from(self == Self::Crosvm);
                for (offset, byte) in [(0, 1), (1, 0)] {
                    session.set_config_with(offset, &[byte], written).unwrap();
                }
                let size = session.config_with(2, 1, read).unwrap()[0];
                let bytes = (8..).take(size.into());
                bytes
                    .map(|offset| session.config_with(offset, 1, read).unwrap()[0])
                    .collect()
            }
        };
        String::from_utf8(name).unwrap()
    }

    /// Where it has the guest's memory.
    fn user_address(self, memory: &Memory, guest: u64) -> u64 {
        match self {
            Self::OpenVmm => guest + (1 << 52),
            _ => memory.user_address(guest),
        }
    }

    /// Starts the rings for a driver; `again` if it did so before.
    pub(crate) fn start(
        self,
        session: &mut Session,
        (memory, features): (&Memory, u64),
        queues: [&Queue; 2],
        again: bool,
    ) {
        let regions = memory.regions().into_iter().map(|region| Region {
            user_address: self.user_address(memory, region.guest_address),
            ..region
        });
        let regions: Vec<_> = regions.collect();
        let features = features | PROTOCOL_FEATURES;
        match self {
            Self::Qemu7 | Self::Qemu10 => {
                session.set_features(features).unwrap();
                if !again {
                    session.acknowledge = true;
                    for region in &regions {
                        session.add_region(region).unwrap();
                    }
                    session.acknowledge = false;
                }
            }
            Self::Libkrun => {
                session.request(FrontendReq::SET_OWNER, &[], &[]).unwrap();
                session.set_regions(&regions).unwrap();
                session.set_features(features).unwrap();
            }
            Self::OpenVmm => {
                if !again {
                    session.set_regions(&regions).unwrap();
                }
                session.set_features(features).unwrap();
            }
            Self::CloudHypervisor => {
                session.set_features(features).unwrap();
                session.set_regions(&regions).unwrap();
            }
            Self::Crosvm => {
                if !again {
                    session.set_features(features).unwrap();
                }
                session.set_regions(&regions).unwrap();
            }
        }
        let vrings = || QUEUES.into_iter().zip(queues);
        if self == Self::CloudHypervisor {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Num]);
            }
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
            self.place(session, memory, index, queue, steps);
        }
        if !steps.contains(&Step::Enable) {
            for (index, queue) in vrings() {
                self.place(session, memory, index, queue, &[Step::Enable]);
            }
        }
    }

    fn place(
        self,
        session: &mut Session,
        memory: &Memory,
        index: u32,
        queue: &Queue,
        steps: &[Step],
    ) {
        for step in steps {
            match step {
                Step::Num => {
                    let size = queue.size().into();
                    session.set_vring_state(FrontendReq::SET_VRING_NUM, index, size)
                }
                Step::Base => {
                    // All that the device took is used.
                    let base = queue.used_index().unwrap().into();
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
            }
            .unwrap();
        }
    }

    /// Stops the rings: the guest is paused, or its driver goes.
    pub(crate) fn pause(self, session: &mut Session) {
        for queue in QUEUES {
            session.enable_queue(queue, false).unwrap();
            if !self.is_qemu() && self != Self::Libkrun {
                session.stop_queue(queue).unwrap();
            }
        }
        if self.is_qemu() {
            for queue in QUEUES {
                session.stop_queue(queue).unwrap();
            }
        }
    }

    /// The guest resets the device.
    pub(crate) fn reset(self, session: &mut Session) {
        self.pause(session);
        if matches!(self, Self::Qemu10 | Self::OpenVmm) {
            let request = FrontendReq::RESET_DEVICE;
            session.request(request, &[], &[]).unwrap();
        }
    }
}

/// A message about a ring that starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Num,
    Base,
    Addr,
    Kick,
    Call,
    Enable,
}
