// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a program was started with the command line that its unit has now.

use std::fs;
use std::path::Path;

use crate::systemd::Properties;
use crate::unit_syntax::variable_words;

/// `ExecStart=` as systemd tells it: path, words, whether failures are ignored, and how it ran last.
type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// The path of the program of a unit, if it has one.
pub(super) fn program(service: &Properties) -> Option<String> {
    let commands: Vec<Command> = service.get("ExecStart")?;
    match commands.as_slice() {
        [(path, ..)] => Some(path.clone()),
        _ => None,
    }
}

/// Whether the unit starts a container, as those of podman-systemd.unit(5) do: what it says of the network holds for podman.
pub(super) fn runs_container(service: &Properties) -> bool {
    let path = program(service).unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or_default();
    ["podman", "docker", "nerdctl"]
        .iter()
        .any(|known| name == *known)
}

/// Whether the process `pid` has other arguments than the unit of these properties would give it. `false` if that cannot
/// be told.
pub(super) fn differs(pid: u32, service: &Properties) -> bool {
    let files: Vec<(String, bool)> = service.get("EnvironmentFiles").unwrap_or_default();
    let commands: Vec<Command> = service.get("ExecStart").unwrap_or_default();
    let ([(_, words, ..)], true) = (commands.as_slice(), files.is_empty()) else {
        return false;
    };
    let Ok(running) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let running: Vec<_> = running
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // Behind the last argument is a zero too.
    let running = running.split_last().map_or(&[][..], |(_, words)| words);
    would_differ(words, &service.list("Environment"), running)
}

fn would_differ(words: &[String], environment: &[String], running: &[String]) -> bool {
    let mut expected = Vec::new();
    for word in words.iter().skip(1) {
        match expand(word, environment) {
            Some(expanded) => expected.extend(expanded),
            None => return false,
        }
    }
    let running = running.iter().skip(1);
    let is_as = |(pattern, word): (&Pattern, &String)| pattern.fits(word);
    expected.len() != running.len() || !expected.iter().zip(running).all(is_as)
}

/// A word that systemd gives a program.
enum Pattern {
    Exact(String),
    /// Up to a variable that systemd sets itself.
    Begins(String),
}

impl Pattern {
    fn fits(&self, word: &str) -> bool {
        match self {
            Self::Exact(text) => text == word,
            Self::Begins(text) => word.starts_with(text),
        }
    }
}

/// Sets variables in, as systemd does (systemd.service(5)). None if one stands for words that are not known.
fn expand(word: &str, environment: &[String]) -> Option<Vec<Pattern>> {
    let value = |name: &str| {
        let assigned = environment.iter().rev();
        assigned
            .filter_map(|variable| variable.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let whole = word.strip_prefix('$');
    if let Some(name) = whole.filter(|name| !name.starts_with(['{', '$']) && !name.is_empty()) {
        let words = variable_words(value(name)?).into_iter();
        return Some(words.map(Pattern::Exact).collect());
    }
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, behind)) = rest.split_once('$') {
        text.push_str(before);
        rest = behind;
        if let Some(behind) = rest.strip_prefix('$') {
            text.push('$');
            rest = behind;
        } else if let Some((name, behind)) =
            rest.strip_prefix('{').and_then(|it| it.split_once('}'))
        {
            match value(name) {
                Some(value) => text.push_str(value),
                None => return Some(vec![Pattern::Begins(text)]),
            }
            rest = behind;
        } else {
            text.push('$');
        }
    }
    text.push_str(rest);
    Some(vec![Pattern::Exact(text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(words: &str, environment: &[&str], running: &str) -> bool {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let environment: Vec<_> = environment.iter().map(|it| (*it).to_owned()).collect();
        would_differ(&list(words), &environment, &list(running))
    }

    #[test]
    fn options_that_were_removed_or_restored_are_seen() {
        let gpu = "/usr/bin/gpu $OPTIONS";
        let memory = "OPTIONS=--max-hostmem=2G --virgl";
        let runs = "/usr/bin/gpu --max-hostmem=2G --virgl";
        assert!(!differs(gpu, &["OPTIONS="], "/usr/bin/gpu"));
        assert!(!differs(gpu, &["OPTIONS=", memory], runs));
        assert!(differs(gpu, &["OPTIONS="], runs));
        assert!(differs(gpu, &[memory, "OPTIONS=--virgl"], runs));
        assert!(differs(gpu, &[memory], "/usr/bin/gpu"));
    }

    #[test]
    fn what_systemd_sets_itself_is_no_change() {
        let input = "/usr/bin/input --path=${EVDEV} --wait=${STATE_DIRECTORY}/device.json $OPTIONS";
        let runs = "/usr/bin/input --path=/dev/a --wait=/var/lib/x/device.json --no-grab";
        let environment = ["EVDEV=/dev/a", "OPTIONS=--no-grab"];
        assert!(!differs(input, &environment, runs));
        assert!(differs(input, &["EVDEV=/dev/b", "OPTIONS=--no-grab"], runs));
        // Of variables that are not known.
        assert!(!differs("/usr/bin/gpu $OTHER", &[], runs));
        assert!(!differs("/usr/bin/gpu a$$b", &[], "/usr/bin/gpu a$b"));
    }
}
