// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asking programs for their capabilities: `--print-capabilities`.

use std::io::{self, ErrorKind, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use conventions::Capabilities;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Descriptor, DescriptorState};

/// How long a program may take: usually milliseconds, but more on a slow disk.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How much it may write; an answer has a few lines.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// How many are asked at once.
const AT_ONCE: usize = 16;
/// How much of its error message is shown, in characters.
const COMPLAINT_LIMIT: usize = 200;

/// Why a program could not be asked: the predicate of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("cannot be run: {0}")]
    Run(#[source] io::Error),
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("does not end within {} s", TIME_LIMIT.as_secs())]
    Late,
    #[error("writes more than {} KiB", OUTPUT_LIMIT >> 10)]
    Long,
    #[error("ends with status {code}{}", after_colon(message))]
    Status { code: i32, message: String },
    #[error("is killed by signal {signal}{}", after_colon(message))]
    Killed { signal: i32, message: String },
    #[error("prints no valid capabilities: {0}")]
    Invalid(#[source] serde_json::Error),
}

fn after_colon(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}

/// What a program wrote, and how it ended.
struct ProgramOutput {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Asks the programs of all usable descriptors, several at a time.
pub(super) fn ask_all(descriptors: &mut [Descriptor]) {
    let mut asked: Vec<_> = descriptors
        .iter_mut()
        .filter(|descriptor| descriptor.state == DescriptorState::Usable)
        .collect();
    for part in asked.chunks_mut(AT_ONCE) {
        thread::scope(|scope| {
            for descriptor in part {
                scope.spawn(|| ask(descriptor));
            }
        });
    }
}

fn ask(descriptor: &mut Descriptor) {
    let Some(binary) = &descriptor.binary else {
        return;
    };
    match probe(binary) {
        Ok(capabilities) => {
            if descriptor.device_type.as_ref() != Some(&capabilities.device_type) {
                let is = &capabilities.device_type;
                descriptor.add_problem(format!("its program says its type is '{is}'"));
            }
            // libvirt ignores a GPU without this member.
            if capabilities.features.is_none() && capabilities.device_type == "gpu" {
                descriptor.add_problem("its program does not list its features".to_owned());
            }
            descriptor.features = Some(capabilities.features.unwrap_or_default());
        }
        Err(problem) => {
            let shown = binary.display();
            descriptor.add_problem(format!("{shown} --print-capabilities {problem}"));
        }
    }
}

/// Asks one program.
pub(crate) fn probe(binary: &Path) -> Result<Capabilities, ProbeError> {
    let output = run(binary, "--print-capabilities")?;
    if !output.status.success() {
        let message = first_line(&output.stderr);
        return Err(match output.status.code() {
            Some(code) => ProbeError::Status { code, message },
            None => ProbeError::Killed {
                signal: output.status.signal().unwrap_or_default(),
                message,
            },
        });
    }
    Capabilities::parse(&output.stdout).map_err(ProbeError::Invalid)
}

/// The output of `--help`, on both streams and with any status.
pub(crate) fn help(binary: &Path) -> Result<String, ProbeError> {
    let ProgramOutput { stdout, stderr, .. } = run(binary, "--help")?;
    Ok(String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Runs a program with one argument.
fn run(binary: &Path, argument: &str) -> Result<ProgramOutput, ProbeError> {
    let mut child = Command::new(binary)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own children are killed with it.
        .process_group(0)
        .spawn()
        .map_err(ProbeError::Run)?;
    let deadline = Instant::now() + TIME_LIMIT;
    let streams = collect(&mut child, deadline);
    // Kills what is left of it; it fails if all have ended.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait();
    let [stdout, stderr] = streams?;
    Ok(ProgramOutput {
        status: status.map_err(ProbeError::Read)?,
        stdout,
        stderr,
    })
}

/// Reads both of its streams until it has closed them and ended.
fn collect(child: &mut Child, deadline: Instant) -> Result<[Vec<u8>; 2], ProbeError> {
    let (sender, receiver) = channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for (index, pipe) in pipes.into_iter().flatten().enumerate() {
        let sender = sender.clone();
        // Ends with the pipe's last writer, at the latest when the group is killed.
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = pipe.take(OUTPUT_LIMIT + 1).read_to_end(&mut bytes);
            // The receiver is gone after a timeout.
            let _ = sender.send((index, read.map(|_| bytes)));
        });
    }
    drop(sender);
    let mut collected = [Vec::new(), Vec::new()];
    for _ in 0..collected.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let received = receiver.recv_timeout(left);
        let (index, bytes): (usize, io::Result<Vec<u8>>) = match received {
            Ok(received) => received,
            Err(RecvTimeoutError::Timeout) => return Err(ProbeError::Late),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ProbeError::Read(ErrorKind::BrokenPipe.into()));
            }
        };
        let bytes = bytes.map_err(ProbeError::Read)?;
        if bytes.len() as u64 > OUTPUT_LIMIT {
            return Err(ProbeError::Long);
        }
        if let Some(place) = collected.get_mut(index) {
            *place = bytes;
        }
    }
    // It may close both pipes and run on.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            return Err(ProbeError::Late);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(collected)
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or_default()
        .trim()
        .chars()
        .take(COMPLAINT_LIMIT)
        .collect()
}
