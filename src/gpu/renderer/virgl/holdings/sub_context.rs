// SPDX-License-Identifier: Apache-2.0 OR MIT
//! References of a sub-context (`struct vrend_sub_context`) to resources.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::resource::{Budget, Charge};

use super::charges::{ChargeSet, ObjectCharges, SharedCharge};
use super::commands::{BindResources, Command, Object, Slot};
use super::{CONTEXT_COST, Removed, cost};

/// Most places of a slot, more than any has; the library refuses those beyond.
const MAX_PLACES: usize = 128;

/// What is bound to a place.
#[derive(Debug)]
struct Bound {
    /// Id of the resource, or handle of the object that references it.
    id: u32,
    charge: SharedCharge,
}

/// Objects and bindings of a sub-context.
#[derive(Debug)]
pub(super) struct SubContext {
    objects: HashMap<u32, ObjectCharges>,
    bound: HashMap<Slot, Vec<Option<Bound>>>,
    /// Charges kept until the sub-context is destroyed.
    kept: ChargeSet,
    own: Option<Charge>,
}

impl SubContext {
    /// A sub-context without objects. It is not charged if the budget is used up; see
    /// [`SubContext::is_charged`].
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            objects: HashMap::new(),
            bound: HashMap::new(),
            kept: ChargeSet::default(),
            own: budget.charge(CONTEXT_COST),
        }
    }

    pub(super) fn is_charged(&self) -> bool {
        self.own.is_some()
    }

    /// All objects, with their handles.
    pub(super) fn objects(&self) -> impl Iterator<Item = (u32, &ObjectCharges)> {
        self.objects
            .iter()
            .map(|(handle, object)| (*handle, object))
    }

    /// The charges of the bound sampler views.
    pub(super) fn sampler_views(&self) -> impl Iterator<Item = SharedCharge> {
        let views = self.bound.iter();
        let views = views.filter(|(slot, _)| matches!(slot, Slot::SamplerView(_)));
        let places = views.flat_map(|(_, places)| places.iter().flatten());
        places.map(|bound| bound.charge.clone())
    }

    /// Notes a command for this sub-context. What it replaces or destroys goes to `removed`.
    pub(super) fn note(
        &mut self,
        command: &Command<'_>,
        budget: &Budget,
        share_charge: &impl Fn(u32) -> Option<SharedCharge>,
        removed: &mut Removed,
    ) {
        match command {
            Command::CreateObject(object) => {
                self.create_object(object, budget, share_charge, removed);
            }
            Command::DestroyObject(handle) => {
                removed.objects.extend(self.objects.remove(handle));
            }
            Command::SetFramebuffer { depth, colors } => {
                self.bind_objects(Slot::ColorBuffer, 0, colors, &mut removed.charges);
                self.unbind_from(Slot::ColorBuffer, colors.len(), &mut removed.charges);
                self.bind_objects(Slot::DepthBuffer, 0, &[*depth], &mut removed.charges);
            }
            Command::SetSamplerViews {
                stage,
                first,
                handles,
            } => {
                let (slot, first) = (Slot::SamplerView(*stage), *first as usize);
                self.bind_objects(slot, first, handles, &mut removed.leakable);
                let next = first.saturating_add(handles.len());
                self.unbind_from(slot, next, &mut removed.leakable);
            }
            Command::SetStreamoutTargets(handles) => {
                // The library caches each set of targets.
                for handle in *handles {
                    let bound = self.object(*handle);
                    self.kept.extend(bound.map(|bound| bound.charge));
                }
            }
            Command::Bind(bind) => self.bind_resources(bind, share_charge, &mut removed.charges),
            Command::CreateSubContext(_)
            | Command::SetSubContext(_)
            | Command::DestroySubContext(_)
            | Command::Unaccounted(_) => {}
        }
    }

    fn create_object(
        &mut self,
        object: &Object,
        budget: &Budget,
        share_charge: &impl Fn(u32) -> Option<SharedCharge>,
        removed: &mut Removed,
    ) {
        let resource = object.resource.and_then(share_charge);
        if object.is_query {
            removed.leakable.extend(resource.clone());
        }
        let charges = self.objects.entry(object.handle).or_default();
        charges.add(budget.charge(cost(object)), resource);
    }

    fn bind_objects(
        &mut self,
        slot: Slot,
        first: usize,
        handles: &[u32],
        removed: &mut Vec<SharedCharge>,
    ) {
        for (place, handle) in (first..).zip(handles) {
            let bound = self.object(*handle);
            self.bind(slot, place, bound, removed);
        }
    }

    fn bind_resources(
        &mut self,
        bind: &BindResources<'_>,
        share_charge: &impl Fn(u32) -> Option<SharedCharge>,
        removed: &mut Vec<SharedCharge>,
    ) {
        let ids = bind.ids();
        let count = ids.len();
        for (place, id) in (bind.first as usize..).zip(ids) {
            let bound = share_charge(id).map(|charge| Bound { id, charge });
            self.bind(bind.slot, place, bound, removed);
        }
        if bind.is_all {
            self.unbind_from(bind.slot, count, removed);
        }
    }

    /// Binds to a place, and removes what was bound there. If both have one id, the old one stays
    /// charged too: the library may skip the command, and keep the resource that had this id before.
    fn bind(
        &mut self,
        slot: Slot,
        index: usize,
        bound: Option<Bound>,
        removed: &mut Vec<SharedCharge>,
    ) {
        if index >= MAX_PLACES || !slot.exists() {
            self.kept.extend(bound.map(|bound| bound.charge));
            return;
        }
        let places = self.bound.entry(slot).or_default();
        if places.len() <= index {
            if bound.is_none() {
                return;
            }
            places.resize_with(index.saturating_add(1), || None);
        }
        let Some(place) = places.get_mut(index) else {
            return;
        };
        match (place.take(), &bound) {
            (Some(old), Some(new)) if Arc::ptr_eq(&old.charge, &new.charge) => {}
            (Some(old), Some(new)) if old.id == new.id => self.kept.insert(old.charge),
            (old, _) => removed.extend(old.map(|old| old.charge)),
        }
        *place = bound;
    }

    /// Unbinds all places of a slot from `first` on.
    fn unbind_from(&mut self, slot: Slot, first: usize, removed: &mut Vec<SharedCharge>) {
        let Some(places) = self.bound.get_mut(&slot) else {
            return;
        };
        let beyond = places.get_mut(first..).unwrap_or_default();
        let unbound = beyond.iter_mut().filter_map(Option::take);
        removed.extend(unbound.map(|bound| bound.charge));
    }

    /// A view, surface or target with the resource it references.
    fn object(&self, handle: u32) -> Option<Bound> {
        let charge = self.objects.get(&handle)?.latest_resource()?.clone();
        Some(Bound { id: handle, charge })
    }

    /// Whether all slots exist and have at most `max_places` places.
    #[cfg(test)]
    pub(super) fn is_bounded(&self, max_places: usize) -> bool {
        let mut slots = self.bound.iter();
        slots.all(|(slot, places)| slot.exists() && places.len() <= max_places)
    }
}
