// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user side, against a scripted peer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frontend::features::{PROTOCOL_FEATURES, VERSION_1};
use frontend::{
    Command, Error, FrontendReq, Memory, Program, Queue, Session, SocketForm,
    VhostUserProtocolFeatures,
};

const FEATURES: u64 = VERSION_1 | PROTOCOL_FEATURES;

/// A backend that acknowledges everything, but answers `refused` with an error, and gives back the
/// numbers of the requests it got.
fn backend(mut socket: UnixStream, refused: Option<FrontendReq>) -> JoinHandle<Vec<u32>> {
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut header = [0; 12];
        while socket.read_exact(&mut header).is_ok() {
            let word = |n: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[n + i]));
            let (request, flags) = (word(0), word(4));
            let mut body = vec![0; word(8) as usize];
            socket.read_exact(&mut body).unwrap();
            seen.push(request);
            let offered = Session::usual_protocol_features().bits();
            let answer = match request {
                1 => Some(FEATURES.to_ne_bytes().to_vec()),
                15 => Some(offered.to_ne_bytes().to_vec()),
                17 => Some(2_u64.to_ne_bytes().to_vec()),
                24 => Some(body),
                11 => Some([0, 0, 0, 0, 7, 0, 0, 0].to_vec()),
                _ if flags & 8 != 0 => {
                    let refused = refused.map(u32::from) == Some(request);
                    Some(u64::from(refused).to_ne_bytes().to_vec())
                }
                _ => None,
            };
            if let Some(answer) = answer {
                let header = [request, 1 | 4, answer.len() as u32];
                let bytes = header.iter().flat_map(|w| w.to_ne_bytes()).chain(answer);
                socket.write_all(&bytes.collect::<Vec<_>>()).unwrap();
            }
        }
        seen
    })
}

#[test]
fn session_negotiates_in_the_order_of_a_vmm() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = backend(theirs, None);
    let mut session = Session::new(ours);
    let offer = session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    assert_eq!((offer.features, offer.queues), (FEATURES, 2));
    assert!(
        session
            .protocol_features()
            .contains(VhostUserProtocolFeatures::CONFIG)
    );
    session.set_features(FEATURES).unwrap();
    let memory = Memory::new(&[(0, 1 << 20), (1 << 32, 1 << 20)]).unwrap();
    session.set_memory(&memory).unwrap();
    let queue = Queue::new(&memory, 16, false).unwrap();
    session.start_queue(0, &queue).unwrap();
    assert_eq!(session.config(4, 8).unwrap(), [0; 8]);
    assert_eq!(session.stop_queue(0).unwrap(), 7);
    drop(session);
    assert_eq!(
        peer.join().unwrap(),
        [1, 15, 16, 17, 3, 2, 5, 8, 10, 9, 13, 12, 18, 24, 11]
    );
}

#[test]
fn refusal_is_an_error_that_names_the_request() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = backend(theirs, Some(FrontendReq::GPU_SET_SOCKET));
    let mut session = Session::new(ours);
    session
        .negotiate(Session::usual_protocol_features())
        .unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let error = session.set_gpu_socket(&socket).unwrap_err();
    assert!(matches!(&error, Error::Refused { value: 1, .. }), "{error}");
    assert!(error.to_string().contains("GPU_SET_SOCKET"), "{error}");
    drop(session);
    peer.join().unwrap();
}

#[test]
fn silence_ends_in_time_and_a_closed_socket_at_once() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut session = Session::new(ours);
    session.channel.limit = Duration::from_millis(50);
    let begin = Instant::now();
    let error = session.get_u64(FrontendReq::GET_FEATURES).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(50));
    // Nor does it wait for ever to be read.
    let error = loop {
        if let Err(e) = session.channel.send(2, 1, &[0; 4096], &[]) {
            break e;
        }
    };
    assert!(error.is_timeout(), "{error}");
    drop(theirs);
    assert!(
        session
            .get_u64(FrontendReq::GET_FEATURES)
            .unwrap_err()
            .is_closed()
    );
}

#[test]
fn session_rejects_malformed_replies() {
    let answers: [&[u32]; 4] = [
        &[2, 5, 8, 0, 0],
        &[1, 1, 8, 0, 0],
        &[1, 5, 4, 0],
        &[1, 5, 0x10_0000],
    ];
    for words in answers {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        theirs.write_all(&bytes).unwrap();
        let error = Session::new(ours)
            .get_u64(FrontendReq::GET_FEATURES)
            .unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{words:?}: {error}");
    }
}

fn shell(script: &str, form: SocketForm) -> Program {
    Command::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .socket(form)
        .spawn()
        .unwrap()
}

#[test]
fn program_is_heard_and_waited_for() {
    let mut program = shell("echo out; echo problem >&2; exit 3", SocketForm::None);
    let status = program.wait_exit(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(
        (program.stdout().as_str(), program.stderr().as_str()),
        ("out\n", "problem\n")
    );

    let mut program = shell("echo words >&2; exec sleep 60", SocketForm::None);
    program.wait_stderr("words").unwrap();
    let error = program.wait_exit(Duration::from_millis(20)).unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("words"),
        "{error}"
    );
    let pid = program.pid();
    drop(program);
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "it lives on"
    );
}

#[test]
fn program_gets_its_socket_in_each_form() {
    // `sh -c SCRIPT --option` has the option as $0.
    let script = "echo \"$0 $LISTEN_FDS $((LISTEN_PID == $$))\"; ls -l /proc/self/fd >&2";
    let run = |form| {
        let mut program = Command::new("/bin/sh")
            .socket(form)
            .args(["-c", script])
            .spawn()
            .unwrap();
        program.wait_exit(Duration::from_secs(30)).unwrap();
        program
    };
    for (form, option) in [
        (SocketForm::Connected(7), "--fd=7\n"),
        (SocketForm::Listening(9), "--fd=9\n"),
        (SocketForm::Path, "--socket-path="),
    ] {
        let mut program = Command::new("/bin/echo").socket(form).spawn().unwrap();
        program.wait_exit(Duration::from_secs(30)).unwrap();
        assert!(
            program.stdout().starts_with(option),
            "{form:?}: {}",
            program.stdout()
        );
    }
    let program = run(SocketForm::Activation);
    assert!(program.stdout().ends_with(" 1 1\n"), "{}", program.stdout());
    assert!(
        program.stderr().contains(" 3 -> socket:"),
        "{}",
        program.stderr()
    );
    let program = run(SocketForm::ActivationOfAnother);
    assert!(program.stdout().ends_with(" 1 0\n"), "{}", program.stdout());
}
