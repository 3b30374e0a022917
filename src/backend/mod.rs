// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vhost-user backend program without its device: what QEMU's "Backend program conventions"
//! (docs/interop/vhost-user.rst) ask of every program, and what systemd offers it.
//!
//! A backend author implements three traits and calls [`run`]:
//!
//! | Trait | Says | Called on |
//! | --- | --- | --- |
//! | [`Program`] | name, command line, capabilities, and how options become a builder | main thread |
//! | [`DeviceBuilder`] | what the sandbox leaves, and how the device is built | main thread, then worker |
//! | [`Device`] | virtqueues, features, configuration, events | worker and protocol thread, in turn |
//!
//! [`run`] provides the rest: `--socket-path`, `--fd` and socket activation, `--print-capabilities`, `--log-level`,
//! `--sandbox`, readiness, `STATUS=` and the watchdog of sd_notify(3), the log to the journal or stderr, signals, and
//! one front-end served to its end. `examples/vhost-user-rng.rs` is a complete program.
//!
//! # Order of start-up
//!
//! 1. The command line is parsed (status 2 for a usage error), and the sockets that were passed are taken.
//! 2. [`Program::open`] opens files and hardware. An error ends the program with status 1 and the error's
//!    message, before a socket is made; who waits on a passed socket is turned away.
//! 3. The sockets are made that have a path.
//! 4. Privileges and files are given up, but for [`DeviceBuilder::sandbox_policy`].
//! 5. The worker thread starts and runs [`DeviceBuilder::build`]. An error ends the program as in 2.
//! 6. The protocol thread starts. System calls are given up, for all threads.
//! 7. `READY=1`. Only now a front-end is accepted, and the [`Device`] called. A program that goes on for one that died sets
//!    its device up as it was before that. After the first request, memory that only the start needed is given back.
//! 8. When the front-end disconnects, or after SIGTERM, the worker calls [`Device::end`], and the program ends.
//!
//! # Further sockets
//!
//! A device may have clients beside its front-end. The program names a socket for them ([`Program::listeners`]): it
//! comes by the options `--NAME-socket=PATH` and `--NAME-fd=FDNUM`, or by socket activation with this name
//! (`FileDescriptorName=`), in any order beside the vhost-user socket, which is named `vhost-user` then. The device
//! accepts clients in the worker ([`DeviceContext::listen`]), with or without a front-end. If the service manager
//! passed all sockets, and the last client leaves before a front-end came, the program ends with status 0: systemd
//! starts it again for the next of either.
//!
//! # Threads
//!
//! - **Main** waits for the front-end, signals and the other threads. It passes vhost-user messages between the
//!   front-end's socket and the protocol thread, and rewrites or refuses those that would make the crate
//!   `vhost-user-backend` exit.
//! - **Protocol** answers vhost-user messages: it calls the device's methods that have to do with them.
//! - **Worker** waits for kicks and for the descriptors that the device watches ([`DeviceContext::watch`]). The
//!   device is built here and handles its events here, so that it may hold what is bound to a thread.
//! - **Log** writes what the others log, so that no thread waits for a slow reader.
//!
//! One lock keeps the protocol thread and the worker from using the device at the same time, and lets each have
//! its turn. So no method of a device may block, and no event may take long: a few milliseconds, then go on
//! after a [`WakeEvent`]. Only [`Program::open`] and [`DeviceBuilder::build`] may take their time.
//!
//! # Guests are hostile
//!
//! What a driver put into a virtqueue may be anything: read each value once, bound what is kept and how much is
//! done for it, and never fail because of it. [`QueuePass`] checks the queue itself, [`RateLimitedLog`] keeps a
//! guest from filling the log, and [`Vring::report_error`] tells the front-end of a broken queue.
//!
//! # Why this is not a crate of its own
//!
//! It changes together with the devices here, and there is no user outside yet who needs a version number to
//! rely on. An author depends on this package (`vhost-user-backends`) with `default-features = false`, which costs the
//! build of two more modules but no C library, and on `clap` 4 with `derive` for [`Program::Options`]. Nothing in here imports `gpu` or `input`, and a check keeps it so: the module
//! can become a crate by a move.

pub(crate) mod continuity;
mod device;
mod helper;
mod lock;
pub(crate) mod logging;
mod program;
pub(crate) mod sandbox;
pub(crate) mod service;
mod sockets;
mod startup_memory;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
mod transport;
mod virtqueue;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use testing::fuzzing;

pub use continuity::Continuity;
pub use conventions::{Capabilities, DeviceType, SizeError, parse_size, printable};
pub use device::client_listener::ClientListener;
pub use device::config_change::{ConfigChange, ConfigChangeState};
pub use device::display_socket::DisplaySocket;
pub use device::shared_memory::{
    RegionError, SHARED_MEMORY_PAGE, SharedMemory, SharedMemoryOutcome, SharedMemoryRegion,
    SharedMemoryRequest,
};
pub use device::wake_event::WakeEvent;
pub use device::{Device, DeviceBuilder, DeviceContext, FIRST_TOKEN};
pub use helper::{HelperError, start_helper};
pub use logging::RateLimitedLog;
pub use program::options::{CommonOptions, ConnectionOptions, GeneralOptions, log_level_parser};
pub use program::takeover::Takeover;
pub use program::{Program, run, usage_text};
pub(crate) use sandbox::NarrowedFiles;
pub use sandbox::{SandboxMode, SandboxPolicy, SyscallArgument, SyscallRule};
pub(crate) use sockets::peer;
pub use sockets::{
    ListenerOptions, ListeningSocket, PlannedListener, SocketError, SocketOption, activated_socket,
    plan_listeners, refuse_unparsed, refuse_waiting,
};
pub use transport::forward::{ForwardError, forward};
pub use transport::proxy::ConnectionSide;
pub use virtqueue::{
    Chain, GuestMemory, MAX_QUEUE_SIZE, MemoryGuard, QueuePass, TRANSPORT_FEATURES, VirtqueueError,
    Vring,
};
pub use vmm_sys_util::epoll::EventSet;

#[cfg(test)]
pub(crate) use device::shared_memory::SharedMemoryLink;
#[cfg(test)]
pub(crate) use testing::fake_context::FakeContext;
#[cfg(test)]
pub(crate) use virtqueue::Positions;
