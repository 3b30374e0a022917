// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays the VMM of a VM whose backends are units: draws on its GPU, types on its virtual keyboard and reads a keyboard of
//! the host.
//!
//! usage: `units-check VM [HOST-KEYBOARD]`, on a host where `vhostctl add console VM --now` was run and, if the keyboard
//! is named, `vhostctl add input VM HOST-KEYBOARD ...`. It says `listening` when somebody has to press and release A on the
//! host's keyboard. Each check that held is a line.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::events::EventsClient;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Response};
use frontend::gpu::{ResponseKind, Surface};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Memory, Session};

const FORMAT: Format = Format::B8G8R8X8;
const SIZE: (u32, u32) = (640, 480);
const WHOLE: Rect = Rect::sized(SIZE.0, SIZE.1);
const SCREEN: u32 = 1;
const KEY: u16 = 1;
const KEY_A: u16 = 30;
/// Processors are emulated.
const SOON: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let vm = arguments
        .next()
        .context("usage: units-check VM [KEYBOARD]")?;
    draw(&vm).context("the GPU")?;
    type_on_virtual(&format!("{vm}:keyboard")).context("the virtual keyboard")?;
    if let Some(keyboard) = arguments.next() {
        read_host(&format!("{vm}:{keyboard}")).context("the host's keyboard")?;
    }
    println!("all checks held");
    Ok(())
}

fn connect(path: &str) -> anyhow::Result<Session> {
    let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {path}"))?;
    Ok(Session::new(stream))
}

fn ok(response: frontend::Result<Response>) -> anyhow::Result<()> {
    let kind = response?.kind;
    ensure!(kind == ResponseKind::OkNodata, "{kind:?}");
    Ok(())
}

/// Waits longer than the front-end does by itself.
fn patiently<T>(mut attempt: impl FnMut() -> frontend::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + SOON;
    loop {
        match attempt() {
            Err(error) if error.is_timeout() && Instant::now() < deadline => {}
            other => return Ok(other?),
        }
    }
}

fn color(x: u32, y: u32) -> [u8; 3] {
    [x as u8, y as u8, (x ^ y) as u8]
}

fn is_drawn(surface: &Surface) -> bool {
    let mut places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
    places.all(|(x, y)| surface.rgb(x, y) == Some(color(x, y)))
}

fn draw(vm: &str) -> anyhow::Result<()> {
    let session = connect(&format!("/run/vhost-user/gpu/{vm}.sock"))?;
    let memory = Memory::with_size(8 << 20)?;
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default())?;
    gpu.control.limit = SOON;
    ok(gpu.create_2d(SCREEN, FORMAT, SIZE.0, SIZE.1))?;
    let bytes: Vec<u8> = (0..SIZE.1)
        .flat_map(|y| (0..SIZE.0).map(move |x| (x, y)))
        .flat_map(|(x, y)| {
            let [r, g, b] = color(x, y);
            FORMAT.pixel(r, g, b, 0)
        })
        .collect();
    let len = u32::try_from(bytes.len())?;
    let backing = memory.alloc(len.into(), 4096)?;
    memory.write(backing, &bytes)?;
    ok(gpu.attach_backing(SCREEN, &[(backing, len)]))?;
    ok(gpu.set_scanout(0, SCREEN, WHOLE))?;
    ok(gpu.transfer_to_host_2d(SCREEN, WHOLE, 0))?;
    ok(gpu.flush(SCREEN, WHOLE))?;
    patiently(|| {
        display.wait("the picture", |display| {
            display
                .surface(0)
                .ok()
                .filter(|surface| is_drawn(surface))
                .map(drop)
        })
    })?;
    println!("each pixel drawn is shown");
    Ok(())
}

fn keyboard(name: &str) -> anyhow::Result<Input> {
    let session = connect(&format!("/run/vhost-user/input/{name}.sock"))?;
    let memory = Memory::with_size(1 << 20)?;
    Ok(Input::start(session, &memory, InputOptions::default())?)
}

/// The reports of A pressed and released.
fn strokes() -> [[Event; 2]; 2] {
    [1, 0].map(|value| [Event::new(KEY, KEY_A, value), Event::report()])
}

fn type_on_virtual(name: &str) -> anyhow::Result<()> {
    let mut keyboard = keyboard(name)?;
    let path = format!("/run/vhost-user-console/{name}/events.sock");
    let mut client = EventsClient::connect(path.as_ref())?;
    for report in strokes() {
        client.send(&report)?;
        let seen = patiently(|| keyboard.next_report())?;
        ensure!(seen == report, "{seen:?} instead of {report:?}");
    }
    println!("what is typed arrives");
    Ok(())
}

fn read_host(name: &str) -> anyhow::Result<()> {
    let mut keyboard = keyboard(name)?;
    println!("listening");
    for report in strokes() {
        let seen = patiently(|| keyboard.next_report())?;
        ensure!(seen == report, "{seen:?} instead of {report:?}");
    }
    println!("the host's keys arrive");
    Ok(())
}
