// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes of VNC viewers and servers.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rfb::server_message::{PseudoRect, ServerMessage, read_rect_header};
use rfb::{
    Channel, ClientHandshake, ClientMessage, ClientMessageParser, Decoder, Encoder, Encoding,
    Fence, Frame, PixelFormat, ServerHandshake, ServerMessageError, Version,
};

use crate::bytes::Bytes;

/// The most bytes that are kept of what a viewer answers and gets answered in a handshake.
const HANDSHAKE_MAX: usize = 8 << 10;

/// A viewer in any mood: its handshake, its messages, and the pixel formats that it asks for.
pub fn rfb_viewer(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let step = usize::from(bytes.u8()) % 64 + 1;
    let extended_mouse_buttons = bytes.u8() & 1 != 0;
    let refused = bytes.u8() < 32;
    let stream = bytes.rest();
    let whole = serve(stream, stream.len().max(1), extended_mouse_buttons, refused);
    let split = serve(stream, step, extended_mouse_buttons, refused);
    assert_eq!(
        whole, split,
        "the same bytes mean the same however they arrive"
    );
    let (messages, _) = whole;
    for message in messages.iter().take(64) {
        write_and_read(message);
        if let ClientMessage::SetPixelFormat(format) = message {
            encode(*format, stream);
        }
    }
}

/// What a server understands of a stream that arrives in pieces, and whether it breaks off.
fn serve(
    stream: &[u8],
    step: usize,
    extended_mouse_buttons: bool,
    refused: bool,
) -> (Vec<ClientMessage>, Option<String>) {
    let mut out = Vec::new();
    let mut handshake = if refused {
        ServerHandshake::refuse(&mut out, "no".to_owned())
    } else {
        ServerHandshake::new(&mut out)
    };
    let mut established = false;
    let mut parser = ClientMessageParser::default();
    parser.set_extended_mouse_buttons(extended_mouse_buttons);
    let (mut left, mut messages) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        left.extend_from_slice(piece);
        let mut input = &left[..];
        if !established {
            match handshake.advance(&mut input, &mut out) {
                Ok(done) => established = done.is_some(),
                Err(error) => return (messages, Some(error.to_string())),
            }
            assert!(out.len() < HANDSHAKE_MAX, "{} bytes of answers", out.len());
        }
        if established {
            loop {
                match parser.next(&mut input) {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error.to_string())),
                }
            }
            assert!(input.len() <= ClientMessageParser::MAX_LEFT);
        } else {
            assert!(
                input.len() < 12,
                "{} bytes are left of a handshake",
                input.len()
            );
        }
        left = input.to_vec();
    }
    (messages, None)
}

fn write_and_read(message: &ClientMessage) {
    let mut written = Vec::new();
    message.write(&mut written);
    if let ClientMessage::SetEncodings(set) = message {
        assert!(set.contains(set.preferred()) && set.contains(Encoding::RAW));
        return;
    }
    let mut parser = ClientMessageParser::default();
    parser.set_extended_mouse_buttons(true);
    let mut input = &written[..];
    let read = parser.next(&mut input);
    match message {
        // Without the agreement a viewer may press the eighth button in the first byte.
        ClientMessage::PointerEvent { .. } => assert!(matches!(read, Ok(Some(_)))),
        _ => assert_eq!(read, Ok(Some(message.clone()))),
    }
    assert!(input.is_empty());
}

/// Every encoding shows the same in any format.
fn encode(format: PixelFormat, stream: &[u8]) {
    let mut frame = Frame::new(70, 3).expect("a small frame");
    let colours = stream.iter().chain(&[0]).cycle();
    for (byte, colour) in frame.bytes_mut().iter_mut().zip(colours) {
        *byte = *colour;
    }
    let mut encoder = Encoder::new();
    encoder.set_format(format);
    let mut shown = Vec::new();
    for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
        let mut out = Vec::new();
        let rects = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
        let mut decoder = Decoder::new(format);
        let mut seen = Frame::new(70, 3).expect("a small frame");
        let mut reader = &out[..];
        for _ in 0..rects {
            let (rect, encoding) = read_rect_header(&mut reader).expect("a header");
            let drawn = decoder.rect(&mut reader, rect, encoding, &mut seen);
            drawn.expect("what was encoded can be decoded");
        }
        assert!(reader.is_empty());
        // The unused byte of a pixel is whatever it is.
        let pixels = seen
            .bytes()
            .chunks_exact(4)
            .map(|pixel| pixel[..3].to_vec());
        shown.push(pixels.collect::<Vec<_>>());
    }
    assert!(shown.iter().all(|pixels| *pixels == shown[0]), "{format:?}");
}

/// A server in any mood: its handshake, its messages, its pixels.
pub fn rfb_server(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.u8() % 4 {
        0 => shake_hands(&mut bytes),
        1 => {
            let format = format(&mut bytes);
            compare(bytes.rest(), format);
        }
        _ => {
            let format = format(&mut bytes);
            let mut stream = Vec::new();
            let mut rects: u16 = 0;
            while !bytes.is_empty() && rects < 64 {
                rectangle(&mut bytes, &mut stream);
                rects += 1;
            }
            let stream = [&[0, 0][..], &rects.to_be_bytes(), &stream].concat();
            compare(&stream, format);
        }
    }
}

