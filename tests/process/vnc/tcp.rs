// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers by TCP, as a drop-in of the socket unit allows.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use display_protocol::Features;
use frontend::Command;
use rfb::Encoding;
use rfb::client::Client;

use super::{FakeGpu, picture, rgb};
use crate::common::{QUICK, vnc_program};

/// What a viewer who is sure to be there may read nothing for: longer than a vanished one is waited for.
const PAUSE: Duration = Duration::from_secs(45);

/// Its end says that there is no room for more, which is an answer: it is not taken for one that vanished.
#[test]
fn viewer_that_pauses_for_long_is_served_when_it_reads_again() {
    let folder = tempfile::tempdir().unwrap();
    let display = folder.path().join("display.sock");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut gpu = FakeGpu::listen(&display);
    // As the service manager passes it.
    let activate = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let program = Command::new("/bin/sh")
        .args(["-c", activate])
        .arg(vnc_program())
        .arg(format!("--display={}", display.display()))
        .descriptor(listener)
        .spawn()
        .unwrap();
    let joining = std::thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        Client::connect(stream, QUICK).unwrap()
    });
    gpu.accept(Features::default());
    let (width, height) = (1024, 768);
    let mut pixels = picture(width, height, 1);
    gpu.scanout(0, width, height);
    gpu.update(0, 0, width, height, &pixels);
    let mut viewer = joining.join().unwrap();
    viewer.set_encodings(&[Encoding::RAW]).unwrap();

    // More than both ends' buffers take.
    let begun = Instant::now();
    for round in 2.. {
        viewer.request(false, viewer.frame().rect()).unwrap();
        pixels = picture(width, height, round);
        gpu.update(0, 0, width, height, &pixels);
        if begun.elapsed() > PAUSE {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    // After so long its end is asked whether there is room only now and then.
    viewer.set_limit(Duration::from_secs(150));
    let seen = |viewer: &Client<TcpStream>| rgb(viewer.frame().bytes()) == rgb(&pixels);
    if let Err(e) = viewer.wait_until(seen) {
        panic!("{e}: {}", program.stderr());
    }
}
