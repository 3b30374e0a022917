// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Parts of the programs by themselves (`benches/parts`), of several versions in turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::interrupt;
use crate::measure::median;
use crate::table::{Table, number};

/// What it is called in the output.
pub(crate) const NAME: &str = "parts of the programs";

/// A version of `benches/parts`.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    name: String,
    path: PathBuf,
}

impl Version {
    /// From `NAME=PATH` of the command line.
    ///
    /// # Errors
    /// If it has not that form, or there is no such file.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, path) = text.split_once('=').context("expected NAME=PATH")?;
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "there is no program {}", path.display());
        Ok(Self {
            name: name.to_owned(),
            path,
        })
    }

    /// One round: nanoseconds by part, in the order in which it has them.
    fn round(&self) -> anyhow::Result<Vec<(String, f64)>> {
        let output = Command::new(&self.path)
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        ensure!(output.status.success(), "{} fails", self.path.display());
        read(&String::from_utf8(output.stdout)?)
    }
}

fn read(lines: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let part = |line: &str| {
        let (name, time) = line.split_once('\t').context("no time")?;
        Ok((name.to_owned(), time.parse()?))
    };
    lines.lines().map(part).collect()
}

/// Measures all in turn and prints the table. The ratio is that of the first version to each, in the same round.
///
/// # Errors
/// If one of them does not run.
pub(crate) fn show(versions: &[Version], rounds: usize) -> anyhow::Result<()> {
    let mut order = Vec::new();
    let mut times: BTreeMap<(String, usize), Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for step in 0..versions.len() {
            interrupt::check()?;
            // Nobody always comes after the same one.
            let at = (round + step) % versions.len();
            for (name, time) in versions[at].round()? {
                if !order.contains(&name) {
                    order.push(name.clone());
                }
                times.entry((name, at)).or_default().push(time);
            }
        }
    }
    let mut heading = vec![String::new()];
    for (at, version) in versions.iter().enumerate() {
        heading.push(format!("{} ns", version.name));
        if at > 0 {
            heading.push(format!("to {}", version.name));
        }
    }
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    let mut table = Table::new(&heading);
    for name in order {
        let of = |at| times.get(&(name.clone(), at));
        let mut row = vec![name.clone()];
        for at in 0..versions.len() {
            row.push(of(at).map_or("-".into(), |times| number(median(times.clone()))));
            if at > 0 {
                row.push(match (of(0), of(at)) {
                    (Some(ours), Some(theirs)) => number(ratio(ours, theirs)),
                    // It has no such part.
                    _ => "-".into(),
                });
            }
        }
        table.row(row);
    }
    println!("### {NAME}\n\n{}", table.render());
    Ok(())
}

fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let pairs = ours.iter().zip(theirs);
    median(pairs.map(|(ours, theirs)| ours / theirs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parts_in_their_order() {
        let parts = read("rows: copied\t12.5\nbacking: found\t3.0\n").expect("two parts");
        assert_eq!(
            parts,
            [
                ("rows: copied".to_owned(), 12.5),
                ("backing: found".to_owned(), 3.0)
            ]
        );
        assert!(read("rows: copied 12.5\n").is_err());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        assert_eq!(ratio(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]), 0.5);
    }
}
