// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Scanouts that are sent as dmabufs: memfds here, for nobody looks into them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::gpu::renderer::Fence;
use crate::gpu::resource::{Dmabuf, MODIFIER_INVALID, MODIFIER_LINEAR};

pub(super) const DMABUF_SCANOUT: u32 = 9;
const DMABUF_UPDATE: u32 = 10;
pub(super) const DMABUF_SCANOUT2: u32 = 12;
const TILED: u64 = 0x0100_0000_0000_0002;
const XR24: u32 = u32::from_le_bytes(*b"XR24");
pub(super) const ALL: Rect = Rect::sized(40, 30);
/// All of resource 7.
pub(super) const READBACK: Readback = Readback {
    resource: 7,
    rect: ALL,
};

fn dmabuf(modifier: u64) -> Dmabuf {
    Dmabuf {
        fd: memfd_create("dmabuf", MemfdFlags::CLOEXEC).unwrap(),
        size: Size::new(40, 30),
        stride: 256,
        fourcc: XR24,
        modifier,
        y_0_top: true,
    }
}

/// A source of `resource` with a dmabuf of this modifier.
pub(super) fn source(resource: u32, modifier: u64) -> ScanoutSource {
    let image = SharedImage::new(Image::new(Size::new(40, 30), &Budget::new(1 << 20)).unwrap());
    ScanoutSource {
        resource,
        dmabuf: Some(Arc::new(dmabuf(modifier))),
        ..ScanoutSource::of_pixels(&image, ALL)
    }
}

/// A front-end after the negotiation, its display, and scanouts.
pub(super) struct Scene {
    pub(super) front_end: FrontEnd,
    pub(super) display: Display,
    pub(super) scanouts: Scanouts,
}

impl Scene {
    pub(super) fn new(features: u64) -> Self {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let now = Instant::now();
        let mut display = Display::new(DisplayRole::Vmm { has_dmabufs: true });
        display.attach(ours, now);
        let mut front_end = FrontEnd { socket, now };
        display.send(None, Instant::now()).unwrap();
        front_end.message();
        front_end.reply(GET_PROTOCOL_FEATURES, &features.to_ne_bytes());
        let mut scene = Self {
            front_end,
            display,
            scanouts: Scanouts::with_vmm(),
        };
        scene.receive();
        scene.send();
        let accepted = (features & 3).to_ne_bytes().to_vec();
        assert_eq!(scene.message(), (SET_PROTOCOL_FEATURES, accepted));
        scene
    }

    pub(super) fn receive(&mut self) {
        self.display.receive(self.front_end.now).unwrap();
        self.set_support(self.display.dmabuf_support());
    }

    pub(super) fn set_support(&mut self, support: DmabufSupport) {
        self.scanouts.set_dmabuf_support(DisplayId::VMM, support);
    }

    pub(super) fn send(&mut self) {
        self.display
            .send(
                self.scanouts.pending_updates(DisplayId::VMM),
                Instant::now(),
            )
            .unwrap();
    }

    pub(super) fn message(&mut self) -> (u32, Vec<u8>) {
        self.front_end.message()
    }

    /// The next message, and the descriptor that came with it.
    pub(super) fn message_with_fd(&mut self) -> (u32, Vec<u8>, Option<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        recvmsg(
            &self.front_end.socket,
            &mut into,
            &mut with,
            RecvFlags::PEEK,
        )
        .unwrap();
        let fds = with.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => vec![],
        });
        let mut fds: Vec<OwnedFd> = fds.collect();
        assert!(fds.len() <= 1);
        let (kind, payload) = self.front_end.message();
        (kind, payload, fds.pop())
    }

    pub(super) fn flush(&mut self, image: &SharedImage, rect: Rect) {
        self.scanouts.flush(image, &rect);
        assert!(self.scanouts.wants_fence());
        self.scanouts.await_drawing(None);
        self.scanouts.drawing_done();
        self.send();
    }

    pub(super) fn answer(&mut self) {
        self.front_end.reply(DMABUF_UPDATE, &[]);
        self.receive();
        self.send();
    }

    pub(super) fn assert_update(&mut self, scanout: u32, rect: Rect) {
        let (kind, payload) = self.message();
        let expected = vec![scanout, rect.x, rect.y, rect.width, rect.height];
        assert_eq!((kind, words(&payload)), (DMABUF_UPDATE, expected));
    }

    pub(super) fn assert_silence(&self) {
        assert!(self.front_end.nothing_arrived());
    }
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

