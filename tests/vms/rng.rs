// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest draws random bytes from the library's example, a vhost-user-rng.

use crate::common::{assert_clean_exit, rng_program};
use anyhow::ensure;
use frontend::{Command, SocketForm};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;

#[test]
fn guest_draws_random_bytes_from_the_example() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let command = Command::new(rng_program());
    let mut program = command.socket(SocketForm::Path).spawn()?;
    program.wait_stderr("serving on")?;
    let path = program.socket_path().display();
    let words = [
        "-chardev".to_owned(),
        format!("socket,id=rng,path={path}"),
        "-device".to_owned(),
        "vhost-user-rng-pci,chardev=rng".to_owned(),
    ];
    let mut vm = Vm::builder(&artifacts).arguments(&words).boot()?;
    let source = vm.command("shell cat /sys/class/misc/hw_random/rng_current")?;
    ensure!(source.join(" ").contains("virtio_rng"), "{source:?}");
    let mut draw = || vm.command("shell head -c 1000 /dev/hwrng | od -An -tx1");
    let (first, second) = (draw()?, draw()?);
    let bytes: usize = first.iter().map(|line| line.split(' ').count() - 1).sum();
    ensure!(bytes == 1000, "{first:?}");
    ensure!(first != second, "the same bytes again: {first:?}");
    drop(vm);
    assert_clean_exit(&mut program);
    Ok(())
}
