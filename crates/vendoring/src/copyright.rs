// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The copyright of crates, in the form of debian/copyright.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::graph::Crate;

/// A licence that crates have.
struct Licence {
    /// Its identifier of SPDX.
    spdx: &'static str,
    /// Its name in debian/copyright.
    debian: &'static str,
    text: Text,
}

/// Where the text of a licence is.
enum Text {
    /// In a file of every Debian system.
    Common(&'static str),
    /// In a file of a crate that has it, from the line with these words.
    From(&'static str),
}

const LICENCES: [Licence; 9] = [
    Licence {
        spdx: "0BSD",
        debian: "0BSD",
        text: Text::From("Permission to use, copy, modify, and/or distribute this software"),
    },
    Licence {
        spdx: "Apache-2.0",
        debian: "Apache-2.0",
        text: Text::Common("/usr/share/common-licenses/Apache-2.0"),
    },
    Licence {
        spdx: "Apache-2.0 WITH LLVM-exception",
        debian: "Apache-2.0 with LLVM exception",
        text: Text::From("LLVM Exceptions to the Apache 2.0 License"),
    },
    Licence {
        spdx: "BSD-3-Clause",
        debian: "BSD-3-clause",
        text: Text::From("Redistribution and use in source and binary forms"),
    },
    Licence {
        spdx: "ISC",
        debian: "ISC",
        text: Text::From("Permission to use, copy, modify, and/or distribute this software"),
    },
    Licence {
        spdx: "MIT",
        debian: "Expat",
        text: Text::From("Permission is hereby granted, free of charge"),
    },
    Licence {
        spdx: "Unicode-3.0",
        debian: "Unicode-3.0",
        text: Text::From("Permission is hereby granted, free of charge"),
    },
    Licence {
        spdx: "Unlicense",
        debian: "Unlicense",
        text: Text::From("This is free and unencumbered software"),
    },
    Licence {
        spdx: "Zlib",
        debian: "Zlib",
        text: Text::From("This software is provided 'as-is'"),
    },
];

/// Paragraphs for the `crates` below `folder`, and for each licence that they have.
pub(crate) fn paragraphs(folder: &Path, crates: &[Crate]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut used = BTreeSet::new();
    for one in crates {
        let context = || format!("{} {}", one.name, one.version);
        let expression = one
            .license
            .as_deref()
            .with_context(context)
            .context("no licence")?;
        let (licence, names) = translate(expression).with_context(context)?;
        used.extend(names);
        let holders = holders(&folder.join(one.folder()), &one.authors).with_context(context)?;
        let holders = match holders.is_empty() {
            true => format!("the authors of {}", one.name),
            false => holders.join("\n           "),
        };
        write!(
            text,
            "\nFiles: vendor/{}/*\nCopyright: {holders}\nLicense: {licence}\n",
            one.folder()
        )?;
    }
    for index in used {
        let licence = LICENCES.get(index).context("no such licence")?;
        write!(
            text,
            "\nLicense: {}\n{}",
            licence.debian,
            body(licence, folder, crates)?
        )?;
    }
    Ok(text)
}

/// An SPDX expression in the words of debian/copyright, and which of [`LICENCES`] it names.
fn translate(expression: &str) -> anyhow::Result<(String, Vec<usize>)> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace(" WITH ", "_WITH_");
    let mut words: Vec<String> = Vec::new();
    let mut used = Vec::new();
    for word in spaced.split_whitespace() {
        let translated = match word {
            "OR" => "or".to_owned(),
            "AND" => "and".to_owned(),
            "(" | ")" => word.to_owned(),
            _ => {
                let spdx = word.replace('_', " ");
                let index = LICENCES.iter().position(|licence| licence.spdx == spdx);
                let index =
                    index.with_context(|| format!("{spdx}: no text is known for this licence"))?;
                used.push(index);
                LICENCES
                    .get(index)
                    .map_or_else(String::new, |licence| licence.debian.to_owned())
            }
        };
        words.push(translated);
    }
    let joined = words.join(" ").replace("( ", "(").replace(" )", ")");
    // debian/copyright has no parentheses: a comma ends the alternatives.
    Ok((
        joined
            .replace(") and", ", and")
            .replace(['(', ')'], "")
            .replace(" ,", ","),
        used,
    ))
}

/// Who holds the copyright: as the files of the licence say, or the authors.
fn holders(folder: &Path, authors: &[String]) -> anyhow::Result<Vec<String>> {
    let mut holders = Vec::new();
    for (_, text) in licence_files(folder)? {
        for line in text.lines().map(str::trim) {
            let is_notice =
                line.starts_with("Copyright") && line.contains(|c: char| c.is_ascii_digit());
            // The appendix of Apache-2.0 has an example.
            if is_notice && !line.contains("[yyyy]") && !line.contains("{yyyy}") {
                let notice = line.trim_start_matches("Copyright").trim_start();
                let notice = notice
                    .trim_start_matches("(c)")
                    .trim_start_matches("(C)")
                    .trim()
                    .to_owned();
                if !holders.contains(&notice) {
                    holders.push(notice);
                }
            }
        }
    }
    if holders.is_empty() {
        holders = authors.to_vec();
    }
    Ok(holders)
}

/// The files of a crate that have a licence, by name, sorted.
fn licence_files(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let upper = name.to_uppercase();
        let is_one = [
            "LICENSE",
            "LICENCE",
            "COPYING",
            "COPYRIGHT",
            "UNLICENSE",
            "NOTICE",
        ]
        .iter()
        .any(|word| upper.contains(word));
        if is_one && entry.file_type()?.is_file() {
            files.push((
                name,
                String::from_utf8_lossy(&fs::read(entry.path())?).into_owned(),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a licence, indented as debian/copyright wants it.
fn body(licence: &Licence, folder: &Path, crates: &[Crate]) -> anyhow::Result<String> {
    let words = match licence.text {
        Text::Common(path) => {
            return Ok(format!(
                " On Debian systems the text of this licence is in {path}.\n"
            ));
        }
        Text::From(words) => words,
    };
    // Of a crate with as few other licences as possible, so that the words are this one's.
    let mut having: Vec<&Crate> = crates
        .iter()
        .filter(|one| {
            one.license
                .as_deref()
                .is_some_and(|text| names(text, licence.spdx))
        })
        .collect();
    having.sort_by_key(|one| one.license.as_ref().map(String::len));
    for one in having {
        for (name, text) in licence_files(&folder.join(one.folder()))? {
            // Such as LICENSE-UNICODE for Unicode-3.0.
            let family = licence.spdx.split('-').next().unwrap_or_default();
            let is_named = name.to_uppercase().contains(&family.to_uppercase());
            let is_only = one.license.as_deref() == Some(licence.spdx);
            let fits = is_named || is_only || !is_ambiguous(licence);
            if let Some(at) = text.find(words).filter(|_| fits) {
                let start = text
                    .get(..at)
                    .and_then(|before| before.rfind('\n'))
                    .map_or(0, |line| line + 1);
                return Ok(indented(text.get(start..).unwrap_or_default()));
            }
        }
    }
    bail!("no crate has the text of {}", licence.spdx)
}

/// Whether another licence begins in the same way.
fn is_ambiguous(licence: &Licence) -> bool {
    let Text::From(words) = licence.text else {
        return false;
    };
    let same = LICENCES
        .iter()
        .filter(|other| matches!(other.text, Text::From(others) if others == words));
    same.count() > 1
}

fn names(expression: &str, spdx: &str) -> bool {
    translate(expression).is_ok_and(|(_, used)| {
        used.iter().any(|index| {
            LICENCES
                .get(*index)
                .is_some_and(|licence| licence.spdx == spdx)
        })
    })
}

fn indented(text: &str) -> String {
    let mut body = String::new();
    for line in text.trim().lines() {
        match line.trim() {
            "" => body.push_str(" .\n"),
            line => {
                body.push(' ');
                body.push_str(line);
                body.push('\n');
            }
        }
    }
    body
}

#[cfg(test)]
#[path = "copyright_tests.rs"]
mod tests;
