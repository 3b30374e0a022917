// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl add TYPE VM --backend=BACKEND`: any installed program that follows the conventions.

mod command;
mod files;

use std::path::PathBuf;

use conventions::{DeviceType, printable};

use crate::descriptors::known::{self, SocketForm};
use crate::descriptors::{self, DescriptorState};
use crate::instance::{Instance, UnitKind, UnitType};
use crate::settings::{self, Settings, is_root};
use crate::unit_syntax::{Directive, without_specifiers};
use crate::verbs::error::{AddError, Error};

use command::{command, socket_form};
use files::Files;

use super::args::Args;
use super::plan::{HostInventory, Plan, free_name, reject_options};

pub(super) fn plan(args: &Args, wanted: &str, host: &HostInventory) -> Result<Plan, Error> {
    reject_options(
        "--backend",
        &[
            &[
                ("--render-node", args.render_node.is_some()),
                ("--virgl", args.virgl),
                ("--vulkan", args.vulkan),
                ("--max-hostmem", args.max_hostmem.is_some()),
                ("--virtual", args.virtual_kind.is_some()),
            ][..],
            &args.input_options(),
            &args.screen_options(),
            &args.console_options(),
        ]
        .concat(),
    )?;
    let InstalledProgram {
        name: program_name,
        path: program,
    } = find(wanted, args.device_type)?;
    let known = known::lookup(&program);
    let why_untrusted = descriptors::why_untrusted(&program);
    // Asking a program runs it as root: a program that other users can change is not asked.
    let asked = known.filter(|_| why_untrusted.is_none());
    if let Some(Err(source)) = asked.map(|known| known.check_version(&program)) {
        return Err(AddError::UnusableProgram { program, source }.into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => free_name(
            default_name(args.device_type),
            &args.vm,
            &host.assignments,
            &[],
        ),
    };
    let instance =
        Instance::checked(UnitKind::Program, &args.vm, Some(&name)).map_err(AddError::Name)?;
    let mut hints = Vec::new();
    // It may be installed later, or be invisible to the user of vhostctl.
    if let Err(error) = program.metadata() {
        hints.push(format!(
            "Warning: {} cannot be found: {error}. VMs cannot connect until it exists.",
            program.display()
        ));
    }
    let needs_root = known.is_some_and(|known| known.needs_root);
    let user = match &args.run_as {
        Some(user) if needs_root && !is_root(user) => {
            let text = format!(
                "{} sets the owners of files as the guest says, so it must run as root, not as {user}.",
                program.display()
            );
            return Err(AddError::Usage(text).into());
        }
        None if needs_root => {
            if let Some(why) = why_untrusted {
                return Err(AddError::OthersProgram { program, why }.into());
            }
            hints.push(format!(
                "{} runs as root, limited to the capabilities for files.",
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
                AddError::NoAcceptProgram {
                    unit: instance.unit(UnitType::Service),
                }
            })?,
        ),
        false => None,
    };
    let has_network = args.allow_network || args.device_type == DeviceType::Net;
    if has_network {
        hints.push("It has access to the host's network.".to_owned());
    }
    let mut service = Vec::new();
    // Otherwise the log would have the name of the program that accepts.
    let name = program.file_name().filter(|_| accept.is_some());
    service.extend(name.map(|name| {
        Directive::new(
            "SyslogIdentifier",
            without_specifiers(&name.to_string_lossy()),
        )
    }));
    if form == SocketForm::Own {
        service.push(Directive::new("PrivateTmp", "yes"));
    }
    let directives = known.map_or(&[][..], |known| known.service);
    let network = if has_network { &NETWORK[..] } else { &[] };
    let directives = directives.iter().chain(network);
    service.extend(directives.map(|(key, value)| Directive::new(key, *value)));
    service.extend(files.service());
    let settings = Settings {
        device_type: Some(args.device_type.name().to_owned()),
        program: Some(program_name),
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
    Ok(Plan::new(instance, settings, hints))
}

/// The directives that give a service the host's network, which the template denies.
const NETWORK: [(&str, &str); 3] = [
    ("PrivateNetwork", "no"),
    // In addition to those of the template.
    ("RestrictAddressFamilies", "AF_INET AF_INET6"),
    ("IPAddressDeny", ""),
];

/// An installed program, and the name of its descriptor or its own.
#[derive(Clone, Debug)]
struct InstalledProgram {
    name: String,
    path: PathBuf,
}

/// The program that the command line names.
fn find(wanted: &str, device_type: DeviceType) -> Result<InstalledProgram, AddError> {
    let called = |path: PathBuf| InstalledProgram {
        name: wanted.to_owned(),
        path,
    };
    if wanted.starts_with('/') {
        return Ok(called(wanted.into()));
    }
    let all = descriptors::list(&descriptors::folders(), false);
    let mut matching = all.into_iter().filter_map(|descriptor| {
        let fits = descriptor.state == DescriptorState::Usable
            && descriptor.device_type.as_deref() == Some(device_type.name())
            && descriptor.is_called(wanted);
        let name = descriptor.name;
        let path = descriptor.binary.filter(|_| fits);
        path.map(|path| InstalledProgram { name, path })
    });
    let Some(first) = matching.next() else {
        return match known::installed(wanted, device_type.name()) {
            Some(path) => Ok(called(path)),
            None => Err(AddError::NoUsableProgram {
                name: wanted.to_owned(),
                device_type: device_type.name().to_owned(),
                package: known::package(wanted, device_type.name()),
            }),
        };
    };
    let others: Vec<_> = matching.collect();
    if first.name == wanted || others.iter().all(|other| other.path == first.path) {
        return Ok(first);
    }
    if let Some(exact) = others.iter().find(|other| other.name == wanted) {
        return Ok(exact.clone());
    }
    Err(AddError::AmbiguousProgram {
        name: wanted.to_owned(),
        candidates: std::iter::once(&first)
            .chain(&others)
            .map(|found| format!("  {} ({})", found.name, found.path.display()))
            .map(|line| printable(&line).into_owned())
            .collect(),
    })
}

/// What a VM calls a device of this type. Not "gpu", which is the name of the one that needs none.
fn default_name(device_type: DeviceType) -> &'static str {
    match device_type {
        DeviceType::Gpu => "gpu1",
        DeviceType::Block => "disk",
        other => other.name(),
    }
}
