//! The resources of a renderer by the driver's ids, whatever it keeps of each.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::image::{Budget, Charge, ImageError};
use super::ResourceError;

struct Entry<T> {
    kept: T,
    uuid: Option<[u8; 16]>,
    charge: Arc<Charge>,
}

/// A bounded table of resources, which take their memory from one budget.
pub(super) struct Table<T> {
    entries: HashMap<u32, Entry<T>>,
    most: usize,
    pub(super) budget: Budget,
}

impl<T> Table<T> {
    /// A table of at most `most` resources.
    pub(super) fn new(most: usize, budget: Budget) -> Self {
        Self {
            entries: HashMap::new(),
            most,
            budget,
        }
    }

    /// Whether a resource `id` can be made now.
    pub(super) fn wants(&self, id: u32) -> Result<(), ResourceError> {
        match id {
            0 => Err(ResourceError::Zero),
            _ if self.entries.contains_key(&id) => Err(ResourceError::Exists(id)),
            _ if self.entries.len() >= self.most => Err(ResourceError::TooMany(self.most)),
            _ => Ok(()),
        }
    }

    /// Takes `bytes` for the resource `id` out of the budget.
    pub(super) fn charge(&self, id: u32, bytes: u64) -> Result<Charge, ResourceError> {
        let error = ImageError::Budget(bytes);
        let charge = self.budget.charge(bytes);
        charge.ok_or(ResourceError::Image { id, error })
    }

    /// Keeps a new resource, which [`Table::wants`] found to be one.
    pub(super) fn insert(&mut self, id: u32, charge: Charge, kept: T) {
        let entry = Entry {
            kept,
            uuid: None,
            charge: Arc::new(charge),
        };
        self.entries.insert(id, entry);
    }

    /// A part in a resource's charge, which is not given back before all of them are dropped.
    #[cfg(feature = "virgl")]
    pub(super) fn hold(&self, id: u32) -> Option<Arc<Charge>> {
        Some(self.entries.get(&id)?.charge.clone())
    }

    pub(super) fn get(&self, id: u32) -> Result<&T, ResourceError> {
        let entry = self.entries.get(&id).ok_or(ResourceError::Unknown(id))?;
        Ok(&entry.kept)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Result<&mut T, ResourceError> {
        let entry = self.entries.get_mut(&id);
        let kept = entry.map(|entry| &mut entry.kept);
        kept.ok_or(ResourceError::Unknown(id))
    }

    pub(super) fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError> {
        let entry = self.entries.get_mut(&id);
        let uuid = entry.map(|entry| &mut entry.uuid);
        uuid.ok_or(ResourceError::Unknown(id))
    }

    pub(super) fn remove(&mut self, id: u32) -> Result<(), ResourceError> {
        let entry = self.entries.remove(&id);
        entry.map(drop).ok_or(ResourceError::Unknown(id))
    }

    /// Removes all of them, and gives their ids.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.entries).into_keys().collect()
    }
}
