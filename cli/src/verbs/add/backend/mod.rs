//! `vhostctl add TYPE VM --backend=BACKEND`: any installed program that keeps to the conventions.

mod command;
mod files;

use std::path::PathBuf;

use crate::descriptors::known::{self, SocketForm};
use crate::descriptors::{self, DescriptorState};
use crate::instance::{Instance, UnitKind, UnitType};
use crate::output::printable;
use crate::settings::{self, Settings, is_root, percent};

use command::{command, socket_form};
use files::Files;

use super::super::Error as VerbError;
use super::{Args, Error, HostInventory, Plan, free_name, only_for};

pub(super) fn plan(args: &Args, wanted: &str, host: &HostInventory) -> Result<Plan, VerbError> {
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
    let known = known::lookup(&program);
    let distrust = descriptors::distrust(&program);
    // To ask a program is to run it, as root: one that others may change is taken as it is.
    let asked = known.filter(|_| distrust.is_none());
    if let Some(problem) = asked.and_then(|known| known.problem(&program)) {
        return Err(Error::UnusableProgram { program, problem }.into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => free_name(word(&args.device_type), &args.vm, &host.assignments),
    };
    let instance =
        Instance::checked(UnitKind::Backend, &args.vm, Some(&name)).map_err(Error::Name)?;
    let mut hints = Vec::new();
    // It may come later, and need not be one that vhostctl's user sees.
    if let Err(error) = program.metadata() {
        hints.push(format!(
            "Warning: {} cannot be found: {error}. VMs cannot connect until it is there.",
            program.display()
        ));
    }
    let needs_root = known.is_some_and(|known| known.needs_root);
    let user = match &args.run_as {
        Some(user) if needs_root && !is_root(user) => {
            let text = format!(
                "{} gives files the owners that the guest names, for which it has to run as root, not as {user}.",
                program.display()
            );
            return Err(Error::Usage(text).into());
        }
        None if needs_root => {
            if let Some(why) = distrust {
                return Err(Error::OthersProgram { program, why }.into());
            }
            hints.push(format!(
                "{} runs as root, with the capabilities for files only.",
                program.display()
            ));
            Some("root".to_owned())
        }
        user => user.clone(),
    };
    let files = Files::new(args, known, &program, user.is_none())?;
    let form = socket_form(args, known)?;
    let accept = match form != SocketForm::Listening {
        true => Some(
            settings::accept_program(&host.folders, &instance).ok_or_else(|| {
                Error::NoAcceptProgram {
                    unit: instance.unit(UnitType::Service),
                }
            })?,
        ),
        false => None,
    };
    let has_network = args.allow_network || args.device_type == "net";
    if has_network {
        hints.push("It may use the host's network.".to_owned());
    }
    let mut service = Vec::new();
    // Else the log would have the name of what accepts.
    let name = program.file_name().filter(|_| accept.is_some());
    service.extend(name.map(|name| ("SyslogIdentifier", percent(&name.to_string_lossy()))));
    if form == SocketForm::Own {
        service.push(("PrivateTmp", "yes".to_owned()));
    }
    if let Some(known) = known {
        service.extend(
            known
                .service
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned())),
        );
    }
    if has_network {
        service.extend(NETWORK.map(|(key, value)| (key, value.to_owned())));
    }
    service.extend(files.service());
    let settings = Settings {
        device_type: Some(args.device_type.clone()),
        backend: Some(backend),
        command: command(
            accept.as_deref(),
            form,
            &program,
            known,
            &files.arguments,
            &args.arguments,
        )?,
        nodes: files.nodes,
        user,
        service,
        ..Settings::default()
    };
    Ok(Plan {
        instance,
        settings,
        access: None,
        hints,
    })
}

/// What opens the host's network to a service, which the template closes.
const NETWORK: [(&str, &str); 3] = [
    ("PrivateNetwork", "no"),
    // In addition to those of the template.
    ("RestrictAddressFamilies", "AF_INET AF_INET6"),
    ("IPAddressDeny", ""),
];

/// The name and the program of the backend that is meant.
fn find(wanted: &str, device_type: &str) -> Result<(String, PathBuf), Error> {
    if wanted.starts_with('/') {
        return Ok((wanted.to_owned(), wanted.into()));
    }
    let all = descriptors::list(&descriptors::folders(), false);
    let mut matching = all.into_iter().filter_map(|descriptor| {
        let fits = descriptor.state == DescriptorState::Usable
            && descriptor.device_type.as_deref() == Some(device_type)
            && descriptor.is_called(wanted);
        let name = descriptor.name;
        descriptor
            .binary
            .filter(|_| fits)
            .map(|binary| (name, binary))
    });
    let Some(first) = matching.next() else {
        if let Some(program) = known::installed(wanted, device_type) {
            return Ok((wanted.to_owned(), program));
        }
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

/// What a VM calls a device of this type. Not "gpu", which is the name of the one that needs none.
fn word(device_type: &str) -> &str {
    match device_type {
        "gpu" => "gpu1",
        "block" => "disk",
        other => other,
    }
}