#[test]
fn dmabuf_is_sent_with_its_size_and_modifier() {
    // F_DMABUF2 or not, and how the pixels lie: by which message, or by pixels.
    for (features, modifier, expected) in [
        (3, MODIFIER_LINEAR, DMABUF_SCANOUT2),
        (2, TILED, DMABUF_SCANOUT2),
        (2, MODIFIER_INVALID, DMABUF_SCANOUT),
        (1, MODIFIER_LINEAR, DMABUF_SCANOUT),
        (0, MODIFIER_LINEAR, DMABUF_SCANOUT),
        (1, TILED, SCANOUT),
        (0, MODIFIER_INVALID, SCANOUT),
    ] {
        let mut scene = Scene::new(features);
        let source = source(1, modifier);
        let (image, sent) = (source.image(), source.dmabuf.clone().unwrap());
        scene.scanouts.show(5, source);
        if expected == SCANOUT {
            scene.scanouts.flush(&image, &ALL);
            scene.send();
            let (kind, payload, fd) = scene.message_with_fd();
            assert_eq!((kind, words(&payload)), (SCANOUT, vec![5, 40, 30]));
            assert!(fd.is_none());
            assert_eq!(scene.message().0, UPDATE);
            continue;
        }
        scene.send();
        scene.assert_silence();
        scene.flush(&image, Rect::sized(1, 1));
        let (kind, payload, fd) = scene.message_with_fd();
        assert_eq!(kind, expected, "{features} {modifier:x}");
        let mut fields = vec![5, 0, 0, 40, 30, 40, 30, 256, 1, XR24];
        if kind == DMABUF_SCANOUT2 {
            fields.extend([modifier as u32, (modifier >> 32) as u32]);
        }
        assert_eq!(words(&payload), fields);
        assert_eq!(inode(&fd.unwrap()), inode(&sent.fd));
        // The first flush is of everything.
        scene.assert_update(5, ALL);
        scene.assert_silence();
    }
}

#[test]
fn damage_until_the_answer_is_the_next_update() {
    let mut scene = Scene::new(2);
    let sources = [source(1, MODIFIER_LINEAR), source(2, MODIFIER_LINEAR)];
    let images = [0, 1].map(|i: usize| sources[i].image());
    for (scanout, source) in (0..).zip(sources) {
        scene.scanouts.show(scanout, source);
    }
    scene.flush(&images[0], ALL);
    assert_eq!(scene.message().0, DMABUF_SCANOUT2);
    scene.assert_update(0, ALL);
    scene.flush(&images[1], ALL);
    for n in 0..1000 {
        scene.flush(
            &images[0],
            Rect {
                x: n % 9,
                y: 3,
                width: 2,
                height: 1,
            },
        );
    }
    // Nothing of any buffer, for the answer does not say of which it is. All else goes on.
    scene.assert_silence();
    let position = Position {
        x: 1,
        y: 2,
        visible: true,
    };
    scene.scanouts.move_cursor(0, position);
    scene.send();
    assert_eq!(scene.message().0, CURSOR_POS);
    let now = scene.front_end.now;
    assert!(scene.display.ask(DisplayQuery::DisplayInfo, now));
    scene.send();
    assert_eq!(scene.message().0, GET_DISPLAY_INFO);
    scene.front_end.reply_modes(DisplayInfo::default());
    scene.receive();
    assert!(matches!(
        scene.display.take_reply(),
        Some(DisplayReply::DisplayInfo(_))
    ));
    scene.send();
    scene.assert_silence();

    scene.answer();
    assert_eq!(scene.message().0, DMABUF_SCANOUT2);
    scene.assert_update(1, ALL);
    scene.assert_silence();
    scene.answer();
    let around = Rect {
        x: 0,
        y: 3,
        width: 10,
        height: 1,
    };
    scene.assert_update(0, around);
    scene.answer();
    scene.assert_silence();
    assert_eq!(scene.display.deadline(), None);
    // An answer to nothing is no news.
    scene.answer();
    scene.assert_silence();
}

#[test]
fn flushed_dmabuf_waits_for_its_fence() {
    let mut scene = Scene::new(2);
    let source = source(1, MODIFIER_LINEAR);
    let image = source.image();
    scene.scanouts.show(0, source);
    scene.scanouts.flush(&image, &ALL);
    scene.scanouts.await_drawing(Some(Fence(1)));
    scene.send();
    scene.assert_silence();
    // What is flushed after the fence needs one of its own.
    let corner = Rect::sized(4, 4);
    scene.scanouts.flush(&image, &corner);
    assert!(!scene.scanouts.wants_fence());
    scene.scanouts.drawing_done();
    scene.send();
    assert_eq!(scene.message().0, DMABUF_SCANOUT2);
    scene.assert_update(0, ALL);
    scene.answer();
    scene.assert_silence();
    assert!(scene.scanouts.wants_fence());
    scene.scanouts.await_drawing(Some(Fence(2)));
    assert_eq!(scene.scanouts.drawing_fence(), Some(Fence(2)));
    scene.scanouts.drawing_done();
    scene.send();
    scene.assert_update(0, corner);
}

