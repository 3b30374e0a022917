// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl restart`: the programs alone where the devices outlive them, and otherwise all units.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::backends::{self, Details};
use crate::completion;
use crate::instance::{Instance, UnitType};
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::{BackendState, Job, Target};

use super::error::Error;
use super::shared::confirm;
use super::shared::unit_control::{Step, UnitController};

/// How long a program may take to go on with its front-end after it was started again.
const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at it.
const INTERVAL: Duration = Duration::from_millis(20);

/// Restart backends, also those that were stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The VM of a 2D GPU or of an input device does not notice a restart: the program is replaced, and the new one goes on
with its connection, its memory and what the guest set up. Sockets are not touched then; after a change of who may
connect, use --cold once the VM is shut down.

All others are stopped and started, and so are all with --cold: OpenGL (--virgl), other backends, consoles, and
devices whose settings were changed since their program started, or whose state a newly installed program does not
understand. Then a connected VM loses the device: with a GPU its screen; with an input device, QEMU aborts if no
guest driver is using it. So vhostctl asks first, also if viewers would lose the screen; without a terminal it
refuses, unless --force is given. Shut the VM down first.")]
pub(crate) struct Args {
    /// Restart these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", required_unless_present = "all", add = completion::backends())]
    backends: Vec<Selector>,

    /// Stop and start also those whose VM would not notice a restart
    #[arg(long)]
    cold: bool,

    /// Proceed even if a VM or viewers lose a device
    #[arg(long)]
    force: bool,

    /// Restart all programs whose VM does not notice it, one by one; of a kind that cannot start, not all: for scripts,
    /// after an upgrade
    #[arg(long, conflicts_with_all = ["backends", "cold", "force"])]
    all: bool,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        if args.all {
            return restart_all(&controller, output).await;
        }
        let selected = controller.select(&args.backends).await?;
        let is_warm = |details: &&Details| !args.cold && details.survives_restart();
        let details = controller.details(&selected).await?;
        let warm = details.iter().filter(is_warm);
        let warm: Vec<_> = warm.map(|one| one.backend.instance.clone()).collect();
        let mut cold = selected;
        cold.retain(|instance| !warm.contains(instance));
        let changed = details
            .iter()
            .filter(|one| !args.cold && one.keeps_state && one.settings_changed == Some(true));
        for one in changed {
            output.hint(&format!(
                "The settings of {} were changed since its program started, so it cannot go on with its VM.",
                one.backend.instance
            ));
        }
        let strange = details
            .iter()
            .filter(|one| !args.cold && one.state_understood == Some(false));
        for one in strange {
            output.hint(&format!(
                "The program that is installed now does not understand the state of {}, which another version of it keeps, \
                 so it cannot go on with its VM.",
                one.backend.instance
            ));
        }
        confirm::confirm(&controller, &cold, args.force).await?;
        let mut done = 0;
        for instance in warm {
            let replaced = replace(&controller, &instance).await;
            done += usize::from(controller.keep(replaced)?.is_some());
        }
        if done > 0 {
            say_restarted(output, done, "program");
        }
        if !cold.is_empty() {
            // Not one restart job: it would start a service along with its socket, without a connection.
            let stopped = controller.apply(Step::Stop, cold).await?;
            let started = controller.apply(Step::Start, stopped).await?;
            if !started.is_empty() {
                say_restarted(output, started.len(), "backend");
            }
        }
        controller.finish()
    })
}

/// How many programs of a kind may fail before one of them goes on with its VM. One may fail because of its VM; a new
/// version that cannot start is to cost few VMs their device, and not all of them.
const MOST_FAILURES: usize = 2;

/// One after the other.
async fn restart_all(controller: &UnitController<'_>, output: &Output) -> Result<(), Error> {
    let all = backends::details(controller.manager(), |_| true).await?;
    let used = all
        .iter()
        .filter(|one| one.backend.pid.is_some() && one.is_used() != Some(false));
    let (warm, left_out): (Vec<_>, Vec<_>) = used.partition(|details| details.survives_restart());
    for details in &left_out {
        let instance = &details.backend.instance;
        let until = match (instance.is_device(), details.is_used()) {
            (true, Some(_)) if details.state_understood == Some(false) => {
                "its VM is shut down: the new one does not understand its state".to_owned()
            }
            (true, Some(_)) => "its VM is shut down".to_owned(),
            // It may outlive the VM.
            (true, None) => format!(
                "it ends, and does not say whether a VM uses it. Once its VM is off: vhostctl restart {instance} --force"
            ),
            (false, _) => "its viewers have left".to_owned(),
        };
        let end = if until.contains(": vhostctl") {
            ""
        } else {
            "."
        };
        output.hint(&format!(
            "{instance} goes on with the old program until {until}{end}"
        ));
    }
    let mut errors = Vec::new();
    let (mut done, mut skipped) = (0, 0);
    let mut tries: BTreeMap<&str, Tries> = BTreeMap::new();
    for details in warm {
        let instance = &details.backend.instance;
        let tries = tries.entry(instance.kind().name()).or_default();
        if tries.is_hopeless() {
            skipped += 1;
            continue;
        }
        match replace(controller, instance).await {
            Ok(()) => {
                tries.succeeded = true;
                done += 1;
            }
            Err(error) => {
                tries.failures += 1;
                errors.push(error);
            }
        }
    }
    if skipped > 0 {
        errors.push(Error::NotRestarted { count: skipped });
    }
    say_restarted(output, done, "program");
    Error::several(errors)
}

fn say_restarted(output: &Output, count: usize, noun: &str) {
    let ending = if count == 1 { "" } else { "s" };
    output.hint(&format!("{count} {noun}{ending} restarted."));
}

/// What became of the programs of a kind.
#[derive(Debug, Default)]
struct Tries {
    succeeded: bool,
    failures: usize,
}

impl Tries {
    fn is_hopeless(&self) -> bool {
        !self.succeeded && self.failures >= MOST_FAILURES
    }
}

/// Has systemd end the program of a backend and start it again, and waits until it serves its front-end.
async fn replace(controller: &UnitController<'_>, instance: &Instance) -> Result<(), Error> {
    let service = instance.unit(UnitType::Service);
    let failures = controller.jobs().run(Job::Restart, &[service]).await?;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure.error.into());
    }
    let asked = Instant::now();
    loop {
        let details = controller.details(std::slice::from_ref(instance)).await?;
        match details.first().map(Resumption::of) {
            Some(Resumption::Done) => return Ok(()),
            Some(Resumption::Pending) if asked.elapsed() < RESUME_LIMIT => {}
            _ => {
                let instance = instance.to_string();
                return Err(Error::DeviceLost { instance });
            }
        }
        // The bus has a thread of its own.
        thread::sleep(INTERVAL);
    }
}

/// How far a program is that was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumption {
    /// It serves the VM, or ended because the VM was shut down.
    Done,
    /// It is about to.
    Pending,
    /// It ended.
    Failed,
}

impl Resumption {
    fn of(details: &Details) -> Self {
        match details.backend.state {
            BackendState::Running if details.front_end == Some(true) && details.keeps_state => {
                Self::Done
            }
            BackendState::Running | BackendState::Starting | BackendState::Stopping => {
                Self::Pending
            }
            BackendState::Listening
            | BackendState::NoDevice
            | BackendState::NoSocket
            | BackendState::Inactive
                if details.result.as_deref() == Some("success") =>
            {
                Self::Done
            }
            _ => Self::Failed,
        }
    }
}
