// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything about a backend.

use conventions::{FrontEndStatus, KEPT_STATE_DESCRIPTORS, ViewersStatus};
use jiff::Timestamp;
use serde::Serialize;

use super::{Backend, command_line};
use crate::systemd::{BackendState, Properties};

/// A backend with the properties of its units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Details {
    #[serde(flatten)]
    pub backend: Backend,
    /// The description of the service.
    pub description: Option<String>,
    /// "loaded", or the LOAD of a unit that systemd cannot use.
    pub load_state: String,
    /// Why systemd cannot use a unit.
    pub load_error: Option<String>,
    /// All addresses on which the socket listens: paths, and hosts with ports.
    pub sockets: Vec<String>,
    /// The user who may connect, besides root.
    pub socket_user: Option<String>,
    /// The group that may connect.
    pub socket_group: Option<String>,
    /// The access mode of the socket, in octal.
    pub socket_mode: Option<String>,
    pub socket_file: Option<String>,
    pub service_file: Option<String>,
    /// The second socket of a device, for the VM's VNC server; none if it has none.
    pub console: Option<ConsoleSocket>,
    /// The service beside a GPU with Vulkan that renders for it; none if it has none.
    pub render_server: Option<RenderServerUnit>,
    /// The drop-ins of all units.
    pub drop_ins: Vec<String>,
    /// Whether the socket is started at boot, in systemctl's words.
    pub enabled: Option<String>,
    /// When the state began.
    pub since: Option<Timestamp>,
    /// Whether a front-end is connected; none if the backend does not report it, and for a VNC server.
    pub front_end: Option<bool>,
    /// Another front-end that waits until this one disconnects.
    pub front_end_waits: Option<WaitingFrontEnd>,
    /// Whether its program keeps its state with systemd, so that a VM's device outlives the program.
    pub keeps_state: bool,
    /// Whether the program that is installed now understands that state; none if it keeps none, or that cannot be told.
    pub state_understood: Option<bool>,
    /// How often systemd started the program again after it had died, since the start of the service.
    pub restarts: u32,
    /// When the program started.
    #[serde(skip)]
    pub started: Option<Timestamp>,
    /// Whether its drop-ins are newer than its program, or its program has another command line; none if it does not run, or on another host.
    pub settings_changed: Option<bool>,
    /// How many viewers are connected to a VNC server; none if it does not report it, and for devices.
    pub viewers: Option<usize>,
    /// The status text of the backend (`STATUS=`).
    pub status: Option<String>,
    /// Whether its device is missing; none without a device, or on another host.
    pub device_missing: Option<bool>,
    /// Whether it has access to the host's network; none if its program is in a container, which its unit does not tell.
    pub network: Option<bool>,
    /// How the last run ended, in systemd's words; "success" before the first.
    pub result: Option<String>,
    /// The exit status of the last run, if no signal ended it.
    pub exit_status: Option<i32>,
    /// When the last run ended.
    pub ended: Option<Timestamp>,
    /// The memory of its processes, in bytes.
    pub memory: Option<u64>,
    /// The number of its tasks (threads).
    pub tasks: Option<u64>,
    /// The limit on its tasks.
    pub tasks_max: Option<u64>,
    /// The processor time that it used, in nanoseconds.
    pub cpu_nsec: Option<u64>,
    /// Its control group, below the root of control groups.
    pub control_group: Option<String>,
}

/// The second socket of a device, by which the VM's VNC server uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConsoleSocket {
    /// The name of its unit.
    pub unit: String,
    /// Its path.
    pub path: Option<String>,
    /// The state of the unit (SUB of systemctl).
    pub state: Option<String>,
    /// Whether it is started at boot, in systemctl's words.
    pub enabled: Option<String>,
    #[serde(skip)]
    drop_ins: Vec<String>,
}

