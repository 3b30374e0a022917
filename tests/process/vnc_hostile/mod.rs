// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hostile peers of vhost-vnc, over its sockets: viewers, GPUs, and devices that take its events. The others
//! are served as if nothing were.

mod cve;
mod devices;
mod floods;
mod gpu;
mod messages;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use frontend::{Command, Deadline, Program, SocketForm};
use rustix::event::PollFlags;
use tempfile::TempDir;

use crate::common::QUICK;
use crate::common::growth::{Holdings, peak_resident};

/// The size of the screen, unless a test has another one.
const SIZE: (u32, u32) = (640, 480);
/// How much more memory a viewer may cost, in KiB: what is sent to it and what it sends, and its own copy of
/// nothing.
const VIEWER_KIB: u64 = 16 << 10;

/// Message types of a viewer (RFC 6143, 7.5, and the registry of extensions).
mod message {
    pub(super) const SET_PIXEL_FORMAT: u8 = 0;
    pub(super) const SET_ENCODINGS: u8 = 2;
    pub(super) const UPDATE_REQUEST: u8 = 3;
    pub(super) const KEY: u8 = 4;
    pub(super) const POINTER: u8 = 5;
    pub(super) const CUT_TEXT: u8 = 6;
    pub(super) const CONTINUOUS_UPDATES: u8 = 150;
    pub(super) const FENCE: u8 = 248;
    pub(super) const SET_DESKTOP_SIZE: u8 = 251;
    pub(super) const QEMU: u8 = 255;
}

/// Encodings and pseudo-encodings (the same places).
mod encoding {
    pub(super) const RAW: i32 = 0;
    pub(super) const TIGHT: i32 = 7;
    pub(super) const ZRLE: i32 = 16;
    pub(super) const DESKTOP_SIZE: i32 = -223;
    pub(super) const LAST_RECT: i32 = -224;
    pub(super) const CURSOR: i32 = -239;
    pub(super) const QEMU_KEY: i32 = -258;
    pub(super) const EXTENDED_DESKTOP_SIZE: i32 = -308;
    pub(super) const FENCE: i32 = -312;
    pub(super) const CONTINUOUS_UPDATES: i32 = -313;
    pub(super) const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32 as i32;
}

/// A running vhost-vnc, the GPU that we play, and a viewer that behaves well.
struct Console {
    vnc: Program,
    gpu: PlayedGpu,
    link: GpuLink,
    witness: Viewer,
    shade: u8,
}

impl Console {
    /// Everything up, a screen of [`SIZE`] seen by the witness.
    fn start() -> Self {
        Self::with(|command| command)
    }

    /// As [`Console::start`], with more arguments of the program.
    fn with(more: impl FnOnce(Command) -> Command) -> Self {
        let gpu = PlayedGpu::listen();
        let display = format!("--display={}", gpu.path().display());
        let command = Command::new(env!("CARGO_BIN_EXE_vhost-vnc"))
            .socket(SocketForm::Path)
            .args([&display, "--name=vm1"]);
        let mut vnc = more(command).spawn().unwrap();
        let mut witness = Viewer::shake_hands(vnc.connect().unwrap());
        witness.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
        let mut link = gpu.accept();
        link.begin();
        link.scanout(0, SIZE);
        let mut console = Self {
            vnc,
            gpu,
            link,
            witness,
            shade: 0,
        };
        console.assert_served();
        console
    }

    /// As [`Console::start`], with a further viewer that takes `encodings`.
    fn with_viewer(encodings: &[i32]) -> (Self, Viewer) {
        let mut console = Self::start();
        let mut viewer = console.viewer();
        viewer.set_encodings(encodings);
        (console, viewer)
    }

    /// A further viewer, past its handshake.
    fn viewer(&mut self) -> Viewer {
        Viewer::shake_hands(self.vnc.connect().unwrap())
    }

    /// A connection to the viewers' socket with nothing said yet.
    fn connect(&mut self) -> UnixStream {
        let stream = self.vnc.connect().unwrap();
        limited(&stream);
        stream
    }

