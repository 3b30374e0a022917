//! Units that change their state, as they do.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use serde::Serialize;
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue};
use zbus::{MatchRule, Message, MessageStream};

use super::{Error, Manager, SERVICE, State, answer, call};
use crate::instance::{Half, Instance, Kind};

const WHAT: &str = "watch the units of systemd";
/// Signals that may wait for us. Every unit of the system makes some, most of them at boot.
const QUEUE: usize = 16 * 1024;
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// A unit of a backend has another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The unit.
    pub unit: String,
    /// The VM.
    pub vm: String,
    /// The device's name within the VM, where a VM can have several.
    pub name: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The unit's state (ACTIVE, in systemctl's words).
    pub active_state: String,
    /// The same in more detail (SUB).
    pub sub_state: String,
    /// What both units of the backend make together.
    pub state: State,
}

/// A unit's state: ACTIVE and SUB.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnitState {
    active: String,
    sub: String,
}

impl Default for UnitState {
    /// Of a unit that is not loaded.
    fn default() -> Self {
        Self {
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
        }
    }
}

/// The states that were told last.
#[derive(Default)]
struct Known(BTreeMap<Instance, [UnitState; 2]>);

impl Known {
    /// Takes a unit's state; what has changed, if something has.
    fn set(&mut self, instance: Instance, half: Half, new: UnitState) -> Option<Change> {
        let units = self.0.entry(instance.clone()).or_default();
        let [socket, service] = units;
        let unit = match half {
            Half::Socket => &mut *socket,
            Half::Service => &mut *service,
        };
        if *unit == new {
            return None;
        }
        *unit = new.clone();
        let state = State::new(&socket.active, &service.active);
        if units.iter().all(|unit| *unit == UnitState::default()) {
            self.0.remove(&instance);
        }
        Some(Change {
            unit: instance.unit(half),
            vm: instance.vm().to_owned(),
            name: instance.name().map(str::to_owned),
            kind: instance.kind(),
            active_state: new.active,
            sub_state: new.sub,
            state,
        })
    }
}

/// The changes from now on.
pub struct Watch {
    manager: Manager,
    stream: MessageStream,
    known: Known,
}

/// What a signal says.
enum Signal {
    /// This unit is loaded, in whatever state.
    New(Instance, Half, OwnedObjectPath),
    /// This unit has this state.
    State(Instance, Half, UnitState),
}

impl Manager {
    /// Begins to watch.
    pub async fn watch(mut self) -> Result<Watch, Error> {
        // Before systemd is asked how it is, so that nothing is missed in between.
        self.bus.set_max_queued(QUEUE);
        let stream = MessageStream::from(&self.bus);
        let bus = zbus::fdo::DBusProxy::new(&self.bus)
            .await
            .map_err(call(WHAT))?;
        for rule in rules().map_err(call(WHAT))? {
            bus.add_match_rule(rule)
                .await
                .map_err(|error| call(WHAT)(error.into()))?;
        }
        self.proxy.subscribe().await.map_err(call(WHAT))?;
        let mut known = Known::default();
        for (instance, units) in self.loaded().await? {
            for (half, unit) in [(Half::Socket, units.socket), (Half::Service, units.service)] {
                if let Some(unit) = unit {
                    let (active, sub) = (unit.active, unit.sub);
                    known.set(instance.clone(), half, UnitState { active, sub });
                }
            }
        }
        Ok(Watch {
            manager: self,
            stream,
            known,
        })
    }
}

impl Watch {
    /// Waits for the next change; none if the bus is gone.
    pub async fn next(&mut self) -> Result<Option<Change>, Error> {
        loop {
            let message = match self.stream.next().await {
                None => return Ok(None),
                Some(Err(zbus::Error::InputOutput(_))) => return Ok(None),
                Some(message) => message.map_err(call(WHAT))?,
            };
            let (instance, half, state) = match signal(&message) {
                None => continue,
                Some(Signal::State(instance, half, state)) => (instance, half, state),
                Some(Signal::New(instance, half, path)) => match self.state(&path).await? {
                    Some(state) => (instance, half, state),
                    None => continue,
                },
            };
            if let Some(change) = self.known.set(instance, half, state) {
                return Ok(Some(change));
            }
        }
    }

    async fn state(&self, unit: &OwnedObjectPath) -> Result<Option<UnitState>, Error> {
        let all = self.manager.properties_of(unit, UNIT).await;
        Ok(answer(all, WHAT)?.and_then(|properties| {
            Some(UnitState {
                active: text(&properties, "ActiveState")?,
                sub: text(&properties, "SubState")?,
            })
        }))
    }
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
        "UnitNew" => {
            let (name, path): (String, OwnedObjectPath) = body.deserialize().ok()?;
            let (instance, half) = Instance::from_unit(&name)?;
            Some(Signal::New(instance, half, path))
        }
        // systemd forgets units that do nothing.
        "UnitRemoved" => {
            let (name, _): (String, ObjectPath) = body.deserialize().ok()?;
            let (instance, half) = Instance::from_unit(&name)?;
            Some(Signal::State(instance, half, UnitState::default()))
        }
        "PropertiesChanged" => {
            let (instance, half) = Instance::from_object_path(header.path()?)?;
            let (interface, changed, _): (String, HashMap<String, OwnedValue>, Vec<String>) =
                body.deserialize().ok()?;
            if interface != UNIT {
                return None;
            }
            let active = text(&changed, "ActiveState")?;
            let sub = text(&changed, "SubState")?;
            Some(Signal::State(instance, half, UnitState { active, sub }))
        }
        _ => None,
    }
}

fn text(properties: &HashMap<String, OwnedValue>, name: &str) -> Option<String> {
    let value = properties.get(name)?.try_clone().ok()?;
    String::try_from(value).ok()
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
    fn only_news_are_told() {
        let mut known = Known::default();
        let (gpu, _) = Instance::from_unit("vhost-user-gpu@vm1.socket").expect("ours");
        let mut set = |half, active, sub| known.set(gpu.clone(), half, state(active, sub));
        assert_eq!(set(Half::Socket, "inactive", "dead"), None);
        let change = set(Half::Socket, "active", "listening").expect("a change");
        assert_eq!(change.unit, "vhost-user-gpu@vm1.socket");
        assert_eq!(change.state, State::Listening);
        assert_eq!(set(Half::Socket, "active", "listening"), None);
        let change = set(Half::Service, "active", "running").expect("a change");
        assert_eq!(change.unit, "vhost-user-gpu@vm1.service");
        assert_eq!(change.state, State::Running);
        let change = set(Half::Socket, "active", "running").expect("a change");
        assert_eq!(change.sub_state, "running");
        set(Half::Service, "inactive", "dead");
        set(Half::Socket, "inactive", "dead");
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
            Some(Signal::State(instance, Half::Service, is)) => {
                assert_eq!(instance.vm(), "vm1");
                assert_eq!(is, state("failed", "failed"));
            }
            _ => panic!("not read"),
        }
        let other = "/org/freedesktop/systemd1/unit/dbus_2eservice";
        assert!(signal(&changed(other)).is_none());
    }
}
