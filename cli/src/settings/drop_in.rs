// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The text of our drop-ins.

use conventions::{GpuMemory, OPTIONS};

use super::dynamic_user::dynamic_user;
use super::grab::group_directives;
use super::options::{GpuOptions, InputOptions, ProgramOptions};
use super::{SECTION, Settings, is_root};
use crate::accounts;
use crate::instance::{Instance, UnitType};
use crate::unit_syntax::{self, Directive, quoted, without_specifiers};
use crate::values::{self, ValueError};

/// The text of the drop-in of a service.
///
/// # Errors
/// A value that no unit file can hold, or that would mean something else there.
pub(crate) fn service_text(settings: &Settings, instance: &Instance) -> Result<String, ValueError> {
    check(settings)?;
    let mut text = head(instance, UnitType::Service);
    let record = [
        ("Type", &settings.device_type),
        ("Backend", &settings.program),
    ];
    let record = record
        .into_iter()
        .filter_map(|(key, value)| Some(Directive::new(key, quoted(value.as_deref()?))));
    section(&mut text, SECTION, record.collect());
    let is_vulkan = matches!(&settings.options, ProgramOptions::Gpu(options) if options.vulkan);
    if is_vulkan {
        section(&mut text, "Unit", template(VULKAN, "Unit"));
    }
    let mut service = service(settings, instance);
    if let ProgramOptions::Gpu(options) = &settings.options {
        if options.virgl {
            service.extend(template(VIRGL, "Service"));
        }
        if options.vulkan {
            service.extend(template(VULKAN, "Service"));
        }
        if let Some(most) = memory_max(options) {
            service.retain(|directive| directive.key != "MemoryMax");
            service.push(Directive::new("MemoryMax", most));
        }
    }
    section(&mut text, "Service", service);
    Ok(text)
}

/// The text of a drop-in for a socket; without directives it only says that the backend has this socket.
pub(crate) fn socket_text(
    instance: &Instance,
    unit_type: UnitType,
    directives: Vec<Directive>,
) -> String {
    let mut text = head(instance, unit_type);
    section(&mut text, "Socket", directives);
    text
}

fn check(settings: &Settings) -> Result<(), ValueError> {
    let device = settings.options.device();
    for node in device
        .into_iter()
        .chain(settings.nodes.iter().map(String::as_str))
    {
        values::check_node(node)?;
    }
    for option in settings.options.words() {
        values::check_text(&option)?;
    }
    if let Some(program) = settings.command.first() {
        values::check_program(program)?;
    }
    for directive in &settings.service {
        values::check_text(&directive.value)?;
    }
    Ok(settings
        .user
        .as_deref()
        .map_or(Ok(()), accounts::check_user)?)
}

/// The MemoryMax= for resources that take more than the unit has room for: without, the service would be killed
/// before the guest's limit is reached.
fn memory_max(options: &GpuOptions) -> Option<String> {
    let memory = match options {
        GpuOptions { virgl: true, .. } => GpuMemory::VIRGL,
        GpuOptions { vulkan: true, .. } => GpuMemory::VENUS,
        _ => GpuMemory::TWO_D,
    };
    let hostmem = options.max_hostmem.as_ref()?.bytes();
    (hostmem > memory.max_hostmem).then(|| format!("{}M", memory.memory_max_mib(hostmem)))
}

/// The directives of the section Service.
fn service(settings: &Settings, instance: &Instance) -> Vec<Directive> {
    let mut directives = Vec::new();
    if let ProgramOptions::Gpu(GpuOptions {
        render_node: Some(_),
        vulkan: false,
        ..
    }) = &settings.options
    {
        directives.push(Directive::new("PrivateDevices", "no"));
        directives.push(Directive::new("SupplementaryGroups", "render"));
    }
    if let ProgramOptions::Input(InputOptions {
        virtual_kind: Some(_),
        ..
    }) = &settings.options
    {
        // It opens no device.
        directives.push(Directive::new("PrivateDevices", "yes"));
        directives.push(Directive::new("SupplementaryGroups", ""));
    }
    if let ProgramOptions::Input(InputOptions {
        grab_group: Some(file),
        ..
    }) = &settings.options
    {
        directives.extend(group_directives(file));
    }
    directives.extend(settings.options.environment());
    if !settings.command.is_empty() {
        let words = settings.command.iter();
        let words: Vec<_> = words.map(|word| unit_syntax::command_word(word)).collect();
        directives.push(Directive::new("ExecStart", ""));
        directives.push(Directive::new("ExecStart", words.join(" ")));
    }
    let nodes = settings.nodes.iter().map(String::as_str);
    for node in settings.options.allowed_devices().into_iter().chain(nodes) {
        directives.push(Directive::new(
            "DeviceAllow",
            format!("{} rw", quoted(node)),
        ));
    }
    match &settings.user {
        // A user that exists already. Without DynamicUser= the default is root. systemd 257 takes CAP_SETUID away
        // from a service with User=root and NoNewPrivileges=yes.
        Some(user) => {
            directives.push(Directive::new("DynamicUser", "no"));
            let user = if is_root(user) { "" } else { user };
            directives.push(Directive::new("User", without_specifiers(user)));
        }
        None => {
            let user = dynamic_user(instance);
            directives.extend(user.map(|user| Directive::new("User", user)));
        }
    }
    directives.extend(settings.service.iter().cloned());
    directives
}

/// What the host's OpenGL driver needs of a unit, and what a render server does.
const VIRGL: &str = include_str!("../../../systemd/vhost-user-gpu-virgl.conf");
const VULKAN: &str = include_str!("../../../systemd/vhost-user-gpu-vulkan.conf");

/// One section of a drop-in that is installed, without its options, which each instance has for itself.
fn template(text: &str, section: &str) -> Vec<Directive> {
    unit_syntax::parse(text)
        .into_iter()
        .filter(|it| {
            let options = it.value.trim_start_matches('"').strip_prefix(OPTIONS);
            let is_options = options.is_some_and(|rest| rest.starts_with('='));
            it.section == section && (it.key != "Environment" || !is_options)
        })
        .map(|it| Directive {
            key: it.key.into(),
            value: it.value,
        })
        .collect()
}

/// How our drop-in for a unit begins.
fn head(instance: &Instance, unit_type: UnitType) -> String {
    head_of(instance, &instance.unit(unit_type))
}

/// The same for a unit that is beside those of the instance.
pub(super) fn head_of(instance: &Instance, unit: &str) -> String {
    format!(
        "# Written by \"vhostctl add\", deleted by \"vhostctl remove {instance}\". Settings of your own go into a\n\
         # file beside it: systemctl edit {unit}\n"
    )
}

pub(super) fn section(text: &mut String, name: &str, directives: Vec<Directive>) {
    if directives.is_empty() {
        return;
    }
    text.push_str(&format!("\n[{name}]\n"));
    for Directive { key, value } in directives {
        text.push_str(&format!("{key}={value}\n"));
    }
}
