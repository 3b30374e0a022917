// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs vhost-user-gpu with `--virgl` on a render node and checks what a front-end is shown:
//! `dmabufs`, or the `pixels` of one that passes nothing on.
//!
//! For a Linux guest that plays the host: it needs the program as `/usr/bin/vhost-user-gpu`, what
//! that loads for OpenGL, and a render node; dmabufs have to be such as a processor can read. Each
//! check that held is a line.

mod consoles;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use frontend::gpu::{
    Corner, Create3d, Display, DisplayOptions, DisplayThread, Gpu, GpuOptions, Rect, Request,
    Response, ResponseKind, Stream, Surface, Transfer3d,
};
use frontend::{Command, Memory, Program, SocketForm};
use rustix::process::Signal;

const PROGRAM: &str = "/usr/bin/vhost-user-gpu";
const NODE: &str = "/dev/dri/renderD128";
const SIZE: (u32, u32) = (200, 160);
const ALL: Rect = Rect::sized(SIZE.0, SIZE.1);
const CONTEXT: u32 = 1;
const PICTURE: u32 = 1;
const VERTICES: u32 = 2;
const OTHER: u32 = 3;
const GREEN: [f32; 3] = [0.0, 1.0, 0.0];
const RED: [f32; 3] = [1.0, 0.0, 0.0];
const BLUE: [f32; 3] = [0.0, 0.0, 1.0];
/// Processors are emulated.
const SOON: Duration = Duration::from_secs(40);

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("dmabufs") => dmabufs()?,
        Some("pixels") => Machine::check(modern(), &[], what_is_not_passed_on_is_read_back)?,
        other => bail!("dmabufs or pixels, not {other:?}"),
    }
    println!("all checks held");
    Ok(())
}

fn dmabufs() -> anyhow::Result<()> {
    // A start of the program takes long, for processors are emulated.
    Machine::check(modern(), &[], |vm| {
        pictures_are_passed_on(vm)?;
        a_new_display_is_passed_all(vm)?;
        consoles::show_what_the_buffers_hold(vm)?;
        the_way_changes(vm)?;
        nothing_is_left_open(vm)
    })?;
    let old = DisplayOptions::default();
    Machine::check(old, &[], modifiers_are_not_told_to_all)?;
    let slow = DisplayOptions {
        hold_updates: true,
        ..modern()
    };
    Machine::check(slow.clone(), &[], a_slow_front_end_stops_nothing)?;
    Machine::check(slow, &[], a_silent_front_end_gets_pixels)?;
    Machine::check(modern(), &["--no-dmabuf"], pixels_can_be_asked_for)
}

fn ok(response: frontend::Result<Response>) -> anyhow::Result<()> {
    let kind = response?.kind;
    ensure!(kind == ResponseKind::OkNodata, "{kind:?}");
    Ok(())
}

fn modern() -> DisplayOptions {
    DisplayOptions {
        dmabuf2: true,
        ..DisplayOptions::default()
    }
}

/// The program, a guest's driver with a picture and a context that draws to it, and a display.
struct Machine {
    gpu: Gpu,
    display: DisplayThread,
    program: Program,
    /// The picture's backing.
    backing: u64,
    /// Handles of surfaces in the context.
    surfaces: u32,
}