impl ConsoleSocket {
    /// Reads the properties of its unit. `None` if the device has none: each could have one by the template, but nobody
    /// set it up or started it.
    pub(super) fn new(unit: String, properties: &Properties) -> Option<Self> {
        let drop_ins = properties.list("DropInPaths");
        let of_instance = format!("/{unit}.d/");
        let is_set_up = drop_ins.iter().any(|path| path.contains(&of_instance));
        let enabled = properties.text("UnitFileState");
        let state = properties.text("ActiveState");
        let is_there = is_set_up
            || enabled
                .as_deref()
                .is_some_and(|it| it.starts_with("enabled"))
            || state.is_some_and(|it| it != "inactive");
        is_there.then(|| Self {
            unit,
            path: properties.listen().into_iter().next(),
            state: properties.text("SubState"),
            enabled,
            drop_ins,
        })
    }

    /// Whether somebody can connect to it, or is connected.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state.as_deref(), Some("listening" | "running"))
    }
}

/// The service beside a GPU that renders for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RenderServerUnit {
    /// The name of its unit.
    pub unit: String,
    /// The state of the unit (SUB of systemctl).
    pub state: Option<String>,
    /// How its last run ended, in systemd's words; "success" before the first.
    pub result: Option<String>,
    /// The memory of its processes, in bytes.
    pub memory: Option<u64>,
    /// The number of its tasks (threads).
    pub tasks: Option<u64>,
    #[serde(skip)]
    drop_ins: Vec<String>,
}

impl RenderServerUnit {
    /// Reads the properties of its unit.
    pub(super) fn new(unit: String, properties: &Properties) -> Self {
        let runs = properties.text("ActiveState").as_deref() == Some("active");
        Self {
            unit,
            state: properties.text("SubState"),
            result: properties.text("Result"),
            memory: properties.number("MemoryCurrent").filter(|_| runs),
            tasks: properties.number("TasksCurrent").filter(|_| runs),
            drop_ins: properties.list("DropInPaths"),
        }
    }
}

/// A front-end that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WaitingFrontEnd {
    pub pid: u32,
    /// The user id, if it is known.
    pub uid: Option<u32>,
}

