//! Prints the nextest filterset of the tests that this machine can run. On standard error it names what
//! the machine lacks for the others, which nextest then counts as skipped.
//!
//! Tests are known by their level, which is the name of the test binary, and by their module.

use harness::run::is_installed;
use harness::{mock, opengl, packages, systemd};

/// Tests of units, and of guests whose VMM uses the units.
const NEED_SYSTEMD: &str =
    "binary(=systemd) | (binary(=vms) & (package(=vhostctl) | test(/^(demo|libvirt|starts)::/)))";
const NEED_MOCK_DEVICES: &str = "binary(=devices) | \
     (binary(=systemd) & test(/^(access|add|devices|host|mock_input)::/)) | \
     (binary(=systemd) & test(=backends::input_device_is_the_one_of_its_drop_in)) | \
     (binary(=systemd) & test(/^change::(what_was_done|patterns_and_types|a_connected_front_end)/)) | \
     (binary(=systemd) & test(=faults::unplugged_input_device_is_in_the_status_and_fails_the_next_start)) | \
     (binary(=vms) & test(/^(access|demo|input|memory|qemu_args)::/))";
const NEED_LIBVIRT: &str = "binary(=vms) & test(/^libvirt::/)";
const NEED_VHOST_DEVICE_RNG: &str = "binary(=vms) & \
     test(=backends::guest_reads_random_numbers_of_a_program_with_its_own_socket)";
const NEED_OPENGL: &str = "binary(=vms) & test(/^virgl::/)";
/// Tests that look into a program in its sandbox.
const NEED_ROOT: &str = "(binary(=devices) & test(/^sandbox::/)) | \
     test(=gpu_2d::lifetimes::new_driver_gets_a_new_display_and_begins_with_no_resources) | \
     test(=virgl::lifetimes::one_thousand_rounds_leak_nothing) | \
     test(=virgl::lifetimes::gpu_without_virgl_loads_no_gl_library)";
const NEED_RENDER_NODE: &str = "binary(=vms) & test(/^dmabuf::/)";
const NEED_X86_64: &str = "binary(=vms)";

fn main() {
    let mut lacking = Vec::new();
    if let Some(reason) = systemd::missing() {
        lacking.push((reason, NEED_SYSTEMD));
    }
    if let Some(reason) = mock::missing() {
        lacking.push((reason, NEED_MOCK_DEVICES));
    }
    if !is_installed("virsh") {
        let reason = "libvirt needs the packages libvirt-daemon and libvirt-clients".to_owned();
        lacking.push((reason, NEED_LIBVIRT));
    }
    if packages::vhost_device_rng().is_none() {
        let reason = "vhost-device-rng is not built: make peers".to_owned();
        lacking.push((reason, NEED_VHOST_DEVICE_RNG));
    }
    if let Some(reason) = opengl::missing() {
        lacking.push((reason, NEED_OPENGL));
    }
    if !rustix::process::geteuid().is_root() || !cfg!(target_arch = "x86_64") {
        let reason = "only root on x86-64 can look into a program in its sandbox".to_owned();
        lacking.push((reason, NEED_ROOT));
    }
    if let Some(reason) = opengl::renderer_missing() {
        lacking.push((reason, NEED_RENDER_NODE));
    }
    if !cfg!(target_arch = "x86_64") {
        let reason = "the test guest is an x86-64 one".to_owned();
        lacking.push((reason, NEED_X86_64));
    }
    let mut filterset = "all()".to_owned();
    for (reason, tests) in lacking {
        eprintln!("skipping {tests}: {reason}");
        filterset += &format!(" - ({tests})");
    }
    println!("{filterset}");
}
