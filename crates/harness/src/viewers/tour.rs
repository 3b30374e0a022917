// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that is seen and used through every viewer, one after the other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Encoding, NoVnc, RfbViewer, TigerVnc, Unpacked, Vncdotool, XServer, gvnccapture};
use crate::console::Running;
use crate::image::Image;
use crate::qemu::Vm;
use crate::typing::{LEFT_BUTTON, MANY, expect_click, expect_text};

/// For what takes no time, but for a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What is typed in each viewer: both cases, and characters with Shift and without.
pub const TEXT: &str = "Hello, World 42!";
/// Characters that are typed without waiting. Each is eight events at most, with Shift, and evdev keeps 64 for a reader.
const MOST_AT_ONCE: usize = 7;

/// A guest whose console is looked at.
#[derive(Debug)]
pub struct Tour<'a> {
    /// The guest; its GPU has the id `gpu`.
    pub vm: &'a mut Vm,
    /// Where the console speaks RFB.
    pub socket: PathBuf,
    /// The names of its keyboard and its tablet, as the guest sees them.
    pub keyboard: String,
    /// See `keyboard`.
    pub tablet: String,
    /// What is typed in a viewer that sends keysyms alone, and no Shift.
    pub by_keysym: &'static str,
    /// Whether QEMU can say what the GPU shows.
    pub has_screendump: bool,
    keys: Option<Running>,
    clicks: Option<Running>,
}

impl<'a> Tour<'a> {
    /// Of a guest that QEMU shows, and whose keyboard and tablet are those with a name that fits.
    ///
    /// # Errors
    ///
    /// If the guest has no such devices.
    pub fn of(
        vm: &'a mut Vm,
        socket: &Path,
        is_meant: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Self> {
        let list = vm.command("evdev-list")?;
        let mut named = String::new();
        let (mut keyboard, mut tablet) = (None, None);
        for line in &list {
            match line.split_once(' ') {
                Some(("name", name)) => name.clone_into(&mut named),
                Some(("led", _)) if is_meant(&named) => keyboard = Some(named.clone()),
                Some(("abs", _)) if is_meant(&named) => tablet = Some(named.clone()),
                _ => {}
            }
        }
        let missing = || format!("the guest has other devices: {list:?}");
        Ok(Self {
            keyboard: keyboard.with_context(missing)?,
            tablet: tablet.with_context(missing)?,
            vm,
            socket: socket.to_owned(),
            by_keysym: TEXT,
            has_screendump: true,
            keys: None,
            clicks: None,
        })
    }

    /// Has the guest draw a test card and change it, looks at it in every viewer, types and clicks.
    ///
    /// # Errors
    ///
    /// If a pixel, a key or a position is wrong, or something does not come in time.
    pub fn all(&mut self) -> anyhow::Result<()> {
        let viewers = Unpacked::obtain()?;
        let (width, height) = (800, 600);
        let card = self.draw(width, height)?;
        let begin = Instant::now();
        let tell = |what: &str| eprintln!("[{:.2} s] {what}", begin.elapsed().as_secs_f64());

        let socket = self.socket.clone();
        let picture = gvnccapture(&viewers, &socket)?;
        same(&picture, &card).context("gvnccapture")?;
        tell("gvnccapture");

        let card = self.tigervnc(card)?;
        tell("TigerVNC, in three encodings");

        let client = Vncdotool::new(&viewers, &socket)?;
        same(&client.capture()?, &card).context("vncdotool")?;
        self.gets_text(self.by_keysym, |text| client.type_text(text))
            .context("vncdotool")?;
        let size = (width, height);
        self.gets_clicks(size, |position| client.click(position))
            .context("vncdotool")?;
        tell("vncdotool");

        let mut page = NoVnc::open(&viewers, &socket, SOON)?;
        page.wait_picture(&card, SOON)?;
        // A click makes the page listen to the keyboard.
        self.gets_clicks(size, |position| page.click(position))
            .context("noVNC")?;
        self.gets_text(TEXT, |text| page.type_text(text))
            .context("noVNC")?;
        tell("noVNC in Chromium");
        Ok(())
    }

    /// Has the guest draw a test card of that size and waits until it is shown: by QEMU, or where that has no
    /// screendump, by a viewer of our own.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn draw(&mut self, width: u32, height: u32) -> anyhow::Result<Image> {
        let card = Image::test_card(width, height);
        self.vm.command(&format!("testcard {width}x{height}"))?;
        self.wait_shown(&card)?;
        Ok(card)
    }

