// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The log: journald's native protocol if stderr is the journal, else stderr. Never stdout.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use conventions::printable;
use log::{LevelFilter, Log, Metadata, Record};
use rustix::net::{SendFlags, send};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use queue::Queue;

mod queue;
mod rate_limit;

pub use rate_limit::RateLimitedLog;

/// Crates that log what they return as errors too, which we log: each error of a guest, which could fill the journal, and
/// each name by which a library was not found.
const SILENT: [&str; 2] = ["virtio_queue", "xkbcommon_dl"];

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log of `program` at `level`. Whoever logs waits for the write until [`detach`].
pub(crate) fn init(program: &'static str, level: LevelFilter) {
    log::set_max_level(level);
    let journal = connected_to_journal().then(JournalLog::new);
    let log: Box<dyn Log> = match journal {
        Some(Ok(journal)) => Box::new(journal.with_syslog_identifier(program.to_owned())),
        _ => Box::new(stderr(program, level)),
    };
    let queue = Queue::default();
    // Only a second call could fail, and there is none.
    let _ = log::set_logger(LOGGER.get_or_init(|| Logger { log, queue }));
}

/// Starts the thread that writes the log from now on.
///
/// # Errors
/// As `pthread_create(3)`.
pub(crate) fn detach() -> io::Result<()> {
    LOGGER
        .get()
        .map_or(Ok(()), |logger| logger.queue.serve(&*logger.log))
}

/// Waits for the last messages to be written, within a limit.
pub(crate) fn flush() {
    log::logger().flush();
}

/// Logs why the program ends, as its last message. journald looks up the unit of a native message by the process that
/// sent it, which may be gone by then: `journalctl --unit` would not show the reason. What comes by stderr belongs to
/// the unit by its stream.
pub(crate) fn last_error(message: &str) {
    let text = format!("<3>{}\n", printable(message));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    flush();
    let sent =
        connected_to_journal() && send(io::stderr(), text.as_bytes(), flags) == Ok(text.len());
    if !sent {
        log::error!("{message}");
    }
}

fn stderr(program: &'static str, level: LevelFilter) -> env_logger::Logger {
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .format(move |out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            // Messages quote devices, guests and libraries. The journal stores them as they are.
            let message = record.args().to_string();
            writeln!(out, "{program}: {level}: {}", printable(&message))
        })
        .build()
}

struct Logger {
    log: Box<dyn Log>,
    queue: Queue,
}

impl Logger {
    /// Limit on the wait at exit: well below the time after which systemd kills the program.
    const LAST: Duration = Duration::from_millis(500);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let krate = target.split("::").next().unwrap_or(target);
        !SILENT.contains(&krate) && self.log.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && !self.queue.push(record) {
            self.log.log(record);
        }
    }

    fn flush(&self) {
        self.queue.flush(Self::LAST);
    }
}
