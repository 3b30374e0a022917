//! What the verbs that change units have in common.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use crate::instance::{Half, Instance};
use crate::journal;
use crate::output::{Output, printable};
use crate::selector::Selector;
use crate::systemd::{self, Job, Manager, Target};

use super::Error;

/// How many lines of the log explain a failure.
const LINES: u32 = 8;

/// Held while settings are looked at and changed. Not a file of theirs, which all may read, and so lock.
const LOCK: &str = "/run/vhostctl.lock";

/// Waits until no other vhostctl looks at what there is to change it: two that give a device to two VMs
/// would else both find it free. `None` for who may change nothing anyway, and is told so later.
pub fn lock() -> Result<Option<File>, Error> {
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

/// The way to systemd for a verb that changes something.
pub struct Changes<'a> {
    pub manager: Manager,
    target: &'a Target,
    output: &'a Output,
}

impl<'a> Changes<'a> {
    pub async fn connect(target: &'a Target, output: &'a Output) -> Result<Self, Error> {
        Ok(Self {
            manager: Manager::connect(target).await?,
            target,
            output,
        })
    }

    /// The backends that are meant; each of the selectors has to mean one.
    pub async fn select(&self, selectors: &[Selector]) -> Result<Vec<Instance>, Error> {
        let mut all = self.manager.names().await?;
        for selector in selectors {
            if !all.iter().any(|instance| selector.matches(instance)) {
                return Err(Error::Unknown {
                    selector: selector.to_string(),
                });
            }
        }
        all.retain(|instance| selectors.iter().any(|selector| selector.matches(instance)));
        Ok(all)
    }

    /// Lets them listen.
    pub async fn start(&self, instances: &[Instance]) -> Result<(), Error> {
        self.run(Job::Start, &units(instances, Half::Socket)).await
    }

    /// Stops them, the connected ones too.
    pub async fn stop(&self, instances: &[Instance]) -> Result<(), Error> {
        let mut all = units(instances, Half::Socket);
        all.extend(units(instances, Half::Service));
        self.run(Job::Stop, &all).await
    }

    async fn run(&self, job: Job, units: &[String]) -> Result<(), Error> {
        let begin = Timestamp::now();
        match self.manager.run(job, units).await {
            Ok(failures) if failures.is_empty() => Ok(()),
            Ok(failures) => {
                let texts = failures
                    .iter()
                    .map(|failure| self.explain(job, &failure.unit, &failure.how, begin));
                Err(Error::Jobs(texts.collect::<Vec<_>>().join("\n")))
            }
            Err(error @ systemd::Error::Unit { .. }) => {
                let unit = error.unit().unwrap_or_default().to_owned();
                self.output.hint(&self.log(&unit, begin).join("\n"));
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A failure with what the log has on it.
    fn explain(&self, job: Job, unit: &str, how: &str, since: Timestamp) -> String {
        let mut text = format!("Failed to {job} {unit}: {how}.");
        let log = self.log(unit, since);
        if log.is_empty() {
            text.push_str(&format!(" See: journalctl -u {unit}"));
        } else {
            text.push_str(" Its log:\n");
            text.push_str(&log.join("\n"));
        }
        text
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
        let entries = journal::last(&units, LINES, self.target).unwrap_or_default();
        entries
            .into_iter()
            .filter(|entry| entry.time >= since)
            .map(|entry| format!("  {}", printable(&entry.message)))
            .collect()
    }
}

/// The names of one half of each.
pub fn units(instances: &[Instance], half: Half) -> Vec<String> {
    instances
        .iter()
        .map(|instance| instance.unit(half))
        .collect()
}
