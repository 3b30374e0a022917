// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Vulnerabilities of other virtio-gpu devices and of virglrenderer, replayed against the real program over
//! its socket. docs/security.md has the table.

use crate::common::growth::Holdings;
use crate::common::*;
use frontend::gpu::{Format, HEADER_SIZE, Rect, Request, ResponseKind};
use frontend::{Buffer, Descriptor, descriptor_flags as flags};
use virtio_bindings::virtio_gpu as v;

const XRGB: Format = Format::B8G8R8X8;

/// Has `round` done often enough for a leak of a page each to be seen.
fn leaks_nothing(vm: &mut GpuVm, mut round: impl FnMut(&mut GpuVm, u32)) {
    for n in 0..300 {
        round(vm, n);
    }
    let before = Holdings::of(&vm.program);
    for n in 0..3000 {
        round(vm, n);
    }
    before.assert_not_grown(&vm.program, 2048);
}

fn is_served(mut vm: GpuVm) {
    ok(vm.gpu.create_2d(0xfff0, XRGB, 8, 8));
    vm.gpu.update_cursor(0, (1, 1), 0, (0, 0)).unwrap();
    vm.finish();
}

/// virtio_gpu_resource_create_2d: what a refused or repeated creation had allocated was lost, and
/// there was no end to how many there could be.
#[test]
fn cve_2016_7994_endless_resources() {
    let mut vm = GpuVm::start();
    leaks_nothing(&mut vm, |vm, n| {
        // Each of these once allocated before it failed.
        ok(vm.gpu.create_2d(1, XRGB, 64, 64));
        let again = vm.gpu.create_2d(1, XRGB, 64, 64);
        answered(again, ResponseKind::ErrInvalidResourceId);
        let huge = vm.gpu.create_2d(2 + n, XRGB, 16384, 16384);
        answered(huge, ResponseKind::ErrOutOfMemory);
        let format = vm.gpu.create_2d_raw(2 + n, 99, 64, 64);
        answered(format, ResponseKind::ErrInvalidParameter);
        ok(vm.gpu.unref(1));
    });
    is_served(vm);
}

/// virtqueue_pop: requests without a wait for their answers were all kept. The same few descriptors
/// are made available again and again here.
#[test]
fn cve_2016_5403_requests_without_waiting_for_responses() {
    let mut vm = GpuVm::start();
    let page = vm.gpu.memory().alloc(4096, 4096).unwrap();
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
    vm.gpu.fence_next(1);
    let request = vm.gpu.request(command, &[1, 0]);
    vm.gpu.memory().write(page, &request).unwrap();
    let queue = &mut vm.gpu.control.queue;
    let read = Descriptor {
        address: page,
        len: request.len() as u32,
        flags: flags::NEXT,
        next: 1,
    };
    let write = Descriptor {
        address: page + 2048,
        len: HEADER_SIZE as u32,
        flags: flags::WRITE,
        next: 0,
    };
    queue.write_descriptor(0, read).unwrap();
    queue.write_descriptor(1, write).unwrap();
    let before = Holdings::of(&vm.program);
    let queue = &mut vm.gpu.control.queue;
    for _ in 0..2000 {
        for _ in 0..64 {
            queue.offer(0).unwrap();
        }
        queue.publish().unwrap();
        queue.kick().unwrap();
        let all = queue.next_available();
        frontend::Deadline::default()
            .until("64 answers", || {
                Ok((queue.used_index()? == all).then_some(()))
            })
            .unwrap();
    }
    before.assert_not_grown(&vm.program, 1024);
}

/// virtio_gpu_set_scanout: a scanout's number was not compared with how many there are.
#[test]
fn cve_2016_10029_missing_scanout() {
    let mut vm = GpuVm::start();
    vm.painted(1, XRGB, (16, 16));
    let whole = Rect::sized(16, 16);
    for scanout in [16, 17, 255, 1 << 31, u32::MAX] {
        for id in [0, 1] {
            let set = vm.gpu.set_scanout(scanout, id, whole);
            answered(set, ResponseKind::ErrInvalidScanoutId);
        }
        vm.gpu.update_cursor(scanout, (1, 2), 0, (0, 0)).unwrap();
    }
    is_served(vm);
}

