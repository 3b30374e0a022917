//! The service manager, over D-Bus. Nothing outside of this file and its folder knows D-Bus.

mod connection;
mod details;
mod error;
mod jobs;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;
use serde::Serialize;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus_systemd::systemd1::{ManagerProxy, ServiceProxy, SocketProxy};

use crate::devices::Devices;
use crate::instance::{Instance, UnitKind, UnitType};
use crate::settings::{Folders, Settings};
use crate::unit_file;

use error::{answer, call};

pub(crate) use connection::{RemoteHost, Target};
pub(crate) use details::{Details, Waits};
pub(crate) use error::Error;
pub(crate) use jobs::{Failure, Job};
pub(crate) use watch::Change;

/// The name of the manager on the bus.
const SERVICE: &str = "org.freedesktop.systemd1";

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

/// What a backend does, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendState {
    /// It serves a VMM, or will in a moment.
    Running,
    /// It comes up.
    Starting,
    /// It goes down.
    Stopping,
    /// The socket waits for a VMM.
    Listening,
    /// The socket waits, but the device of the host is not there: a VMM that connects is refused.
    #[serde(rename = "no-device")]
    NoDevice,
    /// Something broke, and nobody listens any more.
    Failed,
    /// Not started, or stopped.
    Inactive,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Listening => "listening",
            Self::NoDevice => "no-device",
            Self::Failed => "failed",
            Self::Inactive => "inactive",
        })
    }
}

impl BackendState {
    /// From the units' active states. A service that runs counts most; one that has failed counts only if
    /// its socket does not wait for the next VMM, which will start it anew.
    fn new(socket: &str, service: &str) -> Self {
        match (socket, service) {
            (_, "active" | "reloading" | "refreshing") => Self::Running,
            (_, "activating") => Self::Starting,
            (_, "deactivating") => Self::Stopping,
            ("active", _) => Self::Listening,
            ("activating", _) => Self::Starting,
            ("deactivating", _) => Self::Stopping,
            ("failed", _) | (_, "failed") => Self::Failed,
            _ => Self::Inactive,
        }
    }
}

/// A unit as systemd lists it: name, description, LOAD, ACTIVE, SUB, what it follows, its object, and
/// the number, type and object of its job.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// The LOAD of a unit that has no file.
const NOT_FOUND: &str = "not-found";

/// A unit that systemd has in memory.
#[derive(Clone, Debug)]
struct Unit {
    active: String,
    sub: String,
    path: OwnedObjectPath,
}

/// The two units of a backend, as far as they are loaded.
#[derive(Clone, Debug, Default)]
struct Units {
    socket: Option<Unit>,
    service: Option<Unit>,
}

