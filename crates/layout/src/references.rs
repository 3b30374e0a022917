// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the code of one module refers to.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::cfg::is_left_out;

/// A path such as `super::region::Rect`, and the line it stands in.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its segments.
    pub path: Vec<String>,
    /// The line, from 1.
    pub line: usize,
}

/// Collects what one module says.
#[derive(Default)]
pub(crate) struct Reader {
    /// Local names by `use`.
    pub(crate) uses: BTreeMap<String, Vec<String>>,
    /// What is imported by `use path::*`.
    pub(crate) globs: Vec<Vec<String>>,
    /// The names of the module's own items.
    pub(crate) items: BTreeSet<String>,
    /// All paths in its code.
    pub(crate) references: Vec<Reference>,
    /// The types of its inherent `impl` blocks.
    pub(crate) impls: Vec<Reference>,
    /// Items of tests and test doors.
    pub(crate) left_out: Vec<proc_macro2::Span>,
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
