// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Answers to `DMABUF_UPDATE` that come late, or not at all.

use super::dmabufs::{ALL, DMABUF_SCANOUT, DMABUF_SCANOUT2, READBACK, Scene, source};
use super::*;
use crate::gpu::display::dmabuf_ack::MAX_LATE;
use crate::gpu::resource::MODIFIER_LINEAR;

/// A scene whose first scanout shows the buffer of resource 7, flushed, and its update not answered.
fn unanswered() -> (Scene, SharedImage) {
    let mut scene = Scene::new(3);
    let source = source(7, MODIFIER_LINEAR);
    let image = source.image();
    scene.scanouts.show(0, source);
    scene.flush(&image, ALL);
    assert_eq!(scene.message().0, DMABUF_SCANOUT2);
    scene.assert_update(0, ALL);
    (scene, image)
}

/// Lets the time for the answer run out; the scene is sent as pixels.
fn miss(scene: &mut Scene, expected: PixelFallback) {
    let expired = scene.display.expire(Instant::now() + ACK_LIMIT);
    assert_eq!(expired.dmabuf_update, Some(expected));
    assert_eq!(scene.display.dmabuf_support(), DmabufSupport::None);
    scene.set_support(DmabufSupport::None);
    scene.scanouts.readback_done(&READBACK, true);
    scene.send();
    assert_eq!(scene.message(), (DMABUF_SCANOUT, vec![0; 40]));
    assert_eq!(scene.message().0, SCANOUT);
    assert_eq!(scene.message().0, UPDATE);
    scene.assert_silence();
}

/// Ends the drawing of what was flushed: the whole buffer is sent again.
fn assert_passed_on_again(scene: &mut Scene) {
    assert!(scene.scanouts.wants_fence());
    scene.scanouts.await_drawing(None);
    scene.scanouts.drawing_done();
    scene.send();
    assert_eq!(scene.message().0, DMABUF_SCANOUT2);
    scene.assert_update(0, ALL);
    scene.assert_silence();
}

#[test]
fn front_end_that_does_not_answer_is_sent_pixels() {
    let (mut scene, image) = unanswered();
    let late = Instant::now() + ACK_LIMIT;
    assert_eq!(scene.display.expire(Instant::now()), Expired::default());
    // It does not delay a query.
    let now = scene.front_end.now;
    assert!(scene.display.ask(DisplayQuery::DisplayInfo, now));
    assert_eq!(scene.display.deadline(), Some(now + REPLY_LIMIT));
    scene.display.cancel_query();
    let expired = scene.display.expire(late);
    assert_eq!(expired.dmabuf_update, Some(PixelFallback::UntilAnswered));
    // Not even before the scanouts are told: a late answer would be taken for that of the next update.
    scene.flush(&image, ALL);
    assert_eq!(scene.message().0, GET_DISPLAY_INFO);
    scene.assert_silence();
    assert_eq!(scene.display.dmabuf_support(), DmabufSupport::None);
    scene.set_support(DmabufSupport::None);
    scene.send();
    assert_eq!(scene.message(), (DMABUF_SCANOUT, vec![0; 40]));
    assert_eq!(scene.message().0, SCANOUT);
    // The pixels are to be read first.
    scene.assert_silence();
    assert_eq!(scene.scanouts.next_readback(), Some(READBACK));
    scene.scanouts.readback_done(&READBACK, true);
    scene.send();
    let (kind, payload) = scene.message();
    assert_eq!(
        (kind, &words(&payload)[..5]),
        (UPDATE, &[0, 0, 0, 40, 30][..])
    );
    // Nobody waits for it any more, and a new display is another one.
    assert_eq!(scene.display.expire(late).dmabuf_update, None);
    assert_eq!(scene.display.deadline(), None);
    let (_socket, ours) = UnixStream::pair().unwrap();
    scene.display.attach(ours, now);
    assert_eq!(scene.display.dmabuf_support(), DmabufSupport::Modifiers);
}

#[test]
fn late_answer_brings_dmabufs_back() {
    let (mut scene, image) = unanswered();
    miss(&mut scene, PixelFallback::UntilAnswered);
    scene.answer();
    assert_eq!(scene.display.dmabuf_support(), DmabufSupport::Modifiers);
    assert_passed_on_again(&mut scene);
    // It counts for the update before: this one is still to be answered.
    scene.flush(&image, ALL);
    scene.assert_silence();
    scene.answer();
    scene.assert_update(0, ALL);
}

