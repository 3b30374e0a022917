// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts the worker: the thread that builds the device and handles its events.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use vhost_user_backend::{VhostUserDaemon, VringEpollHandler};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::device_handler::{DeviceEnd, DeviceHandler, Parts};
use super::display_socket::DisplaySocketMailbox;
use super::succession::Succession;
use crate::backend::device::request_links::RequestLinks;
use crate::backend::device::{
    DeviceBuilder, DeviceContext, DeviceListeners, EventLoop, FIRST_TOKEN,
};
use crate::backend::service::main_thread_channel::MainThreadHandle;
use crate::backend::virtqueue::VringObserver;

/// Never dropped, which would wait for the worker: its threads end with the process, and must not delay that.
pub(crate) type Daemon<B> = ManuallyDrop<VhostUserDaemon<Arc<DeviceHandler<B>>>>;

/// Makes the daemon with its worker, which builds the device: [`MainThreadEvent::DeviceBuilt`] follows.
///
/// [`MainThreadEvent::DeviceBuilt`]: crate::backend::service::main_thread_channel::MainThreadEvent::DeviceBuilt
pub(crate) fn spawn<B: DeviceBuilder>(
    name: &str,
    builder: B,
    display_socket: DisplaySocketMailbox,
    listeners: DeviceListeners,
    requests: RequestLinks,
    main_thread: MainThreadHandle,
    succession: Succession,
) -> io::Result<(Daemon<B>, DeviceEnd)> {
    let handler = DeviceHandler::new(
        display_socket,
        requests.clone(),
        main_thread.clone(),
        succession.clone(),
    )?;
    let handler = Arc::new(handler);
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new(name.to_owned(), handler.clone(), memory.clone())
        .map(ManuallyDrop::new)
        .map_err(|e| io::Error::other(e.to_string()))?;
    let event_loop = daemon
        .get_epoll_handlers()
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("the vhost-user daemon has no worker"))?;
    // Weak, as the event loop has the handler, which has the device.
    let weak_loop = Arc::downgrade(&event_loop);
    let device_loop: Arc<dyn EventLoop> = Arc::new(weak_loop.clone());
    let parts = Parts {
        builder,
        context: DeviceContext::new(
            device_loop.clone(),
            memory,
            listeners,
            requests,
            main_thread,
            succession.continuity().clone(),
        ),
        event_loop: device_loop,
        observer: Arc::new(Observer {
            handler: Arc::downgrade(&handler),
            event_loop: weak_loop,
        }),
    };
    let end = handler.start(parts, &event_loop)?;
    Ok((daemon, end))
}

impl<B: DeviceBuilder> EventLoop for Weak<VringEpollHandler<Arc<DeviceHandler<B>>>> {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        event_loop.register_listener(fd.as_raw_fd(), interest, token.into())
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        // epoll finds the entry by its descriptor.
        event_loop.unregister_listener(fd.as_raw_fd(), EventSet::empty(), FIRST_TOKEN.into())
    }
}

/// Passes changes of the virtqueues on to the device and the event loop.
struct Observer<B: DeviceBuilder> {
    handler: Weak<DeviceHandler<B>>,
    event_loop: Weak<VringEpollHandler<Arc<DeviceHandler<B>>>>,
}

impl<B: DeviceBuilder> VringObserver for Observer<B> {
    /// The same as a stop for the device: some front-ends (libkrun) reset a device without `GET_VRING_BASE`.
    fn disabled(&self, index: u32) {
        if let Some(handler) = self.handler.upgrade() {
            handler.vring_disabled(index);
        }
    }

    fn forget_kick(&self, kick: RawFd) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            // Fails if the virtqueue is not enabled, and so not watched.
            let _ = event_loop.unregister_listener(kick, EventSet::empty(), FIRST_TOKEN.into());
        }
    }

    fn position_set(&self) {
        if let Some(handler) = self.handler.upgrade() {
            handler.commit();
        }
    }
}
