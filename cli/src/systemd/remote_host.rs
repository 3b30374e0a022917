//! Another machine, reached by ssh.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zbus::address::Address;
use zbus::address::transport::{Transport, Unixexec};

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
    pub(super) fn address(&self) -> Address {
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
    fn invalid_hosts_are_refused() {
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
