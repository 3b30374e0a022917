//! The backends of this host or another: what systemd says of their units, put together with the files and the
//! devices of this host.

mod details;

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::future::try_join_all;
use serde::Serialize;

use crate::devices::Devices;
use crate::instance::{Instance, UnitKind, UnitType};
use crate::settings::{ProgramOptions, Settings};
use crate::systemd::{BackendState, Error, LoadedUnits, Manager};
use crate::unit_folders::{self, UnitFolders};

pub(crate) use details::{Details, WaitingFrontEnd};

/// A backend as systemd sees it: the socket and the service that it starts, together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Backend {
    /// Which one.
    #[serde(skip)]
    pub instance: Instance,
    /// The VM.
    pub vm: String,
    /// The device's name within the VM; a GPU is "gpu".
    pub name: String,
    /// What it is, by the conventions' names; "backend" where that is not known.
    #[serde(rename = "type")]
    pub device_type: String,
    /// Both units' states in one word.
    pub state: BackendState,
    /// The path of the socket.
    pub socket: Option<String>,
    /// The device of the host that it uses.
    pub device: Option<String>,
    /// The main process while there is one.
    pub pid: Option<u32>,
    /// The name of the socket unit.
    pub socket_unit: String,
    /// The name of the service unit.
    pub service_unit: String,
    /// The socket unit's own state (SUB, in systemctl's words); none if it is not loaded.
    pub socket_state: Option<String>,
    /// The service unit's own state, likewise.
    pub service_state: Option<String>,
}

/// All backends that are loaded, enabled or configured, by VM.
pub(crate) async fn list(manager: &Manager) -> Result<Vec<Backend>, Error> {
    let instances = instances(manager).await?;
    // All questions at once, so that it is one wait and not one for each.
    let backends = instances
        .into_iter()
        .map(async |(instance, units)| backend(manager, &instance, units).await);
    try_join_all(backends).await
}

/// The names of all backends that are loaded, enabled or configured.
pub(crate) async fn names(manager: &Manager) -> Result<Vec<Instance>, Error> {
    Ok(instances(manager).await?.into_keys().collect())
}

/// Everything about the backends that are chosen, by VM.
pub(crate) async fn details(
    manager: &Manager,
    chosen: impl Fn(&Instance) -> bool,
) -> Result<Vec<Details>, Error> {
    let mut instances = instances(manager).await?;
    instances.retain(|instance, _| chosen(instance));
    let details = instances.into_iter().map(async |(instance, units)| {
        let backend = backend(manager, &instance, units).await?;
        let socket = manager.properties(instance.unit(UnitType::Socket)).await?;
        let service = manager.properties(instance.unit(UnitType::Service)).await?;
        let missing = backend.device.as_ref().filter(|_| manager.is_local());
        let missing = missing.map(|path| is_missing(manager, path));
        Ok(Details {
            device_missing: missing,
            ..Details::new(backend, &socket, &service)
        })
    });
    try_join_all(details).await
}

async fn instances(manager: &Manager) -> Result<BTreeMap<Instance, LoadedUnits>, Error> {
    let mut instances = manager.loaded().await?;
    let folders = manager.unit_folders().await?;
    // Of another machine only what is loaded can be seen; what is enabled there is.
    if manager.is_local() {
        for instance in unit_folders::configured_instances(&folders) {
            instances.entry(instance).or_default();
        }
    }
    Ok(instances)
}

async fn backend(
    manager: &Manager,
    instance: &Instance,
    units: LoadedUnits,
) -> Result<Backend, Error> {
    let pid = match units.is_service_inactive() {
        true => None,
        false => manager.main_pid(&units).await?,
    };
    let socket = manager.socket_path(instance, &units).await?;
    let device = match instance.kind() {
        UnitKind::Gpu | UnitKind::Input => {
            let environment = manager.environment(instance, &units).await?;
            ProgramOptions::from_environment(instance.kind(), &environment)
                .device()
                .map(str::to_owned)
        }
        UnitKind::Backend => None,
    };
    let state = match units.state() {
        BackendState::Listening
            if device
                .as_deref()
                .is_some_and(|path| is_missing(manager, path)) =>
        {
            BackendState::NoDevice
        }
        state => state,
    };
    Ok(Backend {
        instance: instance.clone(),
        vm: instance.vm().to_owned(),
        name: instance.label().to_owned(),
        device_type: device_type(manager, instance),
        state,
        socket,
        device,
        pid,
        socket_unit: instance.unit(UnitType::Socket),
        service_unit: instance.unit(UnitType::Service),
        socket_state: units.socket.map(|unit| unit.sub),
        service_state: units.service.map(|unit| unit.sub),
    })
}

/// The type of device. For the units that any type uses, only their files tell.
fn device_type(manager: &Manager, instance: &Instance) -> String {
    let told = match instance.kind() {
        UnitKind::Backend if manager.is_local() => {
            Settings::read(&UnitFolders::system(), instance).device_type
        }
        _ => None,
    };
    told.unwrap_or_else(|| instance.kind().name().to_owned())
}

/// Whether a device of this host is missing. Those of another host cannot be seen.
fn is_missing(manager: &Manager, device: &str) -> bool {
    manager.is_local()
        && matches!(Path::new(device).try_exists(), Ok(false))
        && !Devices::new().has(device)
}
