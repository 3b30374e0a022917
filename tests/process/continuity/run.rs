// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One run of a scenario, in which the program is killed.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::manager::Service;
use rustix::process::Signal;

use super::accept_watch::AcceptWatch;
use super::scenario::{Connection, Paths, Scenario, Seen};
use super::tracer::{End, Moment, Point, Stop, Tracer, Verdict};

/// How long a scenario may take. Its own waits end sooner.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a process may take to end once its front-end has left.
const GRACE: Duration = frontend::DEFAULT_LIMIT;
/// How long one that was started then may take. It may find nobody, and wait for the next front-end.
const LATE_GRACE: Duration = Duration::from_secs(5);
/// Where it closed the connection itself.
const SHORT_GRACE: Duration = Duration::from_millis(500);

/// When a process is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Not by us. It is traced.
    None,
    At(Point),
    /// At this stop, counted over all threads from the program's first.
    Number(usize),
}

/// What became of a run.
#[derive(Debug)]
pub(super) struct Run {
    /// What was seen, or how it failed.
    pub(super) outcome: Result<Vec<String>, String>,
    /// All points of each process that was traced, up to its end, in their order. Exits are left out.
    pub(super) lives: Vec<Vec<Point>>,
    /// Where processes were killed.
    pub(super) kills: Vec<String>,
    /// Whether a process was killed that had accepted a connection and not kept it yet: its other end sees the end.
    pub(super) excused: bool,
    pub(super) log: String,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::At(point) => point.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl std::str::FromStr for Death {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match (text, text.parse()) {
            ("-", _) => Self::None,
            (_, Ok(number)) => Self::Number(number),
            _ => Self::At(text.parse()?),
        })
    }
}

/// The outcome of a scenario that goes on waiting for something on a connection that has ended.
const CLOSED: &str = "the program closed the front-end's connection";

type Played = (Seen, frontend::Result<()>);

struct Player {
    thread: Option<JoinHandle<Played>>,
    connection: Connection,
}

impl Player {
    fn start(scenario: Scenario, service: &Service) -> Self {
        let connection = Connection::default();
        let mut seen = Seen::with(&connection);
        let paths = Paths::of(service);
        let play = move || {
            let result = (scenario.play)(&paths, &mut seen);
            // Whoever looks at the connection keeps it open.
            seen.leave();
            (seen, result)
        };
        Self {
            thread: Some(std::thread::spawn(play)),
            connection,
        }
    }

    fn is_over(&self) -> bool {
        let thread = self.thread.as_ref();
        thread.is_none_or(JoinHandle::is_finished) || self.connection.is_closed()
    }

    fn is_leaving(&self) -> bool {
        self.connection.is_leaving() || self.is_over()
    }

    fn outcome(&mut self) -> anyhow::Result<Result<Vec<String>, String>> {
        let deadline = Instant::now() + LIMIT;
        while !self.is_over() {
            ensure!(Instant::now() < deadline, "the scenario does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let thread = self.thread.take().context("asked twice")?;
        // It may take what came before the end.
        let soon = Instant::now() + Duration::from_millis(500);
        while !thread.is_finished() && Instant::now() < soon {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            return Ok(Err(CLOSED.to_owned()));
        }
        let (seen, result) = thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            anyhow::anyhow!("the scenario panicked: {}", text.unwrap_or_default())
        })?;
        Ok(match result {
            Ok(()) => Ok(seen.lines),
            Err(e) => Err(format!("{e}, after {:?}", seen.lines.last())),
        })
    }
}

/// Plays a scenario. The first process is killed as `deaths` says first, the second as it says second, and so on; the
/// last lives, until the front-end has left.
pub(super) fn run(scenario: Scenario, deaths: &[Death]) -> anyhow::Result<Run> {
    let mut service = (scenario.options)().create()?;
    let mut player = Player::start(scenario, &service);
    let mut run = Run {
        outcome: Ok(Vec::new()),
        lives: Vec::new(),
        kills: Vec::new(),
        excused: false,
        log: String::new(),
    };
    for death in deaths {
        // One that starts when the front-end has left may find nobody, and wait for the next.
        let expects = !player.is_leaving();
        service.start_stopped()?;
        let end = traced(&mut service, death, &player, expects, &mut run)?;
        let status = service.wait_exit()?;
        match end {
            End::Killed => {}
            End::ByItself | End::GivenUp => {
                run.log = service.log();
                run.outcome = player.outcome()?;
                if is_excused(&run) {
                    service.forget();
                    return last(service, scenario, run);
                }
                let ended_well = match end {
                    End::ByItself => status.success(),
                    _ => run.outcome.is_err() || !expects,
                };
                ensure!(ended_well, "it ended with {status}; log: {}", run.log);
                return Ok(run);
            }
        }
    }
    let expects = !player.is_leaving();
    service.start()?;
    run.outcome = untraced(&mut service, player, expects, run.excused, scenario)?;
    run.log = service.log();
    Ok(run)
}

