// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The RFB protocol, by which VNC viewers and servers talk: [RFC 6143], and the extensions of the community wiki's
//! [rfbproto.rst].
//!
//! A server drives [`ServerHandshake`], then [`ClientMessageParser`], over the bytes that it read; it answers
//! with what [`server_message`] and an [`Encoder`] append to a buffer. Nothing here does I/O but [`client`].
//! Framebuffers have 32-bit pixels, bytes B, G, R, X ([`FrameView`]). Both sides may send anything: no input panics, and
//! memory is bounded.
//!
//! # Why by hand
//! Only deflate is another crate's (`flate2` on `zlib-rs`). Those that know RFB were read and not taken:
//!
//! - `rfb-encodings` 0.1.7 needs Rust 1.90, copies and allocates for each tile and rectangle, and has no
//!   decoders. On the same zlib its ZRLE takes two to three times as long (`examples/encode.rs`), and its lossless
//!   Tight made a photo larger than Raw.
//! - `rustvncserver` 2.2 is a whole server on tokio with these encoders: it listens on a TCP port, and keeps a
//!   framebuffer of its own.
//! - `vnc-rs` 0.6 is a client on tokio.
//!
//! [RFC 6143]: https://www.rfc-editor.org/rfc/rfc6143
//! [rfbproto.rst]: https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst

pub mod client;
mod client_message;
mod cursor;
mod decoder;
mod encoder;
mod encoding;
mod error;
mod fence;
mod frame;
mod geometry;
mod handshake;
mod input;
mod pixel_format;
mod read;
pub mod server_message;
mod translate;

pub use client_message::{
    ClientMessage, ClientMessageError, ClientMessageParser, write_cut_text, write_set_encodings,
};
pub use cursor::Cursor;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use encoding::{Encoding, EncodingSet};
pub use error::ServerMessageError;
pub use fence::Fence;
pub use frame::{Frame, FrameView};
pub use geometry::{Rect, Screen};
pub use handshake::{
    ClientHandshake, Established, HandshakeError, ServerHandshake, ServerInit, Version,
};
pub use pixel_format::{Channel, PixelFormat, PixelFormatError};
