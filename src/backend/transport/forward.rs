// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Passes vhost-user messages between a front-end and a backend program.

use std::os::unix::net::UnixStream;

use rustix::event::poll;
use rustix::io::Errno;

use super::display_socket::DisplaySocketMailbox;
use super::forwarder::ProxyError;
use super::proxy::{ConnectionSide, FrontEndProxy as _, VhostUserProxy};
use crate::backend::device::request_links::RequestLinks;

/// Why messages cannot be passed on.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ForwardError(#[from] Failure);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    VhostUserProxy(#[from] ProxyError),
    #[error("cannot wait for a vhost-user message: {0}")]
    Wait(#[from] std::io::Error),
}

/// Passes messages on in both directions until a side closes its connection, and returns that side. Requests
/// are checked and rewritten as for this library's own devices.
///
/// # Errors
/// If a message is invalid, or a request cannot be served.
pub fn forward(front_end: UnixStream, backend: UnixStream) -> Result<ConnectionSide, ForwardError> {
    run(front_end, backend).map_err(ForwardError)
}

fn run(front_end: UnixStream, backend: UnixStream) -> Result<ConnectionSide, Failure> {
    let mut proxy = VhostUserProxy::new(
        front_end,
        backend,
        DisplaySocketMailbox::default(),
        RequestLinks::default(),
    )?;
    loop {
        let mut waiting = proxy.poll_fds();
        match poll(&mut waiting, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(Failure::Wait(error.into())),
        }
        let [front_end, backend, _] = waiting.map(|fd| fd.revents());
        if let Some(side) = proxy.pass([front_end, backend])? {
            return Ok(side);
        }
    }
}
