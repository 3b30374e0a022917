// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The backends of this host or another: what systemd says of their units, put together with the files and the
//! devices of this host.

mod command_line;
mod details;
mod device_type;
mod kept_state;
mod listeners;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use conventions::is_released_to_host;
use futures_util::future::try_join3;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::devices::Devices;
use crate::instance::{Instance, UnitKind, UnitType};
use crate::settings::{DeviceAddress, ProgramOptions};
use crate::systemd::{BackendState, Error, LoadedUnits, Properties, Queries};
use crate::unit_folders;

pub(crate) use details::{ConsoleSocket, Details, RenderServerUnit, WaitingFrontEnd};
pub(crate) use device_type::WatchedTypes;
use device_type::device_type;
use listeners::Listeners;

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
    /// Whether the host has the device although it serves a VM ('vhostctl release').
    pub released: bool,
    /// The number of screens of a GPU.
    #[serde(skip)]
    pub heads: usize,
    /// The width and height of a GPU's first screen in pixels, if they are not the default ones.
    #[serde(skip)]
    pub screen_size: Option<(u32, u32)>,
    /// Whether a GPU has Vulkan.
    #[serde(skip)]
    pub has_vulkan: bool,
    /// The path of the socket.
    pub socket: Option<String>,
    /// The device of the host that it uses: a path, or what an input device says of itself.
    #[serde(serialize_with = "as_text")]
    pub device: Option<DeviceAddress>,
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

/// How many backends systemd is asked about at once, so as to wait seldom. There are up to three questions about each, and the bus
/// allows 128 without an answer.
const AT_ONCE: usize = 32;

/// The selected backends of those that are loaded, enabled or configured, by VM.
pub(crate) async fn list(
    queries: &Queries,
    chosen: impl Fn(&Instance) -> bool,
) -> Result<Vec<Backend>, Error> {
    let Known { mut instances, .. } = known(queries).await?;
    instances.retain(|instance, _| chosen(instance));
    let listeners = Listeners::default();
    each(instances, async |instance, units| {
        let facts = Facts::ask(queries, &instance, &units).await?;
        Ok(backend(queries, &listeners, instance, units, facts))
    })
    .await
}

/// The names of all backends that are loaded, enabled or configured.
pub(crate) async fn names(queries: &Queries) -> Result<Vec<Instance>, Error> {
    Ok(known(queries).await?.instances.into_keys().collect())
}

/// Everything about the selected backends, by VM.
pub(crate) async fn details(
    queries: &Queries,
    chosen: impl Fn(&Instance) -> bool,
) -> Result<Vec<Details>, Error> {
    let Known {
        mut instances,
        consoles,
    } = known(queries).await?;
    instances.retain(|instance, _| chosen(instance));
    let listeners = Listeners::default();
    each(instances, async |instance, units| {
        let unit = |unit_type| instance.unit(unit_type);
        let ask = async |unit_type, loaded| queries.properties(unit(unit_type), loaded).await;
        let socket = ask(UnitType::Socket, units.socket.as_ref()).await?;
        let service = ask(UnitType::Service, units.service.as_ref()).await?;
        // Each device could have one by the template: systemd would load it, only to say that there is none.
        let may_have_console = !queries.is_local() || consoles.contains(&instance);
        let console = match instance.kind().unit_types().contains(&UnitType::Console)
            && (may_have_console || units.console.is_some())
        {
            true => {
                let properties = ask(UnitType::Console, units.console.as_ref()).await?;
                ConsoleSocket::new(unit(UnitType::Console), &properties)
            }
            false => None,
        };
        let facts = Facts::read(&units, &socket, &service);
        let backend = backend(queries, &listeners, instance, units, facts);
        let missing = backend.device.as_ref().filter(|_| queries.is_local());
        let missing = missing.map(|address| is_missing(queries, address));
        let render_server = match backend.has_vulkan {
            true => {
                let unit = backend.instance.render_server();
                let properties = queries.properties(unit.clone(), None).await?;
                Some(RenderServerUnit::new(unit, &properties))
            }
            false => None,
        };
        let details = Details::new(backend, &socket, console, &service);
        let details = details.with_render_server(render_server);
        let settings = service.list("DropInPaths");
        let started = details.started.filter(|_| queries.is_local());
        Ok(Details {
            device_missing: missing,
            settings_changed: started.map(|started| {
                let differs = |pid| command_line::differs(pid, &service);
                are_newer(&settings, started) || details.backend.pid.is_some_and(differs)
            }),
            state_understood: match details.backend.pid {
                Some(pid) if queries.is_local() && details.keeps_state => {
                    kept_state::is_understood(pid, &service)
                }
                _ => None,
            },
            ..details
        })
    })
    .await
}

/// What is asked about each backend, in their order.
async fn each<T>(
    instances: BTreeMap<Instance, LoadedUnits>,
    ask: impl AsyncFn(Instance, LoadedUnits) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let answers = stream::iter(instances).map(|(instance, units)| ask(instance, units));
    answers.buffered(AT_ONCE).try_collect().await
}

