// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real Linux guest in QEMU, whose backends are hardened units of a real systemd: their programs are killed and
//! restarted while the guest draws and somebody types, and neither the guest nor QEMU notices.

mod gpu;
mod input;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(90);
/// How often each program is killed, and how often it is restarted.
const ROUNDS: u32 = 100;
/// After so many ends the start limit of the unit (StartLimitBurst=) is reset, as only an administrator can.
const RESET_AFTER: u32 = 10;

/// What a guest's kernel says, with its time before, only because a busy host gave it no processor for long.
const STARVED: [&str; 1] = ["hrtimer: interrupt took "];

/// How a program ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By SIGKILL, and what its unit does then.
    Kill,
    /// `systemctl restart`.
    Restart,
}

/// The QEMU to test with.
#[derive(Clone, Copy, Debug)]
enum Qemu {
    /// That of the other tests, 10.0 or newer.
    Usual,
    /// The newest one, 11.1 or newer.
    Newest,
}

impl Qemu {
    fn artifacts(self) -> anyhow::Result<Artifacts> {
        let mut say = |step: &str| eprintln!("{step}");
        match self {
            Self::Usual => Artifacts::obtain(&mut say),
            Self::Newest => {
                let artifacts = Artifacts::obtain_newest(&mut say)?;
                ensure!(artifacts.qemu.version >= (11, 1), "{:?}", artifacts.qemu);
                Ok(artifacts)
            }
        }
    }
}

/// A host with the units installed.
struct Host {
    sandbox: Sandbox,
    ends: u32,
}

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        Ok(Self {
            sandbox: Sandbox::start(&[staging.path()])?,
            ends: 0,
        })
    }

    fn said(&self, service: &str) -> String {
        let journal =
            self.sandbox
                .journal(&["--unit", service, "--lines=60", "--output=short-monotonic"]);
        journal.unwrap_or_else(|error| error.to_string())
    }

    /// Ends the program of a service, and waits until another one runs.
    fn end(&mut self, service: &str, how: End) -> anyhow::Result<()> {
        if self.ends % RESET_AFTER == 0 {
            self.sandbox.systemctl(&["reset-failed"])?;
        }
        self.ends += 1;
        let before = self.sandbox.property(service, "MainPID")?;
        ensure!(before != "0", "{service} does not run");
        match how {
            End::Kill => self
                .sandbox
                .systemctl(&["kill", "--signal=KILL", service])?,
            End::Restart => self.sandbox.systemctl(&["restart", service])?,
        };
        let deadline = Instant::now() + SOON;
        loop {
            let state =
                self.sandbox
                    .systemctl(&["show", "--property=MainPID,SubState", service])?;
            let says = |property: &str| state.lines().any(|line| line == property);
            if says("SubState=running") && !says(&format!("MainPID={before}")) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{service} is not back: {state}");
        }
    }
}

/// Nobody complained: neither the guest's kernel nor QEMU said anything since `before`.
fn assert_silent(vm: &Vm, before: &(String, String)) -> anyhow::Result<()> {
    let (kernel, qemu) = said(vm);
    ensure!(
        kernel == before.0,
        "the guest's kernel says: {}",
        kernel.strip_prefix(&before.0).unwrap_or(&kernel)
    );
    ensure!(
        qemu == before.1,
        "QEMU says: {}",
        qemu.strip_prefix(&before.1).unwrap_or(&qemu)
    );
    Ok(())
}

/// What the guest's kernel and QEMU have said so far, but for [`STARVED`].
fn said(vm: &Vm) -> (String, String) {
    let is_starved = |line: &&str| {
        let said = line.split_once("] ").map(|(_, said)| said);
        said.is_some_and(|said| STARVED.iter().any(|begin| said.starts_with(begin)))
    };
    let kernel = vm.kernel_log();
    let kernel: Vec<&str> = kernel.lines().filter(|line| !is_starved(line)).collect();
    (kernel.join("\n"), vm.qemu_log())
}

/// A random number of milliseconds below `limit`: another sequence at each run, and told, to run it again.
struct Moments(u64);

impl Moments {
    fn new() -> anyhow::Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let seed = u64::from(now.subsec_nanos()) | 1;
        eprintln!("random moments of seed {seed}");
        Ok(Self(seed))
    }

    fn sleep(&mut self, limit: u64) {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        std::thread::sleep(Duration::from_micros(self.0 % (limit * 1000)));
    }
}

/// The number in the answer of `animate`.
fn frame(lines: &[String]) -> anyhow::Result<u64> {
    let last = lines.last().context("no frame")?;
    Ok(last.parse()?)
}
