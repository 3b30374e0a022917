// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counts the memory that contexts hold, also of resources that the driver destroyed.
//!
//! An object that a command stream creates (a view, a surface) keeps its resource's memory alive, and so
//! does a binding in a context. virglrenderer does not report this. So this module follows the commands:
//! each reference to a resource shares its charge, which returns to the budget with the last reference.
//! Objects and sub-contexts have charges of their own.
//!
//! Memory stays charged if the commands do not tell whether the context still references it: what a
//! failed stream removed stays charged until the context is destroyed.

mod charges;
mod commands;
mod sub_context;

use std::collections::HashMap;

use crate::gpu::resource::Budget;

use charges::{ObjectCharges, SharedCharge};
use commands::{Command, Object};
use sub_context::SubContext;

pub(super) use charges::ChargeSet;

/// Bytes for an object besides its resource: here, in the library and in GL.
const OBJECT_COST: u64 = 1024;
/// Bytes for a word of a shader, after the library and GL translated it.
const SHADER_WORD_COST: u64 = 64;
/// Bytes for a context or sub-context: each has a GL context.
pub(super) const CONTEXT_COST: u64 = 2 << 20;

/// Why a stream is refused before the library executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The VM's budget has too few bytes left for the objects: this many are needed.
    Budget(u64),
    /// The stream has this command, which allocates memory that nothing accounts for.
    Unaccounted(u32),
}

/// Charges that commands removed, kept until the library has executed these commands.
#[derive(Debug, Default)]
struct Removed {
    objects: Vec<ObjectCharges>,
    sub_contexts: Vec<SubContext>,
    charges: Vec<SharedCharge>,
    /// Charges of memory that the library leaks if a command fails.
    leakable: Vec<SharedCharge>,
}

impl Removed {
    fn is_empty(&self) -> bool {
        let Self {
            objects,
            sub_contexts,
            charges,
            leakable,
        } = self;
        objects.is_empty() && sub_contexts.is_empty() && charges.is_empty() && leakable.is_empty()
    }
}

/// What a context references.
#[derive(Debug)]
pub(super) struct Holdings {
    sub_contexts: HashMap<u32, SubContext>,
    /// The sub-context that commands apply to, if known.
    current: Option<u32>,
    /// Whether there ever were several sub-contexts.
    has_several: bool,
    /// Whether a stream failed: from then on, nothing that may be referenced is removed.
    has_failed: bool,
    /// Charges not yet counted as leaked, by object handle; a snapshot taken at the first command after
    /// a failure that can leak bound views.
    unleaked: Option<HashMap<u32, Vec<SharedCharge>>>,
    /// Whether this stream already kept the charges of all objects.
    has_kept_objects: bool,
    /// Charges kept until the context is destroyed.
    kept: ChargeSet,
    /// What the current stream removed.
    removed: Removed,
    /// What failed streams removed.
    removed_by_failed: Vec<Removed>,
    budget: Budget,
}

impl Holdings {
    /// A new context; `None` if the budget has too little left.
    pub(super) fn new(budget: &Budget) -> Option<Self> {
        let main = SubContext::new(budget);
        if !main.is_charged() {
            return None;
        }
        Some(Self {
            sub_contexts: HashMap::from([(0, main)]),
            current: Some(0),
            has_several: false,
            has_failed: false,
            unleaked: None,
            has_kept_objects: false,
            kept: ChargeSet::default(),
            removed: Removed::default(),
            removed_by_failed: Vec::new(),
            budget: budget.clone(),
        })
    }

    /// Charges what a stream creates and references, before the library executes it. `share_charge`
    /// returns a share of a resource's charge. [`Holdings::stream_succeeded`] or
    /// [`Holdings::stream_failed`] follows.
    ///
    /// # Errors
    /// If the stream must not be executed. It changes no charge then.
    pub(super) fn charge_stream(
        &mut self,
        stream: &[u32],
        share_charge: impl Fn(u32) -> Option<SharedCharge>,
        leaked: &mut ChargeSet,
    ) -> Result<(), StreamError> {
        let mut bytes: u64 = 0;
        for command in commands::commands(stream) {
            bytes = bytes.saturating_add(match command {
                Command::CreateObject(object) => cost(&object),
                Command::CreateSubContext(_) => CONTEXT_COST,
                Command::Unaccounted(command) => return Err(StreamError::Unaccounted(command)),
                _ => 0,
            });
        }
        // Only a check: nothing else uses the budget until the commands are noted.
        drop(
            self.budget
                .charge(bytes)
                .ok_or(StreamError::Budget(bytes))?,
        );
        self.has_kept_objects = false;
        // When the library polls a query, it switches to the sub-context of the query.
        if self.has_several {
            self.current = None;
        }
        for command in commands::commands(stream) {
            if self.has_failed {
                self.note_uncertain(&command, &share_charge, leaked);
            } else if !self.note_sub_context(&command) {
                self.note(&command, &share_charge);
            }
        }
        Ok(())
    }

