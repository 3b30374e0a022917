// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The log's queue and thread: no thread that serves waits for journald, or for the reader of a pipe.

use std::io;
use std::mem;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use log::{Level, Log, Record};

use crate::backend::lock::lock;

/// Limit on the bytes of queued messages; as many again may be in the hands of the thread. Beyond it messages are
/// dropped and counted.
const MOST: usize = 512 << 10;

/// Messages that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether the thread runs.
    served: bool,
    messages: Vec<Message>,
    /// Size of `messages`.
    bytes: usize,
    /// How many messages were dropped after these.
    lost: u64,
    /// Whether the thread is writing messages that it took.
    writing: bool,
}

struct Message {
    level: Level,
    target: String,
    module: Option<&'static str>,
    file: Option<&'static str>,
    line: Option<u32>,
    text: String,
}

impl Message {
    fn new(record: &Record<'_>) -> Self {
        Self {
            level: record.level(),
            target: record.target().to_owned(),
            module: record.module_path_static(),
            file: record.file_static(),
            line: record.line(),
            text: record.args().to_string(),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.target.len() + self.text.len()
    }

    fn write(&self, log: &dyn Log) {
        log.log(
            &Record::builder()
                .level(self.level)
                .target(&self.target)
                .module_path_static(self.module)
                .file_static(self.file)
                .line(self.line)
                .args(format_args!("{}", self.text))
                .build(),
        );
    }
}

impl Queue {
    /// Queues a message, or drops and counts it. Returns `false` if no thread serves the queue.
    pub(super) fn push(&self, record: &Record<'_>) -> bool {
        // Before the lock is taken: formatting a message may log.
        let message = Message::new(record);
        let mut state = lock(&self.state);
        if !state.served {
            return false;
        }
        let bytes = state.bytes.saturating_add(message.size());
        // After a dropped message drop all until it is reported, so that the report stands in its place.
        if state.lost > 0 || bytes > MOST {
            state.lost = state.lost.saturating_add(1);
        } else {
            state.messages.push(message);
            state.bytes = bytes;
        }
        self.changed.notify_all();
        true
    }

    /// Starts the thread that writes to `log`.
    ///
    /// # Errors
    /// As `pthread_create(3)`.
    pub(super) fn serve(&'static self, log: &'static dyn Log) -> io::Result<()> {
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(|| {
            loop {
                self.write(log);
            }
        })?;
        lock(&self.state).served = true;
        Ok(())
    }

    /// Waits for messages and writes them.
    fn write(&self, log: &dyn Log) {
        let mut state = lock(&self.state);
        while state.messages.is_empty() && state.lost == 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let messages = mem::take(&mut state.messages);
        let lost = mem::take(&mut state.lost);
        state.bytes = 0;
        state.writing = true;
        drop(state);

        for message in messages {
            message.write(log);
        }
        if lost > 0 {
            let text = format!("{lost} messages dropped: the log reader did not keep up");
            log.log(
                &Record::builder()
                    .level(Level::Warn)
                    .target(module_path!())
                    .args(format_args!("{text}"))
                    .build(),
            );
        }
        lock(&self.state).writing = false;
        self.changed.notify_all();
    }

    /// Waits until everything is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let waits =
            |state: &mut State| state.writing || !state.messages.is_empty() || state.lost > 0;
        // After a timeout there is no way to report it.
        let _ = self
            .changed
            .wait_timeout_while(lock(&self.state), limit, waits);
    }
}

#[cfg(test)]
mod tests;
