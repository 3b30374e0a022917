//! What a viewer sees first, and what it is sent when something changes.

use rfb::{Encoding, Rect};

use super::{Console, assert_shows, picture};

#[test]
fn viewer_sees_the_picture_and_then_only_what_changes() {
    let mut pixels = picture(640, 480, 1);
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &[Encoding::RAW]);
    assert_eq!(viewer.name(), "vm1");

    let before = viewer.received();
    viewer.request(true, viewer.frame().rect()).unwrap();
    gpu.update(100, 50, 64, 64, &[7; 64 * 64 * 4]);
    let update = viewer.wait_for_update().unwrap();
    let changed = Rect::new(100, 50, 64, 64);
    assert_eq!(update.pixels, [(changed, Encoding::RAW)]);
    let bytes = viewer.received() - before;
    assert_eq!(bytes, 4 + 12 + 64 * 64 * 4, "nothing but what changed");
    for row in 50..114 {
        let start = (row * 640 + 100) * 4;
        pixels[start..start + 64 * 4].fill(7);
    }
    assert_shows(&mut viewer, (640, 480), &pixels);
}

#[test]
fn request_that_is_not_incremental_gets_what_did_not_change() {
    let pixels = picture(320, 200, 2);
    let (_console, _gpu, mut viewer) = Console::showing((320, 200), &pixels, &[Encoding::RAW]);
    let part = Rect::new(300, 190, 100, 100);
    viewer.request(false, part).unwrap();
    let update = viewer.wait_for_update().unwrap();
    let visible = Rect::new(300, 190, 20, 10);
    assert_eq!(update.pixels, [(visible, Encoding::RAW)]);
}
