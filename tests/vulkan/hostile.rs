// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that sends whatever it likes to the real library and its server.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use frontend::gpu::{Gpu, GpuOptions, ResponseKind};
use frontend::{Program, SocketForm};
use rustix::process::Signal;
use tempfile::TempDir;
use virtio_bindings::virtio_gpu as v;

use crate::common::growth::Holdings;
use crate::common::{assert_clean_exit, gpu_command, guest_memory};
use crate::machine::RenderServer;

const VENUS: u32 = v::VIRTIO_GPU_CAPSET_VENUS;
const FENCE: u32 = v::VIRTIO_GPU_FLAG_FENCE;
const RING: u32 = v::VIRTIO_GPU_FLAG_INFO_RING_IDX;
const PAGE: u32 = 4096;
/// Much longer than until the fourth server may start.
const LONGEST: Duration = Duration::from_secs(60);

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    /// Mostly small, and sometimes anything.
    fn size(&mut self) -> u32 {
        match self.below(8) {
            0 => self.next(),
            _ => self.below(16) * PAGE,
        }
    }
}

/// A request for a context, with or without a fence on one of its timelines.
fn request(
    gpu: &mut Gpu,
    numbers: &mut Numbers,
    context: u32,
    kind: u32,
    words: &[u32],
) -> Vec<u8> {
    let mut bytes = gpu.request_on(context, kind, words);
    if numbers.below(3) == 0 {
        let flags = FENCE | [0, RING][numbers.below(2) as usize];
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&numbers.next().to_le_bytes());
        bytes[20] = numbers.below(80) as u8;
    }
    bytes
}

fn random_request(gpu: &mut Gpu, numbers: &mut Numbers) -> Vec<u8> {
    let context = numbers.below(6);
    let resource = numbers.below(12);
    let (kind, words) = match numbers.below(12) {
        0 | 1 => {
            let init = [VENUS, VENUS, VENUS, numbers.next()][numbers.below(4) as usize];
            let mut words = vec![0, init];
            words.resize(18, 0);
            (v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE, words)
        }
        2 => (v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY, vec![]),
        3..=5 => {
            let memory = 1 + numbers.below(4);
            let blob = [0, numbers.below(4)][numbers.below(2) as usize];
            let words = vec![
                resource,
                memory,
                numbers.below(9),
                0,
                blob,
                0,
                numbers.size(),
                0,
            ];
            (
                v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB,
                words,
            )
        }
        6 => (
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
            vec![resource, 0],
        ),
        7 => (
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE,
            vec![resource, 0],
        ),
        8 => (
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE,
            vec![resource, 0],
        ),
        9 => (
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D,
            vec![resource, 1, 8, 8],
        ),
        10 => (
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB,
            vec![resource, 0, numbers.size(), 0],
        ),
        _ => {
            let len = numbers.below(400);
            let mut words = vec![4 * len, 0];
            // Commands of Venus have small numbers.
            let limit = [64, 512, u32::MAX][numbers.below(3) as usize];
            words.extend((0..len).map(|_| numbers.below(limit)));
            (v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D, words)
        }
    };
    request(gpu, numbers, context, kind, &words)
}

/// The GPU and its server, and a driver with all that Linux takes.
fn start() -> anyhow::Result<(Gpu, Program, RenderServer, TempDir)> {
    let folder = tempfile::tempdir()?;
    let server = RenderServer::listen(folder.path())?;
    let mut program = gpu_command(SocketForm::Connected(7))
        .arg("--venus")
        .arg(format!("--render-server={}", server.path().display()))
        .spawn()?;
    let session = program.session()?;
    let memory = guest_memory();
    let options = GpuOptions::virgl();
    let features = 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB | 1 << v::VIRTIO_GPU_F_CONTEXT_INIT;
    let options = GpuOptions {
        features: options.features | features,
        ..options
    };
    let gpu = Gpu::start(session, &memory, None::<OwnedFd>, options)?;
    anyhow::ensure!(gpu.features() & features == features);

    Ok((gpu, program, server, folder))
}