fn shake_hands(bytes: &mut Bytes<'_>) {
    let highest = bytes.of(&[Version::V3_3, Version::V3_7, Version::V3_8]);
    let step = usize::from(bytes.u8()) % 64 + 1;
    let stream = bytes.rest();
    let shake = |step: usize| {
        let mut handshake = ClientHandshake::new(highest, true);
        let (mut left, mut out) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            left.extend_from_slice(piece);
            let mut input = &left[..];
            match handshake.advance(&mut input, &mut out) {
                Ok(None) => left = input.to_vec(),
                done => return (done, out),
            }
            assert!(left.len() < HANDSHAKE_MAX, "{} bytes are left", left.len());
        }
        (Ok(None), out)
    };
    assert_eq!(shake(step), shake(stream.len().max(1)));
}

fn format(bytes: &mut Bytes<'_>) -> PixelFormat {
    let channel = |bytes: &mut Bytes<'_>| Channel {
        max: bytes.of(&[0, 1, 3, 7, 31, 63, 255, 1023]),
        shift: bytes.u8() % 32,
    };
    let mut asked = [0; 3].map(|_| channel(bytes));
    let (bits, depth) = (bytes.of(&[8, 16, 32]), bytes.of(&[8, 24, 32]));
    let big_endian = bytes.u8() & 1 != 0;
    if bytes.u8() & 1 == 0 {
        asked = PixelFormat::XRGB8888.channels();
    }
    PixelFormat::true_colour(bits, depth, big_endian, asked).unwrap_or(PixelFormat::XRGB8888)
}

/// A rectangle whose zlib streams are sound, and what is in them is anything.
fn rectangle(bytes: &mut Bytes<'_>, stream: &mut Vec<u8>) {
    let encoding = bytes.of(&[
        Encoding::RAW,
        Encoding::COPY_RECT,
        Encoding::ZRLE,
        Encoding::ZRLE,
        Encoding::TIGHT,
        Encoding::TIGHT,
        Encoding::CURSOR,
        Encoding::CURSOR_WITH_ALPHA,
        Encoding::DESKTOP_SIZE,
        Encoding::EXTENDED_DESKTOP_SIZE,
        Encoding::DESKTOP_NAME,
        Encoding::QEMU_LED_STATE,
        Encoding::VMWARE_LED_STATE,
    ]);
    let [x, y, width, height] = [0; 4].map(|_| u16::from(bytes.u8()) % 80);
    for value in [x, y, width, height] {
        stream.extend_from_slice(&value.to_be_bytes());
    }
    stream.extend_from_slice(&encoding.0.to_be_bytes());
    match encoding {
        Encoding::ZRLE => {
            let data = zlib(bytes.some(4096));
            let len = u32::try_from(data.len()).unwrap_or(0);
            stream.extend_from_slice(&len.to_be_bytes());
            stream.extend_from_slice(&data);
        }
        Encoding::TIGHT => {
            let control = bytes.u8();
            stream.push(control);
            stream.extend_from_slice(bytes.some(800));
            if bytes.u8() & 3 == 0 {
                return;
            }
            let data = zlib(bytes.some(4096));
            let [high, low] = u16::try_from(data.len() & 0x3fff)
                .unwrap_or(0)
                .to_be_bytes();
            stream.extend_from_slice(&[low & 0x7f | 0x80, high << 1 | low >> 7]);
            stream.extend_from_slice(&data);
        }
        _ => stream.extend_from_slice(bytes.some(1024)),
    }
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("a vector takes all");
    encoder.flush().expect("a vector takes all");
    encoder.get_ref().clone()
}

/// What a viewer sees of a server's stream: the picture after the last whole message, and the other messages and
/// rectangles. A stream of zlib that breaks may have drawn more or less of its rectangle.
#[derive(PartialEq)]
struct Seen {
    frame: Frame,
    said: Vec<String>,
}

/// Reads one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = to.len().min(1);
        self.0.read(&mut to[..len])
    }
}

/// The same bytes mean the same however they arrive.
fn compare(stream: &[u8], format: PixelFormat) {
    let whole = look(&mut &*stream, format);
    let trickled = look(&mut Trickle(stream), format);
    assert_eq!(whole.said, trickled.said);
    assert!(whole == trickled, "the pictures differ");
}

fn look(reader: &mut impl Read, format: PixelFormat) -> Seen {
    let mut seen = Seen {
        frame: Frame::new(100, 70).expect("a small frame"),
        said: Vec::new(),
    };
    let mut frame = seen.frame.clone();
    let mut decoder = Decoder::new(format);
    while message(reader, &mut decoder, &mut frame, &mut seen.said).is_ok() {
        seen.frame.clone_from(&frame);
    }
    seen
}

fn message(
    reader: &mut impl Read,
    decoder: &mut Decoder,
    frame: &mut Frame,
    said: &mut Vec<String>,
) -> Result<(), ServerMessageError> {
    let message = ServerMessage::read(reader)?;
    if let ServerMessage::Fence(fence) = &message {
        assert!(fence.payload().len() <= Fence::PAYLOAD_MAX);
    }
    let ServerMessage::FramebufferUpdate(count) = message else {
        said.push(format!("{message:?}"));
        return Ok(());
    };
    for _ in 0..count {
        let (rect, encoding) = read_rect_header(reader)?;
        if let Some(pseudo) = PseudoRect::read(reader, rect, encoding, decoder.format())? {
            said.push(format!("{pseudo:?}"));
            if pseudo == PseudoRect::LastRect {
                return Ok(());
            }
            continue;
        }
        let fits = rect.fits(frame.width(), frame.height());
        let before = (!fits).then(|| frame.clone());
        let drawn = decoder.rect(reader, rect, encoding, frame);
        if let Some(before) = before {
            assert!(drawn.is_err() && before == *frame, "{rect:?} does not fit");
        }
        drawn?;
    }
    Ok(())
}
