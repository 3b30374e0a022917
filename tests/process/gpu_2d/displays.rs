// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Display information and EDIDs that a guest reads.

use super::*;

#[test]
fn display_info_comes_from_the_display() {
    let mut options = DisplayOptions::with_modes(&[(1280, 800), (640, 480)]);
    options.modes[1].enabled = false;
    let mut vm = GpuVm::with_display(options);
    let info = vm.gpu.get_display_info().unwrap();
    assert_eq!(info.len(), MAX_SCANOUTS);
    assert_eq!(
        (info[0].rect, info[0].enabled),
        (Rect::sized(1280, 800), true)
    );
    assert!(!info[1].enabled && !info[2].enabled);

    // A window that was resized: the guest asks again, and so does the backend.
    vm.display.lock().options.modes[0] = Mode {
        rect: Rect::sized(801, 603),
        enabled: true,
    };
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(801, 603)
    );
    vm.finish();
}

#[test]
fn configuration_counts_scanouts_and_no_capsets() {
    let mut vm = GpuVm::start();
    let (scanouts, capsets) = vm.gpu.config().unwrap();
    assert!((1..=16).contains(&scanouts), "{scanouts} scanouts");
    assert_eq!(capsets, 0, "there are no capability sets without virgl");
    vm.finish();
}

#[test]
fn edid_comes_from_the_display_if_it_answers() {
    let mut options = DisplayOptions::with_modes(&[(1280, 800), (1024, 600)]);
    let blocks = vec![
        Edid::make("left", 1280, 800),
        Edid::make("right", 1024, 600),
    ];
    options.edid = EdidAnswer::Blocks(blocks.clone());
    let mut vm = GpuVm::with_display(options);
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_EDID,
        0,
        "EDID is not offered"
    );
    assert_eq!(vm.gpu.get_edid(0).unwrap(), blocks[0]);
    assert_eq!(vm.gpu.get_edid(1).unwrap(), blocks[1]);
    assert_eq!(vm.display.lock().protocol_features.map(|f| f & 1), Some(1));
    vm.finish();
}

#[test]
fn edid_is_generated_if_the_display_does_not_answer() {
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(1360, 768)]));
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_EDID,
        0,
        "EDID is not offered"
    );
    let edid = Edid::parse(&vm.gpu.get_edid(0).unwrap()).unwrap();
    assert_eq!((edid.width, edid.height), (1360, 768));
    assert!(
        (50_000..=75_000).contains(&edid.refresh),
        "{} mHz",
        edid.refresh
    );
    assert!(
        edid.name.is_some_and(|name| !name.is_empty()),
        "a monitor has a name"
    );
    assert!(
        edid.vendor.chars().all(|c| c.is_ascii_uppercase()),
        "{}",
        edid.vendor
    );

    let asked = vm.display.lock().of(Request::GetEdid).count();
    assert_eq!(asked, 0, "a display that does not offer EDID never answers");
    answered(vm.gpu.try_get_edid(16), ResponseKind::ErrInvalidScanoutId);
    answered(
        vm.gpu.try_get_edid(u32::MAX),
        ResponseKind::ErrInvalidScanoutId,
    );
    vm.finish();
}

#[test]
fn generated_edid_is_valid_for_any_size() {
    let sizes = [
        (1, 1),
        (640, 480),
        (1366, 768),
        (1920, 1080),
        (3840, 2160),
        (5120, 2880),
    ];
    let mut vm = GpuVm::start();
    for (width, height) in sizes {
        let rect = Rect::sized(width, height);
        vm.display.lock().options.modes[0] = Mode {
            rect,
            enabled: true,
        };
        vm.gpu.get_display_info().unwrap();
        let edid = vm.gpu.get_edid(0).unwrap();
        let parsed = Edid::parse(&edid);
        assert!(parsed.is_ok(), "{width}x{height}: {parsed:?}");
    }
    vm.finish();
}
