// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The members of JSON objects, as docs/json.md lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// What may be in the members of an object, by their paths, such as `log[].pid`.
#[derive(Debug, Default)]
pub(crate) struct Members(BTreeMap<String, String>);

impl Members {
    /// Those that stand below these headings.
    pub(crate) fn under(headings: &[&str]) -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
        let text = fs::read_to_string(path)?;
        let mut members = BTreeMap::new();
        for heading in headings {
            let (_, section) = text
                .split_once(&format!("\n## {heading}\n"))
                .with_context(|| format!("docs/json.md has no {heading}"))?;
            let section = section.split("\n## ").next().unwrap_or_default();
            for row in section.lines().filter(|line| line.starts_with("| `")) {
                let mut cells = row.split(" | ");
                let name = cells.next().unwrap_or_default();
                let name = name.trim_start_matches("| ").trim_matches('`');
                let kind = cells.next().context("a row without a type")?;
                members.insert(name.to_owned(), kind.to_owned());
            }
        }
        ensure!(!members.is_empty(), "no members below {headings:?}");
        Ok(Self(members))
    }

    /// Fails unless the object has these members, all of them and no others, with values of these types.
    pub(crate) fn check(&self, object: &Value) -> anyhow::Result<()> {
        let mut found = BTreeSet::new();
        self.visit("", object, &mut found)?;
        for name in self.0.keys() {
            let parent = name.rsplit_once('.').map_or("", |(parent, _)| parent);
            ensure!(
                found.contains(name) || !found.contains(&format!("{parent}.")),
                "docs/json.md has {name}, which is missing in {object}"
            );
        }
        Ok(())
    }

    fn visit(
        &self,
        parent: &str,
        object: &Value,
        found: &mut BTreeSet<String>,
    ) -> anyhow::Result<()> {
        found.insert(format!("{parent}."));
        for (name, value) in object.as_object().context("no object")? {
            let path = match parent {
                "" => name.clone(),
                _ => format!("{parent}.{name}"),
            };
            let documented = self.0.get(&path);
            let kind = documented.with_context(|| format!("docs/json.md has no {path}"))?;
            ensure!(fits(kind, value)?, "{path} is no {kind}: {value}");
            match value {
                // Of an object that has a list of its own.
                Value::Object(_) if !self.is_parent(&path) => {}
                Value::Object(_) => self.visit(&path, value, found)?,
                Value::Array(values) if kind.starts_with("objects") => {
                    for value in values {
                        self.visit(&format!("{path}[]"), value, found)?;
                    }
                }
                _ => {}
            }
            found.insert(path);
        }
        Ok(())
    }

    fn is_parent(&self, path: &str) -> bool {
        let inside = format!("{path}.");
        self.0.keys().any(|name| name.starts_with(&inside))
    }
}

fn fits(kind: &str, value: &Value) -> anyhow::Result<bool> {
    let all = |is: fn(&Value) -> bool| value.as_array().is_some_and(|values| values.iter().all(is));
    let (kind, may_be_null) = match kind.strip_suffix(" or null") {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    Ok((may_be_null && value.is_null())
        || match kind {
            "string" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "strings" => all(Value::is_string),
            "objects" => all(Value::is_object),
            "time" => value
                .as_str()
                .is_some_and(|text| text.get(10..11) == Some("T") && text.ends_with('Z')),
            other => bail!("docs/json.md has a type {other}"),
        })
}