#[test]
fn scanout_changes_between_dmabuf_pixels_and_nothing() {
    let mut scene = Scene::new(2);
    let by_buffer = || source(1, MODIFIER_LINEAR);
    let (_, image) = scanouts(40, 30);
    for end in 0..4 {
        let shown = by_buffer();
        let buffer = shown.image();
        scene.scanouts.show(0, shown);
        scene.flush(&buffer, ALL);
        assert_eq!(scene.message().0, DMABUF_SCANOUT2);
        scene.assert_update(0, ALL);
        scene.answer();
        match end {
            0 => scene
                .scanouts
                .show(0, ScanoutSource::of_pixels(&image, ALL)),
            1 => scene.scanouts.disable(0),
            2 => scene.scanouts.disable_showing(&buffer),
            _ => scene.scanouts.reset(),
        }
        scene.send();
        let (kind, payload, fd) = scene.message_with_fd();
        assert_eq!((kind, words(&payload)), (DMABUF_SCANOUT, vec![0; 10]));
        assert!(fd.is_none());
        if end == 0 {
            let (kind, payload) = scene.message();
            assert_eq!((kind, words(&payload)), (SCANOUT, vec![0, 40, 30]));
            scene.scanouts.flush(&image, &ALL);
            scene.send();
            assert_eq!(scene.message().0, UPDATE);
        }
        scene.assert_silence();
    }
}

#[test]
fn unsent_dmabuf_is_closed() {
    let mut scene = Scene::new(2);
    let mut watched = Vec::new();
    for _ in 0..100 {
        let source = source(1, MODIFIER_LINEAR);
        watched.push(Arc::downgrade(source.dmabuf.as_ref().unwrap()));
        scene.scanouts.show(0, source);
        scene.send();
    }
    scene.assert_silence();
    let open = |watched: &[std::sync::Weak<Dmabuf>]| {
        watched.iter().filter(|w| w.strong_count() != 0).count()
    };
    assert_eq!(open(&watched), 1);
    // And one that is passed on is closed once it is shown no longer, answered or not.
    let source = source(1, MODIFIER_LINEAR);
    let image = source.image();
    watched.push(Arc::downgrade(source.dmabuf.as_ref().unwrap()));
    scene.scanouts.show(0, source);
    scene.flush(&image, ALL);
    scene.scanouts.disable(0);
    scene.send();
    assert_eq!(open(&watched), 0);
}

#[test]
fn failed_readback_is_tried_again_with_the_next_flush() {
    let mut scene = Scene::new(2);
    let source = source(7, MODIFIER_LINEAR);
    let image = source.image();
    scene.scanouts.show(0, source);
    scene.flush(&image, ALL);
    scene.set_support(DmabufSupport::None);
    scene.scanouts.readback_done(&READBACK, false);
    assert_eq!(scene.scanouts.next_readback(), None);
    assert_eq!(
        scene
            .scanouts
            .region_to_flush(&image, &Rect::sized(1, 1))
            .rects(),
        [ALL]
    );
}

#[test]
fn new_display_is_passed_the_dmabufs_again() {
    let mut scene = Scene::new(2);
    let source = source(1, MODIFIER_LINEAR);
    let image = source.image();
    let sent = source.dmabuf.clone().unwrap();
    scene.scanouts.show(0, source);
    scene.flush(&image, ALL);
    // The old one never answers.
    let (socket, ours) = UnixStream::pair().unwrap();
    let now = Instant::now();
    scene.display.attach(ours, now);
    scene.scanouts.attach_display(DisplayId::VMM);
    scene.front_end = FrontEnd { socket, now };
    scene.send();
    assert_eq!(scene.message().0, GET_PROTOCOL_FEATURES);
    scene.assert_silence();
    scene.front_end.reply(GET_PROTOCOL_FEATURES, &[0; 8]);
    scene.receive();
    scene.send();
    assert_eq!(scene.message().0, SET_PROTOCOL_FEATURES);
    let (kind, _, fd) = scene.message_with_fd();
    assert_eq!(kind, DMABUF_SCANOUT);
    assert_eq!(inode(&fd.unwrap()), inode(&sent.fd));
    scene.assert_update(0, ALL);
}

#[test]
fn wrong_answer_to_an_update_disconnects_the_display() {
    for (flags, payload) in [(0, &[][..]), (REPLY, &[0; 4])] {
        let mut scene = Scene::new(2);
        let bytes = FrontEnd::raw(DMABUF_UPDATE, flags, payload);
        scene.front_end.socket.write_all(&bytes).unwrap();
        let result = scene.display.receive(scene.front_end.now);
        assert!(matches!(result, Err(DisplayError::Protocol { .. })));
        assert!(scene.display.interest().is_none());
    }
}
