// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Uses OpenGL as an application does, and checks the pixels and the memory that it reads back. It needs no screen.
//!
//! usage: `opengl-check draw`, `opengl-check memory MIB` or `opengl-check frames COUNT`, with libEGL.so.1 and a driver.
//!
//! `draw` draws a triangle and looks at every pixel. `memory` has the GPU copy from a buffer that stays mapped into another
//! one (OpenGL 4.4). `frames` draws a turning cube again and again, and tells how long that took. Each check that held is a line.

mod context;
mod drawing;
mod gl;

use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use context::Context;
use drawing::{Cube, Drawing, PersistentBuffer, Triangle};

const MIB: usize = 1 << 20;
const WIDTH: usize = 640;
const HEIGHT: usize = 480;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let context = Context::create()?;
    println!("OpenGL: {}", context.gl().version());
    println!("renderer: {}", context.gl().renderer());
    match words.as_slice() {
        ["draw"] => draw(&context),
        ["memory", size] => memory(&context, size.parse().context("how many MiB?")?),
        ["frames", count] => frames(&context, count.parse().context("how many?")?),
        _ => {
            bail!("usage: opengl-check draw | opengl-check memory MIB | opengl-check frames COUNT")
        }
    }
}

/// The triangle is the lower left half.
fn draw(context: &Context) -> anyhow::Result<()> {
    let drawing = Drawing::new(context.gl(), HEIGHT, HEIGHT)?;
    let triangle = Triangle::new(context.gl())?;
    drawing.clear();
    triangle.draw();
    let pixels = drawing.pixels()?;
    for (y, row) in pixels.chunks_exact(HEIGHT).enumerate() {
        for (x, pixel) in row.iter().enumerate() {
            let expected = match (x + y).cmp(&(HEIGHT - 1)) {
                std::cmp::Ordering::Less => drawing::TRIANGLE,
                // Which it is on the edge itself, the driver may choose.
                std::cmp::Ordering::Equal => continue,
                std::cmp::Ordering::Greater => drawing::BACKGROUND,
            };
            ensure!(
                *pixel == expected,
                "the pixel at {x}, {y} is {pixel:08x}, not {expected:08x}"
            );
        }
    }
    println!("drew {} pixels", pixels.len());
    Ok(())
}

fn memory(context: &Context, mib: usize) -> anyhow::Result<()> {
    let len = mib.checked_mul(MIB).context("too large")?;
    let mut source = PersistentBuffer::new(context.gl(), len)?;
    let mut copied = PersistentBuffer::new(context.gl(), len)?;
    for (index, word) in source.words().iter_mut().enumerate() {
        *word = value(index);
    }
    source.copy_to(&copied)?;
    for (index, word) in copied.words().iter().enumerate() {
        ensure!(
            *word == value(index),
            "word {index} is {word:08x} after a copy of {:08x}",
            value(index)
        );
    }
    println!("copied {mib} MiB");
    Ok(())
}

/// Of each word another one.
fn value(index: usize) -> u32 {
    (index as u32).wrapping_mul(0x9e37_79b1) ^ 0x5a17_c0de
}

fn frames(context: &Context, count: u32) -> anyhow::Result<()> {
    let drawing = Drawing::new(context.gl(), WIDTH, HEIGHT)?;
    let cube = Cube::new(context.gl())?;
    let draw = |frame: u32| {
        drawing.clear();
        cube.draw(frame as f32 / 60.0);
        // Only once it is drawn.
        drawing.middle()
    };
    // Compiles.
    draw(0)?;
    let begin = Instant::now();
    for frame in 1..=count {
        let middle = draw(frame)?;
        ensure!(
            middle != drawing::BACKGROUND,
            "there is no cube in frame {frame}"
        );
    }
    let time = begin.elapsed();
    println!("{count} frames in {} us", time.as_micros());
    Ok(())
}