    /// Asserts that what the GPU draws now is seen by the witness, and that the program is as it was.
    #[track_caller]
    fn assert_served(&mut self) {
        self.shade = self.shade.wrapping_add(0x35);
        let color = [self.shade, !self.shade, self.shade ^ 0x55];
        self.link.fill(0, SIZE, color);
        self.witness.assert_sees(SIZE, color);
        assert_eq!(self.vnc.try_exit().unwrap(), None, "{}", self.vnc.stderr());
        assert!(
            !self.vnc.stderr().contains("panicked"),
            "{}",
            self.vnc.stderr()
        );
    }

    /// Asserts that the program has closed a connection, and has said why.
    #[track_caller]
    fn assert_closed(&mut self, stream: &UnixStream) {
        assert!(
            is_closed(stream),
            "the connection lives: {}",
            self.vnc.stderr()
        );
        let said =
            |log: &str| log.contains("turned away: ") || log.contains("viewer disconnected: ");
        Deadline::default()
            .until("the reason on stderr", || {
                Ok(said(&self.vnc.stderr()).then_some(()))
            })
            .unwrap();
    }

    /// Sends `bytes` as a viewer past its handshake, and asserts that it is closed.
    #[track_caller]
    fn assert_refused(&mut self, bytes: &[u8]) {
        let mut viewer = self.viewer();
        viewer.send(bytes);
        self.assert_closed(&viewer.stream);
        self.assert_served();
    }

    /// Has `round` done often enough for a leak to be seen.
    fn leaks_nothing(&mut self, rounds: u32, mut round: impl FnMut(&mut Self, u32)) {
        for n in 0..rounds / 4 {
            round(self, n);
        }
        self.assert_served();
        let before = self.settled();
        for n in 0..rounds {
            round(self, n);
        }
        self.assert_served();
        let after = self.settled();
        assert_eq!(after.descriptors, before.descriptors, "open descriptors");
        let grown = after.resident.saturating_sub(before.resident);
        assert!(grown < 2048, "{grown} KiB more, {} before", before.resident);
    }

    /// What the program holds once only the witness is left.
    fn settled(&self) -> Holdings {
        let mut last = Holdings::of(&self.vnc);
        Deadline::default()
            .until("closed connections", || {
                let now = Holdings::of(&self.vnc);
                let same = now.descriptors == last.descriptors;
                last = now;
                std::thread::sleep(Duration::from_millis(20));
                Ok(same.then_some(now))
            })
            .unwrap()
    }

    /// Waits until it has accepted all connections that came, and closed those of viewers that left since `before`.
    fn wait_left(&mut self, before: &Holdings) {
        // Connections are accepted in their order.
        drop(self.viewer());
        Deadline::default()
            .until("closed connections", || {
                let now = Holdings::of(&self.vnc).descriptors;
                Ok((now == before.descriptors).then_some(()))
            })
            .unwrap();
    }

    /// Ends it as its service manager does.
    fn finish(mut self) {
        self.assert_served();
        self.vnc.signal(rustix::process::Signal::TERM).unwrap();
        crate::common::assert_clean_exit(&mut self.vnc);
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the program said: {}", self.vnc.stderr());
        }
    }
}

/// Reads and writes of a test end.
fn limited(stream: &UnixStream) {
    stream.set_read_timeout(Some(QUICK)).unwrap();
    stream.set_write_timeout(Some(QUICK)).unwrap();
}

