// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What to run instead of a command line with `--host`.

use std::ffi::OsString;

use crate::remote_host::RemoteHost;
use crate::vmm::qemu::shell_quoted;

const HOST: char = 'H';
/// All short options that take a value.
const WITH_VALUE: [char; 3] = [HOST, 'n', 't'];

/// The command that does on `host` what the command line `line` of this program asks for.
pub(crate) fn command_there(host: &RemoteHost, line: impl IntoIterator<Item = OsString>) -> String {
    let words = line.into_iter().skip(1);
    let words = without_host(words.map(|word| word.to_string_lossy().into_owned()));
    vhostctl_there(host, &words)
}

/// The command that runs vhostctl with these words on `host`.
pub(crate) fn vhostctl_there(host: &RemoteHost, words: &[String]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| shell_quoted(word)).collect();
    let command = format!("vhostctl {}", quoted.join(" "));
    // A shell there reads the words once more.
    let command = match quoted == words {
        true => command,
        false => shell_quoted(&command),
    };
    format!("{} {command}", host.ssh_command())
}

/// The words without the options that name a host.
fn without_host(mut words: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        let short = word.strip_prefix('-').filter(|it| !it.starts_with('-'));
        let option = short.and_then(|letters| {
            let at = letters.find(WITH_VALUE)?;
            let (flags, option) = letters.split_at(at);
            let option = option.chars().next()?;
            Some((flags, option, letters.len() == at + 1))
        });
        match (word.as_str(), option) {
            ("--", _) => {
                kept.push(word);
                kept.extend(words);
                break;
            }
            ("--host", _) => {
                words.next();
            }
            (_, Some((flags, HOST, value_follows))) => {
                if value_follows {
                    words.next();
                }
                if !flags.is_empty() {
                    kept.push(format!("-{flags}"));
                }
            }
            (_, Some((_, _, true))) => {
                kept.push(word);
                kept.extend(words.next());
            }
            _ if word.starts_with("--host=") => {}
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(host: &str, line: &[&str]) -> String {
        let host = host.parse().expect("a host");
        command_there(&host, line.iter().map(OsString::from))
    }

    #[test]
    fn all_but_the_host_is_kept() {
        for line in [
            &["vhostctl", "-H", "web", "log", "vm1", "-n", "3"][..],
            &["/usr/bin/vhostctl", "log", "--host=web", "vm1", "-n", "3"],
            &["vhostctl", "log", "vm1", "-n", "3", "--host", "web"],
            &["vhostctl", "-Hweb", "log", "vm1", "-n", "3"],
        ] {
            assert_eq!(there("web", line), "ssh web vhostctl log vm1 -n 3");
        }
        let line = ["vhostctl", "-qH", "x", "check", "a", "--", "-H"];
        assert_eq!(
            there("root@web:2222", &line),
            "ssh -p 2222 root@web vhostctl -q check a -- -H"
        );
        assert_eq!(
            there("web", &["vhostctl", "-H", "web", "log", "vm*"]),
            r"ssh web 'vhostctl log '\''vm*'\'''"
        );
    }
}
