// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a console takes of the host, beside the limits of its unit.

use std::fs;

use anyhow::{Context as _, ensure};
use rfb::Encoding;

use super::{Host, PSEUDO, sees};
use crate::common::{negative, pattern};

const SIZE: (u32, u32) = (800, 600);
const VIEWERS: usize = 20;
const CONSOLE: &str = "vhost-vnc@vm1.service";

/// Viewers that ask for all of it and do not read it cost a small part of MemoryMax=, and nobody else waits for them.
#[test]
fn viewers_that_stop_reading_take_a_small_part_of_the_memory_limit() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let mut stopped = Vec::new();
    for number in 0..VIEWERS {
        let mut viewer = host.view("vm1")?;
        let encoding = [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT][number % 3];
        viewer.set_encodings(&[&[encoding], &PSEUDO[..]].concat())?;
        viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
        let all = viewer.frame().rect();
        for _ in 0..5 {
            viewer.request(false, all)?;
        }
        stopped.push(viewer);
    }
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    vm.show(0, SIZE, negative);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    let (_, pid) = host.process(CONSOLE)?;
    let status = fs::read_to_string(host.0.path(&format!("/proc/{pid}/status")))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    let peak = line("VmHWM:").context("no peak")? << 10;
    let limit: u64 = host.0.property(CONSOLE, "MemoryMax")?.parse()?;
    ensure!(peak < limit / 4, "{peak} bytes of {limit}");
    let tasks: u64 = host.0.property(CONSOLE, "TasksMax")?.parse()?;
    let threads = line("Threads:").context("no threads")?;
    ensure!(threads < tasks / 2, "{threads} of {tasks}");
    Ok(())
}
