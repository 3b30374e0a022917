// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest in QEMU draws on our GPU, and QEMU shows it pixel for pixel.

use std::time::Duration;

use crate::common::{assert_clean_exit, gpu_command};
use anyhow::Context as _;
use frontend::{Program, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A guest whose GPU is ours.
struct Machine {
    vm: Vm,
    program: Program,
}

impl Machine {
    fn boot(properties: &str, kernel_options: &str) -> anyhow::Result<Self> {
        let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
        let program = gpu_command(SocketForm::Path).spawn()?;
        program.wait_stderr("serving on")?;
        let vm = Vm::builder(&artifacts)
            .gpu_socket_with(program.socket_path(), properties)
            .kernel_options(kernel_options)
            .boot()
            .with_context(|| program.stderr())?;
        Ok(Self { vm, program })
    }

    /// Has the guest draw a test card and waits until QEMU shows it.
    fn shows_test_card(&mut self, width: u32, height: u32) -> anyhow::Result<Image> {
        let card = Image::test_card(width, height);
        self.vm.command(&format!("testcard {width}x{height}"))?;
        let shown = self.vm.wait_screen(&card, SOON);
        shown.with_context(|| self.program.stderr())
    }

    /// Ends the VM; the program has to end by itself.
    fn finish(self) {
        let Self { vm, mut program } = self;
        drop(vm);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn screen_shows_what_the_guest_draws() -> anyhow::Result<()> {
    let mut machine = Machine::boot("", "")?;
    let mut card = machine.shows_test_card(1280, 800)?;

    machine.vm.command("patch 10 20 300 40 12ab34")?;
    card.fill(10, 20, 300, 40, 0x12_ab_34);
    machine.vm.wait_screen(&card, SOON)?;

    machine.shows_test_card(1001, 701)?;
    machine.shows_test_card(1920, 1080)?;

    // The cursor is not in a screendump; that the picture is untouched and the guest goes on is.
    machine.vm.command("cursor 100 50 ff0000")?;
    machine.vm.command("cursor move 120 60")?;
    machine.vm.command("cursor off")?;
    machine.shows_test_card(640, 480)?;
    machine.finish();
    Ok(())
}

/// vhost-user-gpu-pci hides what it does not know.
#[test]
fn guest_has_no_blobs_on_the_device_of_qemu() -> anyhow::Result<()> {
    let mut machine = Machine::boot("", "ignore_loglevel")?;
    let log = machine.vm.kernel_log();
    assert!(log.contains("-resource_blob"), "{log}");
    machine.shows_test_card(800, 600)?;
    machine.finish();
    Ok(())
}

#[test]
fn guest_reads_the_edid_of_qemu() -> anyhow::Result<()> {
    let mut machine = Machine::boot("xres=1024,yres=600", "")?;
    let info = machine.vm.command("drm-info")?.join("\n");
    // QEMU's maker is RHT; its EDID prefers what -device was told.
    assert!(info.contains("1024x600"), "{info}");
    assert!(info.contains("00ffffffffffff004914"), "{info}");
    machine.finish();
    Ok(())
}

#[test]
fn screen_survives_reload_reboot_and_reset() -> anyhow::Result<()> {
    let mut machine = Machine::boot("", "")?;
    machine.shows_test_card(800, 600)?;
    machine.vm.command("reload-driver virtio_gpu")?;
    machine.shows_test_card(640, 480)?;
    machine.vm.reboot()?;
    machine.shows_test_card(800, 600)?;
    machine.vm.reset()?;
    machine.shows_test_card(640, 480)?;
    machine.finish();
    Ok(())
}

#[test]
fn paused_vm_resumes_with_its_screen() -> anyhow::Result<()> {
    let mut machine = Machine::boot("", "")?;
    let mut card = machine.shows_test_card(800, 600)?;
    machine.vm.qmp("stop", Value::Null)?;
    machine.vm.qmp("cont", Value::Null)?;
    machine.vm.wait_screen(&card, SOON)?;
    // The guest knows of nothing: its resources have to be there still.
    machine.vm.command("patch 3 5 70 80 00ff00")?;
    card.fill(3, 5, 70, 80, 0x00_ff_00);
    machine.vm.wait_screen(&card, SOON)?;
    machine.finish();
    Ok(())
}

#[test]
fn two_outputs_show_two_parts_of_one_picture() -> anyhow::Result<()> {
    // There is no window that would switch the second output on.
    let mut machine = Machine::boot("max_outputs=2", "video=Virtual-2:640x480e")?;
    machine.vm.command("testcard 640x480 2")?;
    let whole = Image::test_card(1280, 480);
    machine.vm.wait_screen(&whole.crop(0, 0, 640, 480), SOON)?;
    let right = whole.crop(640, 0, 640, 480);
    let shown = machine.vm.screendump_of("gpu", 1)?;
    assert_eq!(shown.difference(&right), None);

    machine.vm.command("patch 600 10 80 20 445566")?;
    let mut patched = whole;
    patched.fill(600, 10, 80, 20, 0x44_55_66);
    machine
        .vm
        .wait_screen(&patched.crop(0, 0, 640, 480), SOON)?;
    let shown = machine.vm.screendump_of("gpu", 1)?;
    assert_eq!(shown.difference(&patched.crop(640, 0, 640, 480)), None);
    machine.finish();
    Ok(())
}

#[test]
fn screen_shows_the_last_frame_of_an_animation() -> anyhow::Result<()> {
    let mut machine = Machine::boot("", "")?;
    for (width, height) in [(1920, 1080), (640, 480), (640, 480)] {
        let running = machine.vm.start(&format!("animate {width}x{height}"))?;
        running.expect("drawing", SOON)?;
        machine.vm.command("shell sleep 1")?;
        machine.vm.command("animate-stop")?;
        let frame = running.finish(SOON)?.concat().parse()?;
        let expected = Image::animation(frame, width, height);
        machine.vm.wait_screen(&expected, SOON)?;
        eprintln!("{width}x{height}: frame {frame}");
    }
    machine.finish();
    Ok(())
}
