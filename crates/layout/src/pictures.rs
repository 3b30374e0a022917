// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pictures of the imports, as documents have them: a comment that names a module, and a block with a line for
//! each module in it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use crate::finding::{Finding, Rule};
use crate::modules::Modules;
use crate::rules::{Arrows, House, arrows};

/// What stands before the name of a module in the comment.
const MARK: &str = "<!-- imports within ";
const MARK_END: &str = " -->";
const FENCE: &str = "```text";

/// `text` with all of its pictures as the code has them.
#[must_use]
pub fn draw(house: &House, modules: &Modules, text: &str) -> String {
    let mut drawn = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        drawn.push_str(line);
        drawn.push('\n');
        let name = line
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_suffix(MARK_END));
        let Some(name) = name else {
            continue;
        };
        // The block that was there.
        let rest = lines.clone();
        if rest.clone().next() == Some(FENCE) {
            let block = rest.skip(1).take_while(|line| *line != "```").count();
            for _ in 0..block + 2 {
                lines.next();
            }
        }
        drawn.push_str(FENCE);
        drawn.push('\n');
        drawn.push_str(&picture(house, modules, name));
        drawn.push_str("```\n");
    }
    drawn
}

/// A finding for a document whose pictures are not those of the code.
#[must_use]
pub fn check(house: &House, modules: &Modules, file: &Path, text: &str) -> Option<Finding> {
    let drawn = draw(house, modules, text);
    let differ = text.lines().zip(drawn.lines()).position(|(a, b)| a != b);
    if differ.is_none() && text.lines().count() == drawn.lines().count() {
        return None;
    }
    Some(Finding {
        rule: Rule::Picture,
        key: file.display().to_string(),
        place: (file.to_owned(), differ.map_or(0, |line| line + 1)),
        message: "This picture of imports is not that of the code. \
                  Run: cargo run -p layout -- --draw"
            .to_owned(),
    })
}

/// A line for each module in the module `name`, from above to below: what it imports.
fn picture(house: &House, modules: &Modules, name: &str) -> String {
    let mut text = String::new();
    let Some(parent) = modules.find(name) else {
        return text;
    };
    let children = modules.get(parent).children.keys().map(String::as_str);
    let arrows = arrows(modules).remove(&parent).unwrap_or_default();
    let all = in_order(house, name, children.collect(), &arrows);
    let width = all.iter().map(|child| child.len()).max().unwrap_or(0);
    for child in &all {
        let imports: Vec<&str> = all
            .iter()
            .filter(|other| arrows.contains_key(&((*child).to_owned(), (**other).to_owned())))
            .copied()
            .collect();
        let line = format!("{child:width$} -> {}", imports.join(", "));
        let line = match imports.len() {
            0 => *child,
            _ => &line,
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The modules `left` of the module `name`: in the order of its layers, or else each before those that it imports.
fn in_order<'a>(
    house: &House,
    name: &str,
    mut left: BTreeSet<&'a str>,
    arrows: &Arrows,
) -> Vec<&'a str> {
    let mut ordered = Vec::new();
    let layers = house.layers.iter().find(|layers| layers.of == name);
    for row in layers.iter().flat_map(|layers| layers.rows) {
        let here = left.iter().copied().filter(|child| row.contains(child));
        ordered.extend(here.collect::<Vec<_>>());
        left.retain(|child| !row.contains(child));
    }
    while !left.is_empty() {
        let is_imported = |child: &str| {
            arrows
                .keys()
                .any(|(from, to)| to == child && left.contains(from.as_str()))
        };
        let mut free: Vec<&str> = left.iter().copied().filter(|it| !is_imported(it)).collect();
        if free.is_empty() {
            // A circle.
            free = left.iter().copied().collect();
        }
        left.retain(|child| !free.contains(child));
        ordered.extend(free);
    }
    ordered
}
