//! The log: journald's own protocol with fields where stderr is the journal, stderr elsewhere.
//! Never stdout.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Crates that log what a guest does wrong, each time it does: it could fill the journal. They
/// return it as errors as well, and those are logged within bounds.
const SILENT: [&str; 1] = ["virtio_queue"];

/// Sends the log of `program` where it belongs, down to `level`.
pub(super) fn init(program: &'static str, level: LevelFilter) {
    log::set_max_level(level);
    let journal = connected_to_journal().then(JournalLog::new);
    let logger: Box<dyn Log> = match journal {
        Some(Ok(journal)) => Box::new(journal.with_syslog_identifier(program.to_owned())),
        _ => Box::new(stderr(program, level)),
    };
    // Only a second call could fail, and there is none.
    let _ = log::set_boxed_logger(Box::new(Filtered(logger)));
}

fn stderr(program: &'static str, level: LevelFilter) -> env_logger::Logger {
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .format(move |out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{program}: {level}: {}", record.args())
        })
        .build()
}

struct Filtered(Box<dyn Log>);

impl Log for Filtered {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let krate = target.split("::").next().unwrap_or(target);
        !SILENT.contains(&krate) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}