#[test]
fn front_end_that_is_always_late_is_sent_pixels_for_good() {
    let (mut scene, _) = unanswered();
    for _ in 1..MAX_LATE {
        miss(&mut scene, PixelFallback::UntilAnswered);
        scene.answer();
        assert_passed_on_again(&mut scene);
    }
    miss(&mut scene, PixelFallback::Permanent);
    scene.answer();
    assert_eq!(scene.display.dmabuf_support(), DmabufSupport::None);
    scene.assert_silence();
}

#[test]
fn answer_in_time_makes_up_for_late_ones() {
    let (mut scene, image) = unanswered();
    for _ in 0..2 * MAX_LATE {
        miss(&mut scene, PixelFallback::UntilAnswered);
        scene.answer();
        assert_passed_on_again(&mut scene);
        scene.answer();
        scene.flush(&image, ALL);
        scene.assert_update(0, ALL);
    }
}

#[test]
fn limit_starts_when_the_socket_has_taken_all_of_the_update() {
    let (mut scene, image) = unanswered();
    scene.answer();
    assert_eq!(scene.display.deadline(), None);
    let (socket, _) = scene.display.interest().unwrap();
    let socket = socket.clone();
    socket.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(count) = (&*socket).write(&[0; 4096]) {
        filled += count;
    }
    scene.flush(&image, ALL);
    // A front-end that does not read has nothing to answer yet.
    let (_, interest) = scene.display.interest().unwrap();
    assert_eq!(interest, EventSet::IN | EventSet::OUT);
    assert_eq!(scene.display.deadline(), None);
    let hour = Instant::now() + Duration::from_secs(3600);
    assert_eq!(scene.display.expire(hour), Expired::default());
    // Nor does it: this is none.
    scene.answer();
    let connection = scene.display.connection.as_ref().unwrap();
    assert!(connection.awaits_dmabuf_ack());
    let mut read = vec![0; filled];
    scene.front_end.socket.read_exact(&mut read).unwrap();
    scene
        .display
        .send(scene.scanouts.pending_updates(DisplayId::VMM), hour)
        .unwrap();
    assert_eq!(scene.display.deadline(), Some(hour + ACK_LIMIT));
    scene.assert_update(0, ALL);
    // What is sent later does not put it off.
    scene.flush(&image, ALL);
    assert_eq!(scene.display.deadline(), Some(hour + ACK_LIMIT));
    scene.assert_silence();
    scene.answer();
    scene.assert_update(0, ALL);
}

#[test]
fn removed_dmabuf_leaves_only_its_answer() {
    for is_late in [false, true] {
        let (mut scene, _) = unanswered();
        let next = source(8, MODIFIER_LINEAR);
        let (next_image, fd) = (next.image(), next.dmabuf.clone());
        let watched = Arc::downgrade(fd.as_ref().unwrap());
        drop(fd);
        scene.scanouts.show(0, next);
        scene.flush(&next_image, ALL);
        // The answer is the old one's, and is waited for as long.
        scene.assert_silence();
        assert!(scene.display.deadline().is_some());
        scene.scanouts.disable_showing(&next_image);
        assert_eq!(watched.strong_count(), 0);
        scene.send();
        assert_eq!(scene.message(), (DMABUF_SCANOUT, vec![0; 40]));
        if is_late {
            let expired = scene.display.expire(Instant::now() + ACK_LIMIT);
            assert_eq!(expired.dmabuf_update, Some(PixelFallback::UntilAnswered));
            scene.set_support(scene.display.dmabuf_support());
            scene.send();
            scene.assert_silence();
        }
        scene.answer();
        assert_eq!(scene.display.deadline(), None);
        scene.assert_silence();
        let last = source(9, MODIFIER_LINEAR);
        let last_image = last.image();
        scene.scanouts.show(0, last);
        scene.flush(&last_image, ALL);
        assert_eq!(scene.message().0, DMABUF_SCANOUT2);
        scene.assert_update(0, ALL);
    }
}