    /// Waits until the GPU has what the guest drew.
    fn wait_shown(&mut self, picture: &Image) -> anyhow::Result<()> {
        if self.has_screendump {
            return self.vm.wait_screen(picture, SOON).map(drop);
        }
        RfbViewer::connect(&self.socket, SOON)?.wait_picture(picture)
    }

    /// Has the guest change a part of its screen, and waits as [`Self::draw`].
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn patch(
        &mut self,
        card: &mut Image,
        (x, y): (u32, u32),
        (width, height): (u32, u32),
        colour: u32,
    ) -> anyhow::Result<()> {
        let command = format!("patch {x} {y} {width} {height} {colour:06x}");
        self.vm.command(&command)?;
        card.fill(x, y, width, height, colour);
        self.wait_shown(card)
    }

    fn tigervnc(&mut self, mut card: Image) -> anyhow::Result<Image> {
        let server = XServer::start()?;
        let size = (card.width, card.height);
        for (encoding, y) in Encoding::ALL.into_iter().zip([10, 50, 90]) {
            let viewer = TigerVnc::start(&server, &self.socket, encoding, SOON)?;
            viewer.wait_picture(&card, SOON)?;
            self.patch(&mut card, (10, y), (300, 20), 0x12_ab_34)?;
            viewer.wait_picture(&card, SOON)?;
            let used = self.gets_text(TEXT, |text| viewer.type_text(text));
            used.and_then(|()| self.gets_clicks(size, |position| viewer.click(position)))
                .with_context(|| format!("TigerVNC, {encoding:?}: {}", viewer.said()))?;
        }
        Ok(card)
    }

    /// Looks at the screen, types and clicks by a viewer of our own.
    ///
    /// # Errors
    ///
    /// If anything is wrong.
    pub fn our_viewer(&mut self, viewer: &mut RfbViewer, card: &Image) -> anyhow::Result<()> {
        viewer.wait_picture(card)?;
        self.gets_text(TEXT, |text| viewer.type_text(text))?;
        self.gets_clicks((card.width, card.height), |position| viewer.click(position))
    }

    /// Has something press or release a key, and the guest get that.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn gets_key(
        &mut self,
        code: u16,
        is_down: bool,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let keys = listener(&mut self.keys, self.vm, &self.keyboard)?;
        act()?;
        keys.expect(&format!("key {code} {}", u8::from(is_down)), SOON)
    }

    /// Restarts the guest from inside and waits until it is up again.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        (self.keys, self.clicks) = (None, None);
        self.vm.reboot()
    }

    /// Has something type `text`, and the guest get it: by a few characters, whose events fit into the guest's kernel at once.
    fn gets_text(
        &mut self,
        text: &str,
        mut type_text: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let keys = listener(&mut self.keys, self.vm, &self.keyboard)?;
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(MOST_AT_ONCE) {
            let piece = String::from_iter(piece);
            type_text(&piece)?;
            expect_text(keys, &piece, SOON)?;
        }
        Ok(())
    }

    fn gets_clicks(
        &mut self,
        size: (u32, u32),
        mut click: impl FnMut((u32, u32)) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let clicks = listener(&mut self.clicks, self.vm, &self.tablet)?;
        // The first one tells nothing of an axis on which the pointer was there already.
        click((5, 5))?;
        clicks.expect(&format!("key {LEFT_BUTTON} 0"), SOON)?;
        for position in [(37, 41), (611, 305)] {
            click(position)?;
            expect_click(clicks, position, size, SOON)?;
        }
        Ok(())
    }
}

/// The guest's report of a device's events: begun once, as it cannot be ended.
fn listener<'l>(
    slot: &'l mut Option<Running>,
    vm: &mut Vm,
    device: &str,
) -> anyhow::Result<&'l Running> {
    match slot {
        Some(running) => Ok(running),
        None => Ok(slot.insert(vm.listen(MANY, device)?)),
    }
}

fn same(picture: &Image, expected: &Image) -> anyhow::Result<()> {
    let difference = picture.difference(expected);
    ensure!(difference.is_none(), "{}", difference.unwrap_or_default());
    Ok(())
}