/// Whether the other side closes the connection; what it sends before is dropped.
fn is_closed(mut stream: &UnixStream) -> bool {
    let mut rest = [0; 1 << 16];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Writes until the other side has closed or takes no more.
fn flood(mut stream: &UnixStream, bytes: &[u8], times: usize) {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    for _ in 0..times {
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
}

/// Bytes without sense, the same in each run (Knuth's constants).
fn noise(state: &mut u64, length: usize) -> Vec<u8> {
    let next = || {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A viewer.
struct Viewer {
    stream: UnixStream,
    size: (u32, u32),
    pixels: Vec<u8>,
    asked: bool,
}

impl Viewer {
    /// Does what RFB 3.8 asks of a viewer before its first message.
    fn shake_hands(mut stream: UnixStream) -> Self {
        limited(&stream);
        let mut version = [0; 12];
        stream.read_exact(&mut version).unwrap();
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version).unwrap();
        let mut types = [0; 2];
        stream.read_exact(&mut types).unwrap();
        assert_eq!(types, [1, 1], "one security type, None");
        stream.write_all(&[1]).unwrap();
        let mut result = [0; 4];
        stream.read_exact(&mut result).unwrap();
        assert_eq!(result, [0; 4]);
        // Shared.
        stream.write_all(&[1]).unwrap();
        let mut init = [0; 24];
        stream.read_exact(&mut init).unwrap();
        let [w0, w1, h0, h1, _format @ .., n0, n1, n2, n3] = init;
        let mut name = vec![0; u32::from_be_bytes([n0, n1, n2, n3]) as usize];
        stream.read_exact(&mut name).unwrap();
        let mut viewer = Self {
            stream,
            size: (0, 0),
            pixels: Vec::new(),
            asked: false,
        };
        viewer.resize(u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
        viewer.send(&pixel_format(32, 24, true, [255; 3], [16, 8, 0]));
        viewer
    }

    fn resize(&mut self, width: u16, height: u16) {
        self.size = (width.into(), height.into());
        self.pixels = vec![0; usize::from(width) * usize::from(height) * 4];
    }

    /// Sends what is perhaps not taken.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn set_encodings(&mut self, encodings: &[i32]) {
        self.send(&set_encodings(encodings));
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Asserts that this viewer, which takes raw pixels only, comes to see `color` everywhere.
    #[track_caller]
    fn assert_sees(&mut self, size: (u32, u32), color: [u8; 3]) {
        let deadline = Deadline::default();
        loop {
            if !self.asked {
                self.send(&update_request(true, 0, 0, u16::MAX, u16::MAX));
                self.asked = true;
            }
            self.update();
            self.asked = false;
            let all = self.pixels.chunks_exact(4).all(|pixel| pixel[..3] == color);
            if all && self.size == size {
                return;
            }
            assert!(
                !deadline.passed(),
                "another picture of {:?} is shown",
                self.size
            );
        }
    }

    /// Reads messages up to a FramebufferUpdate, and takes that.
    fn update(&mut self) {
        loop {
            let [kind] = self.read();
            match kind {
                0 => break,
                // ServerCutText.
                3 => {
                    let [_, _, _, a, b, c, d] = self.read();
                    for _ in 0..u32::from_be_bytes([a, b, c, d]) {
                        let [_] = self.read();
                    }
                }
                // Bell.
                2 => {}
                other => panic!("message {other}"),
            }
        }
        let [_, c0, c1] = self.read();
        for _ in 0..u16::from_be_bytes([c0, c1]) {
            let [x0, x1, y0, y1, w0, w1, h0, h1, encoding @ ..] = self.read::<12>();
            let [x, y] = [[x0, x1], [y0, y1]].map(|n| usize::from(u16::from_be_bytes(n)));
            let [width, height] = [[w0, w1], [h0, h1]].map(u16::from_be_bytes);
            match i32::from_be_bytes(encoding) {
                encoding::RAW => {
                    let mut row = vec![0; usize::from(width) * 4];
                    for y in y..y + usize::from(height) {
                        self.stream.read_exact(&mut row).unwrap();
                        let at = (y * self.size.0 as usize + x) * 4;
                        self.pixels[at..at + row.len()].copy_from_slice(&row);
                    }
                }
                encoding::DESKTOP_SIZE => self.resize(width, height),
                // Says only that it is known.
                encoding::QEMU_KEY => {}
                other => panic!("encoding {other}, which was not asked for"),
            }
        }
    }
}

/// SetPixelFormat with numbers as they are (RFC 6143, 7.5.1).
fn pixel_format(bits: u8, depth: u8, true_color: bool, max: [u16; 3], shift: [u8; 3]) -> Vec<u8> {
    let mut bytes = vec![
        message::SET_PIXEL_FORMAT,
        0,
        0,
        0,
        bits,
        depth,
        0,
        true_color.into(),
    ];
    bytes.extend(max.iter().flat_map(|max| max.to_be_bytes()));
    bytes.extend(shift);
    bytes.extend([0; 3]);
    bytes
}

/// SetEncodings (7.5.2).
fn set_encodings(encodings: &[i32]) -> Vec<u8> {
    let mut bytes = vec![message::SET_ENCODINGS, 0];
    bytes.extend((encodings.len() as u16).to_be_bytes());
    bytes.extend(encodings.iter().flat_map(|encoding| encoding.to_be_bytes()));
    bytes
}

/// FramebufferUpdateRequest (7.5.3).
fn update_request(incremental: bool, x: u16, y: u16, width: u16, height: u16) -> Vec<u8> {
    let mut bytes = vec![message::UPDATE_REQUEST, incremental.into()];
    bytes.extend([x, y, width, height].iter().flat_map(|n| n.to_be_bytes()));
    bytes
}

/// KeyEvent (7.5.4).
fn key(down: bool, keysym: u32) -> Vec<u8> {
    let mut bytes = vec![message::KEY, down.into(), 0, 0];
    bytes.extend(keysym.to_be_bytes());
    bytes
}

/// PointerEvent (7.5.5).
fn pointer(buttons: u8, x: u16, y: u16) -> Vec<u8> {
    let mut bytes = vec![message::POINTER, buttons];
    bytes.extend([x, y].iter().flat_map(|n| n.to_be_bytes()));
    bytes
}

/// ClientCutText (7.5.6) that says it has `length` bytes.
fn cut_text(length: u32, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message::CUT_TEXT, 0, 0, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(text);
    bytes
}

/// A GPU's display socket, played.
struct PlayedGpu {
    listener: UnixListener,
    folder: TempDir,
}

impl PlayedGpu {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("display")).unwrap();
        Self { listener, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("display")
    }

    /// The console's next connection.
    #[track_caller]
    fn accept(&self) -> GpuLink {
        let came = Deadline::default()
            .ready(&self.listener, PollFlags::IN)
            .unwrap();
        assert!(came, "the console does not connect to the GPU");
        let (stream, _) = self.listener.accept().unwrap();
        limited(&stream);
        GpuLink { stream }
    }
}

/// Requests of the display protocol (docs/interop/vhost-user-gpu.rst).
mod request {
    pub(super) const GET_PROTOCOL_FEATURES: u32 = 1;
    pub(super) const SET_PROTOCOL_FEATURES: u32 = 2;
    pub(super) const CURSOR_POS: u32 = 4;
    pub(super) const CURSOR_POS_HIDE: u32 = 5;
    pub(super) const CURSOR_UPDATE: u32 = 6;
    pub(super) const SCANOUT: u32 = 7;
    pub(super) const UPDATE: u32 = 8;
    pub(super) const DMABUF_SCANOUT: u32 = 9;
    pub(super) const RESIZE: u32 = 0x1000;
}

/// A connection of the console to the GPU that we play.
struct GpuLink {
    stream: UnixStream,
}

impl GpuLink {
    /// Negotiates.
    fn begin(&mut self) {
        self.send(request::GET_PROTOCOL_FEATURES, 0, &[], &[]);
        let mut reply = [0; 20];
        self.stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..12], [1_u32, 4, 8].map(u32::to_ne_bytes).concat());
        let features = reply[12..].to_vec();
        self.send(request::SET_PROTOCOL_FEATURES, 0, &[], &features);
    }

    /// A message of these words and bytes, with a header that is right.
    fn send(&mut self, request: u32, flags: u32, words: &[u32], bytes: &[u8]) {
        let size = (words.len() * 4 + bytes.len()) as u32;
        self.send_as(request, flags, size, words, bytes);
    }

    /// A message whose header says it has `size` bytes. The console may have closed the connection.
    fn send_as(&mut self, request: u32, flags: u32, size: u32, words: &[u32], bytes: &[u8]) {
        let mut message = [request, flags, size].map(u32::to_ne_bytes).concat();
        message.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        message.extend(bytes);
        let _ = self.stream.write_all(&message);
    }

    fn scanout(&mut self, scanout: u32, (width, height): (u32, u32)) {
        self.send(request::SCANOUT, 0, &[scanout, width, height], &[]);
    }

    /// Draws all of a scanout in one color: blue, green, red.
    fn fill(&mut self, scanout: u32, (width, height): (u32, u32), [b, g, r]: [u8; 3]) {
        let pixels = [b, g, r, 0].repeat((width * height) as usize);
        self.send(request::UPDATE, 0, &[scanout, 0, 0, width, height], &pixels);
    }
}
