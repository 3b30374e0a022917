// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a test has the process die: before a change of what outlives it, or after.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The panic's value.
#[cfg(test)]
pub(crate) struct Died;

/// This thread dies at the point number `points` from now on, counted from 0; `None` for no death. Returns how many
/// points were left.
#[cfg(test)]
pub(crate) fn dies_after(points: Option<u64>) -> Option<u64> {
    LEFT.replace(points)
}

/// A place where the process may die.
#[cfg(test)]
pub(crate) fn point() {
    if std::thread::panicking() {
        return;
    }
    match LEFT.get() {
        None => {}
        Some(0) => {
            LEFT.set(None);
            std::panic::resume_unwind(Box::new(Died));
        }
        Some(left) => LEFT.set(Some(left - 1)),
    }
}

/// Nothing outside of unit tests.
#[cfg(not(test))]
#[inline]
pub(crate) fn point() {}