/// virtio_gpu_resource_destroy: the list of a backing was not freed with its resource.
#[test]
fn cve_2016_9912_backing_that_outlives_its_resource() {
    let mut vm = GpuVm::start();
    let address = vm.gpu.memory().alloc(4096, 4096).unwrap();
    let entries = vec![(address, 4); 500];
    leaks_nothing(&mut vm, |vm, _| {
        ok(vm.gpu.create_2d(1, XRGB, 8, 8));
        ok(vm.gpu.attach_backing(1, &entries));
        ok(vm.gpu.unref(1));
    });
    is_served(vm);
}

/// virtio_gpu_resource_attach_backing: a second backing replaced the first one, which was lost.
#[test]
fn cve_2017_5578_second_backing() {
    let mut vm = GpuVm::start();
    let address = vm.gpu.memory().alloc(4096, 4096).unwrap();
    let entries = vec![(address, 4); 500];
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    ok(vm.gpu.attach_backing(1, &entries));
    leaks_nothing(&mut vm, |vm, _| {
        let second = vm.gpu.attach_backing(1, &entries);
        answered(second, ResponseKind::ErrUnspec);
    });
    is_served(vm);
}

/// update_cursor_data_*: the pixels of a resource that is no cursor were not freed.
#[test]
fn cve_2016_9846_cursor_of_another_size() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 63, 64));
    ok(vm.gpu.create_2d(2, XRGB, 512, 512));
    ok(vm.gpu.create_2d(3, XRGB, 4, 1024));
    leaks_nothing(&mut vm, |vm, n| {
        vm.gpu.update_cursor(0, (1, 1), 1 + n % 4, (0, 0)).unwrap();
    });
    assert_eq!(vm.display.lock().of(Request::CursorUpdate).count(), 0);
    is_served(vm);
}

/// Buffers in the device's own registers had QEMU's device entered while it was at work
/// (re-entrancy by DMA), and its requests freed twice. Here the registers are the front-end's; an
/// address that is no memory of the guest is an error, and rings that lie in each other's buffers
/// are only data.
#[test]
fn cve_2024_3446_request_that_writes_into_its_own_ring() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let page = memory.alloc(4096, 4096).unwrap();
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
    let request = vm.gpu.request(command, &[0, 0]);
    memory.write(page, &request).unwrap();
    // What a VMM maps its registers at: outside the memory that it shares.
    for registers in [0xfe00_0000, 0xfee0_0000, memory.end()] {
        let queue = &mut vm.gpu.control.queue;
        let read = Buffer::readable(page, request.len() as u32);
        let write = Buffer::writable(registers, 1056);
        queue.add(&[read, write]).unwrap();
        queue.submit().unwrap();
        assert_eq!(queue.wait_used(QUICK).unwrap().len, 0);
    }
    // Answers over the descriptors and the rings of both queues.
    let [descriptors, available, used] = vm.gpu.control.queue.addresses();
    for target in [
        descriptors,
        available,
        used,
        vm.gpu.cursor.queue.addresses()[1],
    ] {
        let queue = &mut vm.gpu.control.queue;
        queue
            .add(&[
                Buffer::readable(page, request.len() as u32),
                Buffer::writable(target, 1056),
            ])
            .unwrap();
        queue.publish().unwrap();
        queue.kick().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    vm.gpu.stop().unwrap();
    vm.gpu.cursor.reset().unwrap();
    vm.gpu
        .restart(None::<std::os::unix::net::UnixStream>)
        .unwrap();
    is_served(vm);
}

/// contrib/vhost-user-gpu: backings and pictures that were lost with each unref, and with each
/// attach that failed; in 2D.
#[test]
fn cve_2021_3544_leaking_resources() {
    let mut vm = GpuVm::start();
    let address = vm.gpu.memory().alloc(1 << 20, 4096).unwrap();
    let outside = vm.gpu.memory().end();
    leaks_nothing(&mut vm, |vm, n| {
        ok(vm.gpu.create_2d(1, XRGB, 128, 128));
        let wrong = vm.gpu.attach_backing(1, &[(address, 4096), (outside, 1)]);
        answered(wrong, ResponseKind::ErrInvalidParameter);
        let short = vm.gpu.attach_backing_raw(1, 300, &[(address, 4096); 200]);
        answered(short, ResponseKind::ErrInvalidParameter);
        let entries: Vec<_> = (0..512).map(|n| (address + 128 * n, 128)).collect();
        ok(vm.gpu.attach_backing(1, &entries));
        ok(vm.gpu.transfer_to_host_2d(1, Rect::sized(128, 128), 0));
        if n % 2 == 0 {
            ok(vm.gpu.detach_backing(1));
        }
        ok(vm.gpu.unref(1));
    });
    is_served(vm);
}