/// Whether a connection ended, no more, which may.
fn is_excused(run: &Run) -> bool {
    run.excused && run.outcome.as_ref().is_err_and(|error| is_end(error))
}

/// Whoever connects now is served as the first would have been.
fn last(mut service: Service, scenario: Scenario, mut run: Run) -> anyhow::Result<Run> {
    service.start()?;
    let player = Player::start(scenario, &service);
    run.outcome = untraced(&mut service, player, true, false, scenario)?;
    run.log = service.log();
    Ok(run)
}

/// Follows a process that has just stopped itself, until it is killed or ends: by itself if it `expects` a front-end.
fn traced(
    service: &mut Service,
    death: &Death,
    player: &Player,
    expects: bool,
    run: &mut Run,
) -> anyhow::Result<End> {
    let mut tracer = Tracer::attach(service.pid()?)?;
    let mut points = Vec::new();
    let mut watch = AcceptWatch::default();
    let mut over = None;
    let judge = |stop: &Stop| {
        if stop.point.moment == Moment::Entry {
            points.push(stop.point.clone());
        }
        let verdict = judge(death, stop);
        if verdict != Verdict::GoOn {
            run.kills.push(match (death, stop.result) {
                (Death::At(point), Some(result)) => format!("{point}, which returned {result}"),
                (Death::At(point), None) => point.to_string(),
                _ => format!("{}, stop {}", stop.point, stop.number),
            });
        }
        run.excused |= watch.see(stop) && verdict != Verdict::GoOn;
        verdict
    };
    let given_up = || {
        let grace = match expects {
            _ if player.connection.is_closed() => SHORT_GRACE,
            true => GRACE,
            false => LATE_GRACE,
        };
        player.is_over() && over.get_or_insert_with(Instant::now).elapsed() > grace
    };
    let end = tracer.follow(judge, given_up);
    run.lives.push(points);
    end.with_context(|| format!("log: {}", service.log()))
}

/// Waits until the last process has ended: by itself if it `expects` a front-end, otherwise by SIGTERM.
fn untraced(
    service: &mut Service,
    mut player: Player,
    expects: bool,
    excused: bool,
    scenario: Scenario,
) -> anyhow::Result<Result<Vec<String>, String>> {
    let mut outcome = last_outcome(service, &mut player)?;
    if excused && outcome.is_err() {
        // Its connection ended, no more. The next front-end is served as the first would have been.
        let first = outcome.unwrap_err();
        ensure!(is_end(&first), "not only an end: {first}");
        player = Player::start(scenario, service);
        outcome = last_outcome(service, &mut player)?;
    }
    if outcome.is_err() {
        // It may have ended.
        let _ = service.signal(Signal::KILL);
        return Ok(outcome);
    }
    if !expects {
        // It is ready, or has found that the front-end has left.
        if service.wait_ready().is_ok() && service.try_exit()?.is_none() {
            service.signal(Signal::TERM)?;
        }
    }
    let status = service.wait_exit()?;
    let log = service.log();
    ensure!(
        Service::is_success(status),
        "it ended with {status}; log: {log}"
    );
    Ok(outcome)
}

/// The outcome with the last process, which ends no sooner than the front-end.
fn last_outcome(
    service: &mut Service,
    player: &mut Player,
) -> anyhow::Result<Result<Vec<String>, String>> {
    while !player.is_over() {
        if let Some(status) = service.try_exit()? {
            if player.is_leaving() {
                break;
            }
            if status.success() {
                // What is kept is closed, and whoever connects, or has connected, starts it again.
                service.settle()?;
                service.start()?;
                continue;
            }
            let log = service.log();
            return Ok(Err(format!("it ended by itself with {status}: {log}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    player.outcome()
}

/// Whether this error is no more than the end of a connection.
fn is_end(error: &str) -> bool {
    ["closed the socket", "disconnected", CLOSED]
        .iter()
        .any(|end| error.contains(end))
}

fn judge(death: &Death, stop: &Stop) -> Verdict {
    match death {
        Death::None => Verdict::GoOn,
        Death::Number(number) if stop.number >= *number => Verdict::Kill,
        Death::Number(_) => Verdict::GoOn,
        Death::At(point) => match point.moment {
            _ if *point == stop.point => Verdict::Kill,
            Moment::After(steps) if point.at(Moment::Exit) == stop.point => {
                Verdict::KillAfter(steps)
            }
            _ => Verdict::GoOn,
        },
    }
}
