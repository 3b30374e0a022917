// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A viewer of our own, for what others cannot be asked to do.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rfb::client::{Client, ClientError};
use rfb::{Encoding, Frame};

use crate::image::Image;
use crate::typing::strokes;

const LEFT_BUTTON: u16 = 1;
/// Shift's scancode and keysym.
const SHIFT: (u32, u32) = (42, 0xffe1);
const RETURN: u32 = 0xff0d;

/// What it takes: exact pixels, and all that tells how the guest's screen is.
const ENCODINGS: [Encoding; 6] = [
    Encoding::ZRLE,
    Encoding::COPY_RECT,
    Encoding::EXTENDED_DESKTOP_SIZE,
    Encoding::DESKTOP_SIZE,
    Encoding::QEMU_EXTENDED_KEY_EVENT,
    Encoding::RAW,
];

/// A connection to an RFB server.
#[derive(Debug)]
pub struct RfbViewer {
    client: Client<UnixStream>,
}

impl RfbViewer {
    /// Connects to a socket.
    ///
    /// # Errors
    ///
    /// If nobody serves there; every later call waits at most `limit`, too.
    pub fn connect(socket: &Path, limit: Duration) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        let mut client = Client::connect(stream, limit)?;
        client.set_encodings(&ENCODINGS)?;
        Ok(Self { client })
    }

    /// The connection itself.
    pub fn client(&mut self) -> &mut Client<UnixStream> {
        &mut self.client
    }

    /// The whole screen as it is now.
    ///
    /// # Errors
    ///
    /// If the server does not send it.
    pub fn picture(&mut self) -> anyhow::Result<Image> {
        self.client.refresh()?;
        Ok(image(self.client.frame()))
    }

    /// Waits until the screen is `expected`, by what the server says has changed.
    ///
    /// # Errors
    ///
    /// If it is not in time.
    pub fn wait_picture(&mut self, expected: &Image) -> anyhow::Result<()> {
        self.client.refresh()?;
        let is_there = |client: &Client<UnixStream>| image(client.frame()) == *expected;
        match self.client.wait_until(is_there) {
            Ok(()) => Ok(()),
            Err(ClientError::Timeout(limit)) => {
                let difference = image(self.client.frame()).difference(expected);
                bail!(
                    "after {limit:?}: {}",
                    difference.unwrap_or_else(|| "right, but too late".to_owned())
                )
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Types, by scancode and keysym at once as a viewer with a keyboard does.
    ///
    /// # Errors
    ///
    /// If the connection is closed, or a character is on no key of a US keyboard.
    pub fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        for character in text.chars() {
            let (code, _, is_shifted) = strokes(character)
                .with_context(|| format!("no key of a US keyboard writes {character:?}"))?;
            let keysym = if character == '\n' {
                RETURN
            } else {
                u32::from(character)
            };
            if is_shifted {
                self.client.extended_key(SHIFT.1, SHIFT.0, true)?;
            }
            for is_down in [true, false] {
                // All of these keys have the same number as scancode.
                self.client.extended_key(keysym, code.into(), is_down)?;
            }
            if is_shifted {
                self.client.extended_key(SHIFT.1, SHIFT.0, false)?;
            }
        }
        Ok(())
    }

    /// Clicks at a pixel.
    ///
    /// # Errors
    ///
    /// If the connection is closed.
    pub fn click(&mut self, (x, y): (u32, u32)) -> anyhow::Result<()> {
        let (x, y) = (u16::try_from(x)?, u16::try_from(y)?);
        for buttons in [0, LEFT_BUTTON, 0] {
            self.client.pointer(x, y, buttons)?;
        }
        Ok(())
    }
}

/// A viewer's framebuffer as a picture.
fn image(frame: &Frame) -> Image {
    let pixels = frame
        .bytes()
        .chunks_exact(4)
        .filter_map(<[u8]>::first_chunk)
        .map(|&[blue, green, red, _]| u32::from_be_bytes([0, red, green, blue]));
    Image {
        width: frame.width().into(),
        height: frame.height().into(),
        pixels: pixels.collect(),
    }
}
