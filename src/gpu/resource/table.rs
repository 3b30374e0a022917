// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The resources of a renderer, by the driver's ids.

use std::collections::HashMap;
use std::sync::Arc;

use super::uuid::random_uuid;
use super::{Budget, Charge, ResourceError};

struct Entry<T> {
    resource: T,
    uuid: Option<[u8; 16]>,
    /// Returns to the budget when it is dropped.
    #[cfg_attr(
        not(feature = "virgl"),
        expect(dead_code, reason = "3D alone uses its shares")
    )]
    charge: Arc<Charge>,
}

/// A bounded table of resources whose memory is charged to one budget. `T` is the renderer's data of a
/// resource.
pub(crate) struct ResourceTable<T> {
    entries: HashMap<u32, Entry<T>>,
    max_len: usize,
    budget: Budget,
}

impl<T> ResourceTable<T> {
    /// A table of at most `max_len` resources.
    pub(crate) fn new(max_len: usize, budget: Budget) -> Self {
        Self {
            entries: HashMap::new(),
            max_len,
            budget,
        }
    }

    /// The budget of all resources.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Checks that a resource `id` can be added.
    pub(crate) fn check_new(&self, id: u32) -> Result<(), ResourceError> {
        match id {
            0 => Err(ResourceError::Zero),
            _ if self.entries.contains_key(&id) => Err(ResourceError::Exists(id)),
            _ if self.entries.len() >= self.max_len => Err(ResourceError::TooMany(self.max_len)),
            _ => Ok(()),
        }
    }

    /// Charges `bytes` for the resource `id`.
    ///
    /// # Errors
    /// If the budget has fewer left.
    pub(crate) fn charge(&self, id: u32, bytes: u64) -> Result<Charge, ResourceError> {
        let charge = self.budget.charge(bytes);
        charge.ok_or(ResourceError::Budget { id, bytes })
    }

    /// Adds a resource, for which [`ResourceTable::check_new`] succeeded.
    pub(crate) fn insert(&mut self, id: u32, charge: Charge, resource: T) {
        let entry = Entry {
            resource,
            uuid: None,
            charge: Arc::new(charge),
        };
        self.entries.insert(id, entry);
    }

    /// A share of a resource's charge, which returns to the budget once all shares are dropped.
    #[cfg(feature = "virgl")]
    pub(crate) fn share_charge(&self, id: u32) -> Option<Arc<Charge>> {
        Some(self.entries.get(&id)?.charge.clone())
    }

    pub(crate) fn get(&self, id: u32) -> Result<&T, ResourceError> {
        let entry = self.entries.get(&id).ok_or(ResourceError::Unknown(id))?;
        Ok(&entry.resource)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Result<&mut T, ResourceError> {
        let entry = self.entries.get_mut(&id);
        let resource = entry.map(|entry| &mut entry.resource);
        resource.ok_or(ResourceError::Unknown(id))
    }

    /// The UUID of a resource. The first call assigns one.
    ///
    /// # Errors
    /// If there is no such resource, or the host has no random numbers.
    pub(crate) fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        let entry = self.entries.get_mut(&id);
        let assigned = &mut entry.ok_or(ResourceError::Unknown(id))?.uuid;
        if let Some(uuid) = *assigned {
            return Ok(uuid);
        }
        let uuid = random_uuid().map_err(|source| ResourceError::Uuid { id, source })?;
        Ok(*assigned.insert(uuid))
    }

    /// The UUID of a resource, if one was assigned.
    pub(crate) fn uuid(&self, id: u32) -> Result<Option<[u8; 16]>, ResourceError> {
        let entry = self.entries.get(&id).ok_or(ResourceError::Unknown(id))?;
        Ok(entry.uuid)
    }

    /// Gives a resource the UUID that a predecessor assigned.
    pub(crate) fn set_uuid(
        &mut self,
        id: u32,
        uuid: Option<[u8; 16]>,
    ) -> Result<(), ResourceError> {
        let entry = self.entries.get_mut(&id);
        entry.ok_or(ResourceError::Unknown(id))?.uuid = uuid;
        Ok(())
    }

    /// Calls `change` with each resource.
    #[cfg(feature = "virgl")]
    pub(crate) fn for_each_mut(&mut self, mut change: impl FnMut(&mut T)) {
        for entry in self.entries.values_mut() {
            change(&mut entry.resource);
        }
    }

    pub(crate) fn remove(&mut self, id: u32) -> Result<(), ResourceError> {
        let entry = self.entries.remove(&id);
        entry.map(drop).ok_or(ResourceError::Unknown(id))
    }

    /// Removes all resources, and returns them with their ids.
    #[cfg(feature = "virgl")]
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (u32, T)> {
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().map(|(id, entry)| (id, entry.resource))
    }

    /// Removes all resources, and returns their ids.
    pub(crate) fn clear(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.entries).into_keys().collect()
    }
}
