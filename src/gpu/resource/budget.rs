// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host memory that one VM's resources may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limit on the host memory of one VM's resources. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: Arc<AtomicU64>,
}

/// A part of a [`Budget`] in use, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Arc::default(),
        }
    }

    /// Takes `bytes` until the charge is dropped; `None` if fewer are left.
    pub(crate) fn charge(&self, bytes: u64) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        Some(Charge {
            used: self.used.clone(),
            bytes,
        })
    }

    /// The limit in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// Bytes of the charge.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the charge to `bytes`. `false`, without a change, if `budget`, from which it was
    /// taken, has too few left.
    pub(crate) fn resize(&mut self, budget: &Budget, bytes: u64) -> bool {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let Some(mut more) = budget.charge(more) else {
                return false;
            };
            more.bytes = 0;
        } else {
            let less = self.bytes.saturating_sub(bytes);
            self.used.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_charges_return_to_the_budget() {
        let budget = Budget::new(100);
        let first = budget.charge(60).unwrap();
        assert!(budget.charge(41).is_none());
        assert!(budget.charge(u64::MAX).is_none());
        let second = budget.charge(40).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn charges_grow_and_shrink() {
        let budget = Budget::new(100);
        let mut charge = budget.charge(10).unwrap();
        assert!(charge.resize(&budget, 90));
        assert!(!charge.resize(&budget, 101));
        assert!(!charge.resize(&budget, u64::MAX));
        assert_eq!(budget.used(), 90);
        assert!(charge.resize(&budget, 30));
        assert_eq!(budget.used(), 30);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }
}
