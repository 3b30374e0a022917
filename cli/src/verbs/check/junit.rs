// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Results in the XML of JUnit, which continuous integration reads.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use conformance::{Level, Outcome, Report};
use tempfile::NamedTempFile;

use crate::verbs::error::Error;

use super::run::{Found, Obstacle};

/// The file for the document: replaced as a whole at the end, so that nobody reads a part.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: Sink,
}

#[derive(Debug)]
enum Sink {
    /// Takes the place of the file.
    Beside(NamedTempFile),
    /// A device or a pipe.
    Itself(File),
}

impl Target {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        // A link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let is_other = fs::metadata(&path).is_ok_and(|data| !data.is_file());
        let file = match is_other {
            true => File::options().write(true).open(&path).map(Sink::Itself),
            false => beside(&path).map(Sink::Beside),
        };
        match file {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::file("write", &path, source)),
        }
    }

    pub(super) fn write(self, xml: &str) -> Result<(), Error> {
        let written = match self.file {
            Sink::Itself(mut file) => file.write_all(xml.as_bytes()),
            Sink::Beside(mut file) => file
                .write_all(xml.as_bytes())
                .and_then(|()| file.persist(&self.path).map(drop).map_err(Into::into)),
        };
        written.map_err(|source| Error::file("write", &self.path, source))
    }
}

fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    // Less the umask.
    builder.permissions(Permissions::from_mode(0o666));
    builder
        .prefix(".vhost-check-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// The document: a suite with a case for each point. Points that are not required are skipped cases where they fail, as
/// a build does not fail by them. Required ones that are unfinished are errors, as are those in which the check itself failed,
/// what ended the check early, and that no front-end is served.
pub(super) fn document(program: &str, found: &Found) -> String {
    let reports = &found.reports[..];
    let unfinished = reports.iter().filter(|report| report.is_error()).count();
    let why = match (&found.obstacle, found.signal, &found.unserved) {
        (Some(Obstacle::Start(why)), ..) => Some(format!("The program cannot be started: {why}")),
        (Some(Obstacle::Own(why)), ..) => Some(why.clone()),
        (None, Some(signal), _) => Some(format!("Signal {signal} ended the check")),
        (None, None, Some(why)) => Some(format!("No front-end is served: {why}")),
        (None, None, None) => None,
    };
    let errors = unfinished + usize::from(why.is_some());
    let is_failure = |report: &&Report| {
        report.point.level == Level::Required && matches!(report.outcome, Outcome::Fails(_))
    };
    let failures = reports.iter().filter(is_failure).count();
    let holding = |report: &&Report| matches!(report.outcome, Outcome::Holds(_));
    let skipped = reports.len() - failures - unfinished - reports.iter().filter(holding).count();
    let seconds: f64 = reports.iter().map(|report| report.took.as_secs_f64()).sum();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuite name=\"vhostctl check {}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" \
         time=\"{seconds:.3}\">",
        escaped(program),
        reports.len() + usize::from(why.is_some())
    );
    for report in reports {
        let point = report.point;
        let name = point
            .name
            .split_once('/')
            .map_or(point.name, |(_, name)| name);
        let _ = write!(
            xml,
            "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escaped(point.group()),
            escaped(name),
            report.took.as_secs_f64()
        );
        let seen = escaped(report.outcome.seen());
        let asks = escaped(point.asks);
        let _ = match (&report.outcome, point.level) {
            (Outcome::Holds(_), _) => write!(xml, "<system-out>{seen}</system-out>"),
            (Outcome::Fails(_), Level::Required) => {
                let section = escaped(point.section);
                write!(
                    xml,
                    "<failure message=\"{seen}\">{asks} [{section}]</failure>"
                )
            }
            (Outcome::Fails(_), level) => {
                write!(xml, "<skipped message=\"{level}, and fails: {seen}\"/>")
            }
            (Outcome::Unfinished(_), Level::Required) | (Outcome::CheckFailed(_), _) => {
                write!(xml, "<error message=\"{seen}\">{asks}</error>")
            }
            (Outcome::Unfinished(_), level) => {
                write!(
                    xml,
                    "<skipped message=\"{level}, and unfinished: {seen}\"/>"
                )
            }
            (Outcome::NotTried(_), _) => write!(xml, "<skipped message=\"{seen}\"/>"),
        };
        xml.push_str("</testcase>\n");
    }
    if let Some(why) = why {
        let why = escaped(&why);
        let _ = writeln!(
            xml,
            "  <testcase classname=\"check\" name=\"end\" time=\"0.000\"><error message=\"{why}\"/></testcase>"
        );
    }
    xml.push_str("</testsuite>\n");
    xml
}

/// A text in XML: without the characters that XML has none for.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' | '\n' | '\r' => safe.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('?'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(name: &str, outcome: Outcome) -> Report {
        Report {
            point: conformance::point(name).expect(name),
            outcome,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn cases_hold_fail_or_are_skipped() {
        let reports = [
            report("conventions/fd", Outcome::Holds("served".into())),
            report(
                "conventions/foreground",
                Outcome::Fails("\"it\" <ends> & goes\u{1b}".into()),
            ),
            report("conventions/fd-connected", Outcome::Fails("no".into())),
            report("protocol/base", Outcome::Unfinished("no room".into())),
            report(
                "conventions/watchdog",
                Outcome::NotTried("not offered".into()),
            ),
        ];
        let found = Found {
            reports: reports.into(),
            unserved: Some("it ends with status 3".into()),
            ..Found::default()
        };
        let xml = document("/bin/x<y", &found);
        for part in [
            "name=\"vhostctl check /bin/x&lt;y\" tests=\"6\" failures=\"1\" errors=\"2\" skipped=\"2\" time=\"7.500\"",
            "<testcase classname=\"conventions\" name=\"fd\" time=\"1.500\"><system-out>served</system-out></testcase>",
            "<failure message=\"&quot;it&quot; &lt;ends&gt; &amp; goes?\">The program does not daemonize",
            "<skipped message=\"recommended, and fails: no\"/>",
            "<skipped message=\"not offered\"/>",
            "<error message=\"no room\">",
            "name=\"end\" time=\"0.000\"><error message=\"No front-end is served: it ends with status 3\"/></testcase>\n</testsuite>",
        ] {
            assert!(xml.contains(part), "{part} is not in {xml}");
        }
    }
}
