// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-rng: random numbers of the host for a virtual machine (virtio 1.2, 5.4).
//!
//! A complete backend program in one file. The library does the rest: options, sockets, readiness, watchdog,
//! log, sandbox and the vhost-user protocol.
//!
//! QEMU: -chardev socket,id=rng,path=PATH -device vhost-user-rng-pci,chardev=rng

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use rustix::rand::{GetRandomFlags, getrandom};
use vhost_user_backends::backend::{
    self, Capabilities, CommonOptions, Continuity, Device, DeviceBuilder, DeviceContext,
    DeviceType, EventSet, FIRST_TOKEN, Program, QueuePass, RateLimitedLog, Takeover,
    VirtqueueError, Vring, WakeEvent,
};

/// Random bytes of a request. The device may fill less than the buffers have room for (virtio 1.2, 5.4.6.2).
const MAX_BYTES: usize = 256;
/// Requests after which other events have their turn: a driver can add requests as fast as they are served.
const MAX_REQUESTS: usize = 64;
/// The device's own event: requests are left for which no kick will come.
const CONTINUE: u16 = FIRST_TOKEN;

/// Random numbers of the host for a virtual machine, served over vhost-user
#[derive(Parser)]
#[command(name = VhostUserRng::NAME, version)]
struct Options {
    #[command(flatten)]
    common: CommonOptions,

    /// Most random bytes for a request, up to 256
    #[arg(long, value_name = "BYTES", help_heading = "RNG options", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=256))]
    max_bytes: u16,
}

/// The program, for [`backend::run`].
struct VhostUserRng;

impl Program for VhostUserRng {
    type Options = Options;
    type Builder = RngBuilder;
    type Error = io::Error;

    const NAME: &'static str = "vhost-user-rng";

    fn capabilities() -> Capabilities {
        Capabilities::new(DeviceType::Rng, &[])
    }

    fn common(options: &Options) -> &CommonOptions {
        &options.common
    }

    /// It has no state but its virtqueue, which the library keeps.
    fn takeover(_options: &Options) -> Takeover {
        Takeover::Supported
    }

    /// A failure here ends the program early, before it serves anyone.
    fn open(options: &Options, _continuity: &Continuity) -> io::Result<RngBuilder> {
        getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK)?;
        Ok(RngBuilder(options.max_bytes.into()))
    }
}

/// Made on the main thread; needs no file and no system call beyond what serving takes, see
/// [`DeviceBuilder::sandbox_policy`].
struct RngBuilder(usize);

impl DeviceBuilder for RngBuilder {
    type Device = Rng;
    type Error = io::Error;

    /// Runs on the worker thread, where the device lives.
    fn build(self, context: DeviceContext) -> io::Result<Rng> {
        let wake = context.wake_event(CONTINUE)?;
        Ok(Rng {
            max_bytes: self.0,
            context,
            wake,
            log: RateLimitedLog::default(),
        })
    }
}

/// The device: one virtqueue, no feature bits, no configuration space.
struct Rng {
    max_bytes: usize,
    context: DeviceContext,
    wake: WakeEvent,
    log: RateLimitedLog,
}

impl Device for Rng {
    const QUEUES: usize = 1;

    /// What did not lie in the guest's memory may do so now, and no kick will tell.
    fn memory_changed(&mut self) {
        self.wake.set();
    }

    fn handle_event(&mut self, event: u16, _ready: EventSet, vrings: &[Vring]) -> io::Result<()> {
        if event == CONTINUE {
            self.wake.clear();
        }
        if let Some((vring, Err(error))) = vrings.first().map(|vring| (vring, self.serve(vring))) {
            // The driver broke its queue: that is its own loss, and no reason to end the program.
            vring.report_error();
            self.log.warn(format_args!("request queue: {error}"));
        }
        Ok(())
    }
}

impl Rng {
    /// Serves one pass over the queue.
    fn serve(&self, vring: &Vring) -> Result<(), VirtqueueError> {
        let Some(mut queue) = QueuePass::begin(vring, self.context.memory()) else {
            return Ok(());
        };
        let filled = self.fill(&mut queue);
        // Also before an error: what is filled is the driver's.
        queue.flush_used()?;
        if filled? == MAX_REQUESTS || queue.enable_notification()? {
            self.wake.set();
        }
        Ok(())
    }

    /// Fills the buffers of requests; how many there were.
    fn fill(&self, queue: &mut QueuePass<'_>) -> Result<usize, VirtqueueError> {
        for count in 0..MAX_REQUESTS {
            let Some(chain) = queue.pop()? else {
                return Ok(count);
            };
            let (head, memory) = (chain.head_index(), queue.memory().clone());
            // Buffers outside the guest's memory are given back as they are.
            let written = chain.writer(&memory).map_or(0, |mut buffers| {
                let mut bytes = [0; MAX_BYTES];
                let len = buffers.available_bytes().min(self.max_bytes);
                let random = getrandom(&mut bytes[..len], GetRandomFlags::empty()).unwrap_or(0);
                buffers.write(&bytes[..random]).unwrap_or(0)
            });
            queue.add_used(head, written as u32);
        }
        Ok(MAX_REQUESTS)
    }
}

fn main() -> ExitCode {
    backend::run::<VhostUserRng>()
}