#[cfg(feature = "virgl")]
mod virgl {
    use frontend::SocketForm;
    use frontend::gpu::{Create3d, DisplayOptions, DisplayThread, GpuOptions, Stream, Transfer3d};

    use super::*;

    const CONTEXT: u32 = 1;

    fn start() -> GpuVm {
        let command = gpu_command(SocketForm::Connected(7))
            .arg("--virgl")
            .env("LIBGL_ALWAYS_SOFTWARE", "1");
        let display = DisplayThread::start(DisplayOptions::default()).unwrap();
        GpuVm::of(command.spawn().unwrap(), display, GpuOptions::virgl())
    }

    fn is_served(mut vm: GpuVm) {
        ok(vm.gpu.create_context(99, "last"));
        ok(vm.gpu.create_3d(99, Create3d::picture(8, 8)));
        ok(vm.gpu.context_attach(99, 99));
        let draw = Stream::default().draw_to(1, 99).clear([1.0, 0.0, 0.0]);
        ok(vm.gpu.submit_3d(99, &draw));
        vm.finish();
    }

    /// Resident memory may settle by a little more than in 2D: it is OpenGL's.
    fn leaks_nothing(vm: &mut GpuVm, mut round: impl FnMut(&mut GpuVm)) {
        for _ in 0..200 {
            round(vm);
        }
        let before = Holdings::of(&vm.program);
        for _ in 0..1500 {
            round(vm);
        }
        before.assert_not_grown(&vm.program, 4096);
    }

