// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints the nextest filterset of the tests that this machine can run. On standard error it names what
//! the machine lacks for the others, which nextest then counts as skipped.
//!
//! Tests are known by their level, which is the name of the test binary, and by their module.

use harness::run::is_installed;
use harness::{keyboard_layouts, mock, opengl, packages, systemd, viewers, vulkan};

/// Tests of units, and of guests whose VMM uses the units.
const NEED_SYSTEMD: &str = "binary(=systemd) | (binary(=vms) & (package(=vhostctl) | test(/^(demo|failed_starts|libvirt|units)::/)))";
const NEED_MOCK_DEVICES: &str = "binary(=devices) | \
     test(=front_ends::every_vmm_gets_an_input_device_and_a_reset_releases_it) | \
     test(=front_ends::paused_guest_resumes_with_its_input_device) | \
     test(=front_ends::reset_device_stops_running_rings_and_forgets_the_driver) | \
     test(=front_ends::virtqueues::broken_ring_is_reported_to_the_front_end) | \
     test(=front_ends::virtqueues::second_kick_leaves_a_keyboard_with_its_guest) | \
     test(=front_ends::virtqueues::unoffered_features_are_named_with_their_option) | \
     test(=memory_slots::ring_in_a_removed_region_is_broken_until_it_comes_back) | \
     test(=memory_slots::rings_and_backings_may_lie_in_any_region) | \
     (binary(=systemd) & test(/^(access|add|devices|host|mock_input)::/)) | \
     (binary(=systemd) & test(=backends::input_device_is_the_one_of_its_drop_in)) | \
     (binary(=systemd) & test(=vulkan::render_node_is_the_render_servers)) | \
     (binary(=systemd) & test(=change::changes_are_reported)) | \
     (binary(=systemd) & test(=change::connected_front_end_needs_confirmation)) | \
     (binary(=systemd) & test(=change::patterns_and_types_select_backends)) | \
     (binary(=systemd) & test(=faults::unplugged_input_device_is_waited_for_also_by_the_next_start)) | \
     (binary(=vms) & test(/^(access|demo|input|memory|qemu_args)::/))";
const NEED_LIBVIRT: &str = "binary(=vms) & test(/^libvirt::/)";
const NEED_VHOST_DEVICE_RNG: &str = "binary(=vms) & \
     test(=backends::guest_reads_random_numbers_of_a_program_with_its_own_socket)";
const NEED_OPENGL: &str = "binary(=vms) & test(/^virgl::/)";
/// Tests that look into a program in its sandbox.
const NEED_ROOT: &str = "(binary(=devices) & test(/^sandbox::/)) | \
     test(/^consoles::unseen::/) | \
     test(=gpu_2d::lifetimes::new_driver_gets_a_new_display_and_begins_with_no_resources) | \
     test(=virgl::lifetimes::one_thousand_rounds_leak_nothing) | \
     test(=virgl::lifetimes::gpu_without_virgl_loads_no_gl_library)";
const NEED_RENDER_NODE: &str = "binary(=vms) & test(/^dmabuf::/)";
const NEED_VIEWERS: &str = "(binary(=vms) & test(/^(console|viewers)::|^rfb::every_viewer/)) | \
     (binary(=systemd) & test(/^recipes::/))";
const NEED_X86_64: &str = "binary(=vms) | binary(=vulkan)";
const NEED_VULKAN: &str = "binary(=vulkan)";
const NEED_KEYBOARD_LAYOUTS: &str = "package(=vhost-user-backends) & test(/of_the_system::/)";
/// They install packages that take minutes to build.
const NEED_PACKAGES: &str = "binary(=packages)";
/// They need programs of another architecture.
const NEED_ARM64: &str = "binary(=arm64)";

fn main() {
    let mut lacking = vec![
        (
            "packages are tested by make check-packages".to_owned(),
            NEED_PACKAGES,
        ),
        (
            "programs for arm64 are tested by make check-arm64".to_owned(),
            NEED_ARM64,
        ),
    ];
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
    if let Some(reason) = vulkan::missing() {
        lacking.push((reason, NEED_VULKAN));
    }
    if let Some(reason) = viewers::missing() {
        lacking.push((reason, NEED_VIEWERS));
    }
    if !cfg!(target_arch = "x86_64") {
        let reason = "the test guest is an x86-64 one".to_owned();
        lacking.push((reason, NEED_X86_64));
    }
    if let Some(reason) = keyboard_layouts::missing() {
        lacking.push((reason, NEED_KEYBOARD_LAYOUTS));
    }
    let mut filterset = "all()".to_owned();
    for (reason, tests) in lacking {
        eprintln!("skipping {tests}: {reason}");
        filterset += &format!(" - ({tests})");
    }
    println!("{filterset}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use harness::paths::source_root;

    use super::*;

    /// The text of all tests below `folder`.
    fn sources(folder: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &sources(&path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
        text
    }

    #[test]
    fn filters_name_tests_that_exist() {
        let root = source_root();
        let folders = ["tests", "cli/tests", "crates/harness/tests"];
        let tests: String = folders.map(|folder| sources(&root.join(folder))).concat();
        let filters = [
            NEED_SYSTEMD,
            NEED_MOCK_DEVICES,
            NEED_LIBVIRT,
            NEED_VHOST_DEVICE_RNG,
            NEED_OPENGL,
            NEED_ROOT,
            NEED_RENDER_NODE,
            NEED_VIEWERS,
            NEED_X86_64,
        ];
        let names = filters.iter().flat_map(|filter| {
            let parts = filter.split("test(=").skip(1);
            parts.filter_map(|part| Some(part.split_once(')')?.0))
        });
        for name in names {
            let name = name.rsplit("::").next().unwrap();
            assert!(tests.contains(&format!("fn {name}(")), "{name}");
        }
    }
}