/// The way to systemd.
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
            .map_err(call("reach systemd"))?;
        Ok(Self {
            bus,
            proxy,
            target: target.clone(),
        })
    }

    /// Calls a method of the manager's that changes something, for which polkit may ask the user. Then it
    /// takes as long as the user does; what needs no permission goes by the proxy, which has a time limit.
    pub(crate) async fn change<A, R>(
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
        answer.map_err(call(what))
    }

    /// All backends that are loaded, enabled or configured, by VM.
    pub(crate) async fn backends(&self) -> Result<Vec<Backend>, Error> {
        let instances = self.instances().await?;
        // All questions at once, so that it is one wait and not one for each.
        try_join_all(
            instances
                .into_iter()
                .map(async |(instance, units)| self.backend(&instance, units).await),
        )
        .await
    }

    /// The names of all backends that are loaded, enabled or configured.
    pub(crate) async fn names(&self) -> Result<Vec<Instance>, Error> {
        Ok(self.instances().await?.into_keys().collect())
    }

    async fn instances(&self) -> Result<BTreeMap<Instance, Units>, Error> {
        let mut instances = self.loaded().await?;
        let folders = self
            .proxy
            .unit_path()
            .await
            .map_err(call("ask systemd for its unit folders"))?;
        // Of another machine only what is loaded can be seen; what is enabled there is.
        if self.target.is_local() {
            for instance in configured(folders.iter().map(PathBuf::from)) {
                instances.entry(instance).or_default();
            }
        }
        Ok(instances)
    }

    async fn loaded(&self) -> Result<BTreeMap<Instance, Units>, Error> {
        let listed = self
            .proxy
            .list_units_by_patterns(Vec::new(), patterns())
            .await
            .map_err(call("list the units of systemd"))?;
        Ok(by_instance(listed))
    }

    async fn backend(&self, instance: &Instance, units: Units) -> Result<Backend, Error> {
        let active = |unit: &Option<Unit>| {
            unit.as_ref()
                .map_or("inactive", |unit| &unit.active)
                .to_owned()
        };
        let (socket, service) = (active(&units.socket), active(&units.service));
        let pid = match &units.service {
            Some(unit) if !matches!(service.as_str(), "inactive" | "failed") => {
                self.main_pid(unit).await?
            }
            _ => None,
        };
        let socket_unit = instance.unit(UnitType::Socket);
        let socket_path = match &units.socket {
            Some(unit) => Some(unit.path.clone()),
            None => answer(
                self.proxy.load_unit(socket_unit.clone()).await,
                "load a unit",
            )?,
        };
        let device = self.device(instance, &units).await?;
        let state = match BackendState::new(&socket, &service) {
            BackendState::Listening
                if device.as_deref().is_some_and(|path| self.is_missing(path)) =>
            {
                BackendState::NoDevice
            }
            state => state,
        };
        Ok(Backend {
            instance: instance.clone(),
            vm: instance.vm().to_owned(),
            name: instance.label().to_owned(),
            device_type: self.device_type(instance),
            state,
            device,
            socket: match socket_path {
                Some(path) => self.listens_at(path).await?,
                None => None,
            },
            pid,
            socket_unit,
            service_unit: instance.unit(UnitType::Service),
            socket_state: units.socket.map(|unit| unit.sub),
            service_state: units.service.map(|unit| unit.sub),
        })
    }

    /// The type of device, which for units of no type of their own only their files tell.
    fn device_type(&self, instance: &Instance) -> String {
        let told = match instance.kind() {
            UnitKind::Backend if self.target.is_local() => {
                Settings::read(&Folders::system(), instance).device_type
            }
            _ => None,
        };
        told.unwrap_or_else(|| instance.kind().name().to_owned())
    }

    async fn listens_at(&self, socket: OwnedObjectPath) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd where a socket is";
        let proxy = SocketProxy::builder(&self.bus)
            .path(socket)
            .map_err(call(WHAT))?
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(call(WHAT))?;
        let listen = answer(proxy.listen().await, WHAT)?.unwrap_or_default();
        Ok(listen
            .into_iter()
            .find(|(kind, _)| kind == "Stream")
            .map(|(_, path)| unescaped(&path)))
    }

    /// The device that the service is configured for.
    async fn device(&self, instance: &Instance, units: &Units) -> Result<Option<String>, Error> {
        const WHAT: &str = "ask systemd for a device";
        if instance.kind() == UnitKind::Backend {
            return Ok(None);
        }
        let path = match &units.service {
            Some(unit) => Some(unit.path.clone()),
            None => answer(
                self.proxy.load_unit(instance.unit(UnitType::Service)).await,
                WHAT,
            )?,
        };
        let Some(path) = path else {
            return Ok(None);
        };
        let proxy = self.service(path, WHAT).await?;
        let environment = answer(proxy.environment().await, WHAT)?.unwrap_or_default();
        Ok(details::device(&environment))
    }

    /// The service whose unit has this path on the bus; `what` is for the error.
    async fn service(
        &self,
        path: OwnedObjectPath,
        what: &'static str,
    ) -> Result<ServiceProxy<'_>, Error> {
        ServiceProxy::builder(&self.bus)
            .path(path)
            .map_err(call(what))?
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(call(what))
    }

    /// Whether a device of this host is not there. Those of another host cannot be seen.
    fn is_missing(&self, device: &str) -> bool {
        self.target.is_local()
            && matches!(Path::new(device).try_exists(), Ok(false))
            && !Devices::new().has(device)
    }

    async fn main_pid(&self, service: &Unit) -> Result<Option<u32>, Error> {
        const WHAT: &str = "ask systemd for a main process";
        let proxy = self.service(service.path.clone(), WHAT).await?;
        Ok(answer(proxy.main_pid().await, WHAT)?.filter(|pid| *pid != 0))
    }
}

/// The patterns of the names of our units.
fn patterns() -> Vec<String> {
    let halves = |kind: &UnitKind| {
        ["socket", "service"].map(|unit_type| format!("{}@*.{unit_type}", kind.template()))
    };
    UnitKind::ALL.iter().flat_map(halves).collect()
}

