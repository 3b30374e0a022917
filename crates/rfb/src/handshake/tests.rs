// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::PixelFormat;

fn init() -> ServerInit {
    ServerInit {
        width: 1280,
        height: 800,
        format: PixelFormat::XRGB8888,
        name: "vm1 – head 0".to_owned(),
    }
}

/// Lets both sides talk, byte by byte.
fn meet(
    mut server: ServerHandshake,
    mut to_viewer: Vec<u8>,
    mut viewer: ClientHandshake,
) -> (
    Result<Option<Established>, HandshakeError>,
    Result<Option<ServerInit>, HandshakeError>,
) {
    let (mut established, mut done) = (Ok(None), Ok(None));
    let (mut at_viewer, mut at_server, mut to_server) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        for byte in std::mem::take(&mut to_viewer) {
            at_viewer.push(byte);
            let mut input = &at_viewer[..];
            if matches!(done, Ok(None)) {
                done = viewer.advance(&mut input, &mut to_server);
                at_viewer = input.to_vec();
            }
        }
        for byte in std::mem::take(&mut to_server) {
            at_server.push(byte);
            let mut input = &at_server[..];
            if matches!(established, Ok(None)) {
                established = server.advance(&mut input, &mut to_viewer);
                at_server = input.to_vec();
                if matches!(established, Ok(Some(_))) {
                    init().write(&mut to_viewer);
                }
            }
        }
    }
    assert!(
        at_server.is_empty() || established.is_err(),
        "{at_server:?}"
    );
    (established, done)
}

#[test]
fn both_sides_meet_in_each_version() {
    for version in [Version::V3_3, Version::V3_7, Version::V3_8] {
        for shared in [false, true] {
            let mut out = Vec::new();
            let server = ServerHandshake::new(&mut out);
            let (established, done) = meet(server, out, ClientHandshake::new(version, shared));
            assert_eq!(established, Ok(Some(Established { version, shared })));
            assert_eq!(done, Ok(Some(init())));
        }
    }
}

#[test]
fn a_refusal_reaches_the_viewer_of_each_version() {
    for version in [Version::V3_3, Version::V3_7, Version::V3_8] {
        let mut out = Vec::new();
        let server = ServerHandshake::refuse(&mut out, "32 viewers look already".to_owned());
        let (refused, seen) = meet(server, out, ClientHandshake::new(version, true));
        let reason = "32 viewers look already".to_owned();
        assert_eq!(refused, Err(HandshakeError::Refusing(reason.clone())));
        assert_eq!(seen, Err(HandshakeError::Refused(reason)));
    }
}

#[test]
fn versions_between_and_beyond_are_understood() {
    let of = |text: &[u8; 12]| Version::of_peer(text);
    assert_eq!(of(b"RFB 003.005\n"), Ok(Version::V3_3));
    assert_eq!(of(b"RFB 003.889\n"), Ok(Version::V3_8));
    for wrong in [
        b"RFB 003.8\n  ",
        b"RFB 003.+08\n",
        b"GET / HTTP/1",
        b"RFB 004.001\n",
    ] {
        assert_eq!(of(wrong), Err(HandshakeError::NotRfb));
    }
}

#[test]
fn a_type_that_was_not_offered_is_answered_and_refused() {
    for (version, answer) in [(b"RFB 003.008\n", true), (b"RFB 003.007\n", false)] {
        let mut out = Vec::new();
        let mut server = ServerHandshake::new(&mut out);
        let mut input = &[version.as_slice(), &[2]].concat()[..];
        let refused = server.advance(&mut input, &mut out);
        assert_eq!(refused, Err(HandshakeError::SecurityNotOffered(2)));
        let result = out.split_off(12 + 2);
        assert_eq!(
            result.starts_with(&[0, 0, 0, 1, 0, 0, 0]),
            answer,
            "{result:?}"
        );
        assert_eq!(result.is_empty(), !answer);
    }
}

#[test]
fn a_server_that_wants_a_password_is_told_apart() {
    let mut viewer = ClientHandshake::new(Version::V3_8, true);
    let mut out = Vec::new();
    let done = viewer.advance(&mut &b"RFB 003.008\n\x02\x02\x10"[..], &mut out);
    assert_eq!(done, Err(HandshakeError::SecurityNotSpoken(vec![2, 16])));
    let mut viewer = ClientHandshake::new(Version::V3_8, true);
    let done = viewer.advance(&mut &b"RFB 003.003\n\x00\x00\x00\x02"[..], &mut out);
    assert_eq!(done, Err(HandshakeError::SecurityNotSpoken(vec![2])));
}

#[test]
fn a_name_without_end_is_refused() {
    let mut viewer = ClientHandshake::new(Version::V3_3, true);
    let mut message = b"RFB 003.003\n\x00\x00\x00\x01".to_vec();
    init().write(&mut message);
    message.truncate(message.len() - init().name.len() - 4);
    message.extend_from_slice(&u32::MAX.to_be_bytes());
    let done = viewer.advance(&mut &message[..], &mut Vec::new());
    assert_eq!(done, Err(HandshakeError::NameLen(u32::MAX)));
}
