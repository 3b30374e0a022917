// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules of the house, and where the code breaks them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::finding::{Finding, Rule};
use crate::modules::{Id, Module, Modules, Target};
use crate::sources::Sources;

/// The modules of a parent in rows, from above to below.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// The parent's full name.
    pub of: &'static str,
    /// A module may import from the rows below its own.
    pub rows: &'static [&'static [&'static str]],
}

/// A place that may break a rule.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The rule.
    pub rule: Rule,
    /// The key of the finding.
    pub key: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct House {
    /// The product's crates: name and root file.
    pub crates: &'static [(&'static str, &'static str)],
    /// Most lines of a file of product code, its tests not counted.
    pub max_lines: usize,
    /// Layers, for the modules that have a declared order.
    pub layers: &'static [Layers],
    /// Exceptions.
    pub exceptions: &'static [Exception],
}

/// Arrows between the children of one module: from, to, and where.
pub type Arrows = BTreeMap<(String, String), Vec<(PathBuf, usize)>>;

impl House {
    /// Everything that breaks a rule. `dependencies` are the crates whose names no module may have.
    #[must_use]
    pub fn check(
        &self,
        sources: &Sources,
        modules: &Modules,
        dependencies: &BTreeSet<String>,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let arrows = arrows(modules);
        for (parent, arrows) in &arrows {
            circles(modules.get(*parent), arrows, &mut found);
        }
        for layers in self.layers {
            check_layers(modules, layers, &arrows, &mut found);
        }
        self.lengths(sources, modules, &mut found);
        spread_impls(modules, &mut found);
        super_super(sources, &mut found);
        names(modules, dependencies, &mut found);
        self.without_exceptions(found)
    }

    fn lengths(&self, sources: &Sources, modules: &Modules, found: &mut Vec<Finding>) {
        let files: BTreeSet<&Path> = modules.iter().map(|(_, module)| &*module.file).collect();
        for file in files {
            let all = sources.get(file).map_or(0, |text| text.lines().count());
            let lines = all.saturating_sub(modules.test_lines(file));
            if lines > self.max_lines {
                found.push(Finding {
                    rule: Rule::Length,
                    key: file.display().to_string(),
                    place: (file.to_owned(), 0),
                    message: format!(
                        "{lines} lines of product code, {} allowed. Split it by concept.",
                        self.max_lines
                    ),
                });
            }
        }
    }

