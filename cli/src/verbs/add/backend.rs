//! `vhostctl add TYPE VM --backend=BACKEND`: any installed program that keeps to the conventions.

use std::path::{Path, PathBuf};

use crate::descriptors::{self, State};
use crate::instance::{Instance, Kind};
use crate::output::printable;
use crate::settings::Settings;

use super::super::Error as VerbError;
use super::{Args, Error, Host, Plan, free_name, only_for};

/// Stands for the number of the socket's descriptor in an argument.
const FD_WORD: &str = "{fd}";
/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FD: &str = "3";

pub(super) fn plan(args: &Args, wanted: &str, host: &Host) -> Result<Plan, VerbError> {
    only_for(
        "--backend",
        &[
            ("DEVICE", args.device.is_some()),
            ("--render-node", args.render_node.is_some()),
            ("--virgl", args.virgl),
            ("--max-hostmem", args.max_hostmem.is_some()),
            ("--no-grab", args.no_grab),
        ],
    )?;
    let (backend, program) = find(wanted, &args.device_type)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => free_name(word(&args.device_type), &args.vm, &host.holders),
    };
    let instance = Instance::checked(Kind::Backend, &args.vm, Some(&name)).map_err(Error::Name)?;
    let settings = Settings {
        device_type: Some(args.device_type.clone()),
        backend: Some(backend),
        command: command(&program, &args.arguments),
        nodes: args
            .allow_device
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        user: args.run_as.clone(),
        ..Settings::default()
    };
    Ok(Plan {
        instance,
        settings,
        hints: Vec::new(),
    })
}

/// The name and the program of the backend that is meant.
fn find(wanted: &str, device_type: &str) -> Result<(String, PathBuf), Error> {
    if wanted.starts_with('/') {
        return Ok((wanted.to_owned(), wanted.into()));
    }
    let all = descriptors::list(&descriptors::folders(), false);
    let mut matching = all.into_iter().filter_map(|descriptor| {
        let fits = descriptor.state == State::Usable
            && descriptor.device_type.as_deref() == Some(device_type)
            && descriptor.is_called(wanted);
        let name = descriptor.name;
        descriptor
            .binary
            .filter(|_| fits)
            .map(|binary| (name, binary))
    });
    let Some(first) = matching.next() else {
        return Err(Error::NoBackend {
            name: wanted.to_owned(),
            device_type: device_type.to_owned(),
        });
    };
    let others: Vec<_> = matching.collect();
    if first.0 == wanted || others.iter().all(|(_, binary)| *binary == first.1) {
        return Ok(first);
    }
    if let Some(exact) = others.iter().find(|(name, _)| name == wanted) {
        return Ok(exact.clone());
    }
    Err(Error::AmbiguousBackend {
        name: wanted.to_owned(),
        candidates: std::iter::once(&first)
            .chain(&others)
            .map(|(name, binary)| format!("  {name} ({})", binary.display()))
            .map(|line| printable(&line).into_owned())
            .collect(),
    })
}

/// The command line: the program is told of its socket, by the option of the conventions unless the
/// arguments do it in another way.
fn command(program: &Path, arguments: &[String]) -> Vec<String> {
    let mut command = vec![program.display().to_string()];
    if !arguments.iter().any(|argument| argument.contains(FD_WORD)) {
        command.push(format!("--fd={FD}"));
    }
    command.extend(
        arguments
            .iter()
            .map(|argument| argument.replace(FD_WORD, FD)),
    );
    command
}

/// What a VM calls a device of this type. Not "gpu", which is the name of the one that needs none.
fn word(device_type: &str) -> &str {
    match device_type {
        "gpu" => "gpu1",
        "block" => "disk",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        command(Path::new("/usr/bin/x"), &arguments)
    }

    #[test]
    fn the_socket_is_passed_as_the_conventions_or_the_arguments_say() {
        assert_eq!(line(&[]), ["/usr/bin/x", "--fd=3"]);
        assert_eq!(line(&["-o", "a b"]), ["/usr/bin/x", "--fd=3", "-o", "a b"]);
        assert_eq!(
            line(&["--export", "vhost-user-blk,addr.type=fd,addr.str={fd}"]),
            [
                "/usr/bin/x",
                "--export",
                "vhost-user-blk,addr.type=fd,addr.str=3"
            ]
        );
    }
}
