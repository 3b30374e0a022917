// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Uses Vulkan as an application does, and checks what its memory holds.
//!
//! usage: `vulkan-check fill MIB`, or `vulkan-check churn SECONDS`, with libvulkan.so.1 and a driver.
//!
//! `fill` has the GPU fill a buffer, copies another one that the processor wrote, and reads both back. `churn` allocates, maps,
//! fills, checks and frees memory again and again. Each check that held is a line.

mod gpu;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use gpu::{Gpu, HostBuffer};

const MIB: usize = 1 << 20;
/// A word that no zeroed or shifted memory shows by chance.
const PATTERN: u32 = 0x5a17_c0de;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["fill", size] => fill(size.parse().context("how many MiB?")?),
        ["churn", seconds] => churn(Duration::from_secs(seconds.parse().context("how long?")?)),
        _ => bail!("usage: vulkan-check fill MIB | vulkan-check churn SECONDS"),
    }
}

fn fill(mib: usize) -> anyhow::Result<()> {
    let gpu = Gpu::open()?;
    println!("device: {}", gpu.name());
    let size = mib.checked_mul(MIB).context("too large")?;
    let mut filled = HostBuffer::new(&gpu, size)?;
    let mut source = HostBuffer::new(&gpu, size)?;
    let mut copied = HostBuffer::new(&gpu, size)?;

    // Every page starts with something else than what the GPU writes.
    filled.words()?.fill(!PATTERN);
    gpu.fill(&filled, PATTERN)?;
    for (index, word) in filled.words()?.iter().enumerate() {
        ensure!(
            *word == PATTERN,
            "word {index} is {word:08x} after a fill by {PATTERN:08x}"
        );
    }
    println!("filled {mib} MiB");

    for (index, word) in source.words()?.iter_mut().enumerate() {
        *word = value(index);
    }
    gpu.copy(&source, &copied)?;
    for (index, word) in copied.words()?.iter().enumerate() {
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
    (index as u32).wrapping_mul(0x9e37_79b1) ^ PATTERN
}

fn churn(time: Duration) -> anyhow::Result<()> {
    let gpu = Gpu::open()?;
    println!("device: {}", gpu.name());
    let end = Instant::now() + time;
    let mut rounds = 0_u32;
    while Instant::now() < end {
        let size = (1 + rounds as usize % 8) * 64 * 1024;
        let mut buffer = HostBuffer::new(&gpu, size)?;
        let pattern = PATTERN ^ rounds;
        gpu.fill(&buffer, pattern)?;
        let wrong = buffer.words()?.iter().position(|word| *word != pattern);
        ensure!(wrong.is_none(), "round {rounds}: word {wrong:?} is wrong");
        rounds += 1;
    }
    println!("{rounds} rounds");
    Ok(())
}
