// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors of the service manager and the bus. The messages say what to do.

use std::io::ErrorKind;

use super::mask::Mask;
use crate::exit;
use crate::remote_host::RemoteHost;

/// Why a request to systemd failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bus is unreachable.
    #[error(
        "The system bus cannot be reached: {}. vhostctl talks to systemd over D-Bus. Check that the bus is running \
         (systemctl start dbus.socket).", said(.0)
    )]
    Bus(#[source] Box<zbus::Error>),
    /// The bus is unreachable because systemd is not the init system.
    #[error(
        "The system bus cannot be reached: {}. Backends are units of systemd, which is not the init system here. \
         Start a backend by hand with --socket-path=.", said(.0)
    )]
    NotBooted(#[source] Box<zbus::Error>),
    /// Other machines are reached by ssh.
    #[error("{host} cannot be reached: ssh is not installed here (package openssh-client).")]
    NoSsh { host: RemoteHost },
    /// The bus of another machine is unreachable.
    #[error(
        "The system bus of {host} cannot be reached: {}. ssh must connect without a terminal and find \
         systemd-stdio-bridge there (try: ssh {host} systemd-stdio-bridge --version).",
        said(source)
    )]
    Remote {
        host: RemoteHost,
        source: Box<zbus::Error>,
    },
    /// The bus works, but systemd is not on it.
    #[error(
        "systemd does not answer on the system bus: {}. Backends are units of systemd, which must be the init \
         system. Without it, start a backend by hand with --socket-path=.", said(.0)
    )]
    Absent(#[source] Box<zbus::Error>),
    /// systemd refused, or its answer could not be read.
    #[error("Failed to {what}: {}.", said(source))]
    Call {
        what: &'static str,
        source: Box<zbus::Error>,
    },
    /// polkit denied it.
    #[error(
        "Failed to {what}: {}. Run it as root, or allow it by a polkit rule ({action}).",
        said(source)
    )]
    Denied {
        what: String,
        action: &'static str,
        source: Box<zbus::Error>,
    },
    /// systemd refused to do something with a unit.
    #[error("Failed to {what} {unit}: {}.", refusal(source, unit))]
    Unit {
        what: &'static str,
        unit: String,
        source: Box<zbus::Error>,
    },
    /// A unit, or one that it needs, is masked.
    #[error("Failed to {what} {unit}: {}.", mask.why(unit))]
    Masked {
        what: &'static str,
        unit: String,
        mask: Mask,
    },
    /// A job failed.
    #[error("Failed to {what} {unit}: {how}.")]
    Job {
        what: &'static str,
        unit: String,
        how: String,
    },
    /// The connection broke, so the result is unknown.
    #[error(
        "Lost the connection to systemd before it answered the request to {what}. See 'vhostctl list'."
    )]
    Lost { what: &'static str },
}

