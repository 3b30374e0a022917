// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Usage errors in one sentence, in the words of vhostctl: the parser's messages are about subcommands, in several
//! lines.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::{IntErrorKind, ParseIntError};

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// The error in one sentence, and the help to read.
pub(crate) fn explain(
    error: &Error,
    program: &Command,
    line: impl Iterator<Item = OsString>,
) -> String {
    let said = sentence(error);
    let verb = line
        .skip(1)
        .filter_map(|word| word.into_string().ok())
        .find(|word| program.find_subcommand(word).is_some());
    match verb {
        Some(verb) => format!("{said} See 'vhostctl {verb} --help'."),
        None => format!("{said} See 'vhostctl --help'."),
    }
}

fn sentence(error: &Error) -> String {
    let texts = |kind| texts(error, kind);
    let text = |kind| texts(kind).into_iter().next().unwrap_or_default();
    let argument = name(&text(ContextKind::InvalidArg));
    let value = text(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let verb = text(ContextKind::InvalidSubcommand);
            format!(
                "Unknown verb: {verb}.{}",
                hint(&verbs(&verb, texts(ContextKind::SuggestedSubcommand)))
            )
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!(
                "Unknown option: {argument}.{}",
                hint(&texts(ContextKind::SuggestedArg))
            )
        }
        ErrorKind::UnknownArgument => format!("Unexpected argument: {argument}."),
        ErrorKind::InvalidValue => {
            let valid = texts(ContextKind::ValidValue);
            let valid = match valid.is_empty() {
                true => String::new(),
                false => format!(": {}", valid.join(", ")),
            };
            match value.is_empty() {
                true => format!("{argument} requires a value{valid}."),
                false => format!("Invalid {argument}: '{value}'. Valid values{valid}."),
            }
        }
        ErrorKind::ValueValidation => match error.source() {
            Some(source) => match source
                .downcast_ref::<ParseIntError>()
                .map(ParseIntError::kind)
            {
                Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                    format!("Invalid {argument}: '{value}' is too large.")
                }
                Some(_) => format!("Invalid {argument}: '{value}' is not a whole number."),
                None => format!("Invalid {argument}: {source}."),
            },
            None => format!("Invalid {argument}: '{value}'."),
        },
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(ContextKind::InvalidArg);
            let missing: Vec<_> = missing.iter().map(|argument| name(argument)).collect();
            format!("Missing: {}.", missing.join(" and "))
        }
        ErrorKind::ArgumentConflict => {
            let others = texts(ContextKind::PriorArg);
            let others: Vec<_> = others.iter().map(|argument| name(argument)).collect();
            match others.iter().all(|other| *other == argument) {
                true => format!("{argument} was given twice."),
                false => format!("{argument} cannot be used with {}.", others.join(", ")),
            }
        }
        ErrorKind::TooManyValues => format!("{argument} does not take a value."),
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals => {
            format!("{argument} requires a value.")
        }
        ErrorKind::InvalidUtf8 => "The command line is not UTF-8.".to_owned(),
        // Our command line causes no other errors.
        _ => "The command line is invalid.".to_owned(),
    }
}

/// Words of other tools, and the verbs that do the same.
const SYNONYMS: [(&str, &str); 22] = [
    ("attach", "add"),
    ("backends", "list-backends"),
    ("console", "view"),
    ("create", "add"),
    ("delete", "remove"),
    ("del", "remove"),
    ("destroy", "remove"),
    ("devices", "list-devices"),
    ("edit", "add"),
    ("info", "status"),
    ("journal", "log"),
    ("kill", "stop"),
    ("list-units", "list"),
    ("logs", "log"),
    ("ls", "list"),
    ("new", "add"),
    ("reload", "restart"),
    ("rm", "remove"),
    ("show", "status"),
    ("test", "check"),
    ("watch", "monitor"),
    ("xml", "libvirt-xml"),
];

/// The verbs that may be meant, the best one first: of a known word its verb alone, otherwise those that `similar` has,
/// which end with the most similar one.
fn verbs(word: &str, mut similar: Vec<String>) -> Vec<String> {
    let known = SYNONYMS.iter().find(|(synonym, _)| *synonym == word);
    match known {
        Some((_, verb)) => vec![(*verb).to_owned()],
        None => {
            similar.reverse();
            similar
        }
    }
}

fn texts(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

/// An option or argument without its value and without brackets.
fn name(argument: &str) -> String {
    let option = argument.split([' ', '=']).next().unwrap_or_default();
    if option.starts_with('-') {
        return option.trim_end_matches('[').to_owned();
    }
    argument
        .trim_end_matches("...")
        .trim_matches(['<', '>'])
        .to_owned()
}

fn hint(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!(" Did you mean {one}?"),
        several => format!(" Did you mean one of these: {}?", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synonyms_lead_to_verbs() {
        use clap::CommandFactory as _;
        let program = crate::args::Args::command();
        for (word, verb) in SYNONYMS {
            assert!(program.find_subcommand(word).is_none(), "{word}");
            assert!(program.find_subcommand(verb).is_some(), "{verb}");
        }
    }

    #[test]
    fn the_most_similar_verb_comes_first() {
        use clap::CommandFactory as _;
        let program = crate::args::Args::command();
        let parsed = program.try_get_matches_from(["vhostctl", "list-device"]);
        let said = sentence(&parsed.expect_err("no verb"));
        let first = "Did you mean one of these: list-devices, ";
        assert!(said.contains(first), "{said}");
    }
}
