// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes that change, by the guest and by viewers.

use display_protocol::ResizeResult;
use rfb::server_message::PseudoRect;
use rfb::{ClientMessage, Encoding, Rect, Screen};

use super::{Console, Viewer, assert_shows, picture};

#[test]
fn viewers_follow_the_guest_as_far_as_they_can() {
    let first = picture(640, 480, 1);
    for (encoding, follows) in [
        (Encoding::DESKTOP_SIZE, true),
        (Encoding::EXTENDED_DESKTOP_SIZE, true),
        (Encoding::RAW, false),
    ] {
        let encodings = [Encoding::RAW, encoding];
        let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &first, &encodings);
        for (width, height) in [(800, 300), (320, 600), (640, 480)] {
            let pixels = picture(width, height, 2);
            gpu.scanout(0, width, height);
            gpu.update(0, 0, width, height, &pixels);
            if follows {
                assert_shows(&mut viewer, (width, height), &pixels);
                continue;
            }
            // What fits, and black where there is nothing.
            let mut seen = vec![0; 640 * 480 * 4];
            let rows = seen.chunks_exact_mut(640 * 4);
            for (to, from) in rows.zip(pixels.chunks_exact(usize::from(width) * 4)) {
                let len = to.len().min(from.len());
                to[..len].copy_from_slice(&from[..len]);
            }
            assert_shows(&mut viewer, (640, 480), &seen);
        }
    }
}

fn ask(viewer: &mut Viewer, width: u16, height: u16, screens: &[Rect]) {
    let screens = screens.iter().map(|rect| Screen {
        id: 0,
        rect: *rect,
        flags: 0,
    });
    let message = ClientMessage::SetDesktopSize {
        width,
        height,
        screens: screens.collect(),
    };
    viewer.send(&message).unwrap();
}

/// Waits for the answer to a request for another size; reason and status.
fn answer(viewer: &mut Viewer) -> (u16, u16, u16, u16) {
    loop {
        viewer.request(true, viewer.frame().rect()).unwrap();
        let update = viewer.wait_for_update().unwrap();
        for pseudo in update.pseudo {
            if let PseudoRect::ExtendedDesktopSize {
                reason: reason @ 1,
                status,
                width,
                height,
                ..
            } = pseudo
            {
                return (reason, status, width, height);
            }
        }
    }
}

#[test]
fn viewer_asks_for_another_size_and_is_told_what_came_of_it() {
    let pixels = picture(640, 480, 1);
    let encodings = [Encoding::RAW, Encoding::EXTENDED_DESKTOP_SIZE];
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &encodings);
    assert_eq!(viewer.screens().len(), 1);
    for (result, status) in [
        (ResizeResult::Refused, 1),
        (ResizeResult::InvalidSize, 3),
        (ResizeResult::NoSuchScanout, 1),
        (ResizeResult::Done, 4),
    ] {
        ask(&mut viewer, 800, 600, &[Rect::of_size(800, 600)]);
        let resize = gpu.answer_resize(result);
        assert_eq!((resize.scanout, resize.width, resize.height), (0, 800, 600));
        assert_eq!(answer(&mut viewer), (1, status, 640, 480));
    }
    // The guest has it now.
    let larger = picture(800, 600, 2);
    gpu.scanout(0, 800, 600);
    gpu.update(0, 0, 800, 600, &larger);
    assert_shows(&mut viewer, (800, 600), &larger);
    ask(&mut viewer, 800, 600, &[Rect::of_size(800, 600)]);
    assert_eq!(answer(&mut viewer), (1, 0, 800, 600));
}

/// Waits until the viewer is told of this size; reason and status.
fn told(viewer: &mut Viewer, size: (u16, u16)) -> (u16, u16) {
    loop {
        viewer.request(true, viewer.frame().rect()).unwrap();
        let update = viewer.wait_for_update().unwrap();
        for pseudo in update.pseudo {
            match pseudo {
                PseudoRect::ExtendedDesktopSize {
                    reason,
                    status,
                    width,
                    height,
                    ..
                } if (width, height) == size => return (reason, status),
                _ => {}
            }
        }
    }
}

