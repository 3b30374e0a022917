//! Prints the nextest filterset of the tests that this machine can run; says on
//! standard error what it lacks for the others, which nextest then counts as skipped.

use harness::run::is_installed;
use harness::{mock, opengl, packages, systemd};

fn main() {
    let mut lacking = Vec::new();
    // Tests of whole systems are known by the names of their test programs.
    if let Some(reason) = systemd::missing() {
        lacking.push((
            reason,
            r"binary(/^units_/) | binary(/^guest_demo/) | binary(/^guest_libvirt/) | binary(/^guest_access/) | binary(/^guest_qemu_args/) | binary(/^guest_backends/) | binary(/^guest_starts/) | binary(/^mock_/)",
        ));
    }
    if let Some(reason) = mock::missing() {
        let tests = r"binary(/^mock_/) | binary(=input) | binary(=hostile_input) | binary(=sandbox) | binary(=guest_input) | binary(/^guest_demo/) | binary(/^guest_access/) | binary(/^units_access/) | binary(/^guest_qemu_args/) | binary(/^units_add/) | test(an_input_device_is_what_its_drop_in_says) | test(an_input_device_that_is_unplugged_is_told)";
        lacking.push((reason, tests));
    }
    if !is_installed("virsh") {
        let reason = "libvirt needs the packages libvirt-daemon and libvirt-clients".to_owned();
        lacking.push((reason, "binary(=guest_libvirt)"));
    }
    if packages::vhost_device_rng().is_none() {
        let reason = "vhost-device-rng is not built: make peers".to_owned();
        lacking.push((
            reason,
            "test(=guest_reads_random_numbers_of_a_program_with_its_own_socket)",
        ));
    }
    if let Some(reason) = opengl::missing() {
        lacking.push((reason, "binary(=guest_virgl)"));
    }
    if !rustix::process::geteuid().is_root() || !cfg!(target_arch = "x86_64") {
        let reason = "a program in its sandbox is looked into by root only, and by x86-64's means";
        let tests = "binary(=sandbox) | test(a_new_driver_gets_a_new_display) | test(a_thousand_rounds_leak_nothing) | test(without_virgl_no_library_of_gl)";
        lacking.push((reason.to_owned(), tests));
    }
    if let Some(reason) = opengl::renderer_missing() {
        lacking.push((reason, "binary(=guest_dmabuf)"));
    }
    if !cfg!(target_arch = "x86_64") {
        let reason = "the test guest is an x86-64 one".to_owned();
        lacking.push((reason, r"binary(/^guest_/)"));
    }
    let mut filterset = "all()".to_owned();
    for (reason, tests) in lacking {
        eprintln!("skipping {tests}: {reason}");
        filterset += &format!(" - ({tests})");
    }
    println!("{filterset}");
}
