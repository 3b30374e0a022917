// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's monitor protocol.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    partial: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Greets the QEMU at the other end of `stream`.
    ///
    /// # Errors
    ///
    /// If it does not answer as QEMU does.
    pub fn new(stream: UnixStream, timeout: Duration) -> anyhow::Result<Self> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
            events: VecDeque::new(),
        };
        let greeting = qmp.read(Instant::now() + timeout)?;
        greeting
            .get("QMP")
            .with_context(|| format!("no QMP greeting: {greeting}"))?;
        qmp.execute(&json!({"execute": "qmp_capabilities"}), timeout)?;
        Ok(qmp)
    }

    /// Sends a command and returns what it `return`s.
    ///
    /// # Errors
    ///
    /// If QEMU refuses it, goes away, or takes longer than `timeout`.
    pub fn execute(&mut self, command: &Value, timeout: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + timeout;
        let line = format!("{command}\n");
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context("cannot reach QEMU")?;
        loop {
            let mut answer = self
                .read(deadline)
                .with_context(|| format!("QMP command {command}"))?;
            if answer.get("event").is_some() {
                self.events.push_back(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"]);
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for an event of that name, also one that came earlier, and takes it.
    ///
    /// # Errors
    ///
    /// If QEMU goes away or the event does not come in time.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(index) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(index).context("the event has gone");
            }
            let message = self
                .read(deadline)
                .with_context(|| format!("QMP event {name}"))?;
            self.events.push_back(message);
        }
    }

    fn read(&mut self, deadline: Instant) -> anyhow::Result<Value> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("QEMU does not answer in time");
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            match self.stream.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.partial);
                    return serde_json::from_slice(&line).context("QEMU sent no JSON");
                }
                Ok(_) => bail!("QEMU has closed its monitor"),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("cannot read from QEMU"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// A Qmp whose QEMU says `script`, whatever it is told.
    fn scripted(script: &str) -> anyhow::Result<(Qmp, UnixStream)> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n")?;
        theirs.write_all(script.as_bytes())?;
        Ok((Qmp::new(ours, SOON)?, theirs))
    }

    #[test]
    fn events_do_not_get_in_the_way_of_answers() {
        let (mut qmp, _theirs) =
            scripted("{\"event\": \"RESET\"}\n{\"return\": {\"running\": true}}\n").expect("qmp");
        let answer = qmp
            .execute(&json!({"execute": "query-status"}), SOON)
            .expect("answer");
        assert_eq!(answer["running"], true);
        assert_eq!(
            qmp.wait_event("RESET", SOON).expect("event")["event"],
            "RESET"
        );
    }

    #[test]
    fn refusals_and_silence_are_errors() {
        let (mut qmp, _theirs) = scripted("{\"error\": {\"desc\": \"no\"}}\n").expect("qmp");
        let refused = qmp
            .execute(&json!({"execute": "x"}), SOON)
            .expect_err("refused");
        assert!(refused.to_string().contains("no"), "{refused}");
        let late = qmp.execute(&json!({"execute": "x"}), Duration::from_millis(30));
        assert!(format!("{:#}", late.expect_err("late")).contains("in time"));
    }

    #[test]
    fn monitor_that_closes_is_an_error() {
        let (mut qmp, theirs) = scripted("").expect("qmp");
        drop(theirs);
        assert!(qmp.execute(&json!({"execute": "x"}), SOON).is_err());
    }
}
