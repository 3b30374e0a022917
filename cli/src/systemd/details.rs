//! All that systemd knows about a backend.

use std::collections::HashMap;

use conventions::{EVDEV_PATH, FrontEndStatus, OPTIONS};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::{Backend, BackendState, Error, Manager, answer};
use crate::instance::{Instance, UnitType};
use crate::unit_file;

/// A backend and its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Details {
    /// What `list` shows of it.
    #[serde(flatten)]
    pub backend: Backend,
    /// What the service says that it is.
    pub description: Option<String>,
    /// Whether its units could be read; "loaded" if so.
    pub load_state: String,
    /// Why they could not be.
    pub load_error: Option<String>,
    /// The user who may connect, besides root.
    pub socket_user: Option<String>,
    /// The group that may connect.
    pub socket_group: Option<String>,
    /// The access mode of the socket, in octal.
    pub socket_mode: Option<String>,
    /// The file of the socket unit.
    pub socket_file: Option<String>,
    /// The file of the service unit.
    pub service_file: Option<String>,
    /// The drop-ins of both.
    pub drop_ins: Vec<String>,
    /// Whether the socket is started at boot, in systemctl's words.
    pub enabled: Option<String>,
    /// Since when the state is what it is.
    pub since: Option<Timestamp>,
    /// Whether a front-end is connected; none if the backend does not tell.
    pub front_end: Option<bool>,
    /// Another front-end that waits until this one disconnects.
    pub front_end_waits: Option<Waits>,
    /// What the backend says that it does.
    pub status: Option<String>,
    /// Whether that device is not there now; none if it has none, or runs on another host.
    pub device_missing: Option<bool>,
    /// Whether it may use the host's network.
    pub network: bool,
    /// How the last run ended, in systemd's words; "success" before the first.
    pub result: Option<String>,
    /// The exit status of the last run, if it ended by itself.
    pub exit_status: Option<i32>,
    /// When the last run ended.
    pub ended: Option<Timestamp>,
    /// The memory of its processes, in bytes.
    pub memory: Option<u64>,
    /// The number of its threads.
    pub tasks: Option<u64>,
    /// How many it may have.
    pub tasks_max: Option<u64>,
    /// The processor time that it used, in nanoseconds.
    pub cpu_nsec: Option<u64>,
    /// Where its processes are, below the root of control groups.
    pub control_group: Option<String>,
}

/// A front-end that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waits {
    /// Its process.
    pub pid: u32,
    /// The user id of that.
    pub uid: Option<u32>,
}

/// A unit's properties.
#[derive(Default)]
struct Properties(HashMap<String, OwnedValue>);

impl Properties {
    fn get<T: TryFrom<OwnedValue>>(&self, name: &str) -> Option<T> {
        T::try_from(self.0.get(name)?.try_clone().ok()?).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get::<String>(name).filter(|text| !text.is_empty())
    }

    /// A number, for which all ones stand for none.
    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).filter(|number| *number != u64::MAX)
    }

    /// A time in microseconds since 1970, for which 0 stands for never.
    fn time(&self, name: &str) -> Option<Timestamp> {
        let time = self.number(name).filter(|time| *time != 0)?;
        Timestamp::from_microsecond(i64::try_from(time).ok()?).ok()
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default()
    }

    /// When it came into its state, as systemctl reads it.
    fn since(&self, state: &str) -> Option<Timestamp> {
        self.time(match state {
            "active" | "reloading" | "refreshing" => "ActiveEnterTimestamp",
            "activating" => "InactiveExitTimestamp",
            "deactivating" => "ActiveExitTimestamp",
            _ => "InactiveEnterTimestamp",
        })
    }

    fn load_error(&self) -> Option<String> {
        let (_, message) = self.get::<(String, String)>("LoadError")?;
        (!message.is_empty()).then_some(message)
    }
}

impl Manager {
    /// Everything about the backends that are chosen, by VM.
    pub(crate) async fn details(
        &self,
        chosen: impl Fn(&Instance) -> bool,
    ) -> Result<Vec<Details>, Error> {
        let mut instances = self.instances().await?;
        instances.retain(|instance, _| chosen(instance));
        try_join_all(instances.into_iter().map(async |(instance, units)| {
            let backend = self.backend(&instance, units).await?;
            let socket = self.properties(&instance, UnitType::Socket).await?;
            let service = self.properties(&instance, UnitType::Service).await?;
            let missing = backend.device.as_ref().filter(|_| self.target.is_local());
            let missing = missing.map(|path| self.is_missing(path));
            Ok(Details {
                device_missing: missing,
                ..details(backend, &socket, &service)
            })
        }))
        .await
    }

