// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which crates a package is built from.

use std::collections::{HashMap, HashSet};

use anyhow::Context as _;
use serde::Deserialize;

/// A crate of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression. Older crates separate alternatives by a slash.
    pub(crate) license: Option<String>,
    #[serde(default)]
    pub(crate) authors: Vec<String>,
}

impl Crate {
    /// Its folder, as `cargo vendor --versioned-dirs` names it.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// What `cargo metadata` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    /// `None` for the workspace's own.
    source: Option<String>,
    #[serde(flatten)]
    description: Crate,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `None` for a normal dependency, `build` or `dev`.
    kind: Option<String>,
}

impl Workspace {
    /// Reads the JSON of `cargo metadata`.
    pub(crate) fn read(json: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(json).context("cannot understand what cargo metadata says")
    }

    /// The crates of registries that these packages of the workspace are built from.
    pub(crate) fn needed_by(&self, names: &[&str]) -> anyhow::Result<Vec<Crate>> {
        let nodes: HashMap<&str, &Node> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        let mut left = Vec::new();
        for name in names {
            let package = self
                .packages
                .iter()
                .find(|package| package.source.is_none() && package.description.name == *name);
            left.push(
                package
                    .with_context(|| format!("the workspace has no package {name}"))?
                    .id
                    .as_str(),
            );
        }
        let mut seen = HashSet::new();
        while let Some(id) = left.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = nodes
                .get(id)
                .with_context(|| format!("{id} is not resolved"))?;
            let built = node.deps.iter().filter(|dependency| {
                let mut kinds = dependency.dep_kinds.iter();
                kinds.any(|kind| kind.kind.as_deref() != Some("dev"))
            });
            left.extend(built.map(|dependency| dependency.pkg.as_str()));
        }
        let needed = self
            .packages
            .iter()
            .filter(|package| package.source.is_some() && seen.contains(package.id.as_str()));
        Ok(needed.map(|package| package.description.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"id": "own", "name": "own", "version": "1.0.0", "source": null, "license": "MIT", "authors": []},
            {"id": "other", "name": "other", "version": "1.0.0", "source": null, "license": "MIT", "authors": []},
            {"id": "a", "name": "a", "version": "1.2.3", "source": "registry", "license": "MIT", "authors": ["A"]},
            {"id": "b", "name": "b", "version": "0.1.0", "source": "registry", "license": null},
            {"id": "c", "name": "c", "version": "0.1.0", "source": "registry", "license": null},
            {"id": "d", "name": "d", "version": "0.1.0", "source": "registry", "license": null}
        ],
        "resolve": {"nodes": [
            {"id": "own", "deps": [
                {"pkg": "a", "dep_kinds": [{"kind": null}]},
                {"pkg": "c", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "other", "deps": [{"pkg": "d", "dep_kinds": [{"kind": null}]}]},
            {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "dev"}, {"kind": "build"}]}]},
            {"id": "b", "deps": []},
            {"id": "c", "deps": []},
            {"id": "d", "deps": []}
        ]}
    }"#;

    #[test]
    fn crates_of_tests_and_of_other_packages_are_not_needed() {
        let workspace = Workspace::read(METADATA.as_bytes()).unwrap();
        let needed = workspace.needed_by(&["own"]).unwrap();
        let folders: Vec<_> = needed.iter().map(Crate::folder).collect();
        assert_eq!(folders, ["a-1.2.3", "b-0.1.0"]);
    }

    #[test]
    fn missing_package_is_an_error() {
        let workspace = Workspace::read(METADATA.as_bytes()).unwrap();
        let error = workspace.needed_by(&["a"]).unwrap_err();
        assert!(error.to_string().contains("no package a"), "{error}");
    }
}
