//! The log's own thread: whoever reads the log, journald or a pipe's other end, may not do so for a
//! while, and nothing that serves is to wait for that.

use std::io;
use std::mem;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use log::{Level, Log, Record};

use crate::backend::lock::lock;

/// How many bytes of messages wait at most; as many again may be under way. Later ones are counted
/// instead.
const MOST: usize = 512 << 10;

/// Messages on their way to the log.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether there is a thread that takes them.
    served: bool,
    messages: Vec<Message>,
    /// What these take.
    bytes: usize,
    /// How many came after these, and found no room.
    lost: u64,
    /// Whether the thread writes what it took before.
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
    /// Takes a message over, or counts it; `false` while no thread serves the queue.
    pub(super) fn push(&self, record: &Record<'_>) -> bool {
        // Made before the lock is taken: what is logged may log something itself.
        let message = Message::new(record);
        let mut state = lock(&self.state);
        if !state.served {
            return false;
        }
        let bytes = state.bytes.saturating_add(message.size());
        // None passes those that were lost before it, so that their number stands where they would.
        if state.lost > 0 || bytes > MOST {
            state.lost = state.lost.saturating_add(1);
        } else {
            state.messages.push(message);
            state.bytes = bytes;
        }
        self.changed.notify_all();
        true
    }

    /// Makes the thread that writes to `log` what comes from now on.
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

    /// Waits for messages, and writes those there are.
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
            let text = format!("{lost} messages were left out: nobody read the log");
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

    /// Waits until all is written, but no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let waits =
            |state: &mut State| state.writing || !state.messages.is_empty() || state.lost > 0;
        // That it took longer cannot be told anyone.
        let _ = self
            .changed
            .wait_timeout_while(lock(&self.state), limit, waits);
    }
}

#[cfg(test)]
mod tests;
