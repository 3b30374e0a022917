// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles beside a front-end that is passed buffers: both show the same.

use super::*;

fn console(vm: &mut Machine) -> anyhow::Result<DisplayThread> {
    let socket = vm.program.connect_further("display")?;
    Ok(DisplayThread::on(socket, DisplayOptions::default())?)
}

/// Waits until `console` shows the pixels of `drawn`.
fn wait_shows(console: &DisplayThread, drawn: &Surface) -> anyhow::Result<()> {
    let is_shown = |display: &Display| {
        let shown = display.surfaces.first()?.as_ref()?;
        let same_size = (shown.width, shown.height) == (drawn.width, drawn.height);
        let mut places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        let is_same = same_size && places.all(|(x, y)| shown.rgb(x, y) == drawn.rgb(x, y));
        is_same.then_some(())
    };
    let deadline = Instant::now() + SOON;
    loop {
        match console.wait("the picture", is_shown) {
            Err(e) if e.is_timeout() && Instant::now() < deadline => {}
            other => return Ok(other?),
        }
    }
}

/// Draws another picture, flushes it, and compares what the front-end and `consoles` show with what the guest reads back.
fn draw(vm: &mut Machine, color: [f32; 3], consoles: &[&DisplayThread]) -> anyhow::Result<()> {
    vm.forget();
    vm.clear(PICTURE, color)?;
    vm.draw_triangle()?;
    ok(vm.gpu.flush(PICTURE, ALL))?;
    vm.wait(Request::DmabufUpdate, 1)?;
    let drawn = vm.read_back()?;
    ensure!(super::color(&drawn).is_none(), "no triangle");
    ensure!(vm.passed_on()? == drawn, "the buffer is not what was drawn");
    for (n, console) in consoles.iter().enumerate() {
        let shown = wait_shows(console, &drawn);
        shown.with_context(|| format!("console {n} of {}", consoles.len()))?;
    }
    let by_pixels = vm.count(Request::Update) + vm.count(Request::Scanout);
    ensure!(by_pixels == 0, "the front-end is sent pixels");
    Ok(())
}

/// Consoles come while the guest draws, two look at once, one goes and comes again: each shows what the buffer holds
/// that the front-end was passed, and that gets no pixels.
pub(super) fn show_what_the_buffers_hold(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.draw_triangle()?;
    vm.forget();
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;

    // One that comes late is shown all without a flush.
    let first = console(vm)?;
    let drawn = vm.read_back()?;
    wait_shows(&first, &drawn).context("a console that comes late")?;
    vm.wait_status("screens read back")?;
    draw(vm, BLUE, &[&first])?;
    let second = console(vm)?;
    draw(vm, RED, &[&first, &second])?;
    draw(vm, GREEN, &[&first, &second])?;

    // One goes and another comes between drawing and flush.
    first.finish()?;
    vm.clear(PICTURE, BLUE)?;
    draw(vm, RED, &[&second])?;
    vm.clear(PICTURE, BLUE)?;
    let third = console(vm)?;
    draw(vm, GREEN, &[&second, &third])?;

    // Another buffer, of which a part is drawn anew.
    vm.clear(OTHER, RED)?;
    vm.forget();
    vm.show(OTHER)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    let passed = vm.passed_on()?;
    ensure!(super::color(&passed) == Some([255, 0, 0]));
    for console in [&second, &third] {
        wait_shows(console, &passed).context("another buffer")?;
    }
    vm.forget();
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;

    // Without consoles it is as it was before.
    second.finish()?;
    third.finish()?;
    draw(vm, BLUE, &[])?;
    vm.wait_status("screens as dmabufs")?;
    println!("consoles show what the buffers hold");
    Ok(())
}
