// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OpenGL in a guest: by Mesa's zink, which draws with Vulkan, and by virgl.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::machine::Machine;

/// The agent's command that runs the check with the driver that Mesa finds.
fn by_virgl(words: &str) -> String {
    format!("run /usr/bin/opengl-check {words}")
}

/// The agent's command that runs the check by zink, which takes a Vulkan device that renders by software only if told to.
fn by_zink(words: &str) -> String {
    format!(
        "run /bin/env MESA_LOADER_DRIVER_OVERRIDE=zink LIBGL_ALWAYS_SOFTWARE=1 /usr/bin/opengl-check {words}"
    )
}

/// Checks what a guest sees of OpenGL by virgl.
fn check_virgl(machine: &mut Machine) -> anyhow::Result<()> {
    let said = machine.command(&by_virgl("draw"))?;
    ensure!(said.contains("renderer: virgl (LLVMPIPE"), "{said}");
    ensure!(said.contains("OpenGL: 4.3"), "{said}");
    ensure!(said.contains("drew 230400 pixels"), "{said}");
    Ok(())
}

/// Checks what a guest sees of OpenGL by Vulkan.
fn check_zink(machine: &mut Machine) -> anyhow::Result<()> {
    let said = machine.command(&by_zink("draw"))?;
    ensure!(said.contains("OpenGL: 4.6"), "{said}");
    ensure!(said.contains("Virtio-GPU Venus"), "{said}");
    ensure!(said.contains("drew 230400 pixels"), "{said}");
    // Memory of the host that stays mapped.
    let said = machine.command(&by_zink("memory 8"))?;
    ensure!(said.contains("copied 8 MiB"), "{said}");
    Ok(())
}

#[test]
fn guest_with_vulkan_has_opengl_4_6() -> anyhow::Result<()> {
    let mut machine = Machine::boot_opengl(&["--venus"])?;
    check_zink(&mut machine)?;
    machine.finish()
}

#[test]
fn guest_with_virgl_has_opengl_4_3() -> anyhow::Result<()> {
    let mut machine = Machine::boot_opengl(&["--virgl"])?;
    check_virgl(&mut machine)?;
    machine.finish()
}

/// No test of time: it tells what docs/virgl.md has as numbers. That of the start is not in them.
#[test]
fn cube_is_drawn_by_virgl_and_by_zink() -> anyhow::Result<()> {
    const FRAMES: u32 = 500;
    for (option, command) in [
        ("--virgl", by_virgl as fn(&str) -> String),
        ("--venus", by_zink),
    ] {
        let mut machine = Machine::boot_opengl(&[option])?;
        let started = draw_frames(&mut machine, &command("frames 1"))?;
        let drawn = draw_frames(&mut machine, &command(&format!("frames {}", FRAMES + 1)))?;
        let spent = drawn.spent.saturating_sub(started.spent);
        eprintln!(
            "{option}: {:.0} frames a second, {:.2} ms of the host's processors a frame",
            f64::from(FRAMES + 1) / drawn.time.as_secs_f64(),
            spent.as_secs_f64() * 1000.0 / f64::from(FRAMES)
        );
        machine.finish()?;
    }
    Ok(())
}

struct Frames {
    /// In the guest, for all.
    time: Duration,
    /// By the programs that render, with their start.
    spent: Duration,
}

fn draw_frames(machine: &mut Machine, command: &str) -> anyhow::Result<Frames> {
    let before = machine.cpu_time()?;
    let said = machine.command(command)?;
    let spent = machine.cpu_time()?.saturating_sub(before);
    let line = said.lines().find_map(|line| line.strip_suffix(" us"));
    let time = line.and_then(|line| line.rsplit(' ').next());
    let time = time.with_context(|| said.clone())?.parse()?;
    Ok(Frames {
        time: Duration::from_micros(time),
        spent,
    })
}