impl Error {
    /// The exit status, as of systemctl.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Denied { .. } => exit::DENIED,
            Self::Unit { source, .. } => match error_name(source) {
                NO_SUCH_UNIT => exit::NOT_FOUND,
                LOAD_FAILED | BAD_SETTING => exit::NOT_CONFIGURED,
                _ => exit::FAILURE,
            },
            Self::Masked { .. } => exit::NOT_CONFIGURED,
            _ => exit::FAILURE,
        }
    }

    /// The unit whose log may say more.
    pub(crate) fn logged(&self) -> Option<&str> {
        match self {
            Self::Job { unit, .. } => Some(unit),
            _ => None,
        }
    }

    /// Whether it is about one unit only, so that the others can go on.
    pub(crate) fn is_of_unit(&self) -> bool {
        matches!(
            self,
            Self::Unit { .. } | Self::Masked { .. } | Self::Job { .. } | Self::Denied { .. }
        )
    }

    /// Whether both are a denial of the same action, of two units perhaps.
    pub(crate) fn is_same_denial(&self, other: &Self) -> bool {
        fn verb(what: &str) -> Option<&str> {
            what.split(' ').next()
        }
        match (self, other) {
            (
                Self::Denied {
                    what,
                    action,
                    source,
                },
                Self::Denied {
                    what: other,
                    action: its,
                    source: cause,
                },
            ) => verb(what) == verb(other) && action == its && said(source) == said(cause),
            _ => false,
        }
    }

    /// The same error, of as many other units too.
    pub(crate) fn and_others(self, count: usize) -> Self {
        match self {
            Self::Denied {
                what,
                action,
                source,
            } => {
                let noun = if count == 1 { "unit" } else { "units" };
                let what = format!("{what} and {count} other {noun}");
                Self::Denied {
                    what,
                    action,
                    source,
                }
            }
            error => error,
        }
    }

    /// Whether systemd does not know the unit.
    pub(super) fn is_unknown_unit(&self) -> bool {
        matches!(self, Self::Call { source, .. } if error_name(source) == NO_SUCH_UNIT)
    }

    /// The masked unit that the message names, if it names one.
    pub(super) fn masked_unit(&self) -> Option<&str> {
        match self {
            Self::Call { source, .. } if error_name(source) == MASKED => match &**source {
                zbus::Error::MethodError(_, Some(text), _) => {
                    let unit = text.strip_prefix("Unit ")?.strip_suffix(" is masked.")?;
                    // Or it is "file", and a path.
                    (!unit.contains(' ')).then_some(unit)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it says that a unit is masked.
    pub(super) fn is_masked(&self) -> bool {
        matches!(self, Self::Call { source, .. } if error_name(source) == MASKED)
    }

    /// The same error with the name of the unit.
    pub(super) fn of_unit(self, what: &'static str, unit: &str) -> Self {
        match self {
            Self::Call { source, .. } => Self::Unit {
                what,
                unit: unit.to_owned(),
                source,
            },
            Self::Denied { action, source, .. } => Self::Denied {
                what: format!("{what} {unit}"),
                action,
                source,
            },
            other => other,
        }
    }
}

/// The name of an error that came over the bus.
fn error_name(error: &zbus::Error) -> &str {
    match error {
        zbus::Error::MethodError(name, ..) => name.as_str(),
        zbus::Error::FDO(error) => match **error {
            zbus::fdo::Error::AccessDenied(_) => ACCESS_DENIED,
            zbus::fdo::Error::LimitsExceeded(_) => LIMITS_EXCEEDED,
            zbus::fdo::Error::InteractiveAuthorizationRequired(_) => AUTHORIZATION_REQUIRED,
            _ => "",
        },
        _ => "",
    }
}

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const LOAD_FAILED: &str = "org.freedesktop.systemd1.LoadFailed";
const BAD_SETTING: &str = "org.freedesktop.systemd1.BadUnitSetting";
const MASKED: &str = "org.freedesktop.systemd1.UnitMasked";
/// The bus itself refuses, whatever the question was.
const LIMITS_EXCEEDED: &str = "org.freedesktop.DBus.Error.LimitsExceeded";
const ACCESS_DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const AUTHORIZATION_REQUIRED: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";

/// The message of the other side, without the name of the error.
fn said(error: &zbus::Error) -> String {
    let text = match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::MethodError(name, None, _) => match name.as_str().rsplit('.').next() {
            Some("NoReply" | "Timeout" | "TimedOut") => "no answer came in time".to_owned(),
            _ => "no reason was given".to_owned(),
        },
        zbus::Error::InputOutput(error) if error.kind() == ErrorKind::TimedOut => {
            "no answer came in time".to_owned()
        }
        other => other.to_string(),
    };
    // As `fdo::Error` has it.
    let text = match text.split_once(": ") {
        Some((name, rest)) if name.starts_with("org.freedesktop.") => rest,
        _ => &text,
    };
    text.trim_end_matches('.').to_owned()
}

/// Why systemd refuses to change a unit.
fn refusal(error: &zbus::Error, unit: &str) -> String {
    match error_name(error) {
        NO_SUCH_UNIT => {
            let why =
                "it is not installed, or systemd has not loaded it yet (systemctl daemon-reload)";
            match package(unit) {
                Some(package) => format!("{why}; its package is {package}"),
                None => why.to_owned(),
            }
        }
        BAD_SETTING => "systemd rejects its settings; see its log (vhostctl log)".to_owned(),
        _ => said(error),
    }
}

/// The package that brings a program's unit; `None` for a unit of vhostctl itself, or of another program.
fn package(unit: &str) -> Option<&str> {
    let (template, _) = unit.split_once('@')?;
    ["vhost-user-gpu", "vhost-user-input", "vhost-vnc"]
        .into_iter()
        .find(|package| *package == template)
}

/// The result of a call about one unit; `None` if systemd refuses the call: the unit may just be gone, and others are
/// not affected.
pub(super) fn unless_refused<T>(
    result: zbus::Result<T>,
    what: &'static str,
) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absence(&error) || error_name(&error) == LIMITS_EXCEEDED => {
            Err(during(what)(error))
        }
        Err(zbus::Error::MethodError(..)) => Ok(None),
        Err(zbus::Error::FDO(error)) if !matches!(*error, zbus::fdo::Error::ZBus(_)) => Ok(None),
        Err(error) => Err(during(what)(error)),
    }
}

