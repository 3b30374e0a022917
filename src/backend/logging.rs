//! The log: journald's own protocol with fields where stderr is the journal, stderr elsewhere.
//! Never stdout.

use std::io::Write;

use log::LevelFilter;
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Sends the log of `program` where it belongs, down to `level`.
pub(super) fn init(program: &'static str, level: LevelFilter) {
    log::set_max_level(level);
    let in_journal = connected_to_journal()
        && JournalLog::new()
            .map(|journal| journal.with_syslog_identifier(program.to_owned()))
            .is_ok_and(|journal| journal.install().is_ok());
    if in_journal {
        return;
    }
    let logger = env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .format(move |out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "{program}: {level}: {}", record.args())
        })
        .build();
    // Only a second call could fail, and there is none.
    let _ = log::set_boxed_logger(Box::new(logger));
}
