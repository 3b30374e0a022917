// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Charges that a resource shares with the objects and bindings that reference it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::resource::Charge;

/// A share of a resource's charge, which returns to the budget once all shares are dropped.
pub(super) type SharedCharge = Arc<Charge>;

/// A set of shared charges, by their addresses.
#[derive(Debug, Default)]
pub(in crate::gpu::renderer::virgl) struct ChargeSet(HashMap<usize, SharedCharge>);

impl ChargeSet {
    pub(super) fn insert(&mut self, charge: SharedCharge) {
        self.0.insert(Arc::as_ptr(&charge).addr(), charge);
    }

    pub(super) fn extend(&mut self, charges: impl IntoIterator<Item = SharedCharge>) {
        charges.into_iter().for_each(|charge| self.insert(charge));
    }

    /// Number of different charges.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of all charges.
    #[cfg(feature = "fuzzing")]
    pub(in crate::gpu::renderer::virgl) fn bytes(&self) -> u64 {
        self.0.values().map(|charge| charge.bytes()).sum()
    }
}

/// The charges of an object: its own, and those of the resources it references. It has several if the
/// driver created several objects with one handle.
#[derive(Debug, Default)]
pub(super) struct ObjectCharges {
    own: Vec<Charge>,
    resources: Vec<SharedCharge>,
}

impl ObjectCharges {
    /// Adds another object with the same handle.
    pub(super) fn add(&mut self, own: Option<Charge>, resource: Option<SharedCharge>) {
        self.own.extend(own);
        self.resources.extend(resource);
    }

    /// The charges of all resources it references.
    pub(super) fn resources(&self) -> impl Iterator<Item = &SharedCharge> {
        self.resources.iter()
    }

    /// The charge of the resource that the latest object references.
    pub(super) fn latest_resource(&self) -> Option<&SharedCharge> {
        self.resources.last()
    }
}