/// The units of backends among those that systemd lists.
fn by_instance(listed: Vec<Listed>) -> BTreeMap<Instance, Units> {
    let mut instances = BTreeMap::<_, Units>::new();
    for (name, _, load, active, sub, _, path, ..) in listed {
        // Units that others only mention are listed too.
        if load == NOT_FOUND {
            continue;
        }
        let Some((instance, unit_type)) = Instance::from_unit(&name) else {
            continue;
        };
        let units = instances.entry(instance).or_default();
        let unit = Some(Unit { active, sub, path });
        match unit_type {
            UnitType::Socket => units.socket = unit,
            UnitType::Service => units.service = unit,
        }
    }
    instances
}

/// A property that is a text, and not empty.
fn text(properties: &HashMap<String, OwnedValue>, name: &str) -> Option<String> {
    let value = properties.get(name)?.try_clone().ok()?;
    String::try_from(value).ok().filter(|text| !text.is_empty())
}

/// Takes back the C escapes that systemd shows the address of a socket with.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = unit_file::escape(escape).unwrap_or((b'\\', 0));
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The instances with a unit file, a drop-in or a `.wants` link of their own in one of the folders.
/// systemd has those in memory only while something refers to them.
pub(crate) fn configured(folders: impl IntoIterator<Item = PathBuf>) -> BTreeSet<Instance> {
    let mut found = BTreeSet::new();
    for folder in folders {
        for name in names(&folder) {
            if name.ends_with(".wants") || name.ends_with(".requires") {
                found.extend(
                    names(&folder.join(&name))
                        .iter()
                        .filter_map(|name| instance(name)),
                );
            } else {
                found.extend(instance(name.strip_suffix(".d").unwrap_or(&name)));
            }
        }
    }
    found
}

fn instance(unit: &str) -> Option<Instance> {
    Instance::from_unit(unit).map(|(instance, _)| instance)
}

/// The names in a folder. Most of systemd's folders do not exist on most systems.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn two_states_make_one() {
        assert_eq!(BackendState::new("active", "active"), BackendState::Running);
        assert_eq!(
            BackendState::new("inactive", "active"),
            BackendState::Running
        );
        assert_eq!(
            BackendState::new("active", "activating"),
            BackendState::Starting
        );
        assert_eq!(
            BackendState::new("active", "deactivating"),
            BackendState::Stopping
        );
        assert_eq!(
            BackendState::new("active", "inactive"),
            BackendState::Listening
        );
        assert_eq!(
            BackendState::new("active", "failed"),
            BackendState::Listening
        );
        assert_eq!(
            BackendState::new("failed", "inactive"),
            BackendState::Failed
        );
        assert_eq!(
            BackendState::new("inactive", "failed"),
            BackendState::Failed
        );
        assert_eq!(
            BackendState::new("inactive", "inactive"),
            BackendState::Inactive
        );
    }

    #[test]
    fn json_and_table_use_the_same_words() {
        for state in [
            BackendState::Running,
            BackendState::Starting,
            BackendState::Stopping,
            BackendState::Listening,
            BackendState::NoDevice,
            BackendState::Failed,
            BackendState::Inactive,
        ] {
            assert_eq!(
                serde_json::to_string(&state).expect("a string"),
                format!("\"{state}\"")
            );
        }
    }

    #[test]
    fn escapes_are_taken_back() {
        assert_eq!(
            unescaped("/run/vhost-user/gpu/vm1.sock"),
            "/run/vhost-user/gpu/vm1.sock"
        );
        assert_eq!(unescaped(r"/run/my\\x20vm.sock"), r"/run/my\x20vm.sock");
        assert_eq!(unescaped(r"/run/T\303\244st\x41\t"), "/run/TästA\t");
        for broken in [r"a\", r"a\x4", r"a\xzz", r"a\39", r"a\q", r"a\xä"] {
            assert_eq!(unescaped(broken), broken);
        }
    }

    #[test]
    fn configured_instances_are_found_in_all_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let make =
            |path: &str| fs::create_dir_all(folder.path().join(path)).expect("a folder in it");
        make("etc/vhost-user-input@vm1:kbd.service.d");
        make("etc/vhost-user-gpu@.service.d");
        make("etc/sshd.service.d");
        make("etc/sockets.target.wants/vhost-user-gpu@vm2.socket");
        make("usr/vhost-user-gpu@vm3.service");
        make("usr/vhost-user-input@vm1:kbd.socket.d");
        let folders = ["etc", "usr", "missing"].map(|name| folder.path().join(name));
        let found: Vec<_> = configured(folders)
            .iter()
            .map(|i| i.unit(UnitType::Socket))
            .collect();
        assert_eq!(
            found,
            [
                "vhost-user-input@vm1:kbd.socket",
                "vhost-user-gpu@vm2.socket",
                "vhost-user-gpu@vm3.socket"
            ]
        );
    }
}
