// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A way to a Unix socket for programs that only know TCP, as `ssh -L` makes one.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;

/// Passes the first connection to `address` on to a socket.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
}

impl Relay {
    pub(super) fn start(socket: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let socket: PathBuf = socket.to_owned();
        thread::spawn(move || {
            if let (Ok((viewer, _)), Ok(server)) = (listener.accept(), UnixStream::connect(socket))
            {
                // Whoever ends the connection ends it on both sides; nobody waits for the result.
                let _ = pass_on(viewer, server);
            }
        });
        Ok(Self { address })
    }
}

fn pass_on(mut viewer: TcpStream, mut server: UnixStream) -> std::io::Result<()> {
    let (mut from_viewer, mut to_server) = (viewer.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || {
        let _ = copy(&mut from_viewer, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut server, &mut viewer);
    let _ = viewer.shutdown(Shutdown::Both);
    let _ = there.join();
    Ok(())
}
