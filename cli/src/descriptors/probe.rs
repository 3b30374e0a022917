//! Asking programs what they can do: `--print-capabilities`.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use conventions::Capabilities;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Descriptor, DescriptorState};

/// How long a program may take. They answer in milliseconds; a first start from a slow disk does not.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How much it may write. The answer is a few lines.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// How many are asked at once.
const AT_ONCE: usize = 16;
/// How much of a complaint is shown.
const COMPLAINT_LIMIT: usize = 200;

/// Asks the programs of all that count, several at a time.
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
                descriptor.problem(format!("its program says its type is '{is}'"));
            }
            // libvirt passes over a GPU that has no such member.
            if capabilities.features.is_none() && capabilities.device_type == "gpu" {
                descriptor.problem("its program does not list its features".to_owned());
            }
            descriptor.features = Some(capabilities.features.unwrap_or_default());
        }
        Err(problem) => {
            let shown = binary.display();
            descriptor.problem(format!("{shown} --print-capabilities {problem}"));
        }
    }
}

/// Asks one program; why that failed is the second half of a sentence.
pub(crate) fn probe(binary: &Path) -> Result<Capabilities, String> {
    let (status, output, complaint) = run(binary, "--print-capabilities")?;
    if !status.success() {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ends with status {code}"),
            (None, signal) => format!("is killed by signal {}", signal.unwrap_or_default()),
        };
        let complaint = first_line(&complaint);
        return Err(if complaint.is_empty() {
            how
        } else {
            format!("{how}: {complaint}")
        });
    }
    Capabilities::parse(&output).map_err(|error| format!("prints no valid capabilities: {error}"))
}

/// What a program says to `--help`, on whichever stream and with whichever status.
pub(super) fn help(binary: &Path) -> Result<String, String> {
    let (_, output, complaint) = run(binary, "--help")?;
    Ok(String::from_utf8_lossy(&[output, complaint].concat()).into_owned())
}

/// Runs a program with one argument: its status, its output and its complaints.
fn run(binary: &Path, argument: &str) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), String> {
    let mut child = Command::new(binary)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it starts itself ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let deadline = Instant::now() + TIME_LIMIT;
    let answer = collect(&mut child, deadline);
    // Nothing is left of it, whatever it did; one that has ended already is not there to be killed.
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait();
    let (output, complaint) = answer?;
    let status = status.map_err(|error| format!("is lost: {error}"))?;
    Ok((status, output, complaint))
}

/// What it writes to its output and its complaints, once it has closed both and ended.
fn collect(child: &mut Child, deadline: Instant) -> Result<(Vec<u8>, Vec<u8>), String> {
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
            // Nobody waits for it once the time is over.
            let _ = sender.send((index, read.map(|_| bytes)));
        });
    }
    drop(sender);
    let too_slow = || format!("does not end within {} s", TIME_LIMIT.as_secs());
    let mut collected = [Vec::new(), Vec::new()];
    for _ in 0..collected.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (index, bytes): (usize, io::Result<Vec<u8>>) =
            receiver.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => too_slow(),
                RecvTimeoutError::Disconnected => "cannot be read".to_owned(),
            })?;
        let bytes = bytes.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > OUTPUT_LIMIT {
            return Err(format!("writes more than {} KiB", OUTPUT_LIMIT >> 10));
        }
        if let Some(place) = collected.get_mut(index) {
            *place = bytes;
        }
    }
    // Both pipes are closed: it is about to end, or hides that it is not.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            return Err(too_slow());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let [output, complaint] = collected;
    Ok((output, complaint))
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
