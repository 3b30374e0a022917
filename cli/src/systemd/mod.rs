//! The service manager, over D-Bus. Nothing outside of this folder knows D-Bus, and nothing in it reads files of
//! units or devices: `backends` puts both together.

mod connection;
mod error;
mod jobs;
mod manager;
mod mask;
mod properties;
mod remote_host;
mod state;
mod unit_files;
mod units;
mod watch;

pub(crate) use connection::Target;
pub(crate) use error::Error;
pub(crate) use jobs::{Failure, Job, JobRunner};
pub(crate) use manager::Manager;
pub(crate) use properties::Properties;
pub(crate) use state::BackendState;
pub(crate) use unit_files::UnitFiles;
pub(crate) use units::LoadedUnits;
pub(crate) use watch::{Change, Watch};
