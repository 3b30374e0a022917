// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The modules of the product's crates, and what each refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::cfg::is_left_out;
use crate::references::{Reader, Reference};
use crate::sources::{Sources, normal};

/// The number of a module in [`Modules`].
pub type Id = usize;

/// A module of product code. Modules of tests and test doors are left out.
#[derive(Debug)]
pub struct Module {
    /// Its full name, such as `vhost_user_backends::gpu::scanout`.
    pub name: String,
    /// The module around it; none for a crate.
    pub parent: Option<Id>,
    /// The file that holds it.
    pub file: PathBuf,
    /// The line of its declaration; 0 for a crate.
    pub line: usize,
    /// The modules in it.
    pub children: BTreeMap<String, Id>,
    /// Local names by `use`.
    pub uses: BTreeMap<String, Vec<String>>,
    /// What is imported by `use path::*`.
    pub globs: Vec<Vec<String>>,
    /// The names of its own items.
    pub items: BTreeSet<String>,
    /// All paths in its code.
    pub references: Vec<Reference>,
    /// The types of its inherent `impl` blocks.
    pub impls: Vec<Reference>,
    /// A `#[path]` on its declaration.
    pub path_attribute: Option<String>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A module.
    Module(Id),
    /// An item of a module.
    Item(Id, String),
}

impl Target {
    /// The module itself, or the one that defines the item.
    #[must_use]
    pub fn module(&self) -> Id {
        match self {
            Self::Module(id) | Self::Item(id, _) => *id,
        }
    }
}

/// All modules of some crates.
#[derive(Debug, Default)]
pub struct Modules {
    list: Vec<Module>,
    crates: BTreeMap<String, Id>,
    /// Lines of code in tests and test doors that share a file with product code.
    test_lines: BTreeMap<PathBuf, usize>,
}

impl Modules {
    /// Parses the crates `crates`, each a name and the path of its root file.
    ///
    /// # Errors
    ///
    /// A file that does not exist or does not parse.
    pub fn parse(sources: &Sources, crates: &[(&str, &str)]) -> Result<Self> {
        let mut modules = Self::default();
        for (name, root) in crates {
            let root = Path::new(root);
            let id = modules.add(name, None, root, 0, None);
            modules.crates.insert((*name).to_owned(), id);
            let folder = root.parent().unwrap_or(Path::new("")).to_owned();
            modules.parse_file(sources, id, root, &folder)?;
        }
        Ok(modules)
    }

