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

pub(crate) use details::{ConsoleSocket, Details, WaitingFrontEnd};

/// A backend: a socket, and the service that it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Backend {
    #[serde(skip)]
    pub instance: Instance,
    pub vm: String,
    /// The name within the VM; a GPU is "gpu", a VNC server "vnc".
    pub name: String,
    /// The type of device by the conventions' names; "backend" if it is unknown, "vnc" for a VNC server.
    #[serde(rename = "type")]
    pub device_type: String,
    pub state: BackendState,
    /// The number of screens of a GPU.
    #[serde(skip)]
    pub heads: usize,
    /// The width and height of a GPU's first screen in pixels, if they are not the default ones.
    #[serde(skip)]
    pub screen_size: Option<(u32, u32)>,
    /// The path of the socket.
    pub socket: Option<String>,
    /// The device of the host that it uses.
    pub device: Option<String>,
    /// The main process, while there is one.
    pub pid: Option<u32>,
    /// The name of the socket unit.
    pub socket_unit: String,
    /// The name of the service unit.
    pub service_unit: String,
    /// The state of the socket unit (SUB of systemctl); none if it is not loaded.
    pub socket_state: Option<String>,
    /// The state of the service unit (SUB of systemctl); none if it is not loaded.
    pub service_state: Option<String>,
}

/// All backends that are loaded, enabled or configured, by VM.
pub(crate) async fn list(manager: &Manager) -> Result<Vec<Backend>, Error> {
    let instances = instances(manager).await?;
    // All calls at once, to wait only once.
    let backends = instances
        .into_iter()
        .map(async |(instance, units)| backend(manager, &instance, units).await);
    try_join_all(backends).await
}

/// The names of all backends that are loaded, enabled or configured.
pub(crate) async fn names(manager: &Manager) -> Result<Vec<Instance>, Error> {
    Ok(instances(manager).await?.into_keys().collect())
}

/// Everything about the selected backends, by VM.
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
        let console = match instance.kind().unit_types().contains(&UnitType::Console) {
            true => {
                let unit = instance.unit(UnitType::Console);
                let properties = manager.properties(unit.clone()).await?;
                ConsoleSocket::new(unit, &properties)
            }
            false => None,
        };
        let missing = backend.device.as_ref().filter(|_| manager.is_local());
        let missing = missing.map(|path| is_missing(manager, path));
        Ok(Details {
            device_missing: missing,
            ..Details::new(backend, &socket, console, &service)
        })
    });
    try_join_all(details).await
}

async fn instances(manager: &Manager) -> Result<BTreeMap<Instance, LoadedUnits>, Error> {
    let mut instances = manager.loaded().await?;
    let folders = manager.unit_folders().await?;
    // Only the units that are loaded can be seen on another machine; enabled ones are.
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
    let options = match instance.kind() {
        UnitKind::Gpu | UnitKind::Input => {
            let environment = manager.environment(instance, &units).await?;
            ProgramOptions::from_environment(instance.kind(), &environment)
        }
        UnitKind::Program | UnitKind::Vnc => ProgramOptions::None,
    };
    let device = options.device().map(str::to_owned);
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
        heads: options.heads(),
        screen_size: options.screen_size(),
        socket,
        device,
        pid,
        socket_unit: instance.unit(UnitType::Socket),
        service_unit: instance.unit(UnitType::Service),
        socket_state: units.socket.map(|unit| unit.sub),
        service_state: units.service.map(|unit| unit.sub),
    })
}

/// The type of device. For the units that serve any type, only their files have it.
fn device_type(manager: &Manager, instance: &Instance) -> String {
    let told = match instance.kind() {
        UnitKind::Program if manager.is_local() => {
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
