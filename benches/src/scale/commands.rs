// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `vhostctl` costs, beside what `systemctl` costs for the same units.

use std::time::{Duration, Instant};

use super::host::Host;
use crate::interrupt;
use crate::measure::median;

/// Our command, and the one that says as much of the same units.
const COMMANDS: [(&str, Option<&str>); 5] = [
    ("vhostctl --version", Some("systemctl --version")),
    (
        "vhostctl list",
        Some("systemctl list-units --all 'vhost-*@*'"),
    ),
    (
        "vhostctl status -n0",
        Some("systemctl status -n0 'vhost-*@*'"),
    ),
    ("vhostctl status", Some("systemctl status 'vhost-*@*'")),
    ("vhostctl list-devices", None),
];
/// How long a command is run again and again in a round.
const ROUND: Duration = Duration::from_millis(600);

/// What one run of a command takes in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Processor time of all its processes.
    pub cpu: f64,
    /// Until it ends.
    pub wall: f64,
    /// Processor time of systemd and of the bus meanwhile.
    pub manager: f64,
}

/// What our command takes, and the other.
pub(super) struct Costs {
    pub ours: Cost,
    pub peer: Option<Cost>,
}

/// Runs all commands in turn.
///
/// # Errors
/// If one does not run.
pub(super) fn measure(host: &Host, rounds: usize) -> anyhow::Result<Vec<(&'static str, Costs)>> {
    let mut all = Vec::new();
    for (ours, peer) in COMMANDS {
        let commands: Vec<&str> = std::iter::once(ours).chain(peer).collect();
        let mut repeats = Vec::new();
        for command in &commands {
            let begin = Instant::now();
            run(host, command, 1)?;
            let times = ROUND.as_secs_f64() / begin.elapsed().as_secs_f64().max(1e-3);
            repeats.push((times as usize).clamp(1, 20));
        }
        let mut costs = vec![Vec::new(); commands.len()];
        for _ in 0..rounds {
            for ((command, repeat), costs) in commands.iter().zip(&repeats).zip(&mut costs) {
                interrupt::check()?;
                costs.push(run(host, command, *repeat)?);
            }
        }
        let mut costs = costs.into_iter().map(|costs| {
            let middle = |of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
            Cost {
                cpu: middle(|cost| cost.cpu),
                wall: middle(|cost| cost.wall),
                manager: middle(|cost| cost.manager),
            }
        });
        all.push((
            ours,
            Costs {
                ours: costs.next().unwrap_or_default(),
                peer: costs.next(),
            },
        ));
    }
    Ok(all)
}

/// The mean of `repeat` runs.
fn run(host: &Host, command: &str, repeat: usize) -> anyhow::Result<Cost> {
    // The exit status of systemctl tells of units that are inactive.
    let script = format!(
        "TIMEFORMAT='%U %S %R'; time for n in $(seq {repeat}); do {command} >/dev/null 2>&1 || :; done"
    );
    let before = host.manager_time()?;
    let said = host.script(&script)?;
    let manager = host.manager_time()?.saturating_sub(before);
    let times: Option<Vec<f64>> = said
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    let [user, system, wall] = times.unwrap_or_default()[..] else {
        anyhow::bail!("bash tells no times: {said}");
    };
    let each = |seconds: f64| seconds * 1e3 / repeat as f64;
    Ok(Cost {
        cpu: each(user + system),
        wall: each(wall),
        manager: each(manager.as_secs_f64()),
    })
}
