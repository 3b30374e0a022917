// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which service manager is asked, and the connection to its bus.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zbus::address::Address;
use zbus::address::transport::{Transport, Unixexec};
use zbus::connection::Builder;

use super::direct_bus::DirectBus;
use super::error::Error;
use crate::remote_host::RemoteHost;

/// How long an answer may take: the limit of sd-bus, and so of systemctl.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Which service manager a verb talks to, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Target {
    /// Operate on the remote host HOST over ssh
    #[arg(
        short = 'H',
        long,
        global = true,
        value_name = "[USER@]HOST",
        help_heading = "Service manager",
        value_hint = clap::ValueHint::Hostname
    )]
    pub host: Option<RemoteHost>,

    /// Not supported: there are no user units for backends
    #[arg(long, global = true, hide = true)]
    pub user: bool,

    /// Do not ask for a password to authorize operations
    #[arg(long, global = true, help_heading = "Service manager")]
    pub no_ask_password: bool,
}

impl Target {
    /// Whether it is on this machine, so that local files are its files.
    pub(crate) fn is_local(&self) -> bool {
        self.host.is_none()
    }

    /// Connects to the bus that the manager is on.
    pub(super) async fn connect(&self) -> Result<zbus::Connection, Error> {
        if let Some(host) = self.host.clone().filter(|_| !has_ssh()) {
            return Err(Error::NoSsh { host });
        }
        let connect = async || {
            let address = match &self.host {
                Some(host) => bus_of(host),
                None => Address::system()?,
            };
            let builder = Builder::address(address.clone())?;
            let connected = builder.method_timeout(TIMEOUT).build().await;
            connected.map_err(|error| with_address(error, &address))
        };
        connect().await.map_err(|error| self.unreachable(error))
    }

    /// As [`Target::connect`], for questions alone; none where that cannot be had.
    pub(super) fn connect_direct(&self) -> Option<Result<DirectBus, Error>> {
        if !self.is_local() {
            return None;
        }
        let address = Address::system().ok()?;
        let bus = DirectBus::connect(&address, TIMEOUT)?;
        Some(bus.map_err(|error| self.unreachable(with_address(error, &address))))
    }

    fn unreachable(&self, error: zbus::Error) -> Error {
        let source = Box::new(error);
        if let Some(host) = self.host.clone() {
            Error::Remote { host, source }
        } else if booted() {
            Error::Bus(source)
        } else {
            Error::NotBooted(source)
        }
    }
}

/// An error of connecting, with the address.
fn with_address(error: zbus::Error, address: &Address) -> zbus::Error {
    match error {
        zbus::Error::InputOutput(error) => {
            io::Error::new(error.kind(), format!("{address}: {error}")).into()
        }
        other => other,
    }
}

/// Whether ssh is installed here.
fn has_ssh() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("ssh").is_file())
}

/// The bus of another machine, as what runs there passes it on.
fn bus_of(host: &RemoteHost) -> Address {
    // No terminal and no X11: this connection is for the bus alone.
    let arguments = std::iter::once("-xT".to_owned())
        .chain(host.ssh_words())
        .chain(["systemd-stdio-bridge".to_owned()])
        .map(Into::into)
        .collect();
    Transport::Unixexec(Unixexec::new(PathBuf::from("ssh"), None, arguments)).into()
}

/// The test of sd_booted(3).
fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_of_another_machine_comes_by_ssh() {
        let host = "root@web:2222".parse().expect("a host");
        assert_eq!(
            bus_of(&host).to_string(),
            "unixexec:path=ssh,argv1=-xT,argv2=-p,argv3=2222,argv4=--,argv5=root%40web,\
             argv6=systemd-stdio-bridge"
        );
    }
}