/// A program that does nothing wrong.
fn create_context(gpu: &mut Gpu) -> anyhow::Result<ResponseKind> {
    let mut words = vec![0, VENUS];
    words.resize(18, 0);
    let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
    Ok(gpu.command_on(1, create, &words)?.kind)
}

fn destroy_all(gpu: &mut Gpu) -> anyhow::Result<()> {
    for context in 0..6 {
        gpu.destroy_context(context)?;
    }
    for resource in 0..12 {
        gpu.unref(resource)?;
    }
    Ok(())
}

#[test]
fn guest_that_sends_anything_neither_stops_nor_fills_the_gpu() -> anyhow::Result<()> {
    let (mut gpu, mut program, _server, _folder) = start()?;
    let mut numbers = Numbers(1);
    let mut first = None;
    let mut accepted = BTreeMap::<u32, u32>::new();
    for round in 0..40 {
        for _ in 0..100 {
            let request = random_request(&mut gpu, &mut numbers);
            let response = gpu.control.command(&request, 64)?;
            if response.kind == ResponseKind::OkNodata {
                let [a, b, c, d, ..] = request[..] else {
                    continue;
                };
                *accepted
                    .entry(u32::from_le_bytes([a, b, c, d]))
                    .or_default() += 1;
            }
        }
        destroy_all(&mut gpu)?;
        // A program that does nothing wrong has its context.
        assert_eq!(create_context(&mut gpu)?, ResponseKind::OkNodata);
        gpu.destroy_context(1)?;
        if round == 4 {
            first = Some(Holdings::of(&program));
        }
    }
    if let Some(first) = first {
        first.assert_not_grown(&program, 8 << 10);
    }
    // It did get far.
    for kind in [
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE,
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB,
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE,
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D,
    ] {
        let count = accepted.get(&kind).copied().unwrap_or(0);
        anyhow::ensure!(count > 10, "{kind:#x}: {accepted:?}");
    }
    drop(gpu);
    assert_clean_exit(&mut program);
    Ok(())
}

/// As a guest does that has found a fault of the driver.
#[test]
fn servers_that_end_again_and_again_cost_the_gpu_nothing() -> anyhow::Result<()> {
    let (mut gpu, mut program, server, _folder) = start()?;
    let mut numbers = Numbers(2);
    let mut first = None;
    let threads = |program: &Program| -> anyhow::Result<usize> {
        let tasks = fs::read_dir(format!("/proc/{}/task", program.pid()))?;
        Ok(tasks.count())
    };
    for round in 0..12 {
        for step in 0..60 {
            let request = random_request(&mut gpu, &mut numbers);
            gpu.control.command(&request, 64)?;
            if step == 30 && round % 4 == 3 {
                server.signal(Signal::KILL)?;
            } else if step % 20 == 10 {
                server.signal_contexts(Signal::SEGV)?;
            }
        }
        // 2D goes on.
        gpu.get_display_info()?;
        if round % 3 == 2 {
            gpu.stop()?;
            gpu.restart(None::<UnixStream>)?;
        } else {
            destroy_all(&mut gpu)?;
        }
        let began = Instant::now();
        while create_context(&mut gpu)? != ResponseKind::OkNodata {
            anyhow::ensure!(began.elapsed() < LONGEST, "{}", program.stderr());
            thread::sleep(Duration::from_millis(50));
        }
        gpu.destroy_context(1)?;
        if round == 3 {
            first = Some((Holdings::of(&program), threads(&program)?));
        }
    }
    let (first, threads_before) = first.context("no round")?;
    // The last library's thread may still be ending.
    thread::sleep(Duration::from_secs(1));
    assert_eq!(threads(&program)?, threads_before);
    first.assert_not_grown(&program, 8 << 10);
    drop(gpu);
    assert_clean_exit(&mut program);
    Ok(())
}
