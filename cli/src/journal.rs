// SPDX-License-Identifier: Apache-2.0 OR MIT
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

/// How many groups of units one journalctl reads: it takes some milliseconds to start, and tries each unit on each message.
const GROUPS_AT_ONCE: usize = 16;
/// The fields that are read of a message, beside those that name its unit.
const FIELDS: [&str; 6] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
    "_COMM",
    "_PID",
];
/// The fields by which `--unit=` finds a message.
const UNIT_FIELDS: [&str; 4] = [
    "_SYSTEMD_UNIT",
    "UNIT",
    "OBJECT_SYSTEMD_UNIT",
    "COREDUMP_UNIT",
];

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
    let text = read(units, lines.into())?;
    Ok(messages(&text)
        .filter_map(|fields| entry(&fields))
        .collect())
}

/// The last lines of each group of units, oldest first.
pub(crate) fn last_of_each(groups: &[Vec<String>], lines: u32) -> Result<Vec<Vec<Entry>>, Error> {
    let mut logs = Vec::with_capacity(groups.len());
    for some in groups.chunks(GROUPS_AT_ONCE) {
        let some: Vec<&[String]> = some.iter().map(Vec::as_slice).collect();
        logs.extend(last_of_some(&some, lines)?);
    }
    Ok(logs)
}

/// Reads the logs of groups together, and again those to which the others left too few of the lines.
fn last_of_some(groups: &[&[String]], lines: u32) -> Result<Vec<Vec<Entry>>, Error> {
    if let [units] = groups {
        return Ok(vec![last(units, lines)?]);
    }
    let wanted = u64::from(lines).saturating_mul(groups.len() as u64);
    let text = read(&groups.concat(), wanted)?;
    let is_cut = text.len() as u64 >= OUTPUT_LIMIT;
    let (logs, count) = divide(&text, groups);
    let is_all = count < wanted && !is_cut;
    let lines_of = |log: &Vec<Entry>| log.len() as u64;
    let is_complete = |log: &Vec<Entry>| is_all || !is_cut && lines_of(log) >= lines.into();
    let short: Vec<&[String]> = groups
        .iter()
        .zip(&logs)
        .filter(|(_, log)| !is_complete(log))
        .map(|(units, _)| *units)
        .collect();
    let again = match short.len() < groups.len() {
        true if short.is_empty() => Vec::new(),
        true => last_of_some(&short, lines)?,
        // Another time would be no better.
        false => {
            let each = short.iter().map(|units| last(units, lines));
            each.collect::<Result<_, _>>()?
        }
    };
    let mut again = again.into_iter();
    let logs = logs.into_iter().map(|mut log| match is_complete(&log) {
        true => {
            let older = lines_of(&log).saturating_sub(lines.into());
            log.drain(..usize::try_from(older).unwrap_or_default());
            log
        }
        false => again.next().unwrap_or_default(),
    });
    Ok(logs.collect())
}

/// The lines of each group, and how many journalctl printed in all: those that cannot be read too.
fn divide(text: &[u8], groups: &[&[String]]) -> (Vec<Vec<Entry>>, u64) {
    let mut logs = vec![Vec::new(); groups.len()];
    let mut count = 0;
    for line in lines(text) {
        count += 1;
        let Some(fields) = message(line) else {
            continue;
        };
        let Some(entry) = entry(&fields) else {
            continue;
        };
        let named: Vec<String> = UNIT_FIELDS
            .iter()
            .filter_map(|name| fields.get(*name).and_then(self::text))
            .collect();
        for (units, log) in groups.iter().zip(&mut logs) {
            if units.iter().any(|unit| named.contains(unit)) {
                log.push(entry.clone());
            }
        }
    }
    (logs, count)
}

/// The output of journalctl: the last lines of units.
fn read(units: &[String], lines: u64) -> Result<Vec<u8>, Error> {
    let fields = [&FIELDS[..], &UNIT_FIELDS[..]].concat().join(",");
    let mut child = journalctl(units)
        .args(["--output=json", "--no-pager", "--quiet"])
        .arg(format!("--output-fields={fields}"))
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
        Ok(text) => text.map_err(Error::Run),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Error::Late {
            unit: units.first().cloned().unwrap_or_default(),
        }),
    }
}

/// The fields of the messages in the form of `--output=json`. A message that is cut is left out.
fn messages(text: &[u8]) -> impl Iterator<Item = Map<String, Value>> + '_ {
    lines(text).filter_map(message)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

fn message(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
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
        let read: Vec<_> = messages(lines.as_bytes())
            .filter_map(|fields| entry(&fields))
            .collect();
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

    #[test]
    fn lines_go_to_the_groups_of_their_units() {
        let lines = concat!(
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":"of a","_SYSTEMD_UNIT":"a.service"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"2","MESSAGE":"about b","_SYSTEMD_UNIT":"init.scope","UNIT":"b.socket"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"3","MESSAGE":"of a about b","_SYSTEMD_UNIT":"a.service","OBJECT_SYSTEMD_UNIT":["b.service"]}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"4","MESSAGE":"of c","_SYSTEMD_UNIT":"c.service"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"5","MESSAGE":"b died","COREDUMP_UNIT":"b.service"}"#,
            "\n",
            r#"{"MESSAGE":"without a time","UNIT":"a.service"}"#,
            "\n",
            "what is no message\n",
        );
        let a = ["a.service".to_owned()];
        let b = ["b.service".to_owned(), "b.socket".to_owned()];
        let (logs, count) = divide(lines.as_bytes(), &[&a, &b]);
        let messages = |log: &[Entry]| {
            let messages = log.iter().map(|entry| entry.message.clone());
            messages.collect::<Vec<_>>()
        };
        let [of_a, of_b] = &logs[..] else {
            panic!("two logs");
        };
        assert_eq!(messages(of_a), ["of a", "of a about b"]);
        assert_eq!(messages(of_b), ["about b", "of a about b", "b died"]);
        assert_eq!(count, 7);
    }
}
