// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket of a VM's VNC server, here or on another machine.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::instance::{Instance, UnitKind, UnitType};
use crate::socket_permissions::SocketPermissions;
use crate::ssh_forward::SshForward;
use crate::systemd::{self, Queries, Target};
use crate::verbs::error::{ConsoleError, Error};

/// Where one head of a VM can be viewed.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    vm: String,
    /// Its path on the machine of the VM.
    path: String,
    /// How it is reached from here, if that is another machine.
    forward: Option<(SshForward, String)>,
}

impl ConsoleSocket {
    /// Finds the socket of a head, and checks that it listens and that this user may connect. That of another machine is
    /// forwarded.
    pub(crate) fn find(vm: &str, head: usize, target: &Target) -> Result<Self, Error> {
        let path = systemd::ask(target, async |queries| {
            path_of_head(vm, head, queries).await
        })?;
        let vm = vm.to_owned();
        let forward = match &target.host {
            None => {
                check_access(&vm, &path)?;
                None
            }
            Some(host) => {
                let forward = SshForward::start(host, &path).map_err(ConsoleError::from)?;
                Some((forward, host.to_string()))
            }
        };
        Ok(Self { vm, path, forward })
    }

    /// The path by which it is reached from here.
    pub(crate) fn local_path(&self) -> PathBuf {
        match &self.forward {
            None => PathBuf::from(&self.path),
            Some((forward, _)) => forward.path(),
        }
    }

    /// Its path on the machine of the VM.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The forwarding of a socket of another machine.
    pub(crate) fn forward(&self) -> Option<&SshForward> {
        self.forward.as_ref().map(|(forward, _)| forward)
    }

    /// Connects to it, which starts the server.
    pub(crate) fn connect(&self) -> Result<UnixStream, ConsoleError> {
        UnixStream::connect(self.local_path()).map_err(|source| self.failure(source))
    }

    /// The error for a server that ends the connection, or says nothing.
    pub(crate) fn failure(&self, source: io::Error) -> ConsoleError {
        match &self.forward {
            // All that ssh says of a socket that refuses.
            Some((_, host)) => ConsoleError::NoAnswer {
                vm: self.vm.clone(),
                host: host.clone(),
                path: self.path.clone(),
            },
            // Its service does not start, for instance.
            None if is_end(source.kind()) => ConsoleError::Closed {
                vm: self.vm.clone(),
            },
            None => ConsoleError::Connect {
                vm: self.vm.clone(),
                path: self.path.clone(),
                source,
            },
        }
    }
}

/// Whether the other side ended a connection.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// The path of the socket of a head, by the settings of its unit.
async fn path_of_head(vm: &str, head: usize, queries: &Queries) -> Result<String, Error> {
    let instance = Instance::checked(UnitKind::Vnc, vm, None)
        .map_err(|_| ConsoleError::None { vm: vm.to_owned() })?;
    let unit = instance.unit(UnitType::Socket);
    let properties = queries.properties(unit.clone(), None).await?;
    match properties.text("LoadState").as_deref() {
        Some("loaded" | "masked") => {}
        _ => {
            let package = UnitKind::Vnc.package();
            return Err(ConsoleError::NotInstalled { unit, package }.into());
        }
    }
    let state = properties.text("ActiveState").unwrap_or_default();
    if state != "active" {
        let service = queries
            .properties(instance.unit(UnitType::Service), None)
            .await?;
        let enabled = properties.text("UnitFileState");
        let of_instance = format!("/{unit}.d/");
        let mut drop_ins = properties.list("DropInPaths").into_iter();
        let is_known = state != "inactive"
            || enabled.is_some_and(|state| state.starts_with("enabled") || state == "masked")
            || drop_ins.any(|path| path.contains(&of_instance))
            || !service.list("DropInPaths").is_empty();
        let vm = vm.to_owned();
        return Err(match is_known {
            true => ConsoleError::NotListening { vm, unit, state },
            false => ConsoleError::None { vm },
        }
        .into());
    }
    // Of several sockets, those with a path are the heads in their order.
    let paths = properties.listen().into_iter();
    let paths: Vec<_> = paths.filter(|path| path.starts_with('/')).collect();
    match paths.get(head) {
        Some(path) => Ok(path.clone()),
        None => Err(ConsoleError::NoHead {
            vm: vm.to_owned(),
            head,
            last: paths.len().saturating_sub(1),
        }
        .into()),
    }
}

/// Checks that this user may connect, without a connection: that would start the server.
fn check_access(vm: &str, path: &str) -> Result<(), ConsoleError> {
    let vm = vm.to_owned();
    match access(path, Access::WRITE_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) => Err(ConsoleError::Denied {
            vm,
            access: SocketPermissions::of(path).map_or_else(
                || "it cannot be seen".to_owned(),
                |access| access.to_string(),
            ),
            path: path.to_owned(),
        }),
        Err(error) => Err(ConsoleError::Connect {
            vm,
            path: path.to_owned(),
            source: error.into(),
        }),
    }
}
