//! The log: journald's own protocol with fields where stderr is the journal, stderr elsewhere.
//! Never stdout.

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

/// Crates that log what a guest does wrong, each time it does: it could fill the journal. They
/// return it as errors as well, and those are logged within bounds.
const SILENT: [&str; 1] = ["virtio_queue"];

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sends the log of `program` where it belongs, down to `level`.
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

/// Has the log written by a thread of its own from now on: until then, whoever logs waits for it.
///
/// # Errors
/// As `pthread_create(3)`.
pub(crate) fn detach() -> io::Result<()> {
    LOGGER
        .get()
        .map_or(Ok(()), |logger| logger.queue.serve(&*logger.log))
}

/// Gives the log time for the last messages, if it takes any.
pub(crate) fn flush() {
    log::logger().flush();
}

/// Logs why the program ends, as the last it does. The journal finds out which unit a message is of by the
/// process that sent it, and that is gone too soon: `journalctl --unit` would not have the reason. What comes
/// by stderr is known to be the unit's.
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
            // A device, a guest and the libraries have their words in it; the journal takes them as they are.
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
    /// Of all that a stop may take: a log that nobody reads is no reason to be killed.
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
