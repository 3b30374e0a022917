// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A model of the promise that a device outlives its process: the program is killed (SIGKILL) at a chosen moment of
//! its life, the next process gets what the service manager keeps, and an oracle compares what front-end, guest,
//! display and consoles saw with an undisturbed run: each request answered once, in order and with the same response,
//! each event once and in order, the last picture equal to the guest's, each stream whole, no connection closed.
//!
//! What is tried:
//! - `*_at_any_system_call`: the first process is killed at each system call of each of its threads: at its entry
//!   (nothing is done), at its exit (it is done, and the program does not know), and some instructions later (between
//!   two stores to the state). Threads make the total order of calls another one in each run: a point is named by the
//!   thread's name, the call, and how many of them this thread made (`vring_worker/sendmsg/3/exit`). A point that a
//!   run does not reach is counted as missed.
//! - `*_while_it_takes_over`: the second process is killed in the same way, from its first system call on.
//! - `*_again_and_again`: one after the other is killed, at random.
//!
//! Excused is only what nobody can keep: a connection between accept(2) and the message to the locker ends, and the
//! next one is served as if it were the first. A program that is killed before READY=1 has accepted none.
//!
//! Each test tries the most telling points for about 12 s. All of them take minutes:
//!
//! ```sh
//! CONTINUITY_SECONDS=3600 cargo test --test process continuity:: -- --nocapture --test-threads 2
//! CONTINUITY_SEED=7 ...                                             # others, in another order
//! CONTINUITY_FROM=500 ...                                           # without the first 500 points of `*_at_any_system_call`
//! CONTINUITY_POINTS=vring_worker/sendmsg/3/exit,-,5 ...             # one run: each process's death
//! ```

mod accept_watch;
mod display;
mod gpu;
mod gpu_state;
mod input;
mod plan;
mod run;
mod scenario;
mod setup;
mod tracer;

use plan::Random;
use run::{Death, Run, run};
use scenario::Scenario;
use std::time::Instant;

/// More failures than that teach nothing.
const MOST_FAILURES: usize = 4;

/// What the tries of a test found.
#[derive(Default)]
struct Findings {
    killed: usize,
    missed: usize,
    excused: usize,
    left: usize,
    failures: Vec<String>,
}

impl Findings {
    /// Plays a scenario with these deaths, and compares what was seen with what is expected.
    fn try_deaths(&mut self, scenario: Scenario, expected: &[String], deaths: &[Death]) {
        let failure = match run(scenario, deaths) {
            Ok(run) => {
                let wanted = deaths.iter().filter(|d| !matches!(d, Death::None));
                self.missed += usize::from(run.kills.len() < wanted.count());
                self.killed += run.kills.len();
                self.excused += usize::from(run.excused);
                judge(&run, expected)
            }
            Err(e) => Some(format!("{e:#}")),
        };
        if let Some(failure) = failure {
            let deaths: Vec<_> = deaths.iter().map(Death::to_string).collect();
            let deaths = deaths.join(",");
            let text = format!("CONTINUITY_POINTS='{deaths}': {failure}");
            println!("{text}");
            self.failures.push(text);
        }
    }

    fn is_enough(&self) -> bool {
        self.failures.len() >= MOST_FAILURES
    }

    fn conclude(self, scenario: Scenario) {
        let (name, failures) = (scenario.name, self.failures.len());
        println!(
            "{name}: killed {} times, {} runs did not come to the point, {} connections excused, {} points left, \
             {failures} failures",
            self.killed, self.missed, self.excused, self.left
        );
        assert!(failures == 0, "{}", self.failures.join("\n"));
    }
}

/// What is wrong with a run.
fn judge(run: &Run, expected: &[String]) -> Option<String> {
    let log = &run.log;
    let wrong = match &run.outcome {
        Err(e) => e.clone(),
        Ok(seen) => {
            let lines = seen.iter().zip(expected);
            let differs = lines.into_iter().position(|(a, b)| a != b);
            match differs {
                Some(n) => format!("{:?} instead of {:?}", seen[n], expected[n]),
                None if seen.len() != expected.len() => {
                    format!("{} lines instead of {}", seen.len(), expected.len())
                }
                None if log.contains("panicked") => "a thread panicked".to_owned(),
                None => return None,
            }
        }
    };
    Some(format!("killed at {:?}: {wrong}; log:\n{log}", run.kills))
}

