// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the service manager is asked about units. Nothing here changes anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use zbus::Message;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};

use super::connection::Target;
use super::direct_bus::DirectBus;
use super::error::{Error, during, unless_refused};
use super::loaded_units::{self, LoadedUnit, LoadedUnits};
use super::properties::Properties;
use crate::instance::{Instance, UnitType};

/// The name of the manager on the bus.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_SERVICE: &str = "org.freedesktop.systemd1.Service";
const UNIT_SOCKET: &str = "org.freedesktop.systemd1.Socket";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Questions to the service manager, and the connection for them.
pub(crate) struct Queries {
    bus: Bus,
    is_local: bool,
}

enum Bus {
    /// For questions alone.
    Direct(Arc<DirectBus>),
    /// Where other things are done too, or on another machine.
    Shared(zbus::Connection),
}

/// Runs `asking`, which waits for nothing but the answers of the service manager.
pub(crate) fn ask<T, E: From<Error>>(
    target: &Target,
    asking: impl AsyncFnOnce(&Queries) -> Result<T, E>,
) -> Result<T, E> {
    match target.connect_direct() {
        Some(bus) => {
            let bus = Arc::new(bus?);
            let queries = Queries {
                bus: Bus::Direct(Arc::clone(&bus)),
                is_local: target.is_local(),
            };
            bus.drive(asking(&queries))
        }
        None => zbus::block_on(async {
            let bus = target.connect().await?;
            asking(&Queries::new(bus, target)).await
        }),
    }
}

impl Queries {
    pub(super) fn new(bus: zbus::Connection, target: &Target) -> Self {
        Self {
            bus: Bus::Shared(bus),
            is_local: target.is_local(),
        }
    }

    /// Whether the manager is the one of this machine, so that local files are its files.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    async fn call(
        &self,
        path: &str,
        interface: &'static str,
        method: &'static str,
        arguments: &(impl serde::Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        let question = Message::method_call(path, method)?
            .destination(SERVICE)?
            .interface(interface)?;
        match &self.bus {
            Bus::Direct(bus) => bus.ask(&question.build(arguments)?).await,
            Bus::Shared(bus) => {
                let destination = Some(SERVICE);
                bus.call_method(destination, path, Some(interface), method, arguments)
                    .await
            }
        }
    }

    /// One property of an object.
    async fn property<T>(
        &self,
        path: &str,
        interface: &'static str,
        name: &'static str,
    ) -> zbus::Result<T>
    where
        T: TryFrom<OwnedValue>,
        zbus::Error: From<T::Error>,
    {
        let answer = self
            .call(path, PROPERTIES, "Get", &(interface, name))
            .await?;
        let value: OwnedValue = answer.body().deserialize()?;
        Ok(T::try_from(value)?)
    }

    /// The folders in which systemd looks for units, the most important first.
    pub(crate) async fn unit_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let folders = self
            .property::<Vec<String>>(MANAGER_PATH, MANAGER, "UnitPath")
            .await;
        let folders = folders.map_err(during("ask systemd for its unit folders"))?;
        Ok(folders.into_iter().map(PathBuf::from).collect())
    }

    /// The backends of which a unit is loaded.
    pub(crate) async fn loaded(&self) -> Result<BTreeMap<Instance, LoadedUnits>, Error> {
        let states: &[&str] = &[];
        let arguments = (states, loaded_units::patterns());
        let listed = self.call(MANAGER_PATH, MANAGER, "ListUnitsByPatterns", &arguments);
        let listed = listed.await.and_then(|listed| listed.body().deserialize());
        Ok(loaded_units::by_instance(
            listed.map_err(during("list the units of systemd"))?,
        ))
    }

    /// All properties of a unit, which systemd loads if it is not; none where systemd does not tell.
    pub(crate) async fn properties(
        &self,
        unit: String,
        loaded: Option<&LoadedUnit>,
    ) -> Result<Properties, Error> {
        let all = self.properties_of(&object(loaded, unit)).await;
        Ok(unless_refused(all, "ask systemd about a unit")?.unwrap_or_default())
    }

    /// The path on which a backend's socket listens.
    pub(crate) async fn socket_path(
        &self,
        instance: &Instance,
        units: &LoadedUnits,
    ) -> Result<Option<String>, Error> {
        let path = object(units.socket.as_ref(), instance.unit(UnitType::Socket));
        let listen = self
            .property::<Vec<(String, String)>>(&path, UNIT_SOCKET, "Listen")
            .await;
        let listen = unless_refused(listen, "ask systemd where a socket is")?.unwrap_or_default();
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
        let path = object(units.service.as_ref(), instance.unit(UnitType::Service));
        let environment = self.property(&path, UNIT_SERVICE, "Environment").await;
        Ok(unless_refused(environment, "ask systemd for a device")?.unwrap_or_default())
    }

    /// The main process of a backend's service, while it has one.
    pub(crate) async fn main_pid(&self, units: &LoadedUnits) -> Result<Option<u32>, Error> {
        let Some(unit) = &units.service else {
            return Ok(None);
        };
        let pid = self.property(&unit.path, UNIT_SERVICE, "MainPID").await;
        Ok(unless_refused(pid, "ask systemd for a main process")?.filter(|pid| *pid != 0))
    }

    /// The status text of a backend's service (`STATUS=`).
    pub(crate) async fn status_text(&self, units: &LoadedUnits) -> Result<Option<String>, Error> {
        let Some(unit) = &units.service else {
            return Ok(None);
        };
        let text = self.property(&unit.path, UNIT_SERVICE, "StatusText").await;
        unless_refused(text, "ask systemd for a status")
    }

    /// The program that a service runs; `None` if the service is not installed.
    pub(crate) async fn program(&self, service: &str) -> Result<Option<String>, Error> {
        /// `ExecStart=` as systemd tells it: path, words, whether failures are ignored, and how it ran last.
        type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);
        let path = object(None, service.to_owned());
        let commands = self
            .property::<Vec<Command>>(&path, UNIT_SERVICE, "ExecStart")
            .await;
        let commands = unless_refused(commands, "ask systemd for a service's program")?;
        let commands = commands.unwrap_or_default();
        Ok(commands.into_iter().next().map(|(path, ..)| path))
    }

    /// The properties of a unit that is loaded already.
    pub(super) async fn loaded_properties(&self, unit: &str) -> Option<Properties> {
        let answer = self
            .call(MANAGER_PATH, MANAGER, "GetUnit", &unit)
            .await
            .ok()?;
        let path: OwnedObjectPath = answer.body().deserialize().ok()?;
        self.properties_of(&path).await.ok()
    }

    /// The properties of all interfaces of an object.
    pub(super) async fn properties_of(&self, path: &str) -> zbus::Result<Properties> {
        let answer = self.call(path, PROPERTIES, "GetAll", &"").await?;
        answer.body().deserialize()
    }
}

/// The path of a unit's object. systemd loads a unit that is not loaded once its object is asked for: "LoadUnit" before would
/// have it loaded twice, as it forgets a unit that nothing needs after each answer.
fn object(loaded: Option<&LoadedUnit>, unit: String) -> String {
    match loaded {
        Some(unit) => unit.path.to_string(),
        None => loaded_units::object_path(&unit),
    }
}
