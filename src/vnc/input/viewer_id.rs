// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of viewers.

/// A viewer, as long as it is connected. The server chooses the number, and uses none twice at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewerId(pub u64);
