// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the program's own sandbox refuses on a node, and what its units would have to allow.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::trial::{Renderer, Subject, Trial};

/// What the kernel's log has of a system call that a filter logs or ends a process for.
const SECCOMP: &str = "type=1326";
/// Where each program finds them under the units, with a drop-in for a node.
const GIVEN: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
    "/dev/udmabuf",
    "/dev/dri",
];

/// System calls that are not on the list, by the kernel's log.
pub(super) fn of_kernel_log(subject: &Subject, renderer: &Renderer) -> anyhow::Result<String> {
    let mut log = match kernel_log() {
        Ok(log) => log,
        Err(error) => {
            return Ok(format!(
                "Not known: the kernel's log cannot be read ({error}). Run it as root."
            ));
        }
    };
    let mut pid = 0;
    let command = renderer
        .command(&subject.program, None)
        .arg("--sandbox=log");
    let trial = Trial::of(subject, command, |program| {
        pid = program.pid();
        Ok(())
    });
    let mark = format!("pid={pid} ");
    let mut calls = BTreeSet::new();
    let mut line = [0; 8192];
    // One line is read at a time; those before this trial are not.
    loop {
        match log.read(&mut line) {
            Ok(0) => break,
            Ok(count) => {
                let line = String::from_utf8_lossy(line.get(..count).unwrap_or_default());
                if line.contains(SECCOMP) && (pid == 0 || line.contains(&mark)) {
                    let word = |name: &str| {
                        let mut words = line.split_ascii_whitespace();
                        words.find_map(|word| word.strip_prefix(name).map(str::to_owned))
                    };
                    calls.insert(format!(
                        "{} (arch {})",
                        word("syscall=").unwrap_or_default(),
                        word("arch=").unwrap_or_default()
                    ));
                }
            }
            // Lines were lost.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
            Err(_) => break,
        }
    }
    let calls: Vec<_> = calls.into_iter().collect();
    Ok(match (trial, calls.as_slice()) {
        (Err(error), _) => format!("With --sandbox=log it failed:\n\n```text\n{error:#}\n```"),
        (Ok(_), []) => "No system call.".into(),
        (Ok(_), calls) => format!("System calls by their numbers: {}", calls.join(", ")),
    })
}

fn kernel_log() -> io::Result<File> {
    let mut log = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    Ok(log)
}

/// Files that could not be opened, and device nodes that were, by strace(1).
pub(super) fn of_files(
    subject: &Subject,
    renderer: &Renderer,
    node: &Path,
) -> anyhow::Result<String> {
    let output = std::env::temp_dir().join(format!("gpu-check-{}", std::process::id()));
    let tracer = output.with_extension("sh");
    let script = format!(
        "#!/bin/sh\nexec strace -f -qq -e trace=%file,ioctl -o '{}' '{}' \"$@\"\n",
        output.display(),
        subject.program.display()
    );
    fs::write(&tracer, script)?;
    fs::set_permissions(&tracer, Permissions::from_mode(0o700))?;
    let trial = Trial::run(subject, renderer, Some(&tracer));
    let _ = fs::remove_file(&tracer);
    let lines = fs::read_to_string(&output);
    let _ = fs::remove_file(&output);
    let lines = match (lines, trial) {
        (Ok(lines), Ok(_)) => lines,
        (Ok(_), Err(error)) => {
            return Ok(format!(
                "Under strace it failed:\n\n```text\n{error:#}\n```"
            ));
        }
        (Err(_), Err(error)) => {
            return Ok(format!("Not known: strace(1) does not run: {error:#}"));
        }
        (Err(error), Ok(_)) => return Ok(format!("Not known: {error}")),
    };
    let Seen { refused, devices } = read(&lines);
    let given =
        |path: &String| path == &node.display().to_string() || GIVEN.contains(&path.as_str());
    let further: Vec<_> = devices
        .iter()
        .filter(|path| !given(path))
        .cloned()
        .collect();
    let list = |paths: Vec<String>| match paths.is_empty() {
        true => "none".to_owned(),
        false => paths.join(", "),
    };
    Ok(format!(
        "- refused (EACCES, EPERM): {}\n- device nodes beyond those of the unit and its drop-in: {}",
        list(refused.into_iter().collect()),
        list(further)
    ))
}

/// What a trace tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Calls that failed by permission, with their paths.
    refused: BTreeSet<String>,
    /// Device nodes that were opened.
    devices: BTreeSet<String>,
}

fn read(lines: &str) -> Seen {
    let mut seen = Seen::default();
    for line in lines.lines() {
        let Some((call, result)) = line.rsplit_once(" = ") else {
            continue;
        };
        let name = call
            .split('(')
            .next()
            .and_then(|name| name.split(' ').next_back());
        let name = name.unwrap_or_default();
        let path = call.split('"').nth(1);
        if result.starts_with("-1 EACCES") || result.starts_with("-1 EPERM") {
            let what = match path {
                Some(path) => format!("`{name} {path}`"),
                // The request of an ioctl(2).
                None => format!("`{name}{}`", call.split(',').nth(1).unwrap_or_default()),
            };
            seen.refused.insert(what);
        } else if let Some(path) =
            path.filter(|path| name.starts_with("open") && path.starts_with("/dev/"))
        {
            if !result.starts_with('-') {
                seen.devices.insert(path.to_owned());
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_tells_what_was_refused_and_opened() {
        let seen = read(
            "\
7 openat(AT_FDCWD, \"/dev/dri/renderD128\", O_RDWR|O_CLOEXEC) = 7
7 openat(AT_FDCWD, \"/dev/nvidiactl\", O_RDWR) = 8
8 openat(AT_FDCWD, \"/root/.drirc\", O_RDONLY) = -1 EACCES (Permission denied)
8 openat(AT_FDCWD, \"/dev/none\", O_RDONLY) = -1 ENOENT (No such file or directory)
8 ioctl(8, _IOC(_IOC_READ|_IOC_WRITE, 0x46, 0x2a, 0x20), 0x7ffc) = -1 EPERM (Operation not permitted)
8 ioctl(8, TCGETS, 0x7ffc) = -1 EACCES (Permission denied)
8 +++ exited with 0 +++
",
        );
        let devices: Vec<_> = seen.devices.iter().map(String::as_str).collect();
        assert_eq!(devices, ["/dev/dri/renderD128", "/dev/nvidiactl"]);
        let refused: Vec<_> = seen.refused.iter().map(String::as_str).collect();
        assert_eq!(
            refused,
            [
                "`ioctl TCGETS`",
                "`ioctl _IOC(_IOC_READ|_IOC_WRITE`",
                "`openat /root/.drirc`"
            ]
        );
    }
}
