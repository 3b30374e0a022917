//! The viewers, on QEMU's own VNC server. A failure here is not our console's fault.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use harness::typing::{MANY, expect_click, expect_text};
use harness::viewers::{Encoding, NoVnc, TigerVnc, Unpacked, Vncdotool, XServer, gvnccapture};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
const KEYBOARD: &str = "QEMU Virtio Keyboard";
const TABLET: &str = "QEMU Virtio Tablet";
const SIZE: (u32, u32) = (800, 600);

/// A guest on QEMU's devices, and QEMU's VNC server.
struct Machine {
    vm: Vm,
    socket: PathBuf,
    _folder: TempDir,
}

impl Machine {
    fn boot() -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("vnc.sock");
        let words = ["-vnc".to_owned(), format!("unix:{}", socket.display())];
        let vm = Vm::builder(&artifacts)
            .device("virtio-gpu-pci,id=gpu")
            .device("virtio-keyboard-pci")
            .device("virtio-tablet-pci")
            .arguments(&words)
            .boot()?;
        Ok(Self {
            vm,
            socket,
            _folder: folder,
        })
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn gets_text(
        &mut self,
        text: &str,
        type_text: impl FnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let listening = self.vm.listen(MANY, KEYBOARD)?;
        type_text(text)?;
        expect_text(&listening, text, SOON)
    }

    fn gets_click(
        &mut self,
        mut click: impl FnMut((u32, u32)) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let listening = self.vm.listen(MANY, TABLET)?;
        for position in [(37, 41), (611, 305)] {
            click(position)?;
            expect_click(&listening, position, SIZE, SOON)?;
        }
        Ok(())
    }
}

#[test]
fn every_viewer_shows_the_guest_and_types() -> anyhow::Result<()> {
    let viewers = Unpacked::obtain()?;
    let mut machine = Machine::boot()?;
    let (width, height) = SIZE;
    let mut card = Image::test_card(width, height);
    machine.vm.command(&format!("testcard {width}x{height}"))?;
    machine.vm.wait_screen(&card, SOON)?;
    let begin = Instant::now();
    let tell = |what: &str| eprintln!("[{:.2} s] {what}", begin.elapsed().as_secs_f64());

    let socket = machine.socket().to_owned();
    let picture = gvnccapture(&viewers, &socket)?;
    assert_eq!(picture.difference(&card), None, "gvnccapture");
    tell("gvnccapture");

    let server = XServer::start()?;
    tell("Xvfb");
    for (encoding, y) in Encoding::ALL.into_iter().zip([10, 50, 90]) {
        let viewer = TigerVnc::start(&server, &socket, encoding, SOON)?;
        viewer.wait_picture(&card, SOON)?;
        machine.vm.command(&format!("patch 10 {y} 300 20 12ab34"))?;
        card.fill(10, y, 300, 20, 0x12_ab_34);
        viewer.wait_picture(&card, SOON)?;
        machine
            .gets_text("Hello, World 42!", |text| viewer.type_text(text))
            .with_context(|| viewer.said())?;
        machine.gets_click(|position| viewer.click(position))?;
        tell(&format!("TigerVNC {encoding:?}"));
    }

    let client = Vncdotool::new(&viewers, &socket)?;
    assert_eq!(client.capture()?.difference(&card), None, "vncdotool");
    tell("vncdotool capture");
    machine.gets_text("python 3", |text| client.type_text(text))?;
    machine.gets_click(|position| client.click(position))?;
    tell("vncdotool");

    let mut page = NoVnc::open(&viewers, &socket, SOON)?;
    tell("noVNC open");
    page.wait_picture(&card, SOON)?;
    tell("noVNC picture");
    machine.gets_click(|position| page.click(position))?;
    machine.gets_text("Browser/1.0 {ok}", |text| page.type_text(text))?;
    tell("noVNC");
    Ok(())
}
