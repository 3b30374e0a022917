//! What changes something: jobs and the files of units.

use std::collections::HashMap;
use std::fmt;
use std::fs;

use futures_util::StreamExt as _;
use zbus::zvariant::OwnedObjectPath;
use zbus_systemd::systemd1::ServiceProxy;

use super::{CacheProperties, Error, Manager, answer, call};

/// What to do with units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Start,
    Stop,
}

impl Job {
    fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Stop => "StopUnit",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Start => "start a unit",
            Self::Stop => "stop a unit",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Stop => "stop",
        })
    }
}

/// A unit for which a job did not do what it should.
#[derive(Debug)]
pub struct Failure {
    /// The unit.
    pub unit: String,
    /// How it ended, in a few words.
    pub how: String,
}

impl Manager {
    /// Does that with all of these units at once, and waits until it is done. Units that could not be
    /// started come back; what systemd refuses to try is an error.
    pub async fn run(&self, job: Job, units: &[String]) -> Result<Vec<Failure>, Error> {
        const WHAT: &str = "be told of finished jobs";
        // First listen, then ask: a job may be over before its number is here.
        let mut removed = self.proxy.receive_job_removed().await.map_err(call(WHAT))?;
        // A second time on the same connection is refused, and not needed.
        answer(self.proxy.subscribe().await, WHAT)?;
        let mut jobs = HashMap::new();
        for unit in units {
            let asked: Result<OwnedObjectPath, _> = self
                .change(job.method(), &(unit.as_str(), "replace"), job.what())
                .await;
            match asked {
                Ok(path) => {
                    jobs.insert(path, unit.clone());
                }
                // What is not there does not run.
                Err(error) if job == Job::Stop && error.is_unknown_unit() => {}
                Err(error) => return Err(error.of_unit(job, unit)),
            }
        }
        let mut failures = Vec::new();
        while !jobs.is_empty() {
            let signal = removed
                .next()
                .await
                .ok_or(Error::Lost { what: job.what() })?;
            let ended = signal.args().map_err(call(WHAT))?;
            let Some(unit) = jobs.remove(&ended.job) else {
                continue;
            };
            if !matches!(ended.result.as_str(), "done" | "skipped") {
                let how = self.why(&unit, &ended.result).await;
                failures.push(Failure { unit, how });
            }
        }
        Ok(failures)
    }

    /// How a job ended, in words.
    async fn why(&self, unit: &str, result: &str) -> String {
        let known = match result {
            "failed" => self.own_words(unit).await,
            _ => None,
        };
        known.unwrap_or_else(|| match result {
            "timeout" => "it took too long".to_owned(),
            "canceled" => "another job came in between".to_owned(),
            "dependency" => "a unit that it needs does not start".to_owned(),
            other => format!("its job ended as '{other}'"),
        })
    }

    /// What the unit itself tells of its failure.
    async fn own_words(&self, unit: &str) -> Option<String> {
        let path = self.proxy.get_unit(unit.to_owned()).await.ok()?;
        let properties = self.properties_of(&path, "").await.ok()?;
        let text = |name: &str| {
            let value = properties.get(name)?.try_clone().ok()?;
            String::try_from(value).ok().filter(|text| !text.is_empty())
        };
        for (key, kind, file) in [
            ("SocketGroup", "group", "/etc/group"),
            ("SocketUser", "user", "/etc/passwd"),
        ] {
            let Some(name) = text(key) else { continue };
            if self.target.is_local() && is_missing(file, &name) {
                let template = unit.split_once('@').map_or(unit, |(template, _)| template);
                return Some(format!(
                    "it needs {kind} {name}, which does not exist. Make it, or have the socket belong to another one \
                     by {key}= (systemctl edit {template}@.socket)"
                ));
            }
        }
        match text("Result")?.as_str() {
            "success" => None,
            "service-start-limit-hit" | "trigger-limit-hit" => {
                Some("its service failed again and again".to_owned())
            }
            other => Some(format!("its result is '{other}'")),
        }
    }

    /// Has units started at boot, or no more. Says whether systemd took their [Install] section.
    pub async fn enable(&self, units: &[String]) -> Result<(), Error> {
        let _: (bool, Vec<(String, String, String)>) = self
            .change("EnableUnitFiles", &(units, false, false), "enable a unit")
            .await?;
        self.reload().await
    }

    /// Undoes [`enable`](Self::enable).
    pub async fn disable(&self, units: &[String]) -> Result<(), Error> {
        let _: Vec<(String, String, String)> = self
            .change("DisableUnitFiles", &(units, false), "disable a unit")
            .await?;
        self.reload().await
    }

    /// Whether a unit is started at boot.
    pub async fn is_enabled(&self, unit: &str) -> Result<bool, Error> {
        let state = self.proxy.get_unit_file_state(unit.to_owned()).await;
        let state = answer(state, "ask whether a unit is enabled")?;
        Ok(state.is_some_and(|state| state == "enabled"))
    }

    /// Makes systemd read its files again.
    pub async fn reload(&self) -> Result<(), Error> {
        self.change("Reload", &(), "reload systemd's units").await
    }

    /// Lets systemd forget that units failed, as far as it knows them.
    pub async fn reset_failed(&self, units: &[String]) -> Result<(), Error> {
        for unit in units {
            let reset: Result<(), _> = self
                .change("ResetFailedUnit", &(unit.as_str(),), "reset a unit")
                .await;
            match reset {
                Err(error) if !error.is_unknown_unit() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The program that a service runs.
    pub async fn program(&self, service: &str) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd for a service's program";
        let loaded = self.proxy.load_unit(service.to_owned()).await;
        let Some(path) = answer(loaded, WHAT)? else {
            return Ok(None);
        };
        let proxy = ServiceProxy::builder(&self.bus)
            .path(path)
            .map_err(call(WHAT))?
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(call(WHAT))?;
        let commands = answer(proxy.exec_start().await, WHAT)?.unwrap_or_default();
        Ok(commands.into_iter().next().map(|(path, ..)| path))
    }
}

/// Whether a file of users or groups is without this name. A name that a directory service knows is not in
/// the file; but then this is not what a unit failed for.
fn is_missing(file: &str, name: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| {
        !text
            .lines()
            .any(|line| line.split(':').next() == Some(name))
    })
}