impl Details {
    /// Reads the properties of its units.
    pub(super) fn new(
        backend: Backend,
        socket: &Properties,
        console: Option<ConsoleSocket>,
        service: &Properties,
    ) -> Self {
        let since = match backend.state {
            BackendState::Running => service.since("active"),
            // Since the socket was created or the last VMM left, whichever came later.
            BackendState::Listening | BackendState::NoDevice | BackendState::NoSocket => {
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
        let drop_ins_of_console = console.iter().flat_map(|console| console.drop_ins.clone());
        let drop_ins = [
            socket.list("DropInPaths"),
            drop_ins_of_console.collect(),
            service.list("DropInPaths"),
        ]
        .concat();
        let load_state = [socket, service]
            .iter()
            .filter_map(|unit| unit.text("LoadState"))
            .find(|state| state != "loaded");
        let ran = service.time("ExecMainExitTimestamp").is_some()
            || service.time("InactiveEnterTimestamp").is_some();
        let user = socket.text("SocketUser");
        // The properties of a masked or missing unit are only systemd's defaults.
        let mode = socket
            .get::<u32>("SocketMode")
            .filter(|_| socket.text("LoadState").as_deref() == Some("loaded"));
        Self {
            description: service.text("Description"),
            load_state: load_state.unwrap_or_else(|| "loaded".to_owned()),
            load_error: socket.load_error().or_else(|| service.load_error()),
            sockets: socket.listen(),
            // Without a user it belongs to root; without a group, to the group of the user.
            socket_user: mode.map(|_| user.unwrap_or_else(|| "root".to_owned())),
            socket_group: socket.text("SocketGroup"),
            socket_mode: mode.map(|mode| format!("{mode:04o}")),
            socket_file: socket.text("FragmentPath"),
            service_file: service.text("FragmentPath"),
            console,
            render_server: None,
            drop_ins,
            enabled: socket.text("UnitFileState"),
            since,
            front_end: match backend.instance.is_device() {
                true => front_end(backend.state, status.as_deref()),
                false => None,
            },
            viewers: match backend.instance.is_device() {
                true => None,
                false => viewers(backend.state, status.as_deref()),
            },
            front_end_waits: status.as_deref().and_then(front_end_waits),
            keeps_state: runs
                && service
                    .get::<u32>("NFileDescriptorStore")
                    .is_some_and(|kept| kept >= KEPT_STATE_DESCRIPTORS),
            restarts: service.get("NRestarts").unwrap_or_default(),
            started: service.time("ExecMainStartTimestamp").filter(|_| runs),
            settings_changed: None,
            state_understood: None,
            status,
            device_missing: None,
            network: match command_line::runs_container(service) {
                true => None,
                false => Some(service.get("PrivateNetwork") == Some(false)),
            },
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

    /// With the service that renders for it.
    pub(super) fn with_render_server(mut self, server: Option<RenderServerUnit>) -> Self {
        let drop_ins = server.iter().flat_map(|server| server.drop_ins.clone());
        self.drop_ins.extend(drop_ins);
        self.render_server = server;
        self
    }

    /// Whether somebody uses it, a front-end or a viewer; none if it does not report it.
    pub(crate) fn is_used(&self) -> Option<bool> {
        match self.backend.instance.is_device() {
            true => self.front_end,
            false => self.viewers.map(|viewers| viewers > 0),
        }
    }

    /// Whether a VM uses it, and would not notice that its program is replaced.
    pub(crate) fn survives_restart(&self) -> bool {
        self.backend.state == BackendState::Running
            && self.front_end == Some(true)
            && self.keeps_state
            && self.settings_changed != Some(true)
            && self.state_understood != Some(false)
    }

    /// Whether its service runs and its socket for a console does not: systemd starts such a socket only while the
    /// service is off.
    pub(crate) fn runs_without_console(&self) -> bool {
        let runs = matches!(
            self.backend.state,
            BackendState::Running | BackendState::Starting | BackendState::Stopping
        );
        let listens = self.console.as_ref().is_some_and(ConsoleSocket::is_active);
        runs && !listens
    }
}

/// Whether a front-end is connected. A backend that was started by its socket has one from the start; one that was
/// started by hand waits for it, and reports that.
fn front_end(state: BackendState, status: Option<&str>) -> Option<bool> {
    match (state, status.and_then(FrontEndStatus::parse)) {
        (BackendState::Running, Some(FrontEndStatus::Connected { .. })) => Some(true),
        (BackendState::Running, Some(FrontEndStatus::Waiting { .. })) => Some(false),
        (BackendState::Running | BackendState::Starting | BackendState::Stopping, _) => None,
        (
            BackendState::Listening
            | BackendState::NoDevice
            | BackendState::NoSocket
            | BackendState::Failed
            | BackendState::Inactive,
            _,
        ) => Some(false),
    }
}

/// How many viewers are connected.
fn viewers(state: BackendState, status: Option<&str>) -> Option<usize> {
    let told = status.and_then(ViewersStatus::parse);
    match (state, told) {
        (_, Some(status)) => Some(status.count),
        (BackendState::Running | BackendState::Starting | BackendState::Stopping, None) => None,
        (_, None) => Some(0),
    }
}

/// The front-end that waits, by the status text.
fn front_end_waits(status: &str) -> Option<WaitingFrontEnd> {
    match FrontEndStatus::parse(status)? {
        FrontEndStatus::Connected { next, .. } => next.map(|peer| WaitingFrontEnd {
            pid: peer.pid,
            uid: peer.uid,
        }),
        FrontEndStatus::Waiting { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_end_is_there_if_the_backend_says_so() {
        let connected = Some("a front-end is connected");
        let waiting = Some("waiting for a front-end on /run/x.sock");
        let shows = "a front-end is connected, another waits (pid 7, uid 107): 1280x800";
        assert_eq!(front_end(BackendState::Running, connected), Some(true));
        assert_eq!(front_end(BackendState::Running, Some(shows)), Some(true));
        let waits = WaitingFrontEnd {
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
    fn viewers_are_counted_by_the_server() {
        let looks = Some("2 viewers: root (pid 7), alice (pid 8)");
        assert_eq!(viewers(BackendState::Running, looks), Some(2));
        assert_eq!(
            viewers(BackendState::Running, Some("nobody looks")),
            Some(0)
        );
        assert_eq!(viewers(BackendState::Running, None), None);
        assert_eq!(viewers(BackendState::Listening, None), Some(0));
    }
}
