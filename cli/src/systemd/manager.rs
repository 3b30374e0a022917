//! The connection to the service manager, and what it is asked for a unit.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::PathBuf;

use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, SocketProxy};

use super::connection::Target;
use super::error::{Error, during, unless_refused};
use super::loaded_units::{self, LoadedUnits};
use super::mask::Mask;
use super::properties::Properties;
use crate::instance::{Instance, UnitType};

/// The name of the manager on the bus.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1";

/// A connection to the service manager.
pub(crate) struct Manager {
    bus: zbus::Connection,
    proxy: ManagerProxy<'static>,
    target: Target,
}

impl Manager {
    /// Connects to the manager.
    pub(crate) async fn connect(target: &Target) -> Result<Self, Error> {
        let bus = target.connect().await?;
        let proxy = ManagerProxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(during("reach systemd"))?;
        Ok(Self {
            bus,
            proxy,
            target: target.clone(),
        })
    }

    /// Whether it is the one of this machine, so that local files are its files.
    pub(crate) fn is_local(&self) -> bool {
        self.target.is_local()
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
    pub(super) fn proxy(&self) -> &ManagerProxy<'static> {
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

    /// The folders in which systemd looks for units, the most important first.
    pub(crate) async fn unit_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let folders = self.proxy.unit_path().await;
        let folders = folders.map_err(during("ask systemd for its unit folders"))?;
        Ok(folders.into_iter().map(PathBuf::from).collect())
    }

    /// The backends of which a unit is loaded.
    pub(crate) async fn loaded(&self) -> Result<BTreeMap<Instance, LoadedUnits>, Error> {
        let listed = self
            .proxy
            .list_units_by_patterns(Vec::new(), loaded_units::patterns())
            .await
            .map_err(during("list the units of systemd"))?;
        Ok(loaded_units::by_instance(listed))
    }

    /// All properties of a unit; none where systemd does not tell.
    pub(crate) async fn properties(&self, unit: String) -> Result<Properties, Error> {
        const WHAT: &str = "ask systemd about a unit";
        let Some(path) = self.load(unit, WHAT).await? else {
            return Ok(Properties::default());
        };
        let all = self.properties_of(&path).await;
        Ok(unless_refused(all, WHAT)?.unwrap_or_default())
    }

    /// The path on which a backend's socket listens.
    pub(crate) async fn socket_path(
        &self,
        instance: &Instance,
        units: &LoadedUnits,
    ) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd where a socket is";
        let path = match &units.socket {
            Some(unit) => Some(unit.path.clone()),
            None => {
                self.load(instance.unit(UnitType::Socket), "load a unit")
                    .await?
            }
        };
        let Some(path) = path else {
            return Ok(None);
        };
        let proxy = SocketProxy::builder(&self.bus)
            .path(path)
            .map_err(during(WHAT))?
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(during(WHAT))?;
        let listen = unless_refused(proxy.listen().await, WHAT)?.unwrap_or_default();
        Ok(listen
            .into_iter()
            .find(|(kind, _)| kind == "Stream")
            .map(|(_, path)| loaded_units::unescaped_address(&path)))
    }

    /// The environment of a backend's service.
    pub(crate) async fn environment(
        &self,
        instance: &Instance,
        units: &LoadedUnits,
    ) -> Result<Vec<String>, Error> {
        const WHAT: &str = "ask systemd for a device";
        let path = match &units.service {
            Some(unit) => Some(unit.path.clone()),
            None => self.load(instance.unit(UnitType::Service), WHAT).await?,
        };
        let Some(path) = path else {
            return Ok(Vec::new());
        };
        let proxy = self.service(path, WHAT).await?;
        Ok(unless_refused(proxy.environment().await, WHAT)?.unwrap_or_default())
    }

    /// The main process of a backend's service, while it has one.
    pub(crate) async fn main_pid(&self, units: &LoadedUnits) -> Result<Option<u32>, Error> {
        const WHAT: &str = "ask systemd for a main process";
        let Some(unit) = &units.service else {
            return Ok(None);
        };
        let proxy = self.service(unit.path.clone(), WHAT).await?;
        Ok(unless_refused(proxy.main_pid().await, WHAT)?.filter(|pid| *pid != 0))
    }

    /// The program that a service runs; `None` if the service is not installed.
    pub(crate) async fn program(&self, service: &str) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd for a service's program";
        let Some(path) = self.load(service.to_owned(), WHAT).await? else {
            return Ok(None);
        };
        let proxy = self.service(path, WHAT).await?;
        let commands = unless_refused(proxy.exec_start().await, WHAT)?.unwrap_or_default();
        Ok(commands.into_iter().next().map(|(path, ..)| path))
    }

    /// What masks a unit, if it is masked.
    pub(super) async fn mask(&self, unit: &str) -> Option<Mask> {
        let path = self.proxy.load_unit(unit.to_owned()).await.ok()?;
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

    /// The properties of a unit that is loaded already.
    pub(super) async fn loaded_properties(&self, unit: &str) -> Option<Properties> {
        let path = self.proxy.get_unit(unit.to_owned()).await.ok()?;
        self.properties_of(&path).await.ok()
    }

    async fn load(
        &self,
        unit: String,
        what: &'static str,
    ) -> Result<Option<OwnedObjectPath>, Error> {
        unless_refused(self.proxy.load_unit(unit).await, what)
    }

    /// The properties of all interfaces of an object.
    async fn properties_of(&self, path: &OwnedObjectPath) -> zbus::Result<Properties> {
        let interface = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .bus
            .call_method(Some(SERVICE), path, interface, "GetAll", &"")
            .await?;
        let values: HashMap<String, OwnedValue> = reply.body().deserialize()?;
        Ok(Properties::new(values))
    }

    /// The service whose unit has this path on the bus.
    async fn service(
        &self,
        path: OwnedObjectPath,
        what: &'static str,
    ) -> Result<ServiceProxy<'_>, Error> {
        ServiceProxy::builder(&self.bus)
            .path(path)
            .map_err(during(what))?
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(during(what))
    }
}