/// The lines of an undisturbed run.
fn expected(scenario: Scenario) -> Vec<String> {
    let lines = run(scenario, &[]).unwrap().outcome.unwrap();
    assert_eq!(lines, run(scenario, &[]).unwrap().outcome.unwrap());
    lines
}

/// Tries what `CONTINUITY_POINTS` says, if it is set.
fn tries_given(scenario: Scenario) -> bool {
    let Ok(points) = std::env::var("CONTINUITY_POINTS") else {
        return false;
    };
    let deaths = points.split(',').map(|death| death.parse().unwrap());
    let deaths: Vec<_> = deaths.collect();
    let mut findings = Findings::default();
    findings.try_deaths(scenario, &expected(scenario), &deaths);
    findings.conclude(scenario);
    true
}

/// The first process is killed.
fn at_any_system_call(scenario: Scenario) {
    if tries_given(scenario) {
        return;
    }
    let expected = expected(scenario);
    let reference = run(scenario, &[Death::None]).unwrap();
    assert_eq!(reference.outcome.unwrap(), expected);
    let deadline = plan::deadline();
    let points = plan::order(&reference.lives[0], &mut Random::new());
    let mut findings = Findings::default();
    let from = plan::number("CONTINUITY_FROM").map_or(0, |from| from as usize);
    for (n, point) in points.iter().enumerate().skip(from) {
        if findings.is_enough() || Instant::now() > deadline {
            findings.left = points.len() - n;
            break;
        }
        findings.try_deaths(scenario, &expected, &[Death::At(point.clone())]);
    }
    findings.conclude(scenario);
}

/// The second process is killed, while it takes over from a first that was killed somewhere.
fn while_it_takes_over(scenario: Scenario) {
    if tries_given(scenario) {
        return;
    }
    let expected = expected(scenario);
    let reference = run(scenario, &[Death::None]).unwrap();
    let stops = 2 * reference.lives[0].len() as u64;
    let mut random = Random::new();
    let deadline = plan::deadline();
    let mut findings = Findings::default();
    'all: while !findings.is_enough() {
        // After its start, which takes some hundred stops.
        let first = Death::Number((stops / 3 + random.below(stops * 2 / 3)) as usize);
        let reference = run(scenario, &[first.clone(), Death::None]);
        let Some(reference) = reference.ok().filter(|run| run.outcome.is_ok()) else {
            findings.try_deaths(scenario, &expected, &[first, Death::None]);
            continue;
        };
        let Some(second) = reference.lives.get(1) else {
            continue;
        };
        let points = plan::order(second, &mut random);
        for point in points.into_iter().take(40) {
            if findings.is_enough() || Instant::now() > deadline {
                break 'all;
            }
            findings.try_deaths(scenario, &expected, &[first.clone(), Death::At(point)]);
        }
    }
    findings.conclude(scenario);
}

/// One process after the other is killed. Of those that die early, which count as doomed by what they found, no
/// two follow each other.
fn again_and_again(scenario: Scenario) {
    if tries_given(scenario) {
        return;
    }
    let expected = expected(scenario);
    let reference = run(scenario, &[Death::None]).unwrap();
    let mut calls = reference.lives[0].iter();
    let start = calls.position(|point| point.call == libc::SYS_accept4);
    // A call is two stops.
    let start = 2 * start.unwrap() as u64;
    let mut random = Random::new();
    let deadline = plan::deadline();
    let mut findings = Findings::default();
    while !findings.is_enough() && Instant::now() < deadline {
        let mut deaths = Vec::new();
        for n in 0..2 + random.below(8) {
            let number = match n % 2 {
                0 => 3 * start + random.below(start),
                _ => random.below(start + start / 2),
            };
            deaths.push(Death::Number(number as usize));
        }
        findings.try_deaths(scenario, &expected, &deaths);
    }
    findings.conclude(scenario);
}

macro_rules! killed {
    ($($name:ident: $scenario:expr),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn killed_at_any_system_call() {
                at_any_system_call($scenario);
            }

            #[test]
            fn killed_while_it_takes_over() {
                while_it_takes_over($scenario);
            }

            #[test]
            fn killed_again_and_again() {
                again_and_again($scenario);
            }
        })*
    };
}

killed! {
    keyboard: input::TYPING,
    screen: gpu::DRAWING,
    front_end: setup::UNACKNOWLEDGED,
    acknowledging_front_end: setup::ACKNOWLEDGED,
}

#[test]
fn pause_with_a_key_down_killed_at_any_system_call() {
    at_any_system_call(setup::PAUSED);
}
