// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Units that are masked: a link to /dev/null in place of their file.

/// What masks a unit: a link to /dev/null in place of a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    /// The unit that is masked.
    pub unit: String,
    /// The name of the link: that of the unit, or of its template.
    pub file: String,
    /// Whether it is one until the next boot.
    pub runtime: bool,
}

impl Mask {
    pub(super) fn why(&self, unit: &str) -> String {
        let Self {
            unit: masked,
            file,
            runtime,
        } = self;
        let who = if masked == unit { "it" } else { masked };
        let option = if *runtime { "--runtime " } else { "" };
        format!("{who} is masked. To unmask it: systemctl unmask {option}{file}")
    }
}
