// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fences, UUIDs, error codes, and impossible backings.

use super::*;

#[test]
fn fenced_command_is_answered_with_its_fence() {
    let mut vm = GpuVm::start();
    vm.gpu.fence_next(0x1234_5678_9abc_def0);
    let response = ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    assert!(response.has_fence(0x1234_5678_9abc_def0), "{response:?}");
    let response = ok(vm.gpu.unref(1));
    assert_eq!(response.flags & v::VIRTIO_GPU_FLAG_FENCE, 0, "{response:?}");
    // A failed one is complete too.
    vm.gpu.fence_next(7);
    let response = answered(vm.gpu.unref(1), ResponseKind::ErrInvalidResourceId);
    assert!(response.has_fence(7), "{response:?}");

    // Many at once: each with its own, in their order.
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    for id in 1..=20 {
        vm.gpu.fence_next(1000 + u64::from(id));
        vm.gpu.push(command, &[id, XRGB as u32, 4, 4]).unwrap();
    }
    vm.gpu.control.queue.submit().unwrap();
    for id in 1..=20 {
        let (_, response) = vm.gpu.control.next_response().unwrap();
        assert!(response.has_fence(1000 + id), "fence {id}: {response:?}");
    }
    vm.finish();
}

#[test]
fn uuid_is_assigned_if_offered() {
    let options = GpuOptions {
        features: u64::MAX,
        ..GpuOptions::default()
    };
    let mut vm = GpuVm::with(DisplayOptions::default(), options);
    ok(vm.gpu.create_2d(1, XRGB, 4, 4));
    ok(vm.gpu.create_2d(2, XRGB, 4, 4));
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_RESOURCE_UUID,
        0,
        "UUID is not offered"
    );
    let mut uuid = |id| answered(vm.gpu.assign_uuid(id), ResponseKind::OkResourceUuid).body;
    let (one, two) = (uuid(1), uuid(2));
    assert_eq!(one.len(), 16);
    assert_ne!(one, two);
    assert_ne!(one, [0; 16]);
    answered(vm.gpu.assign_uuid(3), ResponseKind::ErrInvalidResourceId);
    vm.finish();
}