/// What there is on a host.
struct Known {
    /// The backends that are loaded, enabled or configured.
    instances: BTreeMap<Instance, LoadedUnits>,
    /// Those of which files set up the second socket, for a VNC server; none on another host.
    consoles: BTreeSet<Instance>,
}

async fn known(queries: &Queries) -> Result<Known, Error> {
    let mut known = Known {
        instances: queries.loaded().await?,
        consoles: BTreeSet::new(),
    };
    let folders = queries.unit_folders().await?;
    // Only the units that are loaded can be seen on another machine; enabled ones are.
    if queries.is_local() {
        for unit in unit_folders::configured_units(&folders) {
            if unit.unit_type == UnitType::Console {
                known.consoles.insert(unit.instance.clone());
            }
            known.instances.entry(unit.instance).or_default();
        }
    }
    Ok(known)
}

/// What systemd says of a backend's units beside their states.
struct Facts {
    /// The main process of the service, while it has one.
    pid: Option<u32>,
    /// The status text of the service (`STATUS=`).
    status: Option<String>,
    /// The path on which the socket listens.
    socket: Option<String>,
    /// The environment of the service.
    environment: Vec<String>,
}

impl Facts {
    /// Asks for what the backend's kind needs, and no more.
    async fn ask(
        queries: &Queries,
        instance: &Instance,
        units: &LoadedUnits,
    ) -> Result<Self, Error> {
        let kind = instance.kind();
        let pid = async {
            match units.is_service_inactive() {
                true => Ok(None),
                false => queries.main_pid(units).await,
            }
        };
        let socket = queries.socket_path(instance, units);
        let environment = async {
            match kind {
                UnitKind::Gpu | UnitKind::Input => queries.environment(instance, units).await,
                UnitKind::Program | UnitKind::Vnc => Ok(Vec::new()),
            }
        };
        let (pid, socket, environment) = try_join3(pid, socket, environment).await?;
        Ok(Self {
            pid,
            status: match kind {
                UnitKind::Input if pid.is_some() => queries.status_text(units).await?,
                _ => None,
            },
            socket,
            environment,
        })
    }

    /// Takes it from all properties of the units.
    fn read(units: &LoadedUnits, socket: &Properties, service: &Properties) -> Self {
        let pid = service.get("MainPID").filter(|pid| *pid != 0);
        Self {
            pid: pid.filter(|_| !units.is_service_inactive()),
            status: service.text("StatusText"),
            socket: socket.listen().into_iter().next(),
            environment: service.list("Environment"),
        }
    }
}

fn backend(
    queries: &Queries,
    listeners: &Listeners,
    instance: Instance,
    units: LoadedUnits,
    facts: Facts,
) -> Backend {
    let status = facts.status.filter(|_| facts.pid.is_some());
    let options = match instance.kind() {
        UnitKind::Gpu | UnitKind::Input => {
            ProgramOptions::from_environment(instance.kind(), &facts.environment)
        }
        UnitKind::Program | UnitKind::Vnc => ProgramOptions::None,
    };
    let device = options.address();
    // Sockets of another host cannot be seen.
    let is_gone = |path: &String| queries.is_local() && listeners.lack(path);
    let state = match units.state() {
        BackendState::Listening if facts.socket.as_ref().is_some_and(is_gone) => {
            BackendState::NoSocket
        }
        BackendState::Listening
            if device
                .as_ref()
                .is_some_and(|address| is_missing(queries, address)) =>
        {
            BackendState::NoDevice
        }
        state => state,
    };
    Backend {
        vm: instance.vm().to_owned(),
        name: instance.label().to_owned(),
        device_type: device_type(queries.is_local(), &instance),
        state,
        released: instance.kind() == UnitKind::Input
            && status.as_deref().is_some_and(is_released_to_host),
        heads: options.heads(),
        screen_size: options.screen_size(),
        has_vulkan: matches!(&options, ProgramOptions::Gpu(options) if options.vulkan),
        socket: facts.socket,
        device,
        pid: facts.pid,
        socket_unit: instance.unit(UnitType::Socket),
        service_unit: instance.unit(UnitType::Service),
        socket_state: units.socket.map(|unit| unit.sub),
        service_state: units.service.map(|unit| unit.sub),
        instance,
    }
}

/// Whether one of these files, or a link to it, was written after that. Also if that cannot be told.
fn are_newer(files: &[String], than: Timestamp) -> bool {
    files.iter().any(|file| {
        let written = fs::symlink_metadata(file).and_then(|file| file.modified());
        let written = written.ok().and_then(|time| Timestamp::try_from(time).ok());
        written.is_none_or(|written| written > than)
    })
}

/// Whether a device of this host is missing. Those of another host cannot be seen.
fn is_missing(queries: &Queries, device: &DeviceAddress) -> bool {
    let devices = Devices::new();
    queries.is_local()
        && match device {
            DeviceAddress::Path(path) => {
                matches!(Path::new(path).try_exists(), Ok(false)) && !devices.has_path(path)
            }
            DeviceAddress::Match(rule) => !devices.has_match(rule),
        }
}

fn as_text<S: Serializer>(
    device: &Option<DeviceAddress>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = device.as_ref().map(ToString::to_string);
    text.serialize(serializer)
}