    fn without_exceptions(&self, found: Vec<Finding>) -> Vec<Finding> {
        let applies = |exception: &Exception, finding: &Finding| {
            exception.rule == finding.rule && exception.key == finding.key
        };
        let unused = self
            .exceptions
            .iter()
            .filter(|exception| !found.iter().any(|finding| applies(exception, finding)))
            .map(|exception| Finding {
                rule: Rule::Exception,
                key: exception.key.to_owned(),
                place: (PathBuf::from("crates/layout/src/house.rs"), 0),
                message: format!(
                    "{} breaks no rule \"{}\" any more. Remove the exception.",
                    exception.key, exception.rule
                ),
            })
            .collect::<Vec<_>>();
        let mut found: Vec<_> = found
            .into_iter()
            .filter(|finding| {
                !self
                    .exceptions
                    .iter()
                    .any(|exception| applies(exception, finding))
            })
            .chain(unused)
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// All arrows between modules beside each other, by their parent. An arrow of a module counts for those around it.
#[must_use]
pub fn arrows(modules: &Modules) -> BTreeMap<Id, Arrows> {
    let mut all: BTreeMap<Id, Arrows> = BTreeMap::new();
    for (id, module) in modules.iter() {
        let from = modules.ancestors(id);
        for reference in &module.references {
            let Some(target) = modules.resolve(id, &reference.path) else {
                continue;
            };
            let to = modules.ancestors(target.module());
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if common == 0 || common == from.len() || common == to.len() {
                // Another crate, a module inside, or the one around: no arrow between neighbours.
                continue;
            }
            let arrow = (
                short_name(modules.get(from[common])),
                short_name(modules.get(to[common])),
            );
            all.entry(from[common - 1])
                .or_default()
                .entry(arrow)
                .or_default()
                .push((module.file.clone(), reference.line));
        }
    }
    all
}

fn short_name(module: &Module) -> String {
    let name = module.name.rsplit("::").next();
    name.unwrap_or(&module.name).to_owned()
}

/// Modules that import each other, directly or through others.
fn circles(parent: &Module, arrows: &Arrows, found: &mut Vec<Finding>) {
    let reach = reachable(arrows);
    let mutual = |a: &str, b: &str| {
        reach.contains(&(a.to_owned(), b.to_owned()))
            && reach.contains(&(b.to_owned(), a.to_owned()))
    };
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (name, _) in arrows.keys() {
        if done.contains(name.as_str()) {
            continue;
        }
        let members: Vec<&str> = arrows
            .keys()
            .map(|(from, _)| from.as_str())
            .filter(|other| *other != name && mutual(name, other))
            .chain([name.as_str()])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if members.len() < 2 {
            continue;
        }
        done.extend(&members);
        let mut inside: Vec<_> = arrows
            .iter()
            .filter(|((from, to), _)| {
                members.contains(&from.as_str()) && members.contains(&to.as_str())
            })
            .collect();
        // Those with the fewest imports first: they are the easiest to cut.
        inside.sort_by_key(|(_, places)| places.len());
        let list: Vec<String> = inside
            .iter()
            .map(|((from, to), places)| {
                let (file, line) = &places[0];
                format!(
                    "{from} -> {to} ({}x, {}:{line})",
                    places.len(),
                    file.display()
                )
            })
            .collect();
        found.push(Finding {
            rule: Rule::Circle,
            key: format!("{}: {}", parent.name, members.join(" ")),
            place: inside[0].1[0].clone(),
            message: format!(
                "In {}, {} import each other: {}. Move what both need below both.",
                parent.name,
                members.join(", "),
                list.join("; ")
            ),
        });
    }
}

/// All pairs of which the first reaches the second.
fn reachable(arrows: &Arrows) -> BTreeSet<(String, String)> {
    let mut reach: BTreeSet<(String, String)> = arrows.keys().cloned().collect();
    loop {
        let further: Vec<_> = reach
            .iter()
            .flat_map(|(from, middle)| {
                arrows
                    .keys()
                    .filter(move |(start, _)| start == middle)
                    .map(move |(_, to)| (from.clone(), to.clone()))
            })
            .filter(|pair| !reach.contains(pair))
            .collect();
        if further.is_empty() {
            return reach;
        }
        reach.extend(further);
    }
}

fn check_layers(
    modules: &Modules,
    layers: &Layers,
    arrows: &BTreeMap<Id, Arrows>,
    found: &mut Vec<Finding>,
) {
    let mut table = |place: (PathBuf, usize), key: String, message: String| {
        found.push(Finding {
            rule: Rule::Table,
            key,
            place,
            message,
        });
    };
    let Some(parent) = modules.find(layers.of) else {
        let place = (PathBuf::from("crates/layout/src/house.rs"), 0);
        let message = format!(
            "There is no module {}. Mend the table of layers.",
            layers.of
        );
        table(place, layers.of.to_owned(), message);
        return;
    };
    let row = |name: &str| layers.rows.iter().position(|row| row.contains(&name));
    let children = &modules.get(parent).children;
    for (name, id) in children {
        if row(name).is_none() {
            let module = modules.get(*id);
            let place = (modules.get(parent).file.clone(), module.line);
            let message = format!(
                "{} has no place in the table of layers. Give it one in crates/layout/src/house.rs.",
                module.name
            );
            table(place, module.name.clone(), message);
        }
    }
    for name in layers.rows.iter().copied().flatten() {
        if !children.contains_key(*name) {
            let key = format!("{}::{name}", layers.of);
            let message = format!("There is no module {key}. Remove it from the table of layers.");
            table(
                (PathBuf::from("crates/layout/src/house.rs"), 0),
                key,
                message,
            );
        }
    }
    let Some(arrows) = arrows.get(&parent) else {
        return;
    };
    for ((from, to), places) in arrows {
        let (Some(upper), Some(lower)) = (row(from), row(to)) else {
            continue;
        };
        if upper >= lower {
            let all: Vec<String> = places
                .iter()
                .map(|(file, line)| format!("{}:{line}", file.display()))
                .collect();
            found.push(Finding {
                rule: Rule::Up,
                key: format!("{}: {from} -> {to}", layers.of),
                place: places[0].clone(),
                message: format!(
                    "In {}, {from} imports from {to}, which does not lie below it ({}). Move what it needs down.",
                    layers.of,
                    all.join(", ")
                ),
            });
        }
    }
}

/// Types whose inherent `impl` blocks, with their definition, are in more than one file.
fn spread_impls(modules: &Modules, found: &mut Vec<Finding>) {
    let mut blocks: BTreeMap<(Id, String), Vec<(PathBuf, usize)>> = BTreeMap::new();
    for (id, module) in modules.iter() {
        for block in &module.impls {
            if let Some(Target::Item(home, name)) = modules.resolve(id, &block.path) {
                let place = (module.file.clone(), block.line);
                blocks.entry((home, name)).or_default().push(place);
            }
        }
    }
    for ((home, name), mut places) in blocks {
        let home = modules.get(home);
        let away = places.iter().find(|(file, _)| *file != home.file).cloned();
        let Some(place) = away else {
            continue;
        };
        places.sort();
        let list: Vec<String> = places
            .iter()
            .map(|(file, line)| format!("{}:{line}", file.display()))
            .collect();
        found.push(Finding {
            rule: Rule::Impl,
            key: format!("{}::{name}", home.name),
            place,
            message: format!(
                "`{name}` is defined in {} and has `impl` blocks in {}. Keep them in its file, or make a type with fields of its own.",
                home.file.display(),
                list.join(", ")
            ),
        });
    }
}

fn super_super(sources: &Sources, found: &mut Vec<Finding>) {
    // Written in two parts, or this file would be a finding.
    let twice = concat!("super::", "super");
    for (file, text) in sources.iter() {
        let lines: Vec<usize> = (1..)
            .zip(text.lines())
            .filter(|(_, line)| line.contains(twice) && !line.trim_start().starts_with("//"))
            .map(|(number, _)| number)
            .collect();
        let Some(first) = lines.first() else {
            continue;
        };
        found.push(Finding {
            rule: Rule::Super,
            key: file.display().to_string(),
            place: (file.to_owned(), *first),
            message: format!(
                "`{twice}` in {} lines. Write the path from `crate::`.",
                lines.len()
            ),
        });
    }
}

fn names(modules: &Modules, dependencies: &BTreeSet<String>, found: &mut Vec<Finding>) {
    for (_, module) in modules.iter() {
        let Some(parent) = module.parent else {
            continue;
        };
        let place = (modules.get(parent).file.clone(), module.line);
        if dependencies.contains(&short_name(module)) {
            found.push(Finding {
                rule: Rule::Name,
                key: module.name.clone(),
                place: place.clone(),
                message: format!(
                    "{} has the name of a crate and hides it from its neighbours. Rename it.",
                    module.name
                ),
            });
        }
        if let Some(path) = &module.path_attribute {
            found.push(Finding {
                rule: Rule::Path,
                key: module.name.clone(),
                place,
                message: format!(
                    "#[path = \"{path}\"]. Move what two crates need into crates/conventions."
                ),
            });
        }
    }
}