/// Windows' driver accepts no feature of the device, and sends GET_EDID all the same.
#[test]
fn edid_and_uuid_work_without_their_features() {
    let options = GpuOptions {
        features: 0,
        ..GpuOptions::default()
    };
    let mut vm = GpuVm::with(DisplayOptions::default(), options);
    let gpu = &mut vm.gpu;
    let accepted = gpu.features();
    for feature in [v::VIRTIO_GPU_F_EDID, v::VIRTIO_GPU_F_RESOURCE_UUID] {
        assert_eq!(accepted & 1 << feature, 0);
        assert_ne!(gpu.offer.features & 1 << feature, 0);
    }
    let edid = frontend::gpu::Edid::parse(&gpu.get_edid(0).unwrap()).unwrap();
    assert_eq!((edid.width, edid.height), (1024, 768));
    ok(gpu.create_2d(1, XRGB, 4, 4));
    answered(gpu.assign_uuid(1), ResponseKind::OkResourceUuid);
    vm.finish();
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    use ResponseKind::*;
    let mut vm = GpuVm::start();
    let gpu = &mut vm.gpu;
    ok(gpu.create_2d(1, XRGB, 16, 16));

    answered(gpu.create_2d(0, XRGB, 16, 16), ErrInvalidResourceId);
    answered(gpu.create_2d(1, XRGB, 16, 16), ErrInvalidResourceId);
    answered(gpu.create_2d_raw(2, 0, 16, 16), ErrInvalidParameter);
    answered(gpu.create_2d_raw(2, 5, 16, 16), ErrInvalidParameter);
    for (width, height) in [(u32::MAX, u32::MAX), (1 << 16, 1 << 16), (0, 16), (16, 0)] {
        let kind = gpu.create_2d(2, XRGB, width, height).unwrap().kind;
        let named = matches!(kind, ErrOutOfMemory | ErrInvalidParameter);
        assert!(named, "{width}x{height}: {kind:?}");
    }
    answered(gpu.unref(2), ErrInvalidResourceId);
    answered(
        gpu.attach_backing(2, &[(0x10_0000, 64)]),
        ErrInvalidResourceId,
    );
    answered(gpu.detach_backing(2), ErrInvalidResourceId);
    answered(gpu.flush(2, Rect::sized(1, 1)), ErrInvalidResourceId);
    answered(
        gpu.transfer_to_host_2d(2, Rect::sized(1, 1), 0),
        ErrInvalidResourceId,
    );
    answered(
        gpu.set_scanout(0, 2, Rect::sized(1, 1)),
        ErrInvalidResourceId,
    );
    answered(
        gpu.set_scanout(16, 1, Rect::sized(1, 1)),
        ErrInvalidScanoutId,
    );
    answered(
        gpu.set_scanout(u32::MAX, 1, Rect::sized(1, 1)),
        ErrInvalidScanoutId,
    );

    let outside = [
        Rect::new(0, 0, 17, 16),
        Rect::new(0, 0, 16, 17),
        Rect::new(16, 16, 1, 1),
        Rect::new(u32::MAX, 0, 2, 1),
        Rect::new(1, 1, u32::MAX, 1),
        Rect::new(0, u32::MAX, 1, u32::MAX),
    ];
    for rect in outside {
        answered(gpu.flush(1, rect), ErrInvalidParameter);
        answered(gpu.transfer_to_host_2d(1, rect, 0), ErrInvalidParameter);
        answered(gpu.set_scanout(0, 1, rect), ErrInvalidParameter);
    }
    answered(
        gpu.set_scanout(0, 1, Rect::sized(0, 0)),
        ErrInvalidParameter,
    );
    answered(gpu.command(0x7777, &[]), ErrUnspec);
    // Without virgl there is no 3D.
    answered(
        gpu.command(v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE, &[0; 18]),
        ErrUnspec,
    );
    // After all that it still draws.
    ok(gpu.unref(1));
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    assert_shows(&vm.display, 0, (16, 16), pattern);
    vm.finish();
}

#[test]
fn backing_outside_the_memory_is_refused() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 16, 16));
    let end = vm.gpu.memory().end();
    let inside = vm.gpu.memory().alloc(4096, 4096).unwrap();
    let wrong: [&[(u64, u32)]; 5] = [
        &[(end, 1024)],
        &[(end - 512, 1024)],
        &[(inside, 512), (u64::MAX - 100, 512)],
        &[(0, 1024)],
        &[(inside, u32::MAX)],
    ];
    for entries in wrong {
        let response = vm.gpu.attach_backing(1, entries).unwrap();
        assert_ne!(response.kind, ResponseKind::OkNodata, "{entries:x?}");
    }
    // More entries than the request carries.
    let response = vm
        .gpu
        .attach_backing_raw(1, 1000, &[(inside, 1024)])
        .unwrap();
    assert_ne!(response.kind, ResponseKind::OkNodata);
    // The right one is still taken.
    ok(vm.gpu.attach_backing(1, &[(inside, 1024)]));
    vm.finish();
}

#[test]
fn short_backing_is_not_read_beyond() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 16, 16));
    let backing = Backing::new(vm.gpu.memory(), 100, Pieces::Odd);
    ok(vm.gpu.attach_backing(1, &backing.entries));
    let whole = Rect::sized(16, 16);
    answered(
        vm.gpu.transfer_to_host_2d(1, whole, 0),
        ResponseKind::ErrInvalidParameter,
    );
    let row = Rect::sized(16, 1);
    ok(vm.gpu.transfer_to_host_2d(1, row, 0));
    answered(
        vm.gpu.transfer_to_host_2d(1, row, u64::MAX - 3),
        ResponseKind::ErrInvalidParameter,
    );
    vm.finish();
}
