// SPDX-License-Identifier: Apache-2.0 OR MIT
//! With real connections over the loopback interface.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;

/// The server's end, tuned and without waiting, and the viewer's.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let viewer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = OwnedFd::from(listener.accept().unwrap().0);
    tune(&server);
    let server = TcpStream::from(server);
    server.set_nonblocking(true).unwrap();
    (server, viewer)
}

/// Has the kernel drop whatever comes for a viewer, as if its computer slept.
fn put_to_sleep(viewer: &TcpStream) {
    let mut drop_all = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let filter = libc::sock_fprog {
        len: 1,
        filter: &raw mut drop_all,
    };
    let length = mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the socket is open, `filter` has `length` bytes, and the one instruction that it points to lives longer.
    let result = unsafe {
        libc::setsockopt(
            viewer.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Sends until the viewer's end and our own take no more.
fn fill(mut server: &TcpStream) {
    let full = Instant::now() + Duration::from_secs(2);
    while Instant::now() < full {
        match server.write(&[7; 1 << 16]) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

/// Waits until the peer is gone, and says how long that took.
fn wait_gone(server: &TcpStream) -> Duration {
    let begun = Instant::now();
    while !is_gone(server) {
        assert!(begun.elapsed() < 8 * UNANSWERED, "it is never noticed");
        std::thread::sleep(Duration::from_millis(100));
    }
    begun.elapsed()
}

#[test]
fn vanished_viewer_without_updates_is_noticed_within_half_a_minute() {
    let (server, _viewer) = connected();
    assert!(sockopt::tcp_nodelay(&server).unwrap());
    assert!(sockopt::socket_keepalive(&server).unwrap());
    let idle = sockopt::tcp_keepidle(&server).unwrap();
    let interval = sockopt::tcp_keepintvl(&server).unwrap();
    let probes = sockopt::tcp_keepcnt(&server).unwrap();
    assert_eq!(idle + interval * probes, Duration::from_secs(30));
}

#[test]
fn viewer_that_answers_nothing_is_gone_after_half_a_minute() {
    let (mut server, viewer) = connected();
    put_to_sleep(&viewer);
    server.write_all(b"an update").unwrap();
    assert!(!is_gone(&server));
    let took = wait_gone(&server);
    assert!(took > UNANSWERED - Duration::from_secs(5), "{took:?}");
}

/// The kernel at its end says that there is no room, as long as it is asked; and it is there when it reads again.
#[test]
fn viewer_that_reads_nothing_is_not_gone() {
    let (server, mut viewer) = connected();
    fill(&server);
    let end = Instant::now() + UNANSWERED * 3 / 2;
    while Instant::now() < end {
        assert!(!is_gone(&server));
        std::thread::sleep(Duration::from_millis(200));
    }
    viewer
        .set_read_timeout(Some(Duration::from_secs(130)))
        .unwrap();
    let mut read = 0;
    while read < 64 << 10 {
        let count = viewer.read(&mut [0; 1 << 12]).unwrap();
        assert!(count > 0, "the connection ended");
        read += count;
    }
    (&server).write(&[1]).map(drop).or_else(blocked).unwrap();
}

fn blocked(error: io::Error) -> io::Result<()> {
    let blocked = error.kind() == ErrorKind::WouldBlock;
    blocked.then_some(()).ok_or(error)
}

/// First it read nothing, then it vanished: nobody says any more that there is no room.
#[test]
fn viewer_that_vanishes_while_it_reads_nothing_is_gone() {
    let (server, viewer) = connected();
    fill(&server);
    assert!(!is_gone(&server));
    put_to_sleep(&viewer);
    wait_gone(&server);
}

/// Data alone, which says nothing new about what was sent, leaves the time of the last answer as it was.
#[test]
fn viewer_that_only_sends_is_not_gone() {
    // SAFETY: it consists of numbers, which may all be 0.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    info.tcpi_unacked = 1;
    info.tcpi_last_ack_recv = 40_000;
    info.tcpi_last_data_recv = 10;
    assert!(!has_vanished(&info));
    info.tcpi_last_data_recv = 40_000;
    assert!(has_vanished(&info));
    info.tcpi_last_ack_recv = 10;
    assert!(!has_vanished(&info));
}

#[test]
fn unix_socket_is_not_remote() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert!(!is_remote(&socket));
    assert!(!is_gone(&socket));
    assert!(is_remote(&connected().0));
}
