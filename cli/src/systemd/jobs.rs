//! What changes something: jobs and the files of units.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use zbus::zvariant::OwnedObjectPath;

use super::error::Mask;
use super::{Error, Manager, answer, call, text};

/// What to do with units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
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

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Start => "start a unit",
            Self::Stop => "stop a unit",
        }
    }
}

/// What systemd did to the files of a unit: the type of the change, a link and what it leads to.
type FileChange = (String, String, String);

/// A unit with which something went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The unit.
    pub unit: String,
    /// What went wrong; of this unit only.
    pub error: Error,
}

impl Manager {
    /// Does that with all of these units at once, and waits until it is done. What goes wrong with a unit
    /// comes back, and keeps none of the others from it.
    pub(crate) async fn run(&self, job: Job, units: &[String]) -> Result<Vec<Failure>, Error> {
        const WHAT: &str = "be told of finished jobs";
        let word = job.word();
        // First listen, then ask: a job may be over before its number is here.
        let mut removed = self.proxy.receive_job_removed().await.map_err(call(WHAT))?;
        // A second time on the same connection is refused, and not needed.
        answer(self.proxy.subscribe().await, WHAT)?;
        let mut jobs = HashMap::new();
        let mut failures = Vec::new();
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
                Err(error) => {
                    let error = self.refused(word, unit, error).await;
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
            let ended = signal.args().map_err(call(WHAT))?;
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

    /// What systemd refused to do, as an error about the unit that it was asked to do it with.
    async fn refused(&self, what: &'static str, unit: &str, error: Error) -> Error {
        if error.is_masked() {
            let masked = error.masked_unit().unwrap_or(unit);
            self.masked(what, unit, masked).await
        } else {
            error.of_unit(what, unit)
        }
    }

    /// The error for a unit that cannot be used as this one is masked.
    async fn masked(&self, what: &'static str, unit: &str, masked: &str) -> Error {
        let mask = match self.mask(masked).await {
            Some(mask) => mask,
            None => Mask {
                unit: masked.to_owned(),
                file: masked.to_owned(),
                runtime: false,
            },
        };
        let unit = unit.to_owned();
        Error::Masked { what, unit, mask }
    }

    /// What masks a unit, if it is masked.
    async fn mask(&self, unit: &str) -> Option<Mask> {
        let path = self.proxy.load_unit(unit.to_owned()).await.ok()?;
        let properties = self.properties_of(&path, "").await.ok()?;
        if text(&properties, "LoadState")? != "masked" {
            return None;
        }
        let link = PathBuf::from(text(&properties, "FragmentPath")?);
        Some(Mask {
            unit: unit.to_owned(),
            file: link.file_name()?.to_str()?.to_owned(),
            runtime: link.starts_with("/run"),
        })
    }

    /// Fails if one of these units is masked.
    pub(crate) async fn check_unmasked(
        &self,
        what: &'static str,
        units: &[String],
    ) -> Result<(), Error> {
        for unit in units {
            if let Some(mask) = self.mask(unit).await {
                let unit = unit.clone();
                return Err(Error::Masked { what, unit, mask });
            }
        }
        Ok(())
    }

    /// The error for a job that did not do what it should.
    async fn job_error(&self, what: &'static str, unit: &str, result: &str) -> Error {
        if result == "failed" {
            let service = unit.replace(".socket", ".service");
            if service != unit && self.mask(&service).await.is_some() {
                return self.masked(what, unit, &service).await;
            }
        }
        let how = self.why(unit, result).await;
        let unit = unit.to_owned();
        Error::Job { what, unit, how }
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
        let text = |name: &str| text(&properties, name);
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

    /// Has a unit started at boot; says whether that is new. systemd has to read its files again then.
    pub(crate) async fn enable(&self, unit: &str) -> Result<bool, Error> {
        let asked = self
            .change(
                "EnableUnitFiles",
                &(&[unit][..], false, false),
                "enable a unit",
            )
            .await;
        let (_, changes): (bool, Vec<FileChange>) = match asked {
            Ok(answer) => answer,
            Err(error) => return Err(self.refused("enable", unit, error).await),
        };
        Ok(!changes.is_empty())
    }

    /// Undoes [`enable`](Self::enable), likewise.
    pub(crate) async fn disable(&self, unit: &str) -> Result<bool, Error> {
        let asked = self
            .change("DisableUnitFiles", &(&[unit][..], false), "disable a unit")
            .await;
        let changes: Vec<FileChange> = match asked {
            Ok(changes) => changes,
            Err(error) => return Err(self.refused("disable", unit, error).await),
        };
        // No error to systemd, which has done nothing then.
        if changes.iter().any(|(change, ..)| change == "masked") {
            return Err(self.masked("disable", unit, unit).await);
        }
        Ok(!changes.is_empty())
    }

    /// Whether a unit is started at boot.
    pub(crate) async fn is_enabled(&self, unit: &str) -> Result<bool, Error> {
        let state = self.proxy.get_unit_file_state(unit.to_owned()).await;
        let state = answer(state, "ask whether a unit is enabled")?;
        Ok(state.is_some_and(|state| state == "enabled"))
    }

    /// Makes systemd read its files again.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        self.change("Reload", &(), "reload systemd's units").await
    }

    /// Lets systemd forget that units failed, as far as it knows them.
    pub(crate) async fn reset_failed(&self, units: &[String]) -> Result<(), Error> {
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
    pub(crate) async fn program(&self, service: &str) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd for a service's program";
        let loaded = self.proxy.load_unit(service.to_owned()).await;
        let Some(path) = answer(loaded, WHAT)? else {
            return Ok(None);
        };
        let proxy = self.service(path, WHAT).await?;
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
