// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::ClientListener;
use crate::backend::{FakeContext, GuestMemory};

const TOKEN: u16 = 0x123;

/// A listener for up to two clients, in `folder`.
fn listener(folder: &Path) -> (FakeContext, ClientListener) {
    let context = FakeContext::new(GuestMemory::new(Default::default())).unwrap();
    let socket = UnixListener::bind(folder.join("s")).unwrap();
    context.add_listener("clients", socket).unwrap();
    let other = context.context().listen("others", TOKEN, 2).unwrap();
    assert!(other.is_none());
    let listener = context.context().listen("clients", TOKEN, 2).unwrap();
    let again = context.context().listen("clients", TOKEN, 2).unwrap();
    assert!(again.is_none(), "a listener is taken twice");
    (context, listener.unwrap())
}

#[test]
fn clients_beyond_the_limit_are_closed_until_one_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (context, mut listener) = listener(folder.path());
    let connect = || UnixStream::connect(folder.path().join("s")).unwrap();
    let mut clients: Vec<UnixStream> = (0..3).map(|_| connect()).collect();
    let mut served = Vec::new();
    while !context.ready(0).unwrap().is_empty() {
        served.extend(listener.accept());
    }
    assert_eq!(served.len(), 2);
    assert_eq!(clients.pop().unwrap().read(&mut [0]).unwrap(), 0);
    let open = clients.pop().unwrap();
    open.set_nonblocking(true).unwrap();
    let waiting = (&open).read(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock);
    // A served connection does not block.
    let waiting = served.first_mut().unwrap().read(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock);

    listener.leave();
    let _another = connect();
    assert!(listener.accept().is_some());
    assert_eq!(listener.count(), 2);
}

#[test]
fn program_knows_whether_there_are_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (context, mut listener) = listener(folder.path());
    let _client = UnixStream::connect(folder.path().join("s")).unwrap();
    assert!(!context.has_clients());
    assert!(listener.accept().is_some());
    assert!(context.has_clients());
    listener.leave();
    // One too many does no harm.
    listener.leave();
    assert!(!context.has_clients());
}
