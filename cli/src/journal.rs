//! The log of backends, read by journalctl(1): the only interface to the journal's files that needs no library of
//! systemd's version.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// Why the log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Failed to run journalctl, which reads the log: {0}.")]
    Run(#[source] io::Error),
    #[error("journalctl returned no log within {} seconds. Run it by hand: journalctl --unit={unit}", TIMEOUT.as_secs())]
    Late { unit: String },
}

/// How long the last lines may take; a journal of years on a slow disk takes seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the journal may take to take what was logged.
const SYNC_TIMEOUT: Duration = Duration::from_secs(2);
/// The most output that is read. journalctl itself leaves out fields of more than 4096 bytes.
const OUTPUT_LIMIT: u64 = 4 << 20;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// When the journal received it.
    pub time: Timestamp,
    /// The program that logged it.
    pub identifier: Option<String>,
    pub pid: Option<u32>,
    /// From 0 (emergency) to 7 (debug), as in syslog(3).
    pub priority: Option<u8>,
    pub message: String,
}

/// The command that reads the log of units, given by names or glob(7) patterns.
pub(crate) fn journalctl(units: &[String]) -> Command {
    let mut command = Command::new("journalctl");
    command.args(units.iter().map(|unit| format!("--unit={unit}")));
    command
}

/// Replaces this process by that command, as exec(3) does; returns only on an error.
pub(crate) fn exec(mut command: Command) -> Error {
    Error::Run(command.exec())
}

/// Waits until the journal has received all messages so far, which takes a moment. Only root can request that;
/// other users do not wait.
pub(crate) fn sync() {
    let child = Command::new("journalctl")
        .arg("--sync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return };
    let deadline = Instant::now() + SYNC_TIMEOUT;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The last lines of units, oldest first.
pub(crate) fn last(units: &[String], lines: u32) -> Result<Vec<Entry>, Error> {
    let mut child = journalctl(units)
        .args(["--output=json", "--no-pager", "--quiet"])
        .arg(format!("--lines={lines}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::Run)?;
    let stdout = child.stdout.take();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |out| out.take(OUTPUT_LIMIT).read_to_end(&mut text));
        // Whoever waited too long is gone.
        let _ = sender.send(read.map(|_| text));
    });
    let read = receiver.recv_timeout(TIMEOUT);
    // It has ended, or is not wanted any more.
    let _ = child.kill();
    let _ = child.wait();
    match read {
        Ok(text) => Ok(entries(&text.map_err(Error::Run)?)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Error::Late {
            unit: units.first().cloned().unwrap_or_default(),
        }),
    }
}

/// Reads lines of `--output=json`; truncated lines are left out.
fn entries(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| entry(&serde_json::from_slice(line).ok()?))
        .collect()
}

fn entry(fields: &Map<String, Value>) -> Option<Entry> {
    let text = |name: &str| fields.get(name).and_then(text);
    let time = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
    Some(Entry {
        time: Timestamp::from_microsecond(time).ok()?,
        identifier: text("SYSLOG_IDENTIFIER").or_else(|| text("_COMM")),
        pid: text("_PID")
            .or_else(|| text("SYSLOG_PID"))
            .and_then(|pid| pid.parse().ok()),
        priority: text("PRIORITY").and_then(|priority| priority.parse().ok()),
        message: text("MESSAGE").unwrap_or_else(|| "[too long to show]".to_owned()),
    })
}

/// A field's value. A value that is not UTF-8 is an array of bytes, a field that occurs several times an array of
/// values, and a field that is too large null.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) if values.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> = values
                .iter()
                .filter_map(|value| u8::try_from(value.as_u64()?).ok())
                .collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(values) => values.first().and_then(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_in_all_their_forms() {
        let lines = concat!(
            r#"{"__REALTIME_TIMESTAMP":"1700000000123456","SYSLOG_IDENTIFIER":"vhost-user-gpu","_PID":"17","PRIORITY":"6","MESSAGE":"hello"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1700000001000000","_COMM":"sh","MESSAGE":[84,195,164,255]}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1700000002000000","MESSAGE":null}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1700000003000000","MESSAGE":["first","second"]}"#,
            "\n",
            r#"{"MESSAGE":"without a time"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"17000000"#,
        );
        let read = entries(lines.as_bytes());
        let messages: Vec<_> = read.iter().map(|entry| entry.message.as_str()).collect();
        assert_eq!(
            messages,
            ["hello", "Tä\u{fffd}", "[too long to show]", "first"]
        );
        assert_eq!(
            read[0],
            Entry {
                time: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
                identifier: Some("vhost-user-gpu".into()),
                pid: Some(17),
                priority: Some(6),
                message: "hello".into(),
            }
        );
        assert_eq!(read[1].identifier.as_deref(), Some("sh"));
        assert_eq!(read[1].pid, None);
    }
}
