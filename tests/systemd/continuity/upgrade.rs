// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An upgrade of the package while VMs run.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::staging;

use super::{Host, Vm};

const VMS: usize = 20;

/// Between two pictures of a VM.
const FRAME: Duration = Duration::from_millis(100);
/// Seconds for 40 restarts, on a busy machine too.
const LIMIT: &str = "480";
const PROGRAMS: [&str; 2] = ["vhost-user-gpu", "vhost-user-input"];

#[test]
fn upgrade_with_twenty_vms_loses_no_connection() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let names: Vec<_> = (1..=VMS).map(|number| format!("vm{number}")).collect();
    let vms = names.iter().map(|name| host.run_vm(name));
    let mut vms = vms.collect::<anyhow::Result<Vec<Vm>>>()?;
    let all_work = |vms: &mut [Vm]| {
        let mut named = vms.iter_mut().zip(&names);
        named.try_for_each(|(vm, name)| vm.works().with_context(|| name.clone()))
    };
    all_work(&mut vms)?;
    let services: Vec<_> = vms.iter().flat_map(|vm| vm.services.clone()).collect();
    let pids = || -> anyhow::Result<Vec<String>> {
        services.iter().map(|service| host.pid(service)).collect()
    };
    let before = pids()?;

    // Programs that would not understand the state: all go on with the old ones.
    for name in PROGRAMS {
        let program = host.0.path(&format!("/usr/bin/{name}"));
        fs::copy(&program, program.with_extension("old"))?;
        let new = program.with_extension("dpkg-new");
        staging::program_of_next_state(&program, &new)?;
        fs::rename(new, program)?;
    }
    host.0.systemctl(&["daemon-reload"])?;
    let restarted = host.0.exec(["vhostctl", "restart", "--all"])?;
    let said = String::from_utf8_lossy(&[restarted.stdout, restarted.stderr].concat()).into_owned();
    ensure!(
        restarted.status.success()
            && said.contains("0 programs restarted.")
            && said
                .matches("the new one does not understand its state")
                .count()
                == 40,
        "{said}"
    );
    ensure!(pids()? == before, "{said}");
    all_work(&mut vms)?;

    // Back to programs of the version that runs, by what dpkg and the package's script do.
    for name in PROGRAMS {
        let program = host.0.path(&format!("/usr/bin/{name}"));
        fs::rename(program.with_extension("old"), program)?;
    }
    host.0.systemctl(&["daemon-reload"])?;
    // All VMs draw and type meanwhile.
    let is_done = AtomicBool::new(false);
    let (restarted, vms) = thread::scope(|scope| {
        let restart = scope.spawn(|| {
            // One after the other, each with a sandbox of systemd's, while 40 devices are used.
            let restarted = host
                .0
                .command(["timeout", LIMIT, "vhostctl", "restart", "--all"])
                .stdin(Stdio::null())
                .output();
            is_done.store(true, Ordering::Release);
            restarted
        });
        let workers: Vec<_> = vms
            .into_iter()
            .map(|mut vm| {
                let is_done = &is_done;
                scope.spawn(move || -> anyhow::Result<Vm> {
                    loop {
                        let is_last = is_done.load(Ordering::Acquire);
                        vm.works()?;
                        if is_last {
                            return Ok(vm);
                        }
                        // A guest's frames, and not all the processor time that this machine has.
                        thread::sleep(FRAME);
                    }
                })
            })
            .collect();
        let vms: Vec<_> = workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        (restart.join(), vms)
    });
    let restarted = restarted.map_err(|_| anyhow::anyhow!("vhostctl"))??;
    let said = String::from_utf8_lossy(&[restarted.stdout, restarted.stderr].concat()).into_owned();
    ensure!(restarted.status.success(), "{}: {said}", restarted.status);
    ensure!(said.contains("40 programs restarted."), "{said}");
    for (before, now) in before.iter().zip(pids()?) {
        ensure!(
            *before != now && now != "0",
            "{before} goes on as {now}: {said}"
        );
    }
    for (vm, name) in vms.into_iter().zip(&names) {
        let mut vm = vm
            .map_err(|_| anyhow::anyhow!("{name}: panicked"))?
            .with_context(|| format!("{name}: {}", host.said(&format!("vhost-user-gpu@{name}"))))?;
        vm.works().with_context(|| name.clone())?;
        vm.end(&host)?;
    }
    Ok(())
}
