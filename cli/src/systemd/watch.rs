// SPDX-License-Identifier: Apache-2.0 OR MIT
//! State changes of units, as they happen.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedValue};
use zbus::{MatchRule, Message, MessageStream};

use super::error::{Error, during};
use super::loaded_units::{self, ListedUnit, LoadedUnit};
use super::manager::Manager;
use super::properties::Properties;
use super::queries::SERVICE;
use super::state::BackendState;
use crate::instance::{Instance, UnitName, UnitType};

const WHAT: &str = "watch the units of systemd";
/// How many signals may wait. Every unit of the system sends some, most of them at boot.
const QUEUE: usize = 16 * 1024;
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// A state change of a unit of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub instance: Instance,
    pub unit_type: UnitType,
    /// The unit's state (ACTIVE, in systemctl's words).
    pub active_state: String,
    /// The same in more detail (SUB).
    pub sub_state: String,
    /// The state of the backend.
    pub state: BackendState,
}

/// A unit's state: ACTIVE and SUB.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnitState {
    active: String,
    sub: String,
}

impl Default for UnitState {
    /// The state of a unit that is not loaded.
    fn default() -> Self {
        Self {
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
        }
    }
}

impl From<LoadedUnit> for UnitState {
    fn from(unit: LoadedUnit) -> Self {
        Self {
            active: unit.active,
            sub: unit.sub,
        }
    }
}

/// The states that were reported last.
#[derive(Default)]
struct Known(BTreeMap<Instance, UnitStates>);

/// The states of the units of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UnitStates {
    socket: UnitState,
    console: UnitState,
    service: UnitState,
}

impl Known {
    /// Updates the state of a unit; returns the change, if there is one.
    fn set(&mut self, name: UnitName, new: UnitState) -> Option<Change> {
        let UnitName {
            instance,
            unit_type,
        } = name;
        let units = self.0.entry(instance.clone()).or_default();
        let unit = match unit_type {
            UnitType::Socket => &mut units.socket,
            UnitType::Console => &mut units.console,
            UnitType::Service => &mut units.service,
        };
        if *unit == new {
            return None;
        }
        *unit = new.clone();
        let state = BackendState::new(&units.socket.active, &units.service.active);
        if *units == UnitStates::default() {
            self.0.remove(&instance);
        }
        Some(Change {
            instance,
            unit_type,
            active_state: new.active,
            sub_state: new.sub,
            state,
        })
    }
}

/// The changes from now on.
///
/// Signals and the replies to our calls come by one stream, in the order in which they were sent. A call that waits
/// for its reply would return a state that is newer than the signals still in the stream, and these would then be
/// reported again.
pub(crate) struct UnitWatch {
    manager: Manager,
    stream: MessageStream,
    known: Known,
    /// The units that were asked about, by the serial of the call.
    asked: HashMap<NonZeroU32, UnitName>,
}

/// What a signal says of a unit.
enum Signal {
    /// This unit was loaded or unloaded. That alone says nothing about its state: systemd loads all units again on
    /// daemon-reload.
    Loaded(UnitName),
    /// This unit has this state.
    State(UnitName, UnitState),
}

impl UnitWatch {
    /// Begins to watch.
    pub(crate) async fn start(mut manager: Manager) -> Result<Self, Error> {
        manager.set_max_queued(QUEUE);
        let mut stream = MessageStream::from(manager.bus());
        let bus = zbus::fdo::DBusProxy::new(manager.bus())
            .await
            .map_err(during(WHAT))?;
        for rule in rules().map_err(during(WHAT))? {
            bus.add_match_rule(rule)
                .await
                .map_err(|error| during(WHAT)(error.into()))?;
        }
        manager.proxy().subscribe().await.map_err(during(WHAT))?;
        // The list includes the changes of all signals that come before it.
        let serial = ask_for_units(&manager, &loaded_units::patterns()).await?;
        let listed = loop {
            let message = stream.next().await.ok_or(Error::Lost { what: WHAT })?;
            let message = message.map_err(during(WHAT))?;
            if message.header().reply_serial() == Some(serial) {
                break listed_units(&message)?;
            }
        };
        let mut known = Known::default();
        for (instance, units) in loaded_units::by_instance(listed) {
            for (unit_type, unit) in [
                (UnitType::Socket, units.socket),
                (UnitType::Console, units.console),
                (UnitType::Service, units.service),
            ] {
                if let Some(unit) = unit {
                    let instance = instance.clone();
                    let name = UnitName {
                        instance,
                        unit_type,
                    };
                    known.set(name, unit.into());
                }
            }
        }
        Ok(Self {
            manager,
            stream,
            known,
            asked: HashMap::new(),
        })
    }

    /// The backends of which a unit is active or has failed.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.known.0.keys()
    }

    /// Waits for the next change; none if the bus is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<Change>, Error> {
        loop {
            let message = match self.stream.next().await {
                None => return Ok(None),
                Some(Err(zbus::Error::InputOutput(_))) => return Ok(None),
                Some(message) => message.map_err(during(WHAT))?,
            };
            let serial = message.header().reply_serial();
            let asked = serial.and_then(|serial| self.asked.remove(&serial));
            let (name, state) = match (asked, signal(&message)) {
                // systemd executes itself again (daemon-reexec), and sends signals of all units then.
                (Some(_), _) if message.message_type() == Type::Error => continue,
                (Some(name), _) => {
                    let state = state_of(listed_units(&message)?, &name);
                    (name, state)
                }
                (None, Some(Signal::State(name, state))) => (name, state),
                (None, Some(Signal::Loaded(name))) => {
                    let unit = name.instance.unit(name.unit_type);
                    let serial = ask_for_units(&self.manager, &[unit]).await?;
                    self.asked.insert(serial, name);
                    continue;
                }
                (None, None) => continue,
            };
            if let Some(change) = self.known.set(name, state) {
                return Ok(Some(change));
            }
        }
    }
}

