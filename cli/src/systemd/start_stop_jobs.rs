// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting, stopping and restarting units over D-Bus, by jobs of systemd.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use zbus::zvariant::OwnedObjectPath;

use super::error::{Error, during, unless_refused};
use super::manager::Manager;
use crate::accounts;
use crate::instance::{Instance, UnitType};

/// What to do with units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Start,
    Stop,
    /// Ends the program of a service that runs and starts it again; does nothing if it does not run.
    Restart,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Stop => "StopUnit",
            Self::Restart => "TryRestartUnit",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Start => "start a unit",
            Self::Stop => "stop a unit",
            Self::Restart => "restart a unit",
        }
    }
}

/// A unit with which something went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    pub unit: String,
    /// An error about this unit only.
    pub error: Error,
}

/// Runs jobs of a service manager.
pub(crate) struct JobRunner<'a> {
    manager: &'a Manager,
}

impl<'a> JobRunner<'a> {
    pub(crate) fn new(manager: &'a Manager) -> Self {
        Self { manager }
    }

    /// Runs a job for each of these units at once, and waits for all of them. Returns the units that failed; the
    /// others are done.
    pub(crate) async fn run(&self, job: Job, units: &[String]) -> Result<Vec<Failure>, Error> {
        const WHAT: &str = "be told of finished jobs";
        let word = job.word();
        // First listen, then ask: a job may end before its number arrives.
        let mut removed = self
            .manager
            .proxy()
            .receive_job_removed()
            .await
            .map_err(during(WHAT))?;
        // A second time on the same connection is refused, and not needed.
        unless_refused(self.manager.proxy().subscribe().await, WHAT)?;
        let mut jobs = HashMap::new();
        let mut failures = Vec::new();
        for unit in units {
            let asked: Result<OwnedObjectPath, _> = self
                .manager
                .call_privileged(job.method(), &(unit.as_str(), "replace"), job.what())
                .await;
            match asked {
                Ok(path) => {
                    jobs.insert(path, unit.clone());
                }
                // A unit that does not exist does not run.
                Err(error) if job == Job::Stop && error.is_unknown_unit() => {}
                Err(error) => {
                    let error = self.manager.refused(word, unit, error).await;
                    if !error.is_of_unit() {
                        return Err(error);
                    }
                    let unit = unit.clone();
                    failures.push(Failure { unit, error });
                }
            }
        }
        while !jobs.is_empty() {
            let signal = removed
                .next()
                .await
                .ok_or(Error::Lost { what: job.what() })?;
            let ended = signal.args().map_err(during(WHAT))?;
            let Some(unit) = jobs.remove(&ended.job) else {
                continue;
            };
            if !matches!(ended.result.as_str(), "done" | "skipped") {
                let error = self.job_error(word, &unit, &ended.result).await;
                failures.push(Failure { unit, error });
            }
        }
        Ok(failures)
    }

    /// Resets the failed state of units; unknown units are ignored.
    pub(crate) async fn reset_failed(&self, units: &[String]) -> Result<(), Error> {
        for unit in units {
            let reset: Result<(), _> = self
                .manager
                .call_privileged("ResetFailedUnit", &(unit.as_str(),), "reset a unit")
                .await;
            match reset {
                Err(error) if !error.is_unknown_unit() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The error for a job that failed.
    async fn job_error(&self, what: &'static str, unit: &str, result: &str) -> Error {
        if result == "failed" {
            let service = Instance::from_unit(unit).map(|one| one.unit(UnitType::Service));
            let masked = match service.filter(|service| service != unit) {
                Some(service) => self.manager.mask(&service).await.map(|_| service),
                None => None,
            };
            if let Some(service) = masked {
                return self.manager.masked(what, unit, &service).await;
            }
        }
        let how = self.why(unit, result).await;
        let unit = unit.to_owned();
        Error::Job { what, unit, how }
    }

    /// How a job ended, in words.
    async fn why(&self, unit: &str, result: &str) -> String {
        let known = match result {
            "failed" => self.unit_failure(unit).await,
            _ => None,
        };
        known.unwrap_or_else(|| match result {
            "timeout" => "it took too long".to_owned(),
            "canceled" => "another job replaced it".to_owned(),
            "dependency" => "a unit that it requires failed to start".to_owned(),
            other => format!("its job ended as '{other}'"),
        })
    }

    /// Why the unit itself says that it failed.
    async fn unit_failure(&self, unit: &str) -> Option<String> {
        let properties = self.manager.loaded_properties(unit).await?;
        if self.manager.is_local() {
            let user = properties.text("SocketUser");
            let group = properties.text("SocketGroup");
            let missing = [
                (
                    group,
                    "SocketGroup",
                    "group",
                    accounts::is_missing_group as fn(&str) -> bool,
                ),
                (user, "SocketUser", "user", accounts::is_missing_user),
            ];
            for (name, key, kind, is_missing) in missing {
                if let Some(name) = name.filter(|name| is_missing(name)) {
                    let template = unit.split_once('@').map_or(unit, |(template, _)| template);
                    return Some(format!(
                        "it needs {kind} {name}, which does not exist. Create it, or set another one by {key}= \
                         (systemctl edit {template}@.socket)"
                    ));
                }
            }
        }
        match properties.text("Result")?.as_str() {
            "success" => None,
            "service-start-limit-hit" | "trigger-limit-hit" => {
                Some("its service failed too often".to_owned())
            }
            other => Some(format!("its result is '{other}'")),
        }
    }
}
