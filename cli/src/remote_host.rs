// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Another machine, reached by ssh.

use std::fmt;
use std::str::FromStr;

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
    /// How a user starts ssh(1) for it.
    pub(crate) fn ssh_command(&self) -> String {
        match self.port {
            Some(port) => format!("ssh -p {port} {}", self.destination),
            None => format!("ssh {}", self.destination),
        }
    }

    /// The last words of a command line of ssh(1) before the command, with those of the port before them.
    pub(crate) fn ssh_words(&self) -> Vec<String> {
        let port = self
            .port
            .map(|port| ["-p".to_owned(), port.to_string()])
            .into_iter()
            .flatten();
        port.chain(["--".to_owned(), self.destination.clone()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        text.parse::<RemoteHost>()
            .expect(text)
            .ssh_words()
            .join(" ")
    }

    #[test]
    fn hosts_are_as_ssh_names_them() {
        assert_eq!(words("web"), "-- web");
        assert_eq!(
            words("root@web.example:2222"),
            "-p 2222 -- root@web.example"
        );
        assert_eq!(words("[fe80::1]:22"), "-p 22 -- fe80::1");
        assert_eq!(words("::1"), "-- ::1");
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
