// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is asked of a backend.

use std::fmt;

use conventions::DeviceType;
use frontend::VhostUserProtocolFeatures as Protocol;

use crate::outcome::Seen;
use crate::trial::Trial;

/// How much a point matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The specification demands it, or a front-end breaks without it.
    Required,
    /// The specification recommends it, or careful management relies on it.
    Recommended,
    /// An addition that a backend may offer; checked where it is offered.
    Extra,
}

impl Level {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Recommended => "recommended",
            Self::Extra => "extra",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is asked of a backend.
pub struct Point {
    /// The stable name, `GROUP/NAME`.
    pub name: &'static str,
    /// What is asked, in a sentence.
    pub asks: &'static str,
    /// Which document and section asks it.
    pub section: &'static str,
    /// How much it matters.
    pub level: Level,
    /// The types of device it is about; none for all.
    pub types: &'static [DeviceType],
    /// The protocol features that it is about: tried only where the backend offers all of them.
    pub protocol_features: Protocol,
    pub(crate) run: fn(&Trial) -> Seen,
}

impl Point {
    const fn new(
        level: Level,
        name: &'static str,
        section: &'static str,
        asks: &'static str,
        run: fn(&Trial) -> Seen,
    ) -> Self {
        Self {
            name,
            asks,
            section,
            level,
            types: &[],
            protocol_features: Protocol::empty(),
            run,
        }
    }

    pub(crate) const fn required(
        name: &'static str,
        section: &'static str,
        asks: &'static str,
        run: fn(&Trial) -> Seen,
    ) -> Self {
        Self::new(Level::Required, name, section, asks, run)
    }

    pub(crate) const fn recommended(
        name: &'static str,
        section: &'static str,
        asks: &'static str,
        run: fn(&Trial) -> Seen,
    ) -> Self {
        Self::new(Level::Recommended, name, section, asks, run)
    }

    pub(crate) const fn extra(
        name: &'static str,
        section: &'static str,
        asks: &'static str,
        run: fn(&Trial) -> Seen,
    ) -> Self {
        Self::new(Level::Extra, name, section, asks, run)
    }

    pub(crate) const fn of(self, types: &'static [DeviceType]) -> Self {
        Self { types, ..self }
    }

    pub(crate) const fn offering(self, protocol_features: Protocol) -> Self {
        Self {
            protocol_features,
            ..self
        }
    }

    /// The group, what stands before the `/`.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.name
            .split_once('/')
            .map_or(self.name, |(group, _)| group)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Point").field(&self.name).finish()
    }
}