    fn capset_size(vm: &mut GpuVm, index: u32) -> (u32, u32, u32) {
        let info = answered(vm.gpu.capset_info(index), ResponseKind::OkCapsetInfo);
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| info.body[4 * n + i]));
        // The padding, too, is of the device's making.
        assert_eq!(word(3), 0, "what the specification has no use for is 0");
        (word(0), word(1), word(2))
    }

    /// What lay in the answer's memory before was sent with it, where nothing was written: here, in
    /// QEMU's own device and in contrib/vhost-user-gpu.
    fn capset_info_tells_nothing_of_the_host() {
        let mut vm = start();
        for index in 0..2 {
            let first = vm.gpu.capset_info(index).unwrap();
            assert_eq!(first.body.len(), 16);
            for _ in 0..50 {
                // Something else in the memory that the next answer is made of.
                vm.gpu.get_display_info().unwrap();
                let (id, version, size) = capset_size(&mut vm, index);
                answered(vm.gpu.capset(id, version, size), ResponseKind::OkCapset);
                assert_eq!(vm.gpu.capset_info(index).unwrap(), first);
            }
        }
        for index in [2, 3, 1 << 31, u32::MAX] {
            let none = answered(vm.gpu.capset_info(index), ResponseKind::ErrInvalidParameter);
            assert!(none.body.is_empty(), "an error has no body");
        }
        is_served(vm);
    }

    #[test]
    fn cve_2016_9845_capset_info_of_stale_memory() {
        capset_info_tells_nothing_of_the_host();
    }

    #[test]
    fn cve_2021_3545_capset_info_of_stale_memory() {
        capset_info_tells_nothing_of_the_host();
    }

    /// virgl_cmd_get_capset: more was sent than the library had filled in.
    #[test]
    fn cve_2016_9908_capset_of_stale_memory() {
        let mut vm = start();
        for index in 0..2 {
            let (id, version, size) = capset_size(&mut vm, index);
            let versions: Vec<_> = (0..=version)
                .map(|v| vm.gpu.capset(id, v, size).unwrap())
                .collect();
            for _ in 0..20 {
                for (v, first) in (0..).zip(&versions) {
                    vm.gpu.get_display_info().unwrap();
                    let again = vm.gpu.capset(id, v, size).unwrap();
                    assert_eq!(&again, first, "set {id}, version {v}");
                    assert!(again.body.len() <= size as usize);
                }
            }
        }
        is_served(vm);
    }

    /// virgl_cmd_get_capset: a set that does not exist has the size 0, for which the library wrote
    /// what it wrote all the same, in QEMU's device and in contrib/vhost-user-gpu.
    fn a_capset_of_no_size() {
        let mut vm = start();
        for id in [0, 3, 4, 5, 6, 64, 1 << 31, u32::MAX] {
            for version in [0, 1, u32::MAX] {
                let none = vm.gpu.capset(id, version, 4096);
                let none = answered(none, ResponseKind::ErrInvalidParameter);
                assert!(none.body.is_empty());
            }
        }
        for index in 0..2 {
            let (id, version, size) = capset_size(&mut vm, index);
            // A version that the set does not have, and less room than it takes.
            let newer = vm.gpu.capset(id, version + 1, size);
            answered(newer, ResponseKind::ErrInvalidParameter);
            for room in [0, 1, size / 2, size - 1] {
                answered(vm.gpu.capset(id, version, room), ResponseKind::ErrUnspec);
            }
        }
        is_served(vm);
    }

    #[test]
    fn cve_2016_10028_empty_capset() {
        a_capset_of_no_size();
    }

    #[test]
    fn cve_2021_3546_empty_capset() {
        a_capset_of_no_size();
    }

    /// virgl_resource_attach_backing: a second backing, and one that the library refused, were lost.
    #[test]
    fn cve_2017_5552_second_backing_in_3d() {
        let mut vm = start();
        let address = vm.gpu.memory().alloc(4096, 4096).unwrap();
        let entries = vec![(address, 4); 500];
        ok(vm.gpu.create_3d(1, Create3d::picture(8, 8)));
        ok(vm.gpu.attach_backing(1, &entries));
        leaks_nothing(&mut vm, |vm| {
            let second = vm.gpu.attach_backing(1, &entries);
            answered(second, ResponseKind::ErrUnspec);
            let none = vm.gpu.attach_backing(2, &entries);
            answered(none, ResponseKind::ErrInvalidResourceId);
        });
        is_served(vm);
    }

    fn a_backing_that_outlives_its_resource(vm: &mut GpuVm) {
        let address = vm.gpu.memory().alloc(4096, 4096).unwrap();
        let entries = vec![(address, 4); 500];
        leaks_nothing(vm, |vm| {
            ok(vm.gpu.create_3d(1, Create3d::picture(8, 8)));
            ok(vm.gpu.attach_backing(1, &entries));
            ok(vm.gpu.unref(1));
        });
    }

    /// virgl_cmd_resource_unref: the list of a backing was not freed with its resource.
    #[test]
    fn cve_2017_5857_backing_that_outlives_its_resource_in_3d() {
        let mut vm = start();
        a_backing_that_outlives_its_resource(&mut vm);
        is_served(vm);
    }

    /// contrib/vhost-user-gpu had the same, and lost the list when an attach failed.
    #[test]
    fn cve_2021_3544_leaking_resources_in_3d() {
        let mut vm = start();
        a_backing_that_outlives_its_resource(&mut vm);
        let (inside, outside) = (vm.gpu.memory().alloc(4096, 4096), vm.gpu.memory().end());
        let inside = inside.unwrap();
        ok(vm.gpu.create_3d(1, Create3d::picture(8, 8)));
        leaks_nothing(&mut vm, |vm| {
            let wrong = vm.gpu.attach_backing(1, &[(inside, 256), (outside, 1)]);
            answered(wrong, ResponseKind::ErrInvalidParameter);
        });
        is_served(vm);
    }

    /// RESOURCE_INLINE_WRITE and the transfers, of a part or with strides that lead beyond the data
    /// that came with them: the library wrote what lay behind it, or behind the texture.
    fn inline_writes_out_of_bounds(of: Create3d) {
        let mut vm = start();
        ok(vm.gpu.create_3d(7, of));
        let Create3d {
            width,
            height,
            array_size,
            ..
        } = of;
        // All of it, with strides that overflow what the library computes with.
        for (context, stride) in (50..).zip([u32::MAX, u32::MAX - 63, 1 << 31]) {
            if height == 1 {
                break;
            }
            ok(vm.gpu.create_context(context, ""));
            ok(vm.gpu.context_attach(context, 7));
            let mut words = vec![7, 0, 0, stride, 0, 0, 0, 0, width, height, 1];
            words.extend([0xdead_beef; 256]);
            let write = Stream::default().command(9, 0, &words);
            answered(
                vm.gpu.submit_3d(context, &write),
                ResponseKind::ErrInvalidParameter,
            );
            ok(vm.gpu.destroy_context(context));
        }
        let parts = [
            [0, 0, 0, width + 1, 1, 1],
            [0, 0, 0, 1, height + 1, 1],
            [0, 0, 0, width, height, array_size + 1],
            [width, 0, 0, 1, 1, 1],
            [0, 0, array_size, 1, 1, 1],
            [u32::MAX, 0, 0, 2, 1, 1],
            [0, 0, 0, u32::MAX, u32::MAX, u32::MAX],
        ];
        for (context, part) in (10..).zip(parts) {
            for (stride, layer_stride, level) in
                [(0, 0, 0), (1, 1, 0), (u32::MAX, u32::MAX, 0), (0, 0, 14)]
            {
                ok(vm.gpu.create_context(context, ""));
                ok(vm.gpu.context_attach(context, 7));
                let mut words = vec![7, level, 0, stride, layer_stride];
                words.extend(part);
                words.extend([0xdead_beef; 64]);
                let write = Stream::default().command(9, 0, &words);
                let kind = vm.gpu.submit_3d(context, &write).unwrap().kind;
                assert_eq!(kind, ResponseKind::ErrInvalidParameter, "{part:?}");
                ok(vm.gpu.destroy_context(context));
            }
        }
        is_served(vm);
    }

    #[test]
    fn cve_2019_18389_inline_writes_out_of_bounds() {
        inline_writes_out_of_bounds(Create3d::picture(16, 16));
    }

    #[test]
    fn cve_2019_18391_inline_writes_beyond_a_buffer() {
        inline_writes_out_of_bounds(Create3d::vertices(256));
    }

    /// An array of textures with samples: its layers were not counted where memory for them was
    /// made, and were where it was written.
    #[test]
    fn cve_2022_0135_layers_with_samples() {
        let mut vm = start();
        let array = Create3d {
            // PIPE_TEXTURE_2D_ARRAY.
            target: 7,
            array_size: 3,
            nr_samples: 4,
            flags: 0,
            ..Create3d::picture(16, 16)
        };
        // A driver of OpenGL may have no such textures.
        if vm.gpu.create_3d(7, array).unwrap().kind == ResponseKind::OkNodata {
            ok(vm.gpu.create_context(CONTEXT, ""));
            ok(vm.gpu.context_attach(CONTEXT, 7));
            let mut words = vec![7, 0, 0, 64, 1024, 0, 0, 0, 16, 16, 3];
            words.extend([0x4141_4141; 3 * 256]);
            let write = Stream::default().command(9, 0, &words);
            for _ in 0..50 {
                vm.gpu.submit_3d(CONTEXT, &write).unwrap();
            }
        }
        is_served(vm);
    }

    /// A buffer of the library's own memory was handed to the guest as it came from the heap.
    #[test]
    fn cve_2022_0175_buffer_of_stale_memory() {
        let mut vm = start();
        ok(vm.gpu.create_context(CONTEXT, ""));
        for (id, len) in (10..).zip([64, 256, 1024, 4096, 1 << 16].repeat(20)) {
            let custom = Create3d {
                // VIRGL_BIND_CUSTOM.
                bind: 1 << 17,
                ..Create3d::vertices(len)
            };
            ok(vm.gpu.create_3d(id, custom));
            let backing = Backing::new(vm.gpu.memory(), len, Pieces::Whole);
            ok(vm.gpu.attach_backing(id, &backing.entries));
            ok(vm.gpu.context_attach(CONTEXT, id));
            let whole = Transfer3d::of(id, Rect::sized(len, 1));
            ok(vm.gpu.transfer_from_host_3d(CONTEXT, whole));
            assert!(backing.read().iter().all(|byte| *byte == 0), "{len} bytes");
            ok(vm.gpu.unref(id));
        }
        is_served(vm);
    }
}
