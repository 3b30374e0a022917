// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a predecessor's state is refused.

use crate::backend::continuity::ValueError;

/// Why a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("its id is out of bounds")]
    Id,
    #[error("its {0} is out of bounds")]
    Field(&'static str),
}

/// Why a predecessor's state is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptStateError {
    #[error("the kept {name} {id} cannot be used: {source}")]
    Record {
        /// What it is of.
        name: &'static str,
        /// Its id.
        id: u64,
        source: RecordError,
    },
    /// The device would refuse it to a guest, too.
    #[error("the kept {name} {id} cannot be used: {source}")]
    Refused {
        /// What it is of.
        name: &'static str,
        /// Its id.
        id: u64,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