/// Converts an error of the bus into one that names the failed action: `map_err(during("start a unit"))`.
pub(super) fn during(what: &'static str) -> impl Fn(zbus::Error) -> Error {
    move |error| {
        let absent = is_absence(&error);
        let source = Box::new(error);
        if absent {
            Error::Absent(source)
        } else if matches!(error_name(&source), ACCESS_DENIED | AUTHORIZATION_REQUIRED) {
            Error::Denied {
                what: what.to_owned(),
                action: "org.freedesktop.systemd1.*",
                source,
            }
        } else {
            Error::Call { what, source }
        }
    }
}

/// Whether the bus itself reports that systemd is not there. With another init system, the bus tries to start a
/// systemd, which fails.
fn is_absence(error: &zbus::Error) -> bool {
    let name = match error {
        zbus::Error::MethodError(name, ..) => name.as_str(),
        zbus::Error::FDO(error) => {
            return matches!(
                **error,
                zbus::fdo::Error::ServiceUnknown(_)
                    | zbus::fdo::Error::NameHasNoOwner(_)
                    | zbus::fdo::Error::SpawnChildExited(_)
                    | zbus::fdo::Error::SpawnFailed(_)
            );
        }
        _ => return false,
    };
    name.strip_prefix("org.freedesktop.DBus.Error.")
        .is_some_and(|name| {
            matches!(name, "ServiceUnknown" | "NameHasNoOwner") || name.starts_with("Spawn.")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_systemd_is_told_from_a_refusal() {
        let fdo = |error| zbus::Error::FDO(Box::new(error));
        assert!(is_absence(&fdo(zbus::fdo::Error::ServiceUnknown(
            String::new()
        ))));
        assert!(is_absence(&fdo(zbus::fdo::Error::SpawnChildExited(
            String::new()
        ))));
        assert!(!is_absence(&fdo(zbus::fdo::Error::AccessDenied(
            String::new()
        ))));
        assert!(!is_absence(&zbus::Error::InvalidReply));
    }

    fn method_error(name: &str) -> zbus::Error {
        let name = zbus::names::OwnedErrorName::try_from(name.to_owned()).expect("a name");
        let message = zbus::Message::signal("/a", "a.b", "C")
            .and_then(|message| message.build(&()))
            .expect("a message");
        zbus::Error::MethodError(name, Some("No.".to_owned()), message)
    }

    #[test]
    fn limit_of_the_bus_is_no_refusal_of_systemd() {
        let refused = |name| unless_refused::<()>(Err(method_error(name)), "ask");
        assert!(matches!(refused(NO_SUCH_UNIT), Ok(None)));
        assert!(refused(LIMITS_EXCEEDED).is_err());
    }

    #[test]
    fn unit_that_is_missing_is_told_with_its_package() {
        let missing = |unit| {
            let error = during("start a unit")(method_error(NO_SUCH_UNIT)).of_unit("start", unit);
            error.to_string()
        };
        let gpu = missing("vhost-user-gpu@vm1.socket");
        assert!(gpu.contains("its package is vhost-user-gpu"), "{gpu}");
        for unit in ["vhost-user@vm1.service", "vhost-user-rng@vm1.socket"] {
            assert!(!missing(unit).contains("its package"));
        }
    }

    #[test]
    fn denials_of_one_action_are_one() {
        let of = |name, what, unit| during("start a unit")(method_error(name)).of_unit(what, unit);
        let denied = of(ACCESS_DENIED, "start", "a.socket");
        assert!(denied.is_same_denial(&of(ACCESS_DENIED, "start", "b.socket")));
        assert!(!denied.is_same_denial(&of(ACCESS_DENIED, "stop", "b.socket")));
        assert!(!denied.is_same_denial(&of(BAD_SETTING, "start", "b.socket")));
        assert_eq!(
            denied.and_others(2).to_string(),
            "Failed to start a.socket and 2 other units: No. Run it as root, or allow it by a polkit rule \
             (org.freedesktop.systemd1.*)."
        );
    }

    #[test]
    fn the_exit_status_is_that_of_systemctl() {
        let refused =
            |name: &str| during("start a unit")(method_error(name)).of_unit("start", "a.socket");
        for (name, code) in [
            (ACCESS_DENIED, 4),
            (AUTHORIZATION_REQUIRED, 4),
            ("org.freedesktop.systemd1.NoSuchUnit", 5),
            ("org.freedesktop.systemd1.BadUnitSetting", 6),
            ("org.freedesktop.systemd1.TransactionIsDestructive", 1),
        ] {
            let error = refused(name);
            assert_eq!(error.exit_code(), code, "{name}");
            assert!(
                error.to_string().starts_with("Failed to start a.socket: "),
                "{error}"
            );
        }
    }
}
