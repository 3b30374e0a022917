// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Manual pages. Options and verbs have one source, the programs' command lines; the rest of a page is
//! written by hand. The pages lie in `man/` as they are installed, and a test of each program checks them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Command;
use clap_mangen::Man;

use crate::paths;

/// The variable that makes [`check`] write a page and not compare it.
const UPDATE: &str = "UPDATE_MANUAL";

/// Checks that the page of a program is what its command line says, followed by `rest` in the language
/// of man(7). With `UPDATE_MANUAL=1` in the environment the page is written anew.
///
/// # Errors
///
/// If the page is another one or cannot be read or written.
pub fn check(command: Command, section: &str, rest: &str) -> anyhow::Result<()> {
    let path = page(command.get_name(), section);
    let text = render(command, section, rest)?;
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        return fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
    }
    let is = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    ensure!(
        is == text,
        "{} is not what the program says: run this test with {UPDATE}=1 and commit the page",
        path.display()
    );
    Ok(())
}

/// Where a page lies.
#[must_use]
pub fn page(name: &str, section: &str) -> PathBuf {
    paths::source_root().join(format!("man/{name}.{section}"))
}

fn render(command: Command, section: &str, rest: &str) -> anyhow::Result<String> {
    let mut command = command.disable_help_flag(true).disable_version_flag(true);
    command.build();
    let mut text = Vec::new();
    let page = Man::new(command.clone())
        .section(section)
        .manual("vhost-user backends")
        .date("");
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    text.extend(synopsis(&page, &command)?.into_bytes());
    page.render_description_section(&mut text)?;
    let mut verbs = String::new();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verbs += &self::verb(verb)?;
    }
    let mut text = String::from_utf8(text)?;
    if !verbs.is_empty() {
        text += ".SH VERBS\n";
        text += &verbs;
    }
    let mut options = Vec::new();
    page.render_options_section(&mut options)?;
    text += &String::from_utf8(options)?;
    text += rest;
    Ok(text)
}

/// The synopsis, with the values of options, which `clap_mangen` leaves out.
fn synopsis(page: &Man, command: &Command) -> anyhow::Result<String> {
    let mut text = Vec::new();
    page.render_synopsis_section(&mut text)?;
    let mut text = String::from_utf8(text)?;
    let options = command
        .get_arguments()
        .filter(|argument| argument.get_action().takes_values());
    for option in options {
        let (Some(long), Some([value, ..])) = (option.get_long(), option.get_value_names()) else {
            continue;
        };
        let [long, value] = [long, value.as_str()].map(|text| text.replace('-', "\\-"));
        let bare = format!("\\fB\\-\\-{long}\\fR");
        let full = format!("{bare}=\\fI{value}\\fR");
        text = text
            .replace(&format!("<{bare}>"), &full)
            .replace(&format!("{bare}]"), &format!("{full}]"));
    }
    Ok(text)
}

/// A verb, with the options that only it has.
fn verb(verb: &Command) -> anyhow::Result<String> {
    let own = verb
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .map(|argument| argument.get_id().to_string())
        .collect::<Vec<_>>();
    // What every verb has is told once.
    let verb = own.iter().fold(verb.clone(), |verb, id| {
        verb.mut_arg(id, |argument| argument.hide(true))
    });
    let page = Man::new(verb.clone());
    let mut text = synopsis(&page, &verb)?.into_bytes();
    page.render_description_section(&mut text)?;
    if verb.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut text)?;
    }
    page.render_extra_section(&mut text)?;
    let text = String::from_utf8(text)?;
    // What are sections of a page are paragraphs here.
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "))
        .map(|line| {
            if line.starts_with(".SH ") {
                ".PP"
            } else {
                line
            }
        })
        .skip_while(|line| *line == ".PP")
        .flat_map(|line| [line, "\n"])
        .collect();
    Ok(format!(".SS {}\n{body}", verb.get_name()))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    #[test]
    fn synopsis_has_the_values_of_options() {
        let path = Arg::new("path").long("socket-path").value_name("PATH");
        let needed = Arg::new("needed").long("display").value_name("PATH");
        let lines = Arg::new("lines").short('n').long("lines").value_name("N");
        let flag = Arg::new("flag").long("flag").action(ArgAction::SetTrue);
        let command = Command::new("program").args([path, needed.required(true), lines, flag]);
        let text = render(command, "8", "").unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("\\fBprogram\\fR"));
        assert_eq!(
            line.map(|line| line
                .replace("\\fB", "")
                .replace("\\fI", "")
                .replace("\\fR", "")
                .replace("\\-", "-")),
            Some("program [--socket-path=PATH] [-n|--lines=N] [--flag] --display=PATH ".to_owned())
        );
    }
}