    async fn properties(
        &self,
        instance: &Instance,
        unit_type: UnitType,
    ) -> Result<Properties, Error> {
        const WHAT: &str = "ask systemd about a unit";
        let unit = self.proxy.load_unit(instance.unit(unit_type)).await;
        let Some(path) = answer(unit, WHAT)? else {
            return Ok(Properties::default());
        };
        let all = self.properties_of(&path, "").await;
        Ok(Properties(answer(all, WHAT)?.unwrap_or_default()))
    }

    /// The properties of an object's interface; of all of its interfaces if that is empty.
    pub(super) async fn properties_of(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> zbus::Result<HashMap<String, OwnedValue>> {
        let properties = Some("org.freedesktop.DBus.Properties");
        let service = Some(super::SERVICE);
        let reply = self
            .bus
            .call_method(service, path, properties, "GetAll", &interface)
            .await?;
        reply.body().deserialize()
    }
}

fn details(backend: Backend, socket: &Properties, service: &Properties) -> Details {
    let since = match backend.state {
        BackendState::Running => service.since("active"),
        // Since the socket is there or the last VMM left, whatever came later.
        BackendState::Listening | BackendState::NoDevice => {
            socket.since("active").max(service.since("inactive"))
        }
        state => {
            let active = |unit: &Properties| {
                let active = unit.text("ActiveState")?;
                unit.since(&active)
            };
            match state {
                BackendState::Failed | BackendState::Inactive => {
                    active(socket).max(active(service))
                }
                _ => active(service).or_else(|| active(socket)),
            }
        }
    };
    let runs = backend.pid.is_some();
    let status = service.text("StatusText").filter(|_| runs);
    let drop_ins = [socket, service]
        .iter()
        .flat_map(|unit| unit.list("DropInPaths"))
        .collect();
    let load_state = [socket, service]
        .iter()
        .filter_map(|unit| unit.text("LoadState"))
        .find(|state| state != "loaded");
    let ran = service.time("ExecMainExitTimestamp").is_some()
        || service.time("InactiveEnterTimestamp").is_some();
    let user = socket.text("SocketUser");
    // One that is masked or not there has no socket, only systemd's defaults.
    let mode = socket
        .get::<u32>("SocketMode")
        .filter(|_| socket.text("LoadState").as_deref() == Some("loaded"));
    Details {
        description: service.text("Description"),
        load_state: load_state.unwrap_or_else(|| "loaded".to_owned()),
        load_error: socket.load_error().or_else(|| service.load_error()),
        // Without a user it is root's; without a group it is that of the user.
        socket_user: mode.map(|_| user.unwrap_or_else(|| "root".to_owned())),
        socket_group: socket.text("SocketGroup"),
        socket_mode: mode.map(|mode| format!("{mode:04o}")),
        socket_file: socket.text("FragmentPath"),
        service_file: service.text("FragmentPath"),
        drop_ins,
        enabled: socket.text("UnitFileState"),
        since,
        front_end: front_end(backend.state, status.as_deref()),
        front_end_waits: status.as_deref().and_then(front_end_waits),
        status,
        device_missing: None,
        network: service.get("PrivateNetwork") == Some(false),
        result: service.text("Result"),
        exit_status: service
            .get("ExecMainStatus")
            // CLD_EXITED of sigaction(2): otherwise it is the number of a signal.
            .filter(|_| ran && service.get::<i32>("ExecMainCode") == Some(1)),
        ended: service.since("inactive").filter(|_| !runs),
        memory: service.number("MemoryCurrent").filter(|_| runs),
        tasks: service.number("TasksCurrent").filter(|_| runs),
        tasks_max: service.number("TasksMax").filter(|_| runs),
        cpu_nsec: service.number("CPUUsageNSec"),
        control_group: service.text("ControlGroup").filter(|_| runs),
        backend,
    }
}

/// A backend that systemd started by its socket has a front-end from the first moment; one that somebody
/// started by hand waits for it, and says so.
fn front_end(state: BackendState, status: Option<&str>) -> Option<bool> {
    match (state, status.and_then(FrontEndStatus::parse)) {
        (BackendState::Running, Some(FrontEndStatus::Connected { .. })) => Some(true),
        (BackendState::Running, Some(FrontEndStatus::Waiting { .. })) => Some(false),
        (BackendState::Running | BackendState::Starting | BackendState::Stopping, _) => None,
        (
            BackendState::Listening
            | BackendState::NoDevice
            | BackendState::Failed
            | BackendState::Inactive,
            _,
        ) => Some(false),
    }
}

/// The front-end that waits, as the backend says.
fn front_end_waits(status: &str) -> Option<Waits> {
    match FrontEndStatus::parse(status)? {
        FrontEndStatus::Connected { next, .. } => next.map(|peer| Waits {
            pid: peer.pid,
            uid: peer.uid,
        }),
        FrontEndStatus::Waiting { .. } => None,
    }
}

/// The device that the options of the service name.
pub(super) fn device(environment: &[String]) -> Option<String> {
    let variable = |name: &str| {
        environment
            .iter()
            .rev()
            .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    };
    let render_node = || {
        let options = unit_file::variable_words(variable(OPTIONS)?);
        let path = |option: &String| Some(option.strip_prefix("--render-node=")?.to_owned());
        options.iter().find_map(path)
    };
    variable(EVDEV_PATH)
        .map(str::to_owned)
        .or_else(render_node)
        .filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use zbus::zvariant::Value;

    use super::*;

    fn properties<const N: usize>(list: [(&str, Value<'static>); N]) -> Properties {
        Properties(
            list.into_iter()
                .map(|(name, value)| {
                    let value = OwnedValue::try_from(value).expect("a value");
                    (name.to_owned(), value)
                })
                .collect(),
        )
    }

    #[test]
    fn what_stands_for_nothing_is_nothing() {
        let unit = properties([
            ("MemoryCurrent", u64::MAX.into()),
            ("TasksCurrent", 3_u64.into()),
            ("ActiveEnterTimestamp", 0_u64.into()),
            ("StatusText", "".into()),
            ("LoadError", ("", "").into()),
            ("DropInPaths", vec!["/etc/a.conf", "/run/b.conf"].into()),
        ]);
        assert_eq!(unit.number("MemoryCurrent"), None);
        assert_eq!(unit.number("TasksCurrent"), Some(3));
        assert_eq!(unit.time("ActiveEnterTimestamp"), None);
        assert_eq!(unit.text("StatusText"), None);
        assert_eq!(unit.load_error(), None);
        assert_eq!(unit.list("DropInPaths"), ["/etc/a.conf", "/run/b.conf"]);
        assert_eq!(unit.list("Missing"), [""; 0]);
        let broken = properties([("LoadError", ("org.example", "no such file").into())]);
        assert_eq!(broken.load_error().as_deref(), Some("no such file"));
    }

    #[test]
    fn a_state_has_its_own_time() {
        let unit = properties([
            ("ActiveEnterTimestamp", 1_u64.into()),
            ("ActiveExitTimestamp", 2_u64.into()),
            ("InactiveEnterTimestamp", 3_u64.into()),
            ("InactiveExitTimestamp", 4_u64.into()),
        ]);
        for (state, time) in [
            ("active", 1),
            ("deactivating", 2),
            ("inactive", 3),
            ("failed", 3),
            ("activating", 4),
        ] {
            let since = unit.since(state).map(Timestamp::as_microsecond);
            assert_eq!(since, Some(time), "{state}");
        }
    }

    #[test]
    fn a_front_end_is_there_if_the_backend_says_so() {
        let connected = Some("a front-end is connected");
        let waiting = Some("waiting for a front-end on /run/x.sock");
        let shows = "a front-end is connected, another waits (pid 7, uid 107): 1280x800";
        assert_eq!(front_end(BackendState::Running, connected), Some(true));
        assert_eq!(front_end(BackendState::Running, Some(shows)), Some(true));
        let waits = Waits {
            pid: 7,
            uid: Some(107),
        };
        assert_eq!(front_end_waits(shows), Some(waits));
        assert_eq!(front_end(BackendState::Running, waiting), Some(false));
        assert_eq!(front_end(BackendState::Running, None), None);
        assert_eq!(front_end(BackendState::Listening, None), Some(false));
        assert_eq!(front_end(BackendState::Failed, connected), Some(false));
    }

    #[test]
    fn the_device_is_in_the_environment() {
        let device = |variables: &[&str]| {
            let variables: Vec<_> = variables.iter().map(ToString::to_string).collect();
            device(&variables)
        };
        assert_eq!(
            device(&["OPTIONS=--no-grab", "EVDEV_PATH=/dev/input/event3"]).as_deref(),
            Some("/dev/input/event3")
        );
        assert_eq!(
            device(&[
                "OPTIONS=",
                "OPTIONS=--virgl --render-node=/dev/dri/renderD129"
            ])
            .as_deref(),
            Some("/dev/dri/renderD129")
        );
        assert_eq!(device(&["OPTIONS=--no-grab", "EVDEV_PATH="]), None);
        assert_eq!(device(&[]), None);
    }
}