impl Machine {
    fn new(display: DisplayOptions, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut program = Command::new(PROGRAM)
            .arg("--virgl")
            .arg(format!("--render-node={NODE}"))
            .args(arguments)
            .socket(SocketForm::Path)
            .listen("display")
            .notify()
            .spawn()?;
        // Mesa and LLVM take their time to be loaded.
        let served = (0..6).find_map(|_| program.wait_stderr("serving on").ok());
        served.with_context(|| program.stderr())?;
        let session = program.session()?;
        let memory = Memory::with_size(16 << 20)?;
        let (display, socket) = DisplayThread::start(display)?;
        let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::virgl())?;
        gpu.control.limit = SOON;
        let mut machine = Self {
            gpu,
            display,
            program,
            backing: 0,
            surfaces: 100,
        };
        machine.prepare()?;
        Ok(machine)
    }

    /// Has `check` look at a new one, which then ends well.
    fn check(
        display: DisplayOptions,
        arguments: &[&str],
        check: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut vm = Self::new(display, arguments)?;
        check(&mut vm).with_context(|| vm.program.stderr())?;
        vm.end()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let gpu = &mut self.gpu;
        ok(gpu.create_context(CONTEXT, "check"))?;
        let bytes = SIZE.0 * SIZE.1 * 4;
        self.backing = gpu.memory().alloc(bytes.into(), 4096)?;
        for (id, new) in [
            (PICTURE, Create3d::picture(SIZE.0, SIZE.1)),
            (OTHER, Create3d::picture(SIZE.0, SIZE.1)),
            (VERTICES, Create3d::vertices(96)),
        ] {
            ok(gpu.create_3d(id, new))?;
            ok(gpu.context_attach(CONTEXT, id))?;
        }
        ok(gpu.attach_backing(PICTURE, &[(self.backing, bytes)]))
    }

    fn clear(&mut self, id: u32, color: [f32; 3]) -> anyhow::Result<()> {
        self.surfaces += 1;
        let stream = Stream::default().draw_to(self.surfaces, id).clear(color);
        ok(self.gpu.submit_3d(CONTEXT, &stream))
    }

    /// A triangle in the lower right corner, so that no two sides are the same.
    fn draw_triangle(&mut self) -> anyhow::Result<()> {
        let corner = |x, y, color| Corner { x, y, color };
        let corners = [
            corner(0.0, -0.9, RED),
            corner(0.9, -0.9, BLUE),
            corner(0.9, 0.5, [1.0, 1.0, 1.0]),
        ];
        let stream = Stream::default().triangle(10, VERTICES, SIZE, corners);
        ok(self.gpu.submit_3d(CONTEXT, &stream))
    }

    fn show(&mut self, id: u32) -> anyhow::Result<()> {
        ok(self.gpu.set_scanout(0, id, ALL))?;
        ok(self.gpu.flush(id, ALL))
    }

    /// Waits for so many messages since they were forgotten last.
    fn wait(&self, request: Request, count: usize) -> anyhow::Result<()> {
        self.wait_display(|d| d.of(request).count() >= count)
    }

    fn wait_display(&self, done: impl Fn(&Display) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let waited = self.display.wait("the display", |d| done(d).then_some(()));
            match waited {
                Err(e) if e.is_timeout() && Instant::now() < deadline => {}
                other => return Ok(other?),
            }
        }
    }

    /// The picture as the guest reads it back.
    fn read_back(&mut self) -> anyhow::Result<Surface> {
        let whole = Transfer3d::of(PICTURE, ALL);
        ok(self.gpu.transfer_from_host_3d(CONTEXT, whole))?;
        let mut bytes = vec![0; (SIZE.0 * SIZE.1 * 4) as usize];
        self.gpu.memory().read(self.backing, &mut bytes)?;
        // The fourth byte means nothing.
        bytes.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 0);
        Ok(Surface {
            width: SIZE.0,
            height: SIZE.1,
            pixels: bytes,
        })
    }

    /// What the front-end sees in the buffer that it was passed.
    fn passed_on(&self) -> anyhow::Result<Surface> {
        Ok(self.display.lock().dmabuf_picture(0)?)
    }

    /// Whether the front-end shows the pixels of `drawn`.
    fn assert_pixels(&self, drawn: &Surface) -> anyhow::Result<()> {
        let display = self.display.lock();
        let shown = display.surface(0)?;
        let mut places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        ensure!(places.all(|(x, y)| shown.rgb(x, y) == drawn.rgb(x, y)));
        Ok(())
    }

    fn count(&self, request: Request) -> usize {
        self.display.lock().of(request).count()
    }

    fn forget(&self) {
        self.display.lock().forget();
    }

    fn wait_status(&mut self, words: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let seen = self.program.notify()?.seen()?;
            let newest = seen.iter().rev().find(|n| n.name == "STATUS");
            if newest.is_some_and(|n| n.value.contains(words)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no {words:?} in {seen:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(self) -> anyhow::Result<()> {
        let Self {
            gpu,
            display,
            mut program,
            ..
        } = self;
        drop(gpu);
        let status = program.wait_exit(SOON)?;
        ensure!(status.success(), "{status}: {}", program.stderr());
        Ok(display.finish()?)
    }
}

/// The color of the whole picture, where it has one.
fn color(picture: &Surface) -> Option<[u8; 3]> {
    let mut pixels = picture.pixels.chunks_exact(4);
    let first = pixels.next()?;
    pixels
        .all(|pixel| pixel == first)
        .then(|| picture.rgb(0, 0))?
}

fn pictures_are_passed_on(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.draw_triangle()?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    let (drawn, passed) = (vm.read_back()?, vm.passed_on()?);
    ensure!(drawn.rgb(0, 0) == Some([0, 255, 0]) && color(&drawn).is_none());
    ensure!(drawn.rgb(180, 140) != Some([0, 255, 0]), "no triangle");
    ensure!(passed == drawn, "the buffer is not what was drawn");
    ensure!(vm.count(Request::DmabufScanout2) == 1);
    let display = vm.display.lock();
    ensure!(display.protocol_features == Some(1 << 1));
    let scanout = display.dmabufs[0].as_ref().context("no dmabuf")?;
    let [_, x, y, width, height, fd_width, fd_height, stride, ..] = scanout.fields;
    ensure!((x, y) == (0, 0) && (width, height) == SIZE);
    ensure!((fd_width, fd_height) == SIZE && stride >= SIZE.0 * 4);
    drop(display);
    vm.wait_status("200x160")?;
    vm.wait_status("screens as dmabufs")?;

    // Into the same buffer, and only what is flushed is told.
    vm.forget();
    for (n, new) in [RED, BLUE, GREEN].into_iter().enumerate() {
        vm.clear(PICTURE, new)?;
        let part = Rect::new(8 * n as u32, 16, 24, 32);
        ok(vm.gpu.flush(PICTURE, part))?;
        vm.wait(Request::DmabufUpdate, n + 1)?;
        let told = vm.display.lock().of(Request::DmabufUpdate).last().copied();
        ensure!(told.is_some_and(|m| m.scanout() == 0 && m.rect() == part));
        let expected = new.map(|c| (c * 255.0) as u8);
        ensure!(color(&vm.passed_on()?) == Some(expected), "{new:?}");
    }
    ensure!(vm.count(Request::DmabufScanout2) == 0, "passed on again");
    ensure!(vm.count(Request::Update) + vm.count(Request::Scanout) == 0);

    // Another buffer, as drivers do that have two.
    for id in [OTHER, PICTURE, OTHER] {
        vm.clear(id, if id == OTHER { RED } else { BLUE })?;
        vm.forget();
        vm.show(id)?;
        vm.wait(Request::DmabufUpdate, 1)?;
        let expected = if id == OTHER {
            [255, 0, 0]
        } else {
            [0, 0, 255]
        };
        ensure!(color(&vm.passed_on()?) == Some(expected), "resource {id}");
    }
    println!("pictures are passed on, and what is drawn into them is there");
    Ok(())
}

fn modifiers_are_not_told_to_all(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, RED)?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    ensure!(vm.count(Request::DmabufScanout) == 1);
    ensure!(vm.count(Request::DmabufScanout2) == 0);
    ensure!(color(&vm.passed_on()?) == Some([255, 0, 0]));
    ensure!(vm.display.lock().protocol_features == Some(0));
    println!("a front-end that knows of no modifiers is told none");
    Ok(())
}

fn the_way_changes(vm: &mut Machine) -> anyhow::Result<()> {
    vm.forget();
    vm.clear(PICTURE, GREEN)?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    // A part of a resource is shown by its pixels.
    let part = Rect::new(0, 0, 100, 160);
    ok(vm.gpu.set_scanout(0, PICTURE, part))?;
    ok(vm.gpu.flush(PICTURE, ALL))?;
    vm.wait(Request::Update, 1)?;
    ensure!(color(vm.display.lock().surface(0)?) == Some([0, 255, 0]));
    vm.wait_status("screens read back")?;
    // And all of it as a buffer again, until it is disabled, or gone.
    for round in 0..2 {
        vm.forget();
        vm.show(PICTURE)?;
        vm.wait(Request::DmabufUpdate, 1)?;
        ensure!(color(&vm.passed_on()?) == Some([0, 255, 0]));
        if round == 0 {
            ok(vm.gpu.set_scanout(0, 0, Rect::default()))?;
        } else {
            ok(vm.gpu.unref(PICTURE))?;
        }
        vm.wait_display(|d| d.dmabufs[0].is_none())?;
    }
    println!("screens change between buffers, pixels and nothing");
    Ok(())
}

fn a_slow_front_end_stops_nothing(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    vm.forget();
    for n in 0..50 {
        vm.clear(PICTURE, if n % 2 == 0 { RED } else { BLUE })?;
        ok(vm.gpu.flush(PICTURE, Rect::new(n, n, 10, 10)))?;
        vm.gpu.move_cursor(0, (n, n), 0)?;
    }
    vm.wait_display(|d| d.cursor.position == (49, 49))?;
    ensure!(vm.gpu.get_display_info()?[0].enabled);
    ensure!(vm.count(Request::DmabufUpdate) == 0, "one is not answered");
    vm.display.lock().answer_updates()?;
    vm.wait(Request::DmabufUpdate, 1)?;
    let told = vm.display.lock().of(Request::DmabufUpdate).last().copied();
    let told = told.context("no update")?.rect();
    ensure!(told == Rect::new(0, 0, 59, 59), "{told:?}");
    ensure!(color(&vm.passed_on()?) == Some([0, 0, 255]));
    vm.program.signal(Signal::TERM)?;
    let status = vm.program.wait_exit(SOON)?;
    ensure!(status.success(), "{status}: {}", vm.program.stderr());
    println!("a front-end that answers late stops nothing");
    Ok(())
}

fn a_silent_front_end_gets_pixels(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.draw_triangle()?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    let drawn = vm.read_back()?;
    let deadline = Instant::now() + SOON;
    while vm.count(Request::Update) == 0 {
        ensure!(
            Instant::now() < deadline,
            "no pixels: {}",
            vm.program.stderr()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // Without a flush: the guest knows nothing of it.
    vm.assert_pixels(&drawn)?;
    vm.wait_status("screens read back")?;
    let said = vm.program.stderr();
    ensure!(said.matches("DMABUF_UPDATE").count() == 1, "{said}");
    // Until it does.
    vm.forget();
    vm.clear(PICTURE, RED)?;
    ok(vm.gpu.flush(PICTURE, ALL))?;
    vm.wait(Request::Update, 1)?;
    ensure!(vm.count(Request::DmabufUpdate) == 0);
    vm.display.lock().answer_updates()?;
    vm.wait(Request::DmabufUpdate, 1)?;
    ensure!(vm.count(Request::DmabufScanout2) == 1);
    ensure!(color(&vm.passed_on()?) == Some([255, 0, 0]));
    println!("a front-end that does not answer is sent pixels until it does");
    Ok(())
}

fn a_new_display_is_passed_all(vm: &mut Machine) -> anyhow::Result<()> {
    vm.forget();
    vm.clear(PICTURE, BLUE)?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    // Whether the front-end begins anew for the same driver, or closes the socket first.
    for closes in [false, true] {
        if closes {
            vm.display.lock().close();
        }
        let (display, socket) = DisplayThread::start(modern())?;
        vm.gpu.session.set_gpu_socket(socket)?;
        vm.display = display;
        vm.wait(Request::DmabufUpdate, 1)?;
        ensure!(color(&vm.passed_on()?) == Some([0, 0, 255]));
    }
    // A new driver: what the old one showed is gone.
    vm.gpu.stop()?;
    let (display, socket) = DisplayThread::start(modern())?;
    vm.gpu.restart(Some(socket))?;
    vm.display = display;
    vm.prepare()?;
    vm.clear(PICTURE, RED)?;
    vm.show(PICTURE)?;
    vm.wait(Request::DmabufUpdate, 1)?;
    ensure!(vm.count(Request::DmabufScanout2) == 1);
    ensure!(color(&vm.passed_on()?) == Some([255, 0, 0]));
    println!("a new display is passed what is shown");
    Ok(())
}

fn nothing_is_left_open(vm: &mut Machine) -> anyhow::Result<()> {
    let round = |vm: &mut Machine| {
        let id = 50;
        ok(vm.gpu.create_3d(id, Create3d::picture(64, 64)))?;
        let all = Rect::sized(64, 64);
        vm.forget();
        for scanout in 0..2 {
            ok(vm.gpu.set_scanout(scanout, id, all))?;
        }
        ok(vm.gpu.flush(id, all))?;
        vm.wait(Request::DmabufUpdate, 2)?;
        // Each changes what is shown, and somebody has to hear of it.
        vm.program.notify()?.seen()?;
        ok(vm.gpu.unref(id))
    };
    for _ in 0..20 {
        round(vm)?;
    }
    let before = vm.program.open_descriptors()?;
    for _ in 0..200 {
        round(vm)?;
    }
    let after = vm.program.open_descriptors()?;
    // OpenGL closes what is its own somewhat later.
    ensure!(after < before + 10, "{after} descriptors, {before} before");
    println!("what is passed on is closed");
    Ok(())
}

fn pixels_can_be_asked_for(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.show(PICTURE)?;
    vm.wait(Request::Update, 1)?;
    ensure!(vm.count(Request::DmabufScanout2) == 0);
    ensure!(vm.display.lock().protocol_features == Some(0));
    ensure!(color(vm.display.lock().surface(0)?) == Some([0, 255, 0]));
    println!("--no-dmabuf: pixels only");
    Ok(())
}

fn what_is_not_passed_on_is_read_back(vm: &mut Machine) -> anyhow::Result<()> {
    vm.clear(PICTURE, GREEN)?;
    vm.draw_triangle()?;
    vm.show(PICTURE)?;
    vm.wait(Request::Update, 1)?;
    let drawn = vm.read_back()?;
    ensure!(color(&drawn).is_none(), "no triangle");
    vm.assert_pixels(&drawn)?;
    ensure!(vm.count(Request::DmabufScanout) + vm.count(Request::DmabufScanout2) == 0);
    vm.wait_status("screens read back")?;
    println!("what cannot be passed on is read back");
    Ok(())
}
