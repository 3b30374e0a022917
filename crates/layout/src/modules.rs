//! The modules of the product's crates, and what each refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::cfg::is_left_out;
use crate::quotes::normal;
use crate::sources::Sources;

/// The number of a module in [`Modules`].
pub type Id = usize;

/// A path such as `super::region::Rect`, and the line it stands in.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its segments.
    pub path: Vec<String>,
    /// The line, from 1.
    pub line: usize,
}

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

/// Collects what one module says.
#[derive(Default)]
struct Reader {
    uses: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
    references: Vec<Reference>,
    impls: Vec<Reference>,
    left_out: Vec<proc_macro2::Span>,
    /// Within an item, where names are no longer the module's.
    depth: usize,
}

impl Reader {
    fn refer(&mut self, path: Vec<String>, line: usize) {
        if path.len() > 1 {
            self.references.push(Reference { path, line });
        }
    }

    fn read_use(&mut self, before: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                let mut before = before.to_vec();
                before.push(path.ident.to_string());
                self.read_use(&before, &path.tree);
            }
            syn::UseTree::Name(name) => self.import(before, &name.ident, &name.ident),
            syn::UseTree::Rename(rename) => self.import(before, &rename.ident, &rename.rename),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.span.start().line;
                self.references.push(Reference {
                    path: before.to_vec(),
                    line,
                });
                self.globs.push(before.to_vec());
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(before, tree);
                }
            }
        }
    }

    fn import(&mut self, before: &[String], ident: &syn::Ident, local: &syn::Ident) {
        let mut path = before.to_vec();
        let mut name = local.to_string();
        if ident == "self" {
            if local == "self" {
                name = path.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(ident.to_string());
        }
        self.references.push(Reference {
            path: path.clone(),
            line: ident.span().start().line,
        });
        self.uses.insert(name, path);
    }

    fn read_impl(&mut self, block: &syn::ItemImpl) {
        if let syn::Type::Path(of) = &*block.self_ty {
            self.impls.push(Reference {
                path: segments(&of.path),
                line: block.impl_token.span.start().line,
            });
        }
    }

    /// Paths in the arguments of a macro, as far as tokens show them.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.refer(std::mem::take(&mut path), line);
                        path.clear();
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                }
                other => {
                    self.refer(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.read_tokens(group.stream());
                    }
                }
            }
        }
        self.refer(path, line);
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    let leading = path.leading_colon.as_ref().map(|_| String::new());
    let names = path.segments.iter().map(|part| part.ident.to_string());
    leading.into_iter().chain(names).collect()
}

/// The name of an item, where it has one.
fn item_name(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn item_attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn impl_item_attributes(item: &syn::ImplItem) -> &[syn::Attribute] {
    match item {
        syn::ImplItem::Const(item) => &item.attrs,
        syn::ImplItem::Fn(item) => &item.attrs,
        syn::ImplItem::Type(item) => &item.attrs,
        syn::ImplItem::Macro(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_left_out(item_attributes(item)) {
            if self.depth == 0 {
                self.left_out.push(item.span());
            }
            return;
        }
        if self.depth == 0 {
            self.items.extend(item_name(item));
        }
        match item {
            syn::Item::Impl(block) if block.trait_.is_none() => self.read_impl(block),
            _ => {}
        }
        self.depth += 1;
        visit::visit_item(self, item);
        self.depth -= 1;
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if is_left_out(impl_item_attributes(item)) {
            self.left_out.push(item.span());
        } else {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_left_out(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let before: &[String] = match item.leading_colon {
            Some(_) => &[String::new()],
            None => &[],
        };
        self.read_use(before, &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.refer(segments(path), path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.read_tokens(item.tokens.clone());
    }

    // `pub(in path)` and `#[derive(path)]` are no arrows.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