/// Reason 1 is for who asked, 2 for the others, 0 for what the guest does by itself.
#[test]
fn viewers_are_told_who_changed_the_size() {
    let pixels = picture(640, 480, 1);
    let encodings = [Encoding::RAW, Encoding::EXTENDED_DESKTOP_SIZE];
    let (mut console, mut gpu, mut asker) = Console::showing((640, 480), &pixels, &encodings);
    let mut other = console.viewer();
    other.set_encodings(&encodings).unwrap();
    assert_shows(&mut other, (640, 480), &pixels);
    for (n, size) in [(2, (800, 600)), (3, (320, 200))] {
        let (width, height) = size;
        ask(&mut asker, width, height, &[Rect::of_size(width, height)]);
        gpu.answer_resize(ResizeResult::Done);
        let pixels = picture(width, height, n);
        gpu.scanout(0, width, height);
        gpu.update(0, 0, width, height, &pixels);
        assert_eq!(told(&mut asker, size), (1, 0));
        assert_eq!(told(&mut other, size), (2, 0));
        assert_shows(&mut asker, size, &pixels);
        assert_shows(&mut other, size, &pixels);
    }
    gpu.scanout(0, 640, 480);
    gpu.update(0, 0, 640, 480, &pixels);
    assert_eq!(told(&mut asker, (640, 480)), (0, 0));
    assert_eq!(told(&mut other, (640, 480)), (0, 0));

    // The guest takes another size than it was asked for, and both viewers' wishes are answered.
    ask(&mut asker, 800, 600, &[Rect::of_size(800, 600)]);
    gpu.answer_resize(ResizeResult::Done);
    ask(&mut other, 320, 200, &[Rect::of_size(320, 200)]);
    gpu.answer_resize(ResizeResult::Done);
    let pixels = picture(320, 200, 4);
    gpu.scanout(0, 320, 200);
    gpu.update(0, 0, 320, 200, &pixels);
    assert_eq!(told(&mut other, (320, 200)), (1, 0));
    assert_eq!(told(&mut asker, (320, 200)), (2, 0));
    assert_eq!(answer(&mut asker), (1, 4, 320, 200));
}

/// A window that is dragged: each wish is answered, and the size that the guest had is not taken for the last one.
#[test]
fn wish_for_the_old_size_reaches_a_gpu_that_was_asked_for_another() {
    let pixels = picture(640, 480, 1);
    let encodings = [Encoding::RAW, Encoding::EXTENDED_DESKTOP_SIZE];
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &encodings);
    ask(&mut viewer, 800, 600, &[Rect::of_size(800, 600)]);
    ask(&mut viewer, 640, 480, &[Rect::of_size(640, 480)]);
    assert_eq!(gpu.answer_resize(ResizeResult::Done).width, 800);
    assert_eq!(gpu.answer_resize(ResizeResult::Done).width, 640);
    // The second has its size; of the first nothing came in time.
    assert_eq!(answer(&mut viewer), (1, 0, 640, 480));
    assert_eq!(answer(&mut viewer), (1, 4, 640, 480));
}

#[test]
fn impossible_sizes_do_not_reach_the_gpu() {
    let pixels = picture(640, 480, 1);
    let encodings = [Encoding::RAW, Encoding::EXTENDED_DESKTOP_SIZE];
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &encodings);
    let half = Rect::of_size(400, 600);
    let other_half = Rect::new(400, 0, 400, 600);
    for (width, height, screens) in [
        (0, 0, vec![Rect::default()]),
        (800, 600, vec![]),
        (800, 600, vec![half]),
        (800, 600, vec![half, other_half]),
        (800, 600, vec![Rect::new(1, 0, 800, 600)]),
        (16385, 1, vec![Rect::of_size(16385, 1)]),
        (u16::MAX, u16::MAX, vec![Rect::of_size(u16::MAX, u16::MAX)]),
    ] {
        ask(&mut viewer, width, height, &screens);
        assert_eq!(
            answer(&mut viewer),
            (1, 3, 640, 480),
            "{width}x{height} {screens:?}"
        );
    }
    // The first that the GPU sees.
    ask(&mut viewer, 1024, 768, &[Rect::of_size(1024, 768)]);
    assert_eq!(gpu.answer_resize(ResizeResult::Refused).width, 1024);
    assert_eq!(answer(&mut viewer), (1, 1, 640, 480));
}

#[test]
fn resize_without_a_gpu_that_knows_it_is_refused() {
    let mut console = Console::start(&[]);
    let mut viewer = console.viewer();
    let encodings = [Encoding::RAW, Encoding::EXTENDED_DESKTOP_SIZE];
    viewer.set_encodings(&encodings).unwrap();
    viewer.refresh().unwrap();
    ask(&mut viewer, 800, 600, &[Rect::of_size(800, 600)]);
    assert_eq!(answer(&mut viewer), (1, 1, 1024, 768));
}
