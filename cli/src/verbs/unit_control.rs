//! What the verbs that change units have in common.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use crate::instance::{Instance, UnitType};
use crate::journal;
use crate::output::{Output, printable};
use crate::selector::Selector;
use crate::systemd::{Failure, Job, Manager, Target};

use super::Error;

/// How many lines of the log explain a failure.
const LINES: u32 = 8;

/// Held while settings are looked at and changed. Not a file of theirs, which all may read, and so lock.
const LOCK: &str = "/run/vhostctl.lock";

/// Waits until no other vhostctl looks at what there is to change it: two that give a device to two VMs
/// would else both find it free. `None` for who may change nothing anyway, and is told so later.
pub(super) fn lock() -> Result<Option<File>, Error> {
    let options = OpenOptions::new()
        .create(true)
        .write(true)
        .mode(0o600)
        .clone();
    let locked = options.open(LOCK).and_then(|file| {
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    match locked {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::file("lock", Path::new(LOCK), error)),
    }
}

/// The way to systemd for a verb that changes something. What goes wrong with one backend is kept, and the
/// others are gone on with: [`finish`](Self::finish) tells in the end.
pub(super) struct UnitController<'a> {
    pub manager: Manager,
    target: &'a Target,
    output: &'a Output,
    failed: Vec<Error>,
}

impl<'a> UnitController<'a> {
    pub(super) async fn connect(target: &'a Target, output: &'a Output) -> Result<Self, Error> {
        Ok(Self {
            manager: Manager::connect(target).await?,
            target,
            output,
            failed: Vec::new(),
        })
    }

    /// The backends that are meant. A selector that means none is a failure.
    pub(super) async fn select(&mut self, selectors: &[Selector]) -> Result<Vec<Instance>, Error> {
        let mut all = self.manager.names().await?;
        for selector in selectors {
            if !all.iter().any(|instance| selector.matches(instance)) {
                self.failed.push(Error::Unknown {
                    selector: selector.to_string(),
                });
            }
        }
        all.retain(|instance| selectors.iter().any(|selector| selector.matches(instance)));
        Ok(all)
    }

    /// Lets them listen; those that do come back. Where a socket has failed, its starts are counted anew:
    /// a limit that was hit before would refuse the next VMM, although what was amiss is mended.
    pub(super) async fn start(&mut self, instances: Vec<Instance>) -> Result<Vec<Instance>, Error> {
        let sockets = units(&instances, UnitType::Socket);
        for details in self.manager.details(|one| instances.contains(one)).await? {
            let backend = details.backend;
            if backend.socket_state.as_deref() == Some("failed") {
                let units = [backend.socket_unit, backend.service_unit];
                self.manager.reset_failed(&units).await?;
            }
        }
        self.run(Job::Start, &sockets, instances).await
    }

    /// Stops them, the connected ones too; those that are stopped come back.
    pub(super) async fn stop(&mut self, instances: Vec<Instance>) -> Result<Vec<Instance>, Error> {
        let mut all = units(&instances, UnitType::Socket);
        all.extend(units(&instances, UnitType::Service));
        self.run(Job::Stop, &all, instances).await
    }

    /// Stops the sockets alone, where nobody is connected; those that are stopped come back.
    pub(super) async fn stop_sockets(
        &mut self,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let sockets = units(&instances, UnitType::Socket);
        self.run(Job::Stop, &sockets, instances).await
    }

    /// Has them start at boot.
    pub(super) async fn enable(
        &mut self,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let mut done = Vec::new();
        for instance in instances {
            let enabled = self.manager.enable(&instance.unit(UnitType::Socket)).await;
            let Some(is_new) = self.keep(enabled)? else {
                continue;
            };
            self.output.hint(&match is_new {
                true => format!("Enabled {instance}: its socket starts at boot."),
                false => format!("{instance} was already enabled."),
            });
            done.push(instance);
        }
        self.manager.reload().await?;
        Ok(done)
    }

    /// Has them not start at boot.
    pub(super) async fn disable(
        &mut self,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let mut done = Vec::new();
        for instance in instances {
            let disabled = self.manager.disable(&instance.unit(UnitType::Socket)).await;
            let Some(is_new) = self.keep(disabled)? else {
                continue;
            };
            self.output.hint(&match is_new {
                true => format!("Disabled {instance}: its socket does not start at boot."),
                false => format!("{instance} was not enabled."),
            });
            done.push(instance);
        }
        self.manager.reload().await?;
        Ok(done)
    }

    /// Keeps an error that is about one backend only; others end the verb.
    pub(super) fn keep<T, E: Into<Error>>(
        &mut self,
        result: Result<T, E>,
    ) -> Result<Option<T>, Error> {
        match result.map_err(Into::into) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_of_one() => {
                self.failed.push(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What went wrong, if something did.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let mut failed = std::mem::take(&mut self.failed);
        match failed.len() {
            0 => Ok(()),
            1 => Err(failed.remove(0)),
            _ => Err(Error::Several(failed)),
        }
    }

    async fn run(
        &mut self,
        job: Job,
        units: &[String],
        mut instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let begin = Timestamp::now();
        for Failure { unit, error } in self.manager.run(job, units).await? {
            let failed = Instance::from_unit(&unit).map(|(instance, _)| instance);
            instances.retain(|instance| Some(instance) != failed.as_ref());
            let log = match error.logged() {
                Some(unit) => self.log(unit, begin),
                None => Vec::new(),
            };
            self.failed.push(match log.is_empty() {
                true => error.into(),
                false => Error::Logged { error, log },
            });
        }
        Ok(instances)
    }

    /// What was logged of a unit since then, as far as the caller may read it here.
    fn log(&self, unit: &str, since: Timestamp) -> Vec<String> {
        if !self.target.is_local() {
            return Vec::new();
        }
        // The service's too: it may be what the socket's failure is about.
        let service = unit.replace(".socket", ".service");
        let mut units = vec![unit.to_owned()];
        if service != unit {
            units.push(service);
        }
        journal::sync();
        let entries = journal::last(&units, LINES).unwrap_or_default();
        entries
            .into_iter()
            .filter(|entry| entry.time >= since)
            .map(|entry| format!("  {}", printable(&entry.message)))
            .collect()
    }
}

/// The names of one half of each.
pub(super) fn units(instances: &[Instance], unit_type: UnitType) -> Vec<String> {
    instances
        .iter()
        .map(|instance| instance.unit(unit_type))
        .collect()
}