/// Asks which units of these patterns are loaded, without waiting: the reply comes by the stream, with this
/// serial. Unlike a call to a unit's object, it loads no unit.
async fn ask_for_units(manager: &Manager, patterns: &[String]) -> Result<NonZeroU32, Error> {
    let call = || {
        Message::method_call("/org/freedesktop/systemd1", "ListUnitsByPatterns")?
            .destination(SERVICE)?
            .interface("org.freedesktop.systemd1.Manager")?
            .build(&(&[""; 0][..], patterns))
    };
    let call = call().map_err(during(WHAT))?;
    manager.bus().send(&call).await.map_err(during(WHAT))?;
    Ok(call.primary_header().serial_num())
}

/// Reads the reply to [`ask_for_units`].
fn listed_units(message: &Message) -> Result<Vec<ListedUnit>, Error> {
    let read = match message.message_type() {
        Type::Error => Err(zbus::Error::from(message.clone())),
        _ => message.body().deserialize(),
    };
    read.map_err(during(WHAT))
}

/// The state of a unit that was asked about.
fn state_of(listed: Vec<ListedUnit>, name: &UnitName) -> UnitState {
    let units = loaded_units::by_instance(listed).remove(&name.instance);
    let units = units.unwrap_or_default();
    let unit = match name.unit_type {
        UnitType::Socket => units.socket,
        UnitType::Console => units.console,
        UnitType::Service => units.service,
    };
    unit.map(UnitState::from).unwrap_or_default()
}

fn rules() -> zbus::Result<[MatchRule<'static>; 3]> {
    let manager = |member| {
        Ok::<_, zbus::Error>(
            MatchRule::builder()
                .msg_type(Type::Signal)
                .sender(SERVICE)?
                .interface("org.freedesktop.systemd1.Manager")?
                .member(member)?
                .build(),
        )
    };
    let properties = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SERVICE)?
        .interface("org.freedesktop.DBus.Properties")?
        .member("PropertiesChanged")?
        .path_namespace("/org/freedesktop/systemd1/unit")?
        .add_arg(UNIT)?
        .build();
    Ok([manager("UnitNew")?, manager("UnitRemoved")?, properties])
}

/// Reads a message; `None` if it is about none of our units.
fn signal(message: &Message) -> Option<Signal> {
    if message.message_type() != Type::Signal {
        return None;
    }
    let (header, body) = (message.header(), message.body());
    match header.member()?.as_str() {
        "UnitNew" | "UnitRemoved" => {
            let (name, _): (String, ObjectPath) = body.deserialize().ok()?;
            UnitName::parse(&name).map(Signal::Loaded)
        }
        "PropertiesChanged" => {
            let name = loaded_units::from_object_path(header.path()?)?;
            let (interface, changed, _): (String, HashMap<String, OwnedValue>, Vec<String>) =
                body.deserialize().ok()?;
            if interface != UNIT {
                return None;
            }
            let changed = Properties::new(changed);
            let active = changed.text("ActiveState")?;
            let sub = changed.text("SubState")?;
            Some(Signal::State(name, UnitState { active, sub }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: &str, sub: &str) -> UnitState {
        UnitState {
            active: active.to_owned(),
            sub: sub.to_owned(),
        }
    }

    #[test]
    fn only_changes_are_reported() {
        let mut known = Known::default();
        let instance = Instance::from_unit("vhost-user-gpu@vm1.socket").expect("ours");
        let mut set = |unit_type, active, sub| {
            let instance = instance.clone();
            let name = UnitName {
                instance,
                unit_type,
            };
            known.set(name, state(active, sub))
        };
        assert_eq!(set(UnitType::Socket, "inactive", "dead"), None);
        let change = set(UnitType::Socket, "active", "listening").expect("a change");
        assert_eq!(change.unit_type, UnitType::Socket);
        assert_eq!(change.state, BackendState::Listening);
        assert_eq!(set(UnitType::Socket, "active", "listening"), None);
        let change = set(UnitType::Service, "active", "running").expect("a change");
        assert_eq!(change.unit_type, UnitType::Service);
        assert_eq!(change.state, BackendState::Running);
        let change = set(UnitType::Socket, "active", "running").expect("a change");
        assert_eq!(change.sub_state, "running");
        set(UnitType::Service, "inactive", "dead");
        set(UnitType::Socket, "inactive", "dead");
        assert!(known.0.is_empty(), "what is gone takes no room");
    }

    #[test]
    fn signals_of_our_units_are_read() {
        let changed = |path: &str| {
            let values: HashMap<_, _> = [
                ("ActiveState", zbus::zvariant::Value::from("failed")),
                ("SubState", "failed".into()),
                ("NeedDaemonReload", false.into()),
            ]
            .into();
            Message::signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged")
                .expect("a signal")
                .build(&(UNIT, values, Vec::<String>::new()))
                .expect("a body")
        };
        let ours = "/org/freedesktop/systemd1/unit/vhost_2duser_2dgpu_40vm1_2eservice";
        match signal(&changed(ours)) {
            Some(Signal::State(name, is)) => {
                assert_eq!(name.instance.vm(), "vm1");
                assert_eq!(name.unit_type, UnitType::Service);
                assert_eq!(is, state("failed", "failed"));
            }
            _ => panic!("not read"),
        }
        let other = "/org/freedesktop/systemd1/unit/dbus_2eservice";
        assert!(signal(&changed(other)).is_none());
    }
}
