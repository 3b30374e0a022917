// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest draws with OpenGL on our GPU, and QEMU shows it.

use std::time::{Duration, Instant};

use crate::common::{assert_clean_exit, gpu_command};
use anyhow::{Context as _, ensure};
use frontend::{Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::opengl;
use harness::qemu::Vm;
use serde_json::Value;

/// An emulated processor compiles shaders and starts Mesa's driver.
const DRAWN: Duration = Duration::from_secs(60);

struct Machine {
    vm: Vm,
    program: Program,
}

impl Machine {
    fn boot(arguments: &[&str]) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let program = gpu_command(SocketForm::Path)
            .arg("--virgl")
            .args(arguments)
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .spawn()?;
        // From a cold cache, on a busy machine, Mesa and LLVM take their time to be read.
        (0..6)
            .find_map(|_| program.wait_stderr("serving on").ok())
            .with_context(|| program.stderr())?;
        let guest =
            Vm::builder(&artifacts).gpu_socket_with(program.socket_path(), "xres=640,yres=480");
        let vm = opengl::add_to(guest)?
            .boot()
            .with_context(|| program.stderr())?;
        Ok(Self { vm, program })
    }

    /// Has the guest draw the cube, and waits until two screens are of it and differ.
    fn draw_cube(&mut self) -> anyhow::Result<()> {
        let start = format!("spawn /tmp/cube {}", opengl::CUBE);
        self.vm.command(&start)?;
        let deadline = Instant::now() + DRAWN;
        let mut first = None;
        loop {
            let screen = self.vm.screendump()?;
            if shows_cube(&screen) {
                match &first {
                    None => first = Some(screen),
                    // It turns.
                    Some(first) if first.difference(&screen).is_some() => return Ok(()),
                    Some(_) => {}
                }
            }
            ensure!(
                Instant::now() < deadline,
                "no cube turns; kmscube says:\n{}\nand the program:\n{}",
                self.vm.command("run cat /tmp/cube")?.join("\n"),
                self.program.stderr()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Whether there is kmscube's gray in the corners, and the colors of its cube in the middle.
fn shows_cube(screen: &Image) -> bool {
    const GRAY: u32 = 0x80_80_80;
    let at = |x, y| screen.get(x, y).unwrap_or_default();
    let corners = [(0, 0), (639, 0), (0, 479), (639, 479)];
    let middle: Vec<u32> = (0..100).map(|n| at(220 + 2 * n, 140 + 2 * n)).collect();
    let colors = middle
        .iter()
        .filter(|color| **color != GRAY && **color != 0)
        .count();
    corners.iter().all(|(x, y)| at(*x, *y) == GRAY) && colors > 50
}

#[test]
fn guest_draws_with_opengl_and_reboots() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.draw_cube()?;
    let said = machine.vm.command("run cat /tmp/cube")?.join("\n");
    let renderer = said.lines().find(|line| line.contains("renderer:"));
    ensure!(
        renderer.is_some_and(|line| line.contains("virgl")),
        "kmscube says:\n{said}"
    );

    machine.vm.qmp("stop", Value::Null)?;
    machine.vm.qmp("cont", Value::Null)?;
    let still = machine.vm.screendump()?;
    let deadline = Instant::now() + DRAWN;
    while machine.vm.screendump()?.difference(&still).is_none() {
        ensure!(Instant::now() < deadline, "the cube stopped with the pause");
    }

    // In the middle of a picture.
    machine.vm.reset()?;
    machine.draw_cube()?;
    let Machine { vm, mut program } = machine;
    drop(vm);
    assert_clean_exit(&mut program);
    Ok(())
}

/// A budget that holds a program's buffers and contexts some two times, and programs that come and go:
/// what each took comes back.
#[test]
fn guest_programs_that_come_and_go_use_no_budget_up() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&["--max-hostmem=32M"])?;
    for round in 0..6 {
        // Textures, views and a depth buffer, in each picture.
        let cube = format!("run {} --mode=rgba --count=20", opengl::CUBE);
        let said = machine.vm.command(&cube);
        said.with_context(|| format!("round {round}: {}", machine.program.stderr()))?;
        let log = machine.program.stderr();
        ensure!(!log.contains("budget"), "round {round}: {log}");
    }
    machine.draw_cube()?;
    let Machine { vm, mut program } = machine;
    drop(vm);
    assert_clean_exit(&mut program);
    Ok(())
}
