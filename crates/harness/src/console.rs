// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest agent's line protocol.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use guest::protocol::{Answer, Message, READY};

/// Who waits for the answers to which request. Gone once the line is closed.
type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// A line to the agent in a guest.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    waiting: Waiting,
    ready: Receiver<()>,
    last_id: u64,
}

impl Console {
    /// Takes over the host's end of the guest's serial line.
    ///
    /// # Errors
    ///
    /// If the stream cannot be shared with the thread that reads it.
    pub fn new(stream: UnixStream) -> anyhow::Result<Self> {
        let input = BufReader::new(stream.try_clone().context("cannot share the console")?);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (boots, ready) = channel();
        let answers = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in input.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if line.trim_end() == READY {
                    // Requests of the guest's former life are not answered any more.
                    if let Some(waiting) = lock(&answers).as_mut() {
                        waiting.clear();
                    }
                    if boots.send(()).is_err() {
                        break;
                    }
                } else if let Some(message) = Message::parse(line.trim_end_matches('\r')) {
                    deliver(&answers, message);
                }
            }
            lock(&answers).take();
        });
        Ok(Self {
            stream,
            waiting,
            ready,
            last_id: 0,
        })
    }

    /// Waits until a guest has booted; each boot counts once.
    ///
    /// # Errors
    ///
    /// If the line is closed, or no guest is ready in time.
    pub fn wait_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        self.ready
            .recv_timeout(timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    anyhow::anyhow!("the guest is not up after {timeout:?}")
                }
                RecvTimeoutError::Disconnected => anyhow::anyhow!("QEMU has ended"),
            })
    }

    /// Sends a command and does not wait for its answer.
    ///
    /// # Errors
    ///
    /// If the line is closed.
    pub fn start(&mut self, command: &str) -> anyhow::Result<Running> {
        self.last_id += 1;
        let (answers, receiver) = channel();
        lock(&self.waiting)
            .as_mut()
            .context("QEMU has ended")?
            .insert(self.last_id, answers);
        let request = format!("{} {command}\n", self.last_id);
        self.stream
            .write_all(request.as_bytes())
            .context("cannot reach the guest")?;
        Ok(Running {
            command: command.to_owned(),
            answers: receiver,
        })
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<HashMap<u64, Sender<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deliver(waiting: &Waiting, message: Message) {
    let mut waiting = lock(waiting);
    let Some(waiting) = waiting.as_mut() else {
        return;
    };
    let last = !matches!(message.answer, Answer::Line(_));
    if let Some(answers) = waiting.get(&message.id) {
        // Nobody need be interested in the answer.
        let _ = answers.send(message.answer);
    }
    if last {
        waiting.remove(&message.id);
    }
}

/// A command that runs in the guest.
#[derive(Debug)]
pub struct Running {
    command: String,
    answers: Receiver<Answer>,
}

impl Running {
    /// The next line of output; `None` once the command has succeeded.
    ///
    /// # Errors
    ///
    /// If the command fails, the guest restarts, or nothing comes in time.
    pub fn line(&self, timeout: Duration) -> anyhow::Result<Option<String>> {
        match self.answers.recv_timeout(timeout) {
            Ok(Answer::Line(text)) => Ok(Some(text)),
            Ok(Answer::Ok) => Ok(None),
            Ok(Answer::Error(text)) => bail!("guest: {}: {text}", self.command),
            Err(RecvTimeoutError::Timeout) => {
                bail!("guest: {}: no answer in {timeout:?}", self.command)
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("guest: {}: the guest has gone", self.command)
            }
        }
    }

    /// Waits for that line of output and drops what comes before it.
    ///
    /// # Errors
    ///
    /// As for [`line`](Self::line), or if the command ends without it.
    pub fn expect(&self, text: &str, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        while let Some(line) = self.line(deadline.saturating_duration_since(Instant::now()))? {
            if line == text {
                return Ok(());
            }
        }
        bail!("guest: {}: ended without saying {text:?}", self.command)
    }

    /// Waits for the end of the command and returns the lines not read so far.
    ///
    /// # Errors
    ///
    /// As for [`line`](Self::line).
    pub fn finish(self, timeout: Duration) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + timeout;
        let mut lines = Vec::new();
        loop {
            match self.line(deadline.saturating_duration_since(Instant::now())) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => return Ok(lines),
                Err(error) if lines.is_empty() => return Err(error),
                Err(error) => {
                    let said = lines.join("\n");
                    return Err(error.context(format!("it said before:\n{said}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn console_matches_answers_to_requests() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let mut console = Console::new(ours).expect("console");
        theirs.write_all(b"[ 0.1] noise\r\nready\n").expect("write");
        console.wait_ready(SOON).expect("ready");
        let (first, second) = (
            console.start("a").expect("a"),
            console.start("b").expect("b"),
        );
        theirs
            .write_all(b"2| of b\n1| of a\n1 ok\n2 error: broken\n")
            .expect("write");
        assert_eq!(first.finish(SOON).expect("ok"), ["of a"]);
        assert_eq!(second.line(SOON).expect("line").as_deref(), Some("of b"));
        let error = second.line(SOON).expect_err("error").to_string();
        assert!(error.contains("broken"), "{error}");
    }

    #[test]
    fn reboot_and_the_end_of_qemu_end_the_waiting() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let mut console = Console::new(ours).expect("console");
        let running = console.start("reboot").expect("start");
        theirs.write_all(b"ready\n").expect("write");
        assert!(
            running
                .line(SOON)
                .expect_err("gone")
                .to_string()
                .contains("gone")
        );
        console.wait_ready(SOON).expect("ready");
        drop(theirs);
        assert!(
            console
                .wait_ready(SOON)
                .expect_err("ended")
                .to_string()
                .contains("ended")
        );
        assert!(console.start("x").is_err());
    }

    #[test]
    fn console_times_out_on_silence() {
        let (ours, _theirs) = UnixStream::pair().expect("pair");
        let mut console = Console::new(ours).expect("console");
        let running = console.start("hang").expect("start");
        let error = running
            .finish(Duration::from_millis(20))
            .expect_err("late")
            .to_string();
        assert!(error.contains("no answer"), "{error}");
    }
}
