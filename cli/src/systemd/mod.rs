// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service manager, over D-Bus. Nothing outside of this folder knows D-Bus, and nothing in it reads files of
//! units or devices: `backends` puts both together.

mod connection;
mod direct_bus;
mod enablement;
mod error;
mod loaded_units;
mod manager;
mod mask;
mod properties;
mod queries;
mod signals;
mod start_stop_jobs;
mod state;
mod watch;

pub(crate) use connection::Target;
pub(crate) use enablement::Enablement;
pub(crate) use error::Error;
pub(crate) use loaded_units::LoadedUnits;
pub(crate) use manager::Manager;
pub(crate) use properties::Properties;
pub(crate) use queries::{Queries, ask};
pub(crate) use signals::UnitSignals;
pub(crate) use start_stop_jobs::{Failure, Job, JobRunner};
pub(crate) use state::BackendState;
pub(crate) use watch::{Change, UnitWatch};
