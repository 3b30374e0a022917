// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the verbs that change units have in common.

use conventions::printable;
use jiff::Timestamp;

use crate::backends::{self, Details};
use crate::exit;
use crate::instance::{Instance, UnitType};
use crate::journal;
use crate::output::Output;
use crate::selector::Selector;
use crate::systemd::{self, Enablement, Failure, Job, JobRunner, Manager, Target};

use crate::verbs::error::Error;

/// How many lines of the log explain a failure.
const LOG_LINES: u32 = 8;

/// Something that is done with the units of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Stop,
    Enable,
    Disable,
}

/// Changes the units of several backends. An error about one backend is kept, and the others go on:
/// [`finish`](Self::finish) returns the errors in the end.
pub(crate) struct UnitController<'a> {
    manager: Manager,
    output: &'a Output,
    failed: Vec<Error>,
}

impl<'a> UnitController<'a> {
    pub(crate) async fn connect(target: &Target, output: &'a Output) -> Result<Self, Error> {
        Ok(Self {
            manager: Manager::connect(target).await?,
            output,
            failed: Vec::new(),
        })
    }

    /// The service manager, for what is asked or done without regard to single backends.
    pub(crate) fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Enables and disables units.
    pub(crate) fn enablement(&self) -> Enablement<'_> {
        Enablement::new(&self.manager)
    }

    /// Starts and stops units.
    pub(crate) fn jobs(&self) -> JobRunner<'_> {
        JobRunner::new(&self.manager)
    }

    /// Everything about some backends.
    pub(crate) async fn details(&self, instances: &[Instance]) -> Result<Vec<Details>, Error> {
        Ok(backends::details(&self.manager, |one| instances.contains(one)).await?)
    }

    /// The selected backends. A selector that matches none is an error that is kept.
    pub(crate) async fn select(&mut self, selectors: &[Selector]) -> Result<Vec<Instance>, Error> {
        let mut all = backends::names(&self.manager).await?;
        for selector in selectors {
            if !all.iter().any(|instance| selector.matches(instance)) {
                self.failed.push(Error::NoSuchBackend {
                    selector: selector.to_string(),
                    exit_code: exit::NOT_FOUND,
                });
            }
        }
        all.retain(|instance| selectors.iter().any(|selector| selector.matches(instance)));
        Ok(all)
    }

    /// Does that with all of them; returns those with which it succeeded.
    pub(crate) async fn apply(
        &mut self,
        step: Step,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        match step {
            Step::Start => self.start(instances).await,
            Step::Stop => self.stop(instances).await,
            Step::Enable | Step::Disable => self.set_enabled(step, instances).await,
        }
    }

    /// The units of some backends: the sockets for a console only where there are some.
    pub(crate) async fn units(&self, instances: &[Instance]) -> Result<Vec<BackendUnits>, Error> {
        let details = self.details(instances).await?;
        let known = |instance: &Instance| {
            let mut all = details.iter();
            all.find(|details| details.backend.instance == *instance)
        };
        let units = instances.iter().map(|instance| BackendUnits {
            instance: instance.clone(),
            console: known(instance)
                .and_then(|details| details.console.as_ref())
                .map(|console| console.unit.clone()),
        });
        Ok(units.collect())
    }

    /// Starts the sockets. The failures of a failed socket are reset first: a start limit that it reached would
    /// otherwise refuse the next VMM although the cause is gone.
    async fn start(&mut self, mut instances: Vec<Instance>) -> Result<Vec<Instance>, Error> {
        let mut sockets = Vec::new();
        for details in self.details(&instances).await? {
            let backend = &details.backend;
            let console = details.console.as_ref();
            let console_failed =
                console.is_some_and(|console| console.state.as_deref() == Some("failed"));
            if console_failed || backend.socket_state.as_deref() == Some("failed") {
                let units = [&backend.socket_unit, &backend.service_unit];
                let units = units.into_iter().chain(console.map(|it| &it.unit));
                let units: Vec<_> = units.cloned().collect();
                self.jobs().reset_failed(&units).await?;
            }
            if let Some(console) = console {
                if details.runs_without_console() {
                    self.failed.push(Error::NoConsoleSocket {
                        instance: backend.instance.to_string(),
                        unit: console.unit.clone(),
                    });
                    instances.retain(|instance| *instance != backend.instance);
                } else {
                    sockets.push(console.unit.clone());
                }
            }
            sockets.push(backend.socket_unit.clone());
        }
        // Those that systemd does not know yet.
        for instance in &instances {
            let socket = instance.unit(UnitType::Socket);
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
        self.run(Job::Start, &sockets, instances).await
    }

    /// Stops sockets and services, also those that are connected.
    async fn stop(&mut self, instances: Vec<Instance>) -> Result<Vec<Instance>, Error> {
        let units = self.units(&instances).await?;
        let units: Vec<_> = units.iter().flat_map(BackendUnits::all).collect();
        self.run(Job::Stop, &units, instances).await
    }

    /// Stops the sockets alone, where no front-end is connected.
    pub(crate) async fn stop_sockets(
        &mut self,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let sockets = units(&instances, UnitType::Socket);
        self.run(Job::Stop, &sockets, instances).await
    }

    /// Starts the socket of one backend again, when a change is undone: its failures are nobody's concern.
    pub(crate) async fn restore_socket(&self, socket: &str) -> Result<(), Error> {
        self.jobs().run(Job::Start, &[socket.to_owned()]).await?;
        Ok(())
    }

    async fn set_enabled(
        &mut self,
        step: Step,
        instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let mut done = Vec::new();
        let mut any_is_new = false;
        for units in self.units(&instances).await? {
            let mut is_new = false;
            let changed = match step {
                Step::Enable => self.enable_all(&units, &mut is_new).await,
                _ => self.disable_all(&units, &mut is_new).await,
            };
            any_is_new |= is_new;
            if self.keep(changed)?.is_none() {
                continue;
            }
            let instance = units.instance;
            self.output.hint(&match (step, is_new) {
                (Step::Enable, true) => format!("Enabled {instance}: its socket starts at boot."),
                (Step::Enable, false) => format!("{instance} was already enabled."),
                (_, true) => format!("Disabled {instance}: its socket does not start at boot."),
                (_, false) => format!("{instance} was not enabled."),
            });
            done.push(instance);
        }
        // Without a change there is nothing to read again, nor to ask a permission for.
        if any_is_new {
            self.manager().reload().await?;
        }
        Ok(done)
    }

    /// Enables the sockets of a backend, and sets `is_new` once that changed anything, also if a later one fails.
    async fn enable_all(
        &self,
        units: &BackendUnits,
        is_new: &mut bool,
    ) -> Result<(), systemd::Error> {
        for socket in units.sockets() {
            *is_new |= self.enablement().enable(&socket).await?;
        }
        Ok(())
    }

    /// Disables the sockets of a backend, and sets `is_new` as [`UnitController::enable_all`] does.
    pub(crate) async fn disable_all(
        &self,
        units: &BackendUnits,
        is_new: &mut bool,
    ) -> Result<(), systemd::Error> {
        for socket in units.sockets() {
            *is_new |= self.enablement().disable(&socket).await?;
        }
        Ok(())
    }

    /// Keeps an error about one backend, and returns any other.
    pub(crate) fn keep<T, E: Into<Error>>(
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

    /// Returns the errors that were kept.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        Error::several(std::mem::take(&mut self.failed))
    }

    async fn run(
        &mut self,
        job: Job,
        units: &[String],
        mut instances: Vec<Instance>,
    ) -> Result<Vec<Instance>, Error> {
        let begin = Timestamp::now();
        for Failure { unit, error } in self.jobs().run(job, units).await? {
            let failed = Instance::from_unit(&unit);
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

    /// The log of a unit since then, as far as the caller may read it here.
    fn log(&self, unit: &str, since: Timestamp) -> Vec<String> {
        if !self.manager.is_local() {
            return Vec::new();
        }
        // The service's too: it may be the cause of the socket's failure.
        let service = Instance::from_unit(unit).map(|instance| instance.unit(UnitType::Service));
        let mut units = vec![unit.to_owned()];
        units.extend(service.filter(|service| service != unit));
        journal::sync();
        let entries = journal::last(&units, LOG_LINES).unwrap_or_default();
        entries
            .into_iter()
            .filter(|entry| entry.time >= since)
            .map(|entry| format!("  {}", printable(&entry.message)))
            .collect()
    }
}

/// The units that a backend has.
#[derive(Clone, Debug)]
pub(crate) struct BackendUnits {
    pub instance: Instance,
    /// The socket for a console.
    console: Option<String>,
}

impl BackendUnits {
    /// The sockets.
    pub(crate) fn sockets(&self) -> Vec<String> {
        let socket = self.instance.unit(UnitType::Socket);
        [socket].into_iter().chain(self.console.clone()).collect()
    }

    /// All units.
    pub(crate) fn all(&self) -> Vec<String> {
        let service = self.instance.unit(UnitType::Service);
        self.sockets().into_iter().chain([service]).collect()
    }
}

/// The names of the units of one type.
pub(crate) fn units(instances: &[Instance], unit_type: UnitType) -> Vec<String> {
    instances
        .iter()
        .map(|instance| instance.unit(unit_type))
        .collect()
}
