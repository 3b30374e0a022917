// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long a held key may seem to be held longer: from the death of a program to the first event that the next one passes on.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use frontend::input::Event;
use rustix::time::{ClockId, clock_gettime};

use super::{Host, KEY_A};

const ROUNDS: usize = 20;
/// Far more than on any machine that is not overloaded: `docs/continuity.md` has what was measured.
const LIMIT: Duration = Duration::from_secs(10);

/// The time stamps of the lines of the journal.
fn now() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::Monotonic).try_into()?)
}

/// When the newest line with `text` was written, if that was not before `since`.
fn last(journal: &str, text: &str, since: Duration) -> Option<Duration> {
    let mut lines = journal.lines().rev();
    let line = lines.find(|line| line.contains(text))?;
    let time = line.trim_start_matches('[').split(']').next()?;
    let seconds: f64 = time.trim().parse().ok()?;
    Some(Duration::from_secs_f64(seconds)).filter(|time| *time >= since)
}

/// When the program died, the next one was started, and took over, as the journal of `service` says it once it has all three.
fn written(host: &Host, service: &str, since: Duration) -> anyhow::Result<[Duration; 3]> {
    let words = [
        "--unit",
        service,
        "--lines=60",
        "--output=short-monotonic",
        "--no-pager",
    ];
    let deadline = now()? + LIMIT;
    loop {
        let journal = host.0.journal(&words)?;
        let died = last(&journal, "Main process exited", since);
        let times = died.and_then(|died| {
            let started = last(&journal, "Starting", died)?;
            Some([died, started, last(&journal, "took over", died)?])
        });
        if let Some(times) = times {
            return Ok(times);
        }
        ensure!(now()? < deadline, "not all is written: {journal}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn first_event_after_a_kill_comes_soon() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let [_, service] = vm.services.clone();
    // Until systemd starts the program, until that serves, until the guest has the event.
    let mut measured: Vec<[Duration; 3]> = Vec::new();
    for round in 0..ROUNDS {
        if round.is_multiple_of(8) {
            host.reset_limits()?;
        }
        let value = i32::from(round.is_multiple_of(2));
        let killed = now()?;
        host.0
            .systemctl(&["kill", "--kill-whom=main", "--signal=KILL", &service])?;
        let release = [Event::new(1, KEY_A, value), Event::report()];
        vm.client.send(&release)?;
        let seen = vm.keyboard.next_report()?;
        let arrived = now()?;
        ensure!(seen == release, "{seen:?}");
        // The journal gets its lines in its own time.
        let [died, started, took_over] = written(&host, &service, killed)?;
        let times = [started, took_over, arrived];
        measured.push(times.map(|time| time.saturating_sub(died)));
    }
    for (place, what) in ["started", "took over", "passed an event on"]
        .iter()
        .enumerate()
    {
        let mut times: Vec<_> = measured.iter().map(|times| times[place]).collect();
        times.sort_unstable();
        let (least, median) = (times[0], times[ROUNDS / 2]);
        println!("the next program {what} after {least:?} at least, {median:?} in the middle");
        ensure!(median < LIMIT, "{what}: {times:?}");
    }
    vm.end(&host)
}
