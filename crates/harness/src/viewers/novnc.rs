// SPDX-License-Identifier: Apache-2.0 OR MIT
//! noVNC in a browser, with websockify in between.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Unpacked;
use super::browser::Browser;
use crate::guarded::Guarded;
use crate::image::Image;
use crate::systemd::Sandbox;
use crate::typing::strokes;

/// The page, with room for a screen of 1920x1080.
const PAGE: (u32, u32) = (2048, 1200);
/// Of its small page, and of that for users.
const CANVAS: &str = "document.querySelector('#screen canvas, #noVNC_container canvas')";
/// What either says of the connection; the large one once nothing lies over the screen any more.
const STATUS: &str = "(() => {
    const page = document.documentElement, canvas = document.querySelector('#noVNC_container canvas');
    if (!page?.classList.contains('noVNC_connected') || !canvas)
        return document.querySelector('#status, #noVNC_status')?.textContent;
    const r = canvas.getBoundingClientRect();
    const top = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
    return top === canvas ? 'Connected' : 'covered by ' + top?.id;
})()";
/// The bit of Shift in the browser's events.
const SHIFT: u32 = 8;

/// A page that shows a console; dropping it ends browser and websockify.
#[derive(Debug)]
pub struct NoVnc {
    browser: Browser,
    /// If it is ours.
    websockify: Option<Websockify>,
}

impl NoVnc {
    /// Opens noVNC's page with the console behind `socket` and waits until it is connected.
    ///
    /// # Errors
    ///
    /// If it is not within `timeout`.
    pub fn open(viewers: &Unpacked, socket: &Path, timeout: Duration) -> anyhow::Result<Self> {
        let websockify = Websockify::start(viewers, socket, timeout)?;
        let url = format!("http://127.0.0.1:{}/vnc_lite.html", websockify.port);
        let browser = Browser::open(viewers, None, &url, PAGE)?;
        Self::wait_connected(browser, Some(websockify), timeout)
    }

    /// Opens a page that somebody serves in the network of a private systemd, and waits until it is connected.
    ///
    /// # Errors
    ///
    /// If it is not within `timeout`.
    pub fn open_url(
        viewers: &Unpacked,
        network: &Sandbox,
        url: &str,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let browser = Browser::open(viewers, Some(network), url, PAGE)?;
        Self::wait_connected(browser, None, timeout)
    }

    fn wait_connected(
        browser: Browser,
        websockify: Option<Websockify>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut this = Self {
            browser,
            websockify,
        };
        let deadline = Instant::now() + timeout;
        loop {
            let status = this.browser.evaluate(STATUS)?;
            let status = status.as_str().unwrap_or_default();
            if status.starts_with("Connected") {
                return Ok(this);
            }
            if Instant::now() > deadline {
                let said = this.websockify.as_ref().map(Websockify::said);
                bail!("noVNC says {status:?}: {}", said.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What its canvas shows.
    ///
    /// # Errors
    ///
    /// If the page has none.
    pub fn picture(&mut self) -> anyhow::Result<Image> {
        let data = format!("{CANVAS}.toDataURL('image/png')");
        let url = self.browser.evaluate(&data)?;
        let url = url.as_str().context("no picture")?;
        let (_, data) = url.split_once(";base64,").context("not in base64")?;
        Image::from_png(&from_base64(data).context("not in base64")?)
    }

    /// Waits until the canvas shows `expected`.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_picture(&mut self, expected: &Image, timeout: Duration) -> anyhow::Result<()> {
        super::wait_picture(expected, timeout, || self.picture()).context("noVNC")
    }

    /// Types on the browser's keyboard.
    ///
    /// # Errors
    ///
    /// If the browser fails, or a character is on no key of a US keyboard.
    pub fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        for character in text.chars() {
            let (_, code, is_shifted) = strokes(character)
                .with_context(|| format!("no key of a US keyboard writes {character:?}"))?;
            let modifiers = if is_shifted { SHIFT } else { 0 };
            if is_shifted {
                self.key("rawKeyDown", "Shift", "ShiftLeft", SHIFT)?;
            }
            let key = character.to_string();
            self.key("keyDown", &key, code, modifiers)?;
            self.key("keyUp", &key, code, modifiers)?;
            if is_shifted {
                self.key("keyUp", "Shift", "ShiftLeft", 0)?;
            }
        }
        Ok(())
    }

    fn key(&mut self, kind: &str, key: &str, code: &str, modifiers: u32) -> anyhow::Result<()> {
        let mut event = json!({"type": kind, "key": key, "code": code, "modifiers": modifiers});
        if kind == "keyDown" {
            event["text"] = json!(key);
        }
        self.browser.call("Input.dispatchKeyEvent", event).map(drop)
    }

    /// Clicks with the browser's pointer, at a pixel of the guest's screen. It also makes the page listen to
    /// the keyboard.
    ///
    /// # Errors
    ///
    /// If the browser fails.
    pub fn click(&mut self, (x, y): (u32, u32)) -> anyhow::Result<()> {
        // Its page may scale it.
        let place = format!(
            "(() => {{ const c = {CANVAS}, r = c.getBoundingClientRect(); \
             return [r.x, r.y, r.width / c.width, r.height / c.height]; }})()"
        );
        let place = self.browser.evaluate(&place)?;
        let at = |index: usize| place[index].as_f64().context("the canvas is nowhere");
        // The middle of the pixel: the corner may lie between two of the page's pixels.
        let x = at(0)? + (f64::from(x) + 0.5) * at(2)?;
        let y = at(1)? + (f64::from(y) + 0.5) * at(3)?;
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let mut event = json!({"type": kind, "x": x, "y": y});
            if kind != "mouseMoved" {
                event["button"] = json!("left");
                event["buttons"] = Value::from(u32::from(kind == "mousePressed"));
                event["clickCount"] = json!(1);
            }
            self.browser.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }
}

/// Serves noVNC's files, and passes its WebSocket on.
#[derive(Debug)]
struct Websockify {
    port: u16,
    folder: TempDir,
    _server: Guarded,
}

impl Websockify {
    fn start(viewers: &Unpacked, socket: &Path, timeout: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder for websockify")?;
        let log = File::create(folder.path().join("log")).context("cannot create a log")?;
        // It takes no socket that listens already: this port was free a moment ago.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = viewers.python(None)?;
        command
            .arg(viewers.path("usr/bin/websockify"))
            .arg("--web")
            .arg(viewers.path("usr/share/novnc"))
            .arg(format!("--unix-target={}", socket.display()))
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server = Guarded::spawn(&mut command)?;
        let mut this = Self {
            port,
            folder,
            _server: server,
        };
        let deadline = Instant::now() + timeout;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = this._server.try_wait()? {
                bail!("websockify ended: {status}: {}", this.said());
            }
            if Instant::now() > deadline {
                bail!("websockify does not listen: {}", this.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(this)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// Decodes base64 with padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut value = 0;
        for &byte in group {
            value = value << 6 | digit(byte)?;
        }
        value <<= 6 * (4 - group.len());
        let [_, triple @ ..] = value.to_be_bytes();
        bytes.extend_from_slice(triple.get(..group.len() - 1)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("+/+/AA==", &[0xfb, 0xff, 0xbf, 0]),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(from_base64("Zm 9"), None);
    }
}
