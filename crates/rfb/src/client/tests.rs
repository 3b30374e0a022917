// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use super::*;
use crate::server_message::{self, DesktopSizeReason, DesktopSizeStatus, Update};
use crate::{ClientMessageParser, Encoder, ServerHandshake};

const LIMIT: Duration = Duration::from_secs(60);

/// A server in another thread: it shakes hands, and then answers each message by `answer`.
fn serve(
    mut answer: impl FnMut(ClientMessage, &mut Vec<u8>) + Send + 'static,
) -> (UnixStream, thread::JoinHandle<()>) {
    let (ours, mut theirs) = UnixStream::pair().expect("cannot make a socket");
    let server = thread::spawn(move || {
        let mut out = Vec::new();
        let mut handshake = ServerHandshake::new(&mut out);
        let mut parser = ClientMessageParser::default();
        let (mut left, mut established) = (Vec::new(), false);
        loop {
            if theirs.write_all(&out).is_err() {
                return;
            }
            out.clear();
            let mut piece = [0; 100];
            let Ok(len @ 1..) = std::io::Read::read(&mut theirs, &mut piece) else {
                return;
            };
            left.extend_from_slice(&piece[..len]);
            let mut input = &left[..];
            if !established {
                let done = handshake.advance(&mut input, &mut out);
                established = done.expect("a viewer").is_some();
                if established {
                    let init = ServerInit {
                        width: 30,
                        height: 20,
                        format: PixelFormat::RGB565,
                        name: "desktop".to_owned(),
                    };
                    init.write(&mut out);
                }
            }
            if established {
                while let Some(message) = parser.next(&mut input).expect("messages") {
                    answer(message, &mut out);
                }
            }
            left = input.to_vec();
        }
    });
    (ours, server)
}

fn picture(width: u16, height: u16) -> Frame {
    let mut frame = Frame::new(width, height).expect("a frame");
    for (pixel, value) in frame.bytes_mut().chunks_exact_mut(4).zip(0u32..) {
        pixel.copy_from_slice(&((value * 7919) & 0x00ff_ffff).to_le_bytes());
    }
    frame
}

fn send_frame(frame: &Frame, out: &mut Vec<u8>) {
    let mut update = Update::begin(out);
    let rects = Encoder::new().encode(Encoding::RAW, frame.rect(), &frame.view(), out);
    assert!(update.count(rects));
    update.finish(out);
}

#[test]
fn a_viewer_sees_what_the_server_shows() {
    let (socket, server) = serve(|message, out| {
        if let ClientMessage::FramebufferUpdateRequest { .. } = message {
            send_frame(&picture(30, 20), out);
        }
    });
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    assert_eq!(client.name(), "desktop");
    assert_eq!(client.server_format(), PixelFormat::RGB565);
    client.set_encodings(&[Encoding::RAW]).expect("encodings");
    client.refresh().expect("a frame");
    assert_eq!(*client.frame(), picture(30, 20));
    // Handshake, ServerInit, and one update.
    assert_eq!(client.received(), 12 + 2 + 4 + 31 + 4 + 12 + 30 * 20 * 4);
    drop(client);
    server.join().expect("a server");
}

#[test]
fn a_refresh_follows_a_new_size() {
    let mut requests = 0;
    let (socket, server) = serve(move |message, out| {
        let ClientMessage::FramebufferUpdateRequest { rect, .. } = message else {
            return;
        };
        requests += 1;
        if requests == 1 {
            let mut update = Update::begin(out);
            server_message::write_extended_desktop_size(
                DesktopSizeReason::Server,
                DesktopSizeStatus::NoError,
                (50, 10),
                &[],
                out,
            );
            assert!(update.count(1));
            update.finish(out);
        } else {
            assert_eq!(rect, Rect::of_size(50, 10));
            send_frame(&picture(50, 10), out);
        }
    });
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    client.refresh().expect("a frame");
    assert_eq!(*client.frame(), picture(50, 10));
    drop(client);
    server.join().expect("a server");
}

#[test]
fn a_refresh_goes_on_after_an_update_without_pixels() {
    let mut requests = 0;
    let (socket, server) = serve(move |message, out| {
        let ClientMessage::FramebufferUpdateRequest { incremental, .. } = message else {
            return;
        };
        requests += 1;
        assert_eq!(incremental, requests == 2);
        if requests == 1 {
            // The size that the viewer knows.
            let mut update = Update::begin(out);
            server_message::write_extended_desktop_size(
                DesktopSizeReason::Server,
                DesktopSizeStatus::NoError,
                (30, 20),
                &[],
                out,
            );
            assert!(update.count(1));
            update.finish(out);
        } else {
            send_frame(&picture(30, 20), out);
        }
    });
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    client.refresh().expect("a frame");
    assert_eq!(*client.frame(), picture(30, 20));
    drop(client);
    server.join().expect("a server");
}

#[test]
fn a_fence_is_answered_while_the_viewer_waits() {
    let fence = Fence::new(Fence::REQUEST | Fence::SYNC_NEXT, b"?").expect("a fence");
    let (socket, server) = serve(move |message, out| match message {
        ClientMessage::FramebufferUpdateRequest { .. } => fence.write(out),
        ClientMessage::Fence(answer) => {
            assert_eq!(answer, fence.answer());
            server_message::write_bell(out);
        }
        _ => {}
    });
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    client
        .request(true, Rect::of_size(1, 1))
        .expect("a request");
    assert_eq!(client.next_event().expect("an event"), Event::Bell);
    drop(client);
    server.join().expect("a server");
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let (socket, server) = serve(|_, _| {});
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    client.set_limit(Duration::from_millis(20));
    let refreshed = client.refresh();
    assert!(
        matches!(refreshed, Err(ClientError::Timeout(_))),
        "{refreshed:?}"
    );
    drop(client);
    server.join().expect("a server");
}

#[test]
fn no_time_at_all_is_a_timeout_too() {
    let (socket, server) = serve(|_, _| {});
    let mut client = Client::connect(socket, LIMIT).expect("a connection");
    client.set_limit(Duration::ZERO);
    let waited = client.next_event();
    assert!(matches!(waited, Err(ClientError::Timeout(_))), "{waited:?}");
    drop(client);
    server.join().expect("a server");
}

#[test]
fn a_connection_that_ends_is_an_error() {
    let (socket, mut theirs) = UnixStream::pair().expect("cannot make a socket");
    theirs.write_all(b"RFB 003.008\n\x01").expect("a beginning");
    drop(theirs);
    let connected = Client::connect(socket, LIMIT);
    assert!(connected.is_err());
}

#[test]
fn a_huge_framebuffer_is_refused() {
    let (socket, mut theirs) = UnixStream::pair().expect("cannot make a socket");
    let mut hello = b"RFB 003.003\n\x00\x00\x00\x01".to_vec();
    let (width, height) = (u16::MAX, u16::MAX);
    let format = PixelFormat::XRGB8888;
    let name = String::new();
    ServerInit {
        width,
        height,
        format,
        name,
    }
    .write(&mut hello);
    theirs.write_all(&hello).expect("a beginning");
    let connected = Client::connect(socket, LIMIT);
    assert!(
        matches!(connected, Err(ClientError::FrameSize(..))),
        "{connected:?}"
    );
}
