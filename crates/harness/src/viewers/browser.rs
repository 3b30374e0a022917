// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chromium without windows, driven by its DevTools protocol over a pair of pipes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Unpacked;
use crate::guarded::Guarded;
use crate::systemd::Sandbox;

/// For a browser on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A running browser with one page; dropping it ends it.
#[derive(Debug)]
pub(super) struct Browser {
    requests: ChildStdin,
    answers: Receiver<Value>,
    last_id: u64,
    /// The page, once there is one.
    session: Option<String>,
    folder: TempDir,
    _browser: Guarded,
}

impl Browser {
    /// Starts it with `url` in a page of that size, where a private systemd has its network if one is given.
    pub(super) fn open(
        viewers: &Unpacked,
        network: Option<&Sandbox>,
        url: &str,
        size: (u32, u32),
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder for Chromium")?;
        let log = File::create(folder.path().join("log")).context("cannot create a log")?;
        let program = viewers.command("usr/lib/chromium/chromium-headless-shell");
        let mut command = match network {
            Some(sandbox) => sandbox.command_in_network("sh"),
            None => Command::new("sh"),
        };
        command
            // The protocol's pipes have the numbers 3 and 4.
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#])
            .arg(program.get_program())
            // Root has to do without its sandbox, small machines without shared memory in /dev/shm.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run"])
            .args([
                "--force-color-profile=srgb",
                "--disable-background-networking",
            ])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg("about:blank")
            .envs(
                program
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut browser = Guarded::spawn(&mut command)?;
        let requests = browser.child().stdin.take().context("no pipe")?;
        let output = browser.child().stdout.take().context("no pipe")?;
        let (sender, answers) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    break;
                };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut this = Self {
            requests,
            answers,
            last_id: 0,
            session: None,
            folder,
            _browser: browser,
        };
        this.open_page(url, size).with_context(|| this.said())?;
        Ok(this)
    }

    fn open_page(&mut self, url: &str, (width, height): (u32, u32)) -> anyhow::Result<()> {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", attach)?;
        let session = attached["sessionId"].as_str().context("no session")?;
        self.session = Some(session.to_owned());
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        self.call("Page.navigate", json!({"url": url}))?;
        Ok(())
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        format!("Chromium: {log}")
    }

    /// Calls a method of the protocol.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let deadline = Instant::now() + TIMEOUT;
        self.last_id += 1;
        let mut request = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        self.requests
            .write_all(&bytes)
            .context("Chromium has ended")?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self
                .answers
                .recv_timeout(left)
                .with_context(|| format!("Chromium does not answer {method}"))?;
            // The others are events.
            if answer["id"] == self.last_id {
                if let Some(error) = answer.get("error") {
                    bail!("Chromium refuses {method}: {error}");
                }
                return Ok(answer["result"].take());
            }
        }
    }

    /// The value of an expression in the page.
    pub(super) fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", parameters)?;
        if let Some(error) = answer.get("exceptionDetails") {
            bail!("{expression}: {error}");
        }
        Ok(answer["result"]["value"].take())
    }
}
