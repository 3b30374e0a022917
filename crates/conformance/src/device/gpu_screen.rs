// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-gpu: what its display shows.

use conventions::DeviceType;
use frontend::gpu::{DisplayOptions, DisplayThread, Rect, Request, ResponseKind};

use super::gpu::Screen;
use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::trial::Trial;

const GPU: &[DeviceType] = &[DeviceType::Gpu];
/// Width and height of a cursor.
const CURSOR: u32 = 64;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "device/gpu-picture",
        "vhost-user-gpu.rst, VHOST_USER_GPU_SCANOUT and VHOST_USER_GPU_UPDATE",
        "What the guest draws, sets as a scanout and flushes, the display shows, pixel by pixel.",
        picture,
    )
    .of(GPU),
    Point::required(
        "device/gpu-scanout-off",
        "virtio 1.2, 5.7.6.8, SET_SCANOUT; vhost-user-gpu.rst, VHOST_USER_GPU_SCANOUT",
        "SET_SCANOUT of resource 0 tells the display that the scanout shows nothing.",
        off,
    )
    .of(GPU),
    Point::required(
        "device/gpu-cursor",
        "virtio 1.2, 5.7.6.10; vhost-user-gpu.rst, VHOST_USER_GPU_CURSOR_UPDATE",
        "UPDATE_CURSOR tells the display the picture of the cursor, its hot spot and its place.",
        cursor,
    )
    .of(GPU),
    Point::recommended(
        "device/gpu-display-gone",
        "vhost-user-gpu.rst, Communication",
        "A display that closes its socket does not end the backend or keep commands from being answered.",
        display_gone,
    )
    .of(GPU),
];

fn pattern(x: u32, y: u32) -> [u8; 4] {
    [(3 * x) as u8, (5 * y) as u8, (x + y) as u8, 0]
}

/// Blue, green, red in memory: the display tells red, green, blue.
fn expected(x: u32, y: u32) -> [u8; 3] {
    let [blue, green, red, _] = pattern(x, y);
    [red, green, blue]
}

fn shown(screen: &mut Screen, size: (u32, u32)) -> Result<(), Flaw> {
    let whole = Rect::sized(size.0, size.1);
    screen.resource(1, size, pattern)?;
    let set = screen.gpu.set_scanout(0, 1, whole)?;
    set.expect("SET_SCANOUT", ResponseKind::OkNodata)?;
    let flushed = screen.gpu.flush(1, whole)?;
    flushed.expect("RESOURCE_FLUSH", ResponseKind::OkNodata)?;
    Ok(())
}

fn picture(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    let (width, height) = (48, 32);
    shown(&mut screen, (width, height))?;
    let drawn = |display: &frontend::gpu::Display| {
        let surface = display.surface(0).ok()?;
        let mut places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        places
            .all(|(x, y)| surface.rgb(x, y) == Some(expected(x, y)))
            .then_some(())
    };
    let waited = screen
        .display
        .wait_within(trial.left(), "the picture", drawn);
    if let Err(error) = waited {
        let display = screen.display.lock();
        let size = display
            .surface(0)
            .map(|surface| (surface.width, surface.height));
        return match size {
            Ok((width, height)) => fails(format!(
                "other pixels on a screen of {width}x{height}: {error}"
            )),
            Err(_) => fails(format!("the display shows nothing: {error}")),
        };
    }
    Ok(format!("{width}x{height} pixels are equal"))
}

fn off(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    shown(&mut screen, (32, 32))?;
    let limit = trial.left();
    let shows = |display: &frontend::gpu::Display| display.surface(0).ok().map(drop);
    screen.display.wait_within(limit, "a scanout", shows)?;
    let set = screen.gpu.set_scanout(0, 0, Rect::default())?;
    set.expect("SET_SCANOUT of resource 0", ResponseKind::OkNodata)?;
    let shows_nothing =
        |display: &frontend::gpu::Display| display.surface(0).is_err().then_some(());
    screen
        .display
        .wait_within(trial.left(), "the scanout to be disabled", shows_nothing)?;
    Ok("the display shows nothing".into())
}

fn cursor(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    screen.resource(7, (CURSOR, CURSOR), pattern)?;
    screen.gpu.update_cursor(0, (11, 22), 7, (3, 4))?;
    let told = |display: &frontend::gpu::Display| {
        let cursor = &display.cursor;
        (display.of(Request::CursorUpdate).count() > 0 && !cursor.pixels.is_empty())
            .then(|| cursor.clone())
    };
    let cursor = screen
        .display
        .wait_within(trial.left(), "the cursor", told)?;
    if (cursor.position, cursor.hot_spot) != ((11, 22), (3, 4)) {
        return fails(format!(
            "at {:?}, hot spot {:?}",
            cursor.position, cursor.hot_spot
        ));
    }
    let place = |x: u32, y: u32| 4 * (y * CURSOR + x) as usize;
    let wrong = (0..CURSOR)
        .flat_map(|y| (0..CURSOR).map(move |x| (x, y)))
        .find(|&(x, y)| {
            cursor.pixels.get(place(x, y)..place(x, y) + 3) != Some(&pattern(x, y)[..3])
        });
    match wrong {
        Some(at) => fails(format!("the pixel at {at:?} is another")),
        None => Ok("picture, place and hot spot are right".into()),
    }
}

fn display_gone(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    shown(&mut screen, (32, 32))?;
    // The socket is closed once the display's thread has ended.
    let (unused, _socket) = DisplayThread::start(DisplayOptions::default())?;
    drop(std::mem::replace(&mut screen.display, unused));
    for id in 10..14 {
        let flushed = screen.gpu.flush(1, Rect::sized(32, 32))?;
        flushed.expect("RESOURCE_FLUSH", ResponseKind::OkNodata)?;
        screen.resource(id, (8, 8), pattern)?;
    }
    match screen.started.backend.end()? {
        None => Ok("commands are answered".into()),
        Some(end) => fails(format!("it ends with {end}")),
    }
}
