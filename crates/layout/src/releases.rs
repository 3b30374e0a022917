// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version and its date, which stand in the changelog and in the packages too.

use std::path::Path;

use crate::finding::{Finding, Rule};
use crate::sources::Sources;

/// The user's changelog: `## 1.2.3 - 2026-01-31`.
pub const CHANGELOG: &str = "CHANGELOG.md";
/// The changelog of the Debian packages, as in deb-changelog(5).
pub const DEBIAN: &str = "packaging/debian/changelog";
/// The specification of the RPM packages.
pub const RPM: &str = "packaging/rpm/vhostctl.spec";
/// Where the supported versions are: `| 1.2.x |`.
pub const SECURITY: &str = "SECURITY.md";

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Finds the files of these that are not of `version`, or not of the date that the changelog has for it.
#[must_use]
pub fn check(version: &str, files: &Sources) -> Vec<Finding> {
    let Some(date) = date(version, files) else {
        let wanted = format!("its first version is not \"## {version} - YYYY-MM-DD\"");
        return vec![finding(CHANGELOG, wanted)];
    };
    let (year, month, day) = (date.year, date.month, date.day);
    let series = version
        .rsplit_once('.')
        .map_or(version, |(series, _)| series);
    let wanted = [
        (DEBIAN, format!("vhostctl ({version}-")),
        (DEBIAN, format!(", {day} {month} {year} ")),
        (RPM, format!("upstream_version {version}}}")),
        (RPM, format!(" {month} {day} {year} ")),
        (RPM, format!(" - {version}-")),
        (SECURITY, format!("| {series}.x | yes")),
    ];
    let text = |name: &str| find(files, name).unwrap_or_default();
    wanted
        .into_iter()
        .filter(|(file, wanted)| !newest(file, text(file)).contains(wanted))
        .map(|(file, wanted)| {
            finding(
                file,
                format!("\"{wanted}\" is missing, as {CHANGELOG} has it for {version}"),
            )
        })
        .collect()
}

struct Date<'a> {
    year: &'a str,
    month: &'a str,
    day: &'a str,
}

/// The date of the first version of the changelog, if it is this one.
fn date<'a>(version: &str, files: &'a Sources) -> Option<Date<'a>> {
    let heading = find(files, CHANGELOG)?
        .lines()
        .find_map(|line| line.strip_prefix("## "))?;
    let date = heading.strip_prefix(version)?.strip_prefix(" - ")?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = month.parse::<usize>().ok()?.checked_sub(1)?;
    let month = MONTHS.get(month)?;
    Some(Date { year, month, day })
}

/// The part that has to be of this version: the first entry of Debian's changelog, the whole of all others.
fn newest<'a>(file: &str, text: &'a str) -> &'a str {
    match text.split_once("\n -- ") {
        Some((entry, rest)) if file == DEBIAN => {
            let end = rest.find('\n').unwrap_or(rest.len());
            text.get(..entry.len() + "\n -- ".len() + end)
                .unwrap_or(text)
        }
        _ => text,
    }
}

fn find<'a>(files: &'a Sources, name: &str) -> Option<&'a str> {
    let mut found = files.iter().filter(|(path, _)| *path == Path::new(name));
    found.next().map(|(_, text)| text)
}

fn finding(file: &str, message: String) -> Finding {
    Finding {
        rule: Rule::Release,
        key: file.to_owned(),
        place: (file.into(), 0),
        message,
    }
}
