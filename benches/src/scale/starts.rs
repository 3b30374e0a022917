// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many VMs that start at once: by systemd, and the same programs by hand.

use std::time::{Duration, Instant};

use frontend::{Command, Program, Session, SocketForm};
use harness::paths;

use super::host::{DEVICES, Host};
use crate::usage::Usage;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(240);

/// What a start took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    /// Until all had answered.
    pub wall: Duration,
    /// Processor time of PID 1.
    pub manager: Duration,
    /// Of the programs, and of what systemd does in their processes before.
    pub services: Duration,
    /// Of the journal, the bus and all else.
    pub others: Duration,
}

/// The sessions with the devices of a VM.
pub(super) type Sessions = [(Session, frontend::Offer); DEVICES.len()];

/// Connects to the devices of all VMs at once, and waits until all have answered.
///
/// # Errors
/// If one does not answer.
pub(super) fn by_systemd(host: &Host, count: usize) -> anyhow::Result<(Vec<Sessions>, Start)> {
    let before = host.times()?;
    let begin = Instant::now();
    let connected: Result<Vec<_>, _> = (1..=count).map(|vm| host.connect(vm)).collect();
    let mut all = Vec::new();
    for streams in connected? {
        let [gpu, keyboard, tablet] = streams.map(|stream| {
            let mut session = Session::new(stream);
            session.channel.limit = LIMIT;
            let offer = session.negotiate(Session::usual_protocol_features())?;
            anyhow::Ok((session, offer))
        });
        all.push([gpu?, keyboard?, tablet?]);
    }
    let wall = begin.elapsed();
    let after = host.times()?;
    let used = |n: usize| after[n].saturating_sub(before[n]);
    let start = Start {
        wall,
        manager: used(0),
        services: used(1),
        others: used(2),
    };
    Ok((all, start))
}

/// Starts the same programs without systemd, all at once, and waits until all have answered.
///
/// # Errors
/// If one does not answer.
pub(super) fn by_hand(count: usize) -> anyhow::Result<Start> {
    let folder = tempfile::tempdir()?;
    let begin = Instant::now();
    let mut programs: Vec<Program> = Vec::new();
    for number in 0..count {
        let command = |name| -> anyhow::Result<Command> {
            Ok(Command::new(paths::program(name)?).socket(SocketForm::Connected(0)))
        };
        programs.push(command("vhost-user-gpu")?.spawn()?);
        for kind in ["keyboard", "tablet"] {
            let events = folder.path().join(format!("{kind}{number}"));
            let input = command("vhost-user-input")?.args([
                format!("--virtual={kind}"),
                format!("--events-socket={}", events.display()),
            ]);
            programs.push(input.spawn()?);
        }
    }
    let mut sessions = Vec::new();
    for program in &mut programs {
        let mut session = program.session()?;
        session.channel.limit = LIMIT;
        session.negotiate(Session::usual_protocol_features())?;
        sessions.push(session);
    }
    let wall = begin.elapsed();
    let pids: Vec<u32> = programs.iter().map(Program::pid).collect();
    Ok(Start {
        wall,
        services: Usage::of_all(&pids)?.cpu,
        ..Start::default()
    })
}