    /// All modules with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Module)> {
        self.list.iter().enumerate()
    }

    /// The module of a number.
    #[must_use]
    pub fn get(&self, id: Id) -> &Module {
        &self.list[id]
    }

    /// The number of the module of a full name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Id> {
        self.list.iter().position(|module| module.name == name)
    }

    /// How many lines of `file` are tests or test doors.
    #[must_use]
    pub fn test_lines(&self, file: &Path) -> usize {
        self.test_lines.get(file).copied().unwrap_or(0)
    }

    /// The module and all around it, from the crate inwards.
    #[must_use]
    pub fn ancestors(&self, id: Id) -> Vec<Id> {
        let mut line = vec![id];
        let mut at = id;
        while let Some(parent) = self.list[at].parent {
            line.push(parent);
            at = parent;
        }
        line.reverse();
        line
    }

    /// What `path` leads to when it stands in the module `from`. None outside of the product's crates.
    #[must_use]
    pub fn resolve(&self, from: Id, path: &[String]) -> Option<Target> {
        self.resolve_within(from, path, 0)
    }

    fn resolve_within(&self, from: Id, path: &[String], depth: usize) -> Option<Target> {
        // `use` declarations may lead to each other in a circle through globs.
        if depth > 16 {
            return None;
        }
        let mut segments = path.iter().peekable();
        let mut target = match segments.next()?.as_str() {
            "crate" => Target::Module(*self.ancestors(from).first()?),
            "self" => Target::Module(from),
            "super" => Target::Module(self.list[from].parent?),
            "" => Target::Module(*self.crates.get(segments.next()?)?),
            name => self
                .member(from, name, depth)
                .or_else(|| self.crates.get(name).map(|id| Target::Module(*id)))?,
        };
        for segment in segments {
            target = match target {
                Target::Module(id) if segment == "super" => Target::Module(self.list[id].parent?),
                Target::Module(id) if segment == "self" => Target::Module(id),
                Target::Module(id) => self
                    .member(id, segment, depth)
                    .unwrap_or_else(|| Target::Item(id, segment.clone())),
                // A variant, an associated item.
                item @ Target::Item(..) => item,
            };
        }
        Some(target)
    }

    /// What a name means in a module: a module in it, an item of its own, or something imported.
    fn member(&self, id: Id, name: &str, depth: usize) -> Option<Target> {
        let module = &self.list[id];
        if let Some(child) = module.children.get(name) {
            return Some(Target::Module(*child));
        }
        if module.items.contains(name) {
            return Some(Target::Item(id, name.to_owned()));
        }
        if let Some(path) = module.uses.get(name) {
            // `use name;` and `use name as name` mean a crate.
            let itself = path.len() == 1 && path[0] == name;
            return if itself {
                None
            } else {
                self.resolve_within(id, path, depth + 1)
            };
        }
        module.globs.iter().find_map(|path| {
            let source = self.resolve_within(id, path, depth + 1)?.module();
            if source == id {
                return None;
            }
            let found = self.list[source].items.contains(name)
                || self.list[source].children.contains_key(name)
                || self.list[source].uses.contains_key(name);
            if found {
                self.member(source, name, depth + 1)
            } else {
                None
            }
        })
    }

    fn add(
        &mut self,
        name: &str,
        parent: Option<Id>,
        file: &Path,
        line: usize,
        path_attribute: Option<String>,
    ) -> Id {
        let full = match parent {
            Some(parent) => format!("{}::{name}", self.list[parent].name),
            None => name.to_owned(),
        };
        let id = self.list.len();
        self.list.push(Module {
            name: full,
            parent,
            file: file.to_owned(),
            line,
            children: BTreeMap::new(),
            uses: BTreeMap::new(),
            globs: Vec::new(),
            items: BTreeSet::new(),
            references: Vec::new(),
            impls: Vec::new(),
            path_attribute,
        });
        if let Some(parent) = parent {
            self.list[parent].children.insert(name.to_owned(), id);
        }
        id
    }

    /// Parses the module `id` from `file`, whose own modules are in `folder`.
    fn parse_file(&mut self, sources: &Sources, id: Id, file: &Path, folder: &Path) -> Result<()> {
        let text = sources
            .get(file)
            .with_context(|| format!("there is no {}", file.display()))?;
        let parsed =
            syn::parse_file(text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        self.parse_items(sources, id, &parsed.items, file, folder)
    }

    fn parse_items(
        &mut self,
        sources: &Sources,
        id: Id,
        items: &[syn::Item],
        file: &Path,
        folder: &Path,
    ) -> Result<()> {
        let mut reader = Reader::default();
        for item in items {
            let syn::Item::Mod(module) = item else {
                reader.visit_item(item);
                continue;
            };
            if is_left_out(&module.attrs) {
                self.count_test_lines(file, item.span());
                continue;
            }
            let name = module.ident.to_string();
            let line = module.ident.span().start().line;
            let below = folder.join(&name);
            if let Some((_, items)) = &module.content {
                let child = self.add(&name, Some(id), file, line, None);
                self.parse_items(sources, child, items, file, &below)?;
                continue;
            }
            let attribute = path_attribute(&module.attrs);
            let beside = folder.join(format!("{name}.rs"));
            let inside = below.join("mod.rs");
            let found = match &attribute {
                Some(path) => normal(&file.parent().unwrap_or(folder).join(path)),
                None if sources.get(&beside).is_some() => beside,
                None => inside,
            };
            let child = self.add(&name, Some(id), &found, line, attribute);
            self.parse_file(sources, child, &found, &below)?;
        }
        for span in reader.left_out {
            self.count_test_lines(file, span);
        }
        let module = &mut self.list[id];
        module.uses = reader.uses;
        module.globs = reader.globs;
        module.items = reader.items;
        module.references = reader.references;
        module.impls = reader.impls;
        Ok(())
    }

    fn count_test_lines(&mut self, file: &Path, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        *self.test_lines.entry(file.to_owned()).or_default() += lines;
    }
}

fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let syn::Meta::NameValue(value) = &attribute.meta else {
            return None;
        };
        match &value.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) if value.path.is_ident("path") => Some(text.value()),
            _ => None,
        }
    })
}
