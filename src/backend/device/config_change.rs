// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a device has the driver told that its configuration space changed.
//!
//! The device only wishes for it, on the worker. The main thread sends the message, as it alone knows what the
//! front-end has said last (`BackendChannel` of the transport).

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wake_event::WakeEvent;
use crate::backend::lock::lock;
use crate::backend::service::main_thread_channel::{MainThreadEvent, MainThreadHandle};

/// What a device can have the driver told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigChangeState {
    /// Nothing: the front-end has no channel for it, or takes nothing from it.
    Unavailable,
    /// A change.
    Ready,
    /// A change is on its way.
    UnderWay {
        /// Since when.
        since: Instant,
    },
}

/// Tells the driver that the configuration space changed (virtio 1.2, 2.5), by the front-end
/// (`VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`). [`DeviceContext::config_change`] makes it.
///
/// A front-end can do so only while it runs the device, and QEMU up to 11.1 crashes if it is asked at another time. The
/// message is sent only while the front-end has virtqueues running and no message of its own is being read. Whether the
/// front-end stops the device before it reads the message, nobody can know.
///
/// [`DeviceContext::config_change`]: crate::backend::DeviceContext::config_change
pub struct ConfigChange {
    link: ConfigChangeLink,
    main_thread: MainThreadHandle,
    wake: Arc<WakeEvent>,
}

impl ConfigChange {
    /// What can be told now.
    pub fn state(&self) -> ConfigChangeState {
        let shared = lock(&self.link.0);
        match (&shared.socket, shared.progress) {
            (_, Progress::Wanted { since } | Progress::Unanswered { since }) => {
                ConfigChangeState::UnderWay { since }
            }
            (Some(socket), Progress::None) if has_room(socket) => ConfigChangeState::Ready,
            (_, Progress::None) => ConfigChangeState::Unavailable,
        }
    }

    /// Has the driver told, if that is [ready](ConfigChangeState::Ready). The device's event for it comes when the
    /// state is another one.
    pub fn send(&self) {
        let mut shared = lock(&self.link.0);
        if shared.socket.is_some() && shared.progress == Progress::None {
            let since = Instant::now();
            shared.progress = Progress::Wanted { since };
            drop(shared);
            self.main_thread.tell(MainThreadEvent::RequestMade);
        }
    }

    /// Takes note of the device's event for this. Returns whether the driver was not told what was sent last, because
    /// the front-end stops the device.
    pub fn woke(&self) -> bool {
        self.wake.clear();
        std::mem::take(&mut lock(&self.link.0).withdrawn)
    }
}

/// Whether a message fits into the socket.
fn has_room(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec::default()));
    let [fd] = &fds;
    ready.is_ok() && fd.revents() == PollFlags::OUT
}

/// What the device, the daemon and the proxy share of it. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct ConfigChangeLink(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    /// The event of the device, if it has the driver told of changes.
    wake: Option<Arc<WakeEvent>>,
    /// The front-end's channel.
    socket: Option<Arc<OwnedFd>>,
    progress: Progress,
    /// The front-end stopped the device before the message was sent.
    withdrawn: bool,
}

/// How far the message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    None,
    Wanted {
        since: Instant,
    },
    Unanswered {
        since: Instant,
    },
}

impl ConfigChangeLink {
    /// The handle of the device, whose event is `wake`.
    pub(super) fn offer(&self, main_thread: MainThreadHandle, wake: WakeEvent) -> ConfigChange {
        let wake = Arc::new(wake);
        lock(&self.0).wake = Some(Arc::clone(&wake));
        ConfigChange {
            link: self.clone(),
            main_thread,
            wake,
        }
    }

    /// Whether the device has the driver told of changes, so that the front-end is offered the channel.
    pub(crate) fn is_offered(&self) -> bool {
        lock(&self.0).wake.is_some()
    }

    /// The front-end takes messages by this socket from now on, or by none. What is under way on another ends.
    pub(crate) fn set_channel(&self, socket: Option<Arc<OwnedFd>>) {
        self.change(|shared| {
            shared.socket = socket;
            shared.withdrawn |= matches!(shared.progress, Progress::Wanted { .. });
            shared.progress = Progress::None;
        });
    }

    /// Whether the device wants a message to be sent.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(lock(&self.0).progress, Progress::Wanted { .. })
    }

    /// The message was sent; whether an answer follows.
    pub(crate) fn sent(&self, is_answered: bool) {
        self.change(|shared| {
            shared.progress = match shared.progress {
                Progress::Wanted { since } if is_answered => Progress::Unanswered { since },
                _ => Progress::None,
            };
        });
    }

    /// The front-end has done what the message asked for.
    pub(crate) fn answered(&self) {
        self.change(|shared| shared.progress = Progress::None);
    }

    /// A message that the process before this one sent is not answered yet.
    pub(crate) fn resume(&self) {
        self.change(|shared| {
            let since = Instant::now();
            shared.progress = Progress::Unanswered { since };
        });
    }

    /// The message is not sent: the front-end stops the device.
    pub(crate) fn withdraw(&self) {
        self.change(|shared| {
            shared.progress = Progress::None;
            shared.withdrawn = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = lock(&self.0);
        change(&mut shared);
        if let Some(wake) = &shared.wake {
            wake.set();
        }
    }
}
