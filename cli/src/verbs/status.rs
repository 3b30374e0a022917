// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl status`: everything about backends, in the layout of `systemctl status`.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;

use serde::Serialize;

use crate::backends::{self, Details, RenderServerUnit, WaitingFrontEnd};
use crate::completion;
use crate::exit;
use crate::format;
use crate::journal::{self, Entry};
use crate::output::{Block, Emphasis, Glyph, Output};
use crate::selector::Selector;
use crate::socket_permissions::SocketPermissions;
use crate::systemd::{self, BackendState, Target};

use super::error::Error;
use super::shared::arguments;
use super::shared::command_there::vhostctl_there;
use super::shared::state_style::{emphasis, glyph};

/// Show the state of backends, and their last log lines
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without arguments, all backends are shown. With arguments, the exit status is 0 if every backend shown runs or
listens, 3 if one does not or its host device or its socket is missing, and 4 if there is no such backend.")]
pub(crate) struct Args {
    /// Show these: all of a VM, or one
    #[arg(value_name = "VM[:NAME]", add = completion::backends())]
    backends: Vec<Selector>,

    /// Show N lines of the log
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = arguments::line_count)]
    lines: u32,

    /// Show lines in full, however long
    #[arg(short = 'l', long)]
    full: bool,
}

/// What is shown about a backend.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    details: Details,
    /// Whether 'vhostctl restart' replaces its program, and its VM does not notice it.
    survives_restart: bool,
    log: Vec<Entry>,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<ExitCode, Error> {
    let chosen = |instance: &_| {
        args.backends.is_empty() || args.backends.iter().any(|chosen| chosen.matches(instance))
    };
    let all = systemd::ask(target, async |queries| {
        backends::details(queries, chosen).await
    })?;
    let mut logs = logs(&all, args.lines, target, output).into_iter();
    if let Some(host) = target
        .host
        .as_ref()
        .filter(|_| args.lines > 0 && !all.is_empty())
    {
        let log = ["log".to_owned()].into_iter();
        let log: Vec<_> = log
            .chain(args.backends.iter().map(ToString::to_string))
            .collect();
        output.hint(&format!(
            "The log is not shown with --host. Read it on {host}: {}",
            vhostctl_there(host, &log)
        ));
    }
    let with_log = |details: Details| Report {
        survives_restart: details.survives_restart(),
        details,
        log: logs.next().unwrap_or_default(),
    };
    let reports: Vec<_> = all.into_iter().map(with_log).collect();
    if !output.json(&reports)? {
        for (index, report) in reports.iter().enumerate() {
            if index > 0 {
                output.blank()?;
            }
            show(report, args, target, output)?;
        }
    }
    if args.backends.is_empty() {
        if reports.is_empty() && !output.is_json() {
            output.count(0, "backend")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_shown = |selector: &&Selector| {
        reports
            .iter()
            .any(|report| selector.matches(&report.details.backend.instance))
    };
    let missing = args.backends.iter().filter(|selector| !is_shown(selector));
    let missing = missing.map(|selector| Error::NoSuchBackend {
        selector: selector.to_string(),
        exit_code: exit::UNKNOWN_STATE,
    });
    Error::several(missing.collect())?;
    let idle = |state| {
        matches!(
            state,
            BackendState::Inactive
                | BackendState::Failed
                | BackendState::NoDevice
                | BackendState::NoSocket
        )
    };
    if reports
        .iter()
        .any(|report| idle(report.details.backend.state))
    {
        return Ok(ExitCode::from(exit::NOT_RUNNING));
    }
    Ok(ExitCode::SUCCESS)
}

/// The last log lines of each backend; a failure to read them is only a hint.
fn logs(all: &[Details], lines: u32, target: &Target, output: &Output) -> Vec<Vec<Entry>> {
    if lines == 0 || !target.is_local() {
        return Vec::new();
    }
    let units: Vec<_> = all
        .iter()
        .map(|details| {
            let server = details.render_server.iter();
            let server = server.map(|server| server.unit.clone());
            let mut units = details.backend.instance.units();
            units.extend(server);
            units
        })
        .collect();
    journal::last_of_each(&units, lines).unwrap_or_else(|error| {
        output.hint(&error.to_string());
        Vec::new()
    })
}

/// The width of the labels, as in systemctl.
const LABEL: usize = 11;

fn show(report: &Report, args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let mut block = output.block();
    let details = &report.details;
    let backend = &details.backend;
    let style = emphasis(backend.state);
    let dot = glyph(backend.state);
    let title = [
        Some(backend.instance.to_string()),
        details.description.clone(),
    ];
    let title: Vec<_> = title.into_iter().flatten().collect();
    block.line(&[
        output.paint(output.glyph(dot), style),
        output.plain(format_args!(" {}", title.join(" - "))),
    ]);

    let field = |block: &mut Block, label: &str, text: &dyn Display| {
        block.line(&[output.plain(format_args!("{label:>LABEL$}: {text}"))]);
    };
    field(&mut block, "Loaded", &loaded(details));
    if let Some((last, others)) = details.drop_ins.split_last() {
        let mut label = "Drop-In";
        let others = others.iter().map(|path| (Glyph::Branch, path));
        for (branch, path) in others.chain([(Glyph::Corner, last)]) {
            let branch = output.glyph(branch);
            let colon = if label.is_empty() { ' ' } else { ':' };
            block.line(&[output.plain(format_args!("{label:>LABEL$}{colon} {branch}{path}"))]);
            label = "";
        }
    }
    let since = details
        .since
        .map(|since| format!(" since {}", format::moment(since)));
    let reason = match (backend.state, &details.result) {
        (BackendState::Failed, Some(result)) => format!(" (Result: {result})"),
        _ => String::new(),
    };
    block.line(&[
        output.plain(format_args!("{:>LABEL$}: ", "Active")),
        output.paint(format_args!("{}{reason}", backend.state), style),
        output.plain(since.unwrap_or_default()),
    ]);
    let console = details.console.as_ref().map(|console| &console.unit);
    let units = [
        Some(&backend.socket_unit),
        console,
        Some(&backend.service_unit),
    ];
    let units: Vec<_> = units.into_iter().flatten().map(String::as_str).collect();
    field(&mut block, "Units", &units.join(", "));
    if let Some(socket) = &backend.socket {
        let note = match backend.state {
            BackendState::NoSocket => format!(
                " (is gone; 'vhostctl restart {}' creates it again)",
                backend.instance
            ),
            _ => String::new(),
        };
        field(&mut block, "Socket", &format_args!("{socket}{note}"));
    }
    // By a drop-in, or of further heads.
    let further = details.sockets.iter();
    for socket in further.filter(|socket| Some(*socket) != backend.socket.as_ref()) {
        let note = match socket.starts_with(['/', '@']) {
            true => "",
            false => " (TCP: open to whoever reaches it)",
        };
        block.line(&[output.plain(format_args!("{:>LABEL$}  {socket}{note}", ""))]);
    }
    if let Some(text) = access(details, target) {
        field(&mut block, "Access", &text);
    }
    if let Some(console) = &details.console {
        let state = console.state.as_deref().unwrap_or("unknown");
        let path = console.path.as_deref().unwrap_or(&console.unit);
        field(&mut block, "Console", &format_args!("{path} ({state})"));
    }
    if let Some(server) = &details.render_server {
        field(&mut block, "Renderer", &renderer(server));
    }
    match backend.instance.is_device() {
        true => field(&mut block, "Front-end", &front_end(details, target)),
        false => field(&mut block, "Viewers", &viewers(details)),
    };
    if let Some(device) = &backend.device {
        let note = match details.device_missing {
            Some(true) => " (missing)",
            _ => "",
        };
        field(&mut block, "Device", &format_args!("{device}{note}"));
    }
    if details.network == Some(true) {
        field(&mut block, "Network", &"the host's");
    }
    if details.restarts > 0 {
        field(&mut block, "Restarts", &details.restarts);
    }
    if let Some(end) = last_run(details) {
        field(&mut block, "Last run", &end);
    }
    if let Some(status) = &details.status {
        field(&mut block, "Status", &format_args!("\"{status}\""));
    }
    if let Some(pid) = backend.pid {
        let command = target.is_local().then(|| command_of(pid)).flatten();
        let command = command.map(|command| format!(" ({command})"));
        field(
            &mut block,
            "Main PID",
            &format_args!("{pid}{}", command.unwrap_or_default()),
        );
    }
    if let Some(tasks) = details.tasks {
        let limit = details.tasks_max.map(|limit| format!(" (limit: {limit})"));
        field(
            &mut block,
            "Tasks",
            &format_args!("{tasks}{}", limit.unwrap_or_default()),
        );
    }
    if let Some(memory) = details.memory {
        field(&mut block, "Memory", &format::bytes(memory));
    }
    if let Some(cpu) = details.cpu_nsec.filter(|_| backend.pid.is_some()) {
        field(
            &mut block,
            "CPU",
            &format::span(std::time::Duration::from_nanos(cpu)),
        );
    }
    if let Some(group) = &details.control_group {
        field(&mut block, "CGroup", group);
    }
    if !report.log.is_empty() {
        block.blank();
    }
    for entry in &report.log {
        let line = log_line(entry);
        let line = if args.full { line } else { output.fit(&line) };
        let emphasis = match entry.priority {
            // From "error" and from "notice" up, as of syslog(3).
            Some(0..=3) => Emphasis::Bad,
            Some(4..=5) => Emphasis::Strong,
            _ => Emphasis::None,
        };
        block.line(&[output.paint(&line, emphasis)]);
    }
    block.show()?;
    Ok(())
}

/// Who may connect, and who may connect now if that changes with the next start of the socket.
fn access(details: &Details, target: &Target) -> Option<String> {
    let group = details.socket_group.clone().unwrap_or_default();
    let wanted = SocketPermissions::named(
        details.socket_user.as_ref()?,
        &group,
        details.socket_mode.as_ref()?,
    );
    let path = details.backend.socket.as_ref();
    let now = path
        .filter(|_| target.is_local())
        .and_then(|path| SocketPermissions::of(path));
    Some(match now {
        Some(now) if !now.is_same(&wanted) => {
            format!("{wanted}; until the next start of the socket {now}")
        }
        _ => wanted.to_string(),
    })
}

/// The load state of the units, and their files.
fn loaded(details: &Details) -> String {
    let state = &details.load_state;
    if let Some(error) = &details.load_error {
        return format!("{state} (Reason: {error})");
    }
    let parts: Vec<_> = [&details.socket_file, &details.enabled]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if parts.is_empty() {
        state.clone()
    } else {
        format!("{state} ({})", parts.join("; "))
    }
}

/// The service that renders for a GPU, its state, and what it uses.
fn renderer(server: &RenderServerUnit) -> String {
    let state = server.state.as_deref().unwrap_or("unknown");
    let result = server.result.as_deref();
    let result = result.filter(|result| *result != "success");
    let parts = [
        Some(state.to_owned()),
        result.map(|result| format!("result: {result}")),
        server.tasks.map(|tasks| format!("{tasks} tasks")),
        server.memory.map(format::bytes),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("{} ({})", server.unit, parts.join(", "))
}

/// How the last run ended, if it failed.
fn last_run(details: &Details) -> Option<String> {
    let result = details
        .result
        .as_ref()
        .filter(|result| *result != "success")?;
    let ended = details.ended?;
    let status = match details.exit_status {
        Some(status) => format!(", status {status}"),
        None => String::new(),
    };
    Some(format!("{result}{status}, {}", format::ago(ended)))
}

/// Who is connected, and who waits.
fn front_end(details: &Details, target: &Target) -> String {
    let mut text = match details.front_end {
        Some(true) => "connected".to_owned(),
        Some(false) => "not connected".to_owned(),
        None => "unknown, the backend does not report it".to_owned(),
    };
    if let Some(WaitingFrontEnd { pid, uid }) = details.front_end_waits {
        text.push_str(&format!("; another waits: pid {pid}"));
        // The program may not see the user.
        let local = target.is_local();
        if let Some(command) = local.then(|| command_of(pid)).flatten() {
            text.push_str(&format!(" ({command})"));
        }
        let uid = uid.or_else(|| local.then(|| uid_of(pid)).flatten());
        if let Some(uid) = uid {
            text.push_str(&format!(", uid {uid}"));
        }
    }
    text
}

/// How many viewers are connected; who they are says the status.
fn viewers(details: &Details) -> String {
    match details.viewers {
        Some(0) => "none".to_owned(),
        Some(count) => count.to_string(),
        None => "unknown, the server does not report it".to_owned(),
    }
}

/// The user id of a process.
fn uid_of(pid: u32) -> Option<u32> {
    let process = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(process.uid())
}

/// The name of a process.
fn command_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// A line of the log, in the short form of journalctl.
fn log_line(entry: &Entry) -> String {
    let time = format::local(entry.time).strftime("%b %d %H:%M:%S");
    let who = entry.identifier.as_deref().unwrap_or("unknown");
    match entry.pid {
        Some(pid) => format!("{time} {who}[{pid}]: {}", entry.message),
        None => format!("{time} {who}: {}", entry.message),
    }
}
