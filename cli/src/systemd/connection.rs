//! Which service manager, and the way to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use zbus::address::Address;
use zbus::address::transport::{Transport, Unixexec};
use zbus::connection::Builder;

use super::Error;

/// How long an answer may take: the same as sd-bus, hence systemctl, allows.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Which service manager a verb talks to, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Target {
    /// Operate on the remote host HOST by way of ssh
    #[arg(
        short = 'H',
        long,
        global = true,
        value_name = "[USER@]HOST",
        help_heading = "Service manager",
        value_hint = clap::ValueHint::Hostname
    )]
    pub host: Option<RemoteHost>,

    /// As systemd's tools have it; refused, as there are no units of backends for it
    #[arg(long, global = true, hide = true)]
    pub user: bool,

    /// Never ask for a password to get a permission
    #[arg(long, global = true, help_heading = "Service manager")]
    pub no_ask_password: bool,
}

impl Target {
    /// Whether it is on this machine, so that local files are its files.
    pub(crate) fn is_local(&self) -> bool {
        self.host.is_none()
    }

    /// Fails for verbs that show what only this machine can tell, if another one is asked for.
    pub(crate) fn local_only(&self, verb: &'static str) -> Result<(), Error> {
        match self.host.clone() {
            None => Ok(()),
            Some(host) => Err(Error::LocalOnly { verb, host }),
        }
    }

    /// Connects to the bus that the manager is on.
    pub(super) async fn connect(&self) -> Result<zbus::Connection, Error> {
        let connect = async || {
            let builder = match &self.host {
                Some(host) => Builder::address(host.address())?,
                None => Builder::system()?,
            };
            builder.method_timeout(TIMEOUT).build().await
        };
        connect().await.map_err(|error| {
            let source = Box::new(error);
            if let Some(host) = self.host.clone() {
                Error::Remote { host, source }
            } else if booted() {
                Error::Bus(source)
            } else {
                Error::NotBooted(source)
            }
        })
    }
}

/// The test of sd_booted(3).
fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Another machine, as ssh(1) names it: `[USER@]HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteHost {
    destination: String,
    port: Option<u16>,
}

/// Why something is not the name of a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not [USER@]HOST[:PORT]")]
pub(crate) struct HostError(String);

impl FromStr for RemoteHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let error = || HostError(text.to_owned());
        let (destination, port) = match text.rsplit_once(':') {
            // Of an IPv6 address only what follows its brackets is a port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| error())?))
            }
            _ => (text, None),
        };
        let (user, host) = match destination.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, destination),
        };
        let bare = host
            .strip_prefix('[')
            .map_or(Some(host), |host| host.strip_suffix(']'))
            .ok_or_else(error)?;
        let invalid = |c: char| c.is_whitespace() || c.is_control();
        if bare.is_empty()
            || user.is_some_and(str::is_empty)
            || destination.contains(invalid)
            || destination.starts_with('-')
        {
            return Err(error());
        }
        Ok(Self {
            destination: match user {
                Some(user) => format!("{user}@{bare}"),
                None => bare.to_owned(),
            },
            port,
        })
    }
}

impl fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.destination)
    }
}

impl RemoteHost {
    /// The bus of that machine, as what runs there passes it on.
    fn address(&self) -> Address {
        let port = self
            .port
            .map(|port| ["-p".to_owned(), port.to_string()])
            .into_iter()
            .flatten();
        // No terminal and no X11: this connection is for the bus alone.
        let arguments = std::iter::once("-xT".to_owned())
            .chain(port)
            .chain([
                "--".to_owned(),
                self.destination.clone(),
                "systemd-stdio-bridge".to_owned(),
            ])
            .map(Into::into)
            .collect();
        Transport::Unixexec(Unixexec::new(PathBuf::from("ssh"), None, arguments)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> String {
        text.parse::<RemoteHost>()
            .expect(text)
            .address()
            .to_string()
    }

    #[test]
    fn hosts_are_as_ssh_names_them() {
        const START: &str = "unixexec:path=ssh,argv1=-xT";
        const BRIDGE: &str = "systemd-stdio-bridge";
        assert_eq!(
            address("web"),
            format!("{START},argv2=--,argv3=web,argv4={BRIDGE}")
        );
        assert_eq!(
            address("root@web.example:2222"),
            format!("{START},argv2=-p,argv3=2222,argv4=--,argv5=root%40web.example,argv6={BRIDGE}")
        );
        assert_eq!(
            address("[fe80::1]:22"),
            format!("{START},argv2=-p,argv3=22,argv4=--,argv5=fe80%3a%3a1,argv6={BRIDGE}")
        );
        assert_eq!(
            address("::1"),
            format!("{START},argv2=--,argv3=%3a%3a1,argv4={BRIDGE}")
        );
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "@web",
            "root@",
            "web:",
            "web:ssh",
            "web:99999",
            "[::1",
            "a b",
            "-oProxyCommand=x",
        ] {
            assert!(text.parse::<RemoteHost>().is_err(), "{text}");
        }
    }
}
