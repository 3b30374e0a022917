// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to the service manager, and what it is told to do with units.

use std::ops::Deref;
use std::path::PathBuf;

use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::OwnedObjectPath;

use super::connection::Target;
use super::error::{Error, during};
use super::mask::Mask;
use super::queries::Queries;

/// What is used of the manager by methods and signals with names (org.freedesktop.systemd1(5)); methods that ask for a
/// permission go by [`Manager::call_privileged`].
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub(super) trait Manager1 {
    /// The object of a unit, which is loaded if it is not yet.
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// Has the manager send signals to this connection.
    fn subscribe(&self) -> zbus::Result<()>;

    /// Whether a unit is enabled, in systemctl's words.
    fn get_unit_file_state(&self, file: &str) -> zbus::Result<String>;

    /// A job has ended.
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// A connection to the service manager.
pub(crate) struct Manager {
    bus: zbus::Connection,
    proxy: Manager1Proxy<'static>,
    target: Target,
    queries: Queries,
}

/// What it is asked.
impl Deref for Manager {
    type Target = Queries;

    fn deref(&self) -> &Queries {
        &self.queries
    }
}

impl Manager {
    /// Connects to the manager.
    pub(crate) async fn connect(target: &Target) -> Result<Self, Error> {
        let bus = target.connect().await?;
        let proxy = Manager1Proxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(during("reach systemd"))?;
        Ok(Self {
            queries: Queries::new(bus.clone(), target),
            bus,
            proxy,
            target: target.clone(),
        })
    }

    /// The bus, for messages that no proxy has.
    pub(super) fn bus(&self) -> &zbus::Connection {
        &self.bus
    }

    /// How many signals may wait on the bus.
    pub(super) fn set_max_queued(&mut self, count: usize) {
        self.bus.set_max_queued(count);
    }

    /// The methods of the manager that need no permission.
    pub(super) fn proxy(&self) -> &Manager1Proxy<'static> {
        &self.proxy
    }

    /// Calls a method of the manager that changes something, for which polkit may ask the user. The call takes as
    /// long as the user does; a call by the proxy has a time limit.
    pub(super) async fn call_privileged<A, R>(
        &self,
        method: &'static str,
        arguments: &A,
        what: &'static str,
    ) -> Result<R, Error>
    where
        A: serde::Serialize + zbus::zvariant::DynamicType,
        R: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
    {
        let proxy = self.proxy.inner();
        let answer = if self.target.no_ask_password {
            proxy.call(method, arguments).await
        } else {
            let flags = MethodFlags::AllowInteractiveAuth.into();
            match proxy.call_with_flags(method, flags, arguments).await {
                Ok(answer) => answer.ok_or(zbus::Error::InvalidReply),
                Err(error) => Err(error),
            }
        };
        answer.map_err(during(what))
    }

    /// Makes systemd read all unit files again (daemon-reload).
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        self.call_privileged("Reload", &(), "reload systemd's units")
            .await
    }

    /// What masks a unit, if it is masked.
    pub(super) async fn mask(&self, unit: &str) -> Option<Mask> {
        let path = self.proxy.load_unit(unit).await.ok()?;
        let properties = self.properties_of(&path).await.ok()?;
        if properties.text("LoadState")? != "masked" {
            return None;
        }
        let link = PathBuf::from(properties.text("FragmentPath")?);
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

    /// The error for a unit that cannot be used because `masked`, the unit itself or one that it needs, is masked.
    pub(super) async fn masked(&self, what: &'static str, unit: &str, masked: &str) -> Error {
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

    /// A call that systemd refused, as an error about the unit.
    pub(super) async fn refused(&self, what: &'static str, unit: &str, error: Error) -> Error {
        if error.is_masked() {
            let masked = error.masked_unit().unwrap_or(unit);
            self.masked(what, unit, masked).await
        } else {
            error.of_unit(what, unit)
        }
    }
}