    /// Notes a command about sub-contexts; `false` if it is another command.
    fn note_sub_context(&mut self, command: &Command<'_>) -> bool {
        match *command {
            Command::CreateSubContext(id) => {
                self.has_several = true;
                if !self.sub_contexts.contains_key(&id) {
                    self.sub_contexts.insert(id, SubContext::new(&self.budget));
                    self.current = Some(id);
                }
            }
            Command::SetSubContext(id) => {
                if self.sub_contexts.contains_key(&id) {
                    self.current = Some(id);
                }
            }
            Command::DestroySubContext(id) => {
                // The library refuses to destroy the first one.
                if id != 0 {
                    let destroyed = self.sub_contexts.remove(&id);
                    self.removed.sub_contexts.extend(destroyed);
                    if self.current == Some(id) {
                        self.current = Some(0);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Notes a command for the current sub-context.
    fn note(&mut self, command: &Command<'_>, share_charge: &impl Fn(u32) -> Option<SharedCharge>) {
        let current = self.current.and_then(|id| self.sub_contexts.get_mut(&id));
        match current {
            Some(current) => {
                current.note(command, &self.budget, share_charge, &mut self.removed);
            }
            None => self.keep(command, share_charge),
        }
    }

    /// Keeps all that a command may reference until the context is destroyed.
    fn keep(&mut self, command: &Command<'_>, share_charge: &impl Fn(u32) -> Option<SharedCharge>) {
        let resources = command.resources().into_iter();
        self.kept.extend(resources.filter_map(share_charge));
        // All objects, once in a stream: a search for each handle in each of many sub-contexts takes too
        // long. No object is added before the current sub-context is known again, and after a failure,
        // `sub_contexts` keeps its objects.
        if command.has_handles() && !self.has_failed && !self.has_kept_objects {
            self.has_kept_objects = true;
            let objects = self.sub_contexts.values().flat_map(SubContext::objects);
            let charges = objects.flat_map(|(_, object)| object.resources().cloned());
            self.kept.extend(charges);
        }
        let bytes = match command {
            Command::CreateObject(object) => cost(object),
            Command::CreateSubContext(_) => CONTEXT_COST,
            _ => return,
        };
        let mut object = ObjectCharges::default();
        object.add(self.budget.charge(bytes), None);
        self.removed_by_failed.push(Removed {
            objects: vec![object],
            ..Removed::default()
        });
    }

    /// Notes a command after a stream failed. The state of the context is then uncertain.
    fn note_uncertain(
        &mut self,
        command: &Command<'_>,
        share_charge: &impl Fn(u32) -> Option<SharedCharge>,
        leaked: &mut ChargeSet,
    ) {
        self.keep(command, share_charge);
        match command {
            Command::CreateObject(object) if object.is_query => {
                leaked.extend(object.resource.and_then(share_charge));
            }
            Command::SetSamplerViews { handles, .. } => {
                // Nothing is added to these any more.
                if self.unleaked.is_none() {
                    let views = self.sub_contexts.values();
                    leaked.extend(views.flat_map(SubContext::sampler_views));
                    let objects = self.removed_by_failed.iter();
                    let objects = objects.flat_map(|removed| &removed.objects);
                    leaked.extend(objects.flat_map(|object| object.resources().cloned()));
                }
                let sub_contexts = &self.sub_contexts;
                let by_handle = self.unleaked.get_or_insert_with(|| {
                    let mut by_handle = HashMap::<_, Vec<_>>::new();
                    for (handle, object) in sub_contexts.values().flat_map(SubContext::objects) {
                        let charges = by_handle.entry(handle).or_default();
                        charges.extend(object.latest_resource().cloned());
                    }
                    by_handle
                });
                for handle in *handles {
                    leaked.extend(by_handle.remove(handle).into_iter().flatten());
                }
            }
            _ => {}
        }
    }

    /// The library executed the whole stream.
    pub(super) fn stream_succeeded(&mut self) {
        self.removed = Removed::default();
    }

    /// The library executed a part of the stream, or nothing. Adds the charges of memory that it may
    /// have leaked to `leaked`.
    pub(super) fn stream_failed(&mut self, leaked: &mut ChargeSet) {
        self.has_failed = true;
        let removed = std::mem::take(&mut self.removed);
        leaked.extend(removed.leakable.iter().cloned());
        // Skip empty ones: a driver may send failing streams for ever.
        if !removed.is_empty() {
            self.removed_by_failed.push(removed);
        }
    }
}

/// Bytes to charge for an object.
fn cost(object: &Object) -> u64 {
    let words = (object.words as u64).saturating_mul(SHADER_WORD_COST);
    OBJECT_COST.saturating_add(if object.is_shader { words } else { 0 })
}

#[cfg(test)]
mod tests;
