// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of a program: how the program gets its socket.

use std::path::Path;

use conventions::FIRST_PASSED_FD;

use crate::descriptors::known::{FileForm, KnownProgram, SocketForm};

use crate::verbs::add::args::Args;
use crate::verbs::error::AddError;

/// Placeholder in an argument for the number of the socket's descriptor.
const FD_WORD: &str = "{fd}";
/// Placeholder in an argument for the path of a socket that the program creates.
const SOCKET_WORD: &str = "{socket}";
/// That path, in a private folder of the service.
const SOCKET: &str = "/tmp/vhost-user.sock";
/// Programs of rust-vmm's vhost-device add the number of the socket to the path.
const FIRST_SOCKET: &str = "/tmp/vhost-user.sock0";

/// How the program takes its socket.
pub(super) fn socket_form(
    args: &Args,
    known: Option<&KnownProgram>,
) -> Result<SocketForm, AddError> {
    let makes_own = args.arguments.iter().any(|it| it.contains(SOCKET_WORD));
    if makes_own && args.connected {
        return Err(AddError::Usage(format!(
            "--connected passes a socket, but {SOCKET_WORD} is for a program that creates its own."
        )));
    }
    Ok(match known {
        _ if makes_own => SocketForm::Own,
        _ if args.connected => SocketForm::Connected,
        Some(known) => known.socket,
        None => SocketForm::Listening,
    })
}

/// The words of the command line. `accept` is vhost-user-accept, which starts all programs that do not take a
/// listening socket.
pub(super) fn command(
    accept: Option<&Path>,
    form: SocketForm,
    program: &Path,
    known: Option<&KnownProgram>,
    files: &[String],
    arguments: &[String],
) -> Result<Vec<String>, AddError> {
    let mut command: Vec<_> = accept.map(text).into_iter().collect();
    if form == SocketForm::Own {
        command.extend([SOCKET, FIRST_SOCKET].map(|path| format!("--socket-path={path}")));
    }
    command.push(text(program));
    let needed = known.map_or(&[][..], |known| known.arguments);
    let is_missing = |needed: &&&str| {
        let word = needed.split('=').next().unwrap_or(needed);
        !arguments
            .iter()
            .any(|argument| argument.split('=').next() == Some(word))
    };
    command.extend(needed.iter().filter(is_missing).map(|it| (*it).to_owned()));
    let names_socket = files.iter().chain(arguments).any(|it| it.contains(FD_WORD));
    if form != SocketForm::Own && !names_socket {
        if known.is_some_and(|known| known.file == FileForm::BlockExport) {
            return Err(AddError::Usage(format!(
                "{} takes its socket by --export: add addr.type=fd,addr.str={FD_WORD} to it, or use \
                 --blk-file=PATH.",
                program.display()
            )));
        }
        command.push(format!("--fd={FIRST_PASSED_FD}"));
    }
    command.extend(files.iter().chain(arguments).cloned());
    for word in &mut command {
        *word = match form {
            SocketForm::Own => word.replace(SOCKET_WORD, SOCKET),
            SocketForm::Listening | SocketForm::Connected => {
                word.replace(FD_WORD, &FIRST_PASSED_FD.to_string())
            }
        };
    }
    Ok(command)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use crate::descriptors::known;

    use super::*;

    const ACCEPT: &str = "/usr/libexec/vhost-user-accept";

    fn line(program: &str, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let program = Path::new(program);
        let known = known::lookup(program);
        let own = arguments.iter().any(|it| it.contains(SOCKET_WORD));
        let form = match known {
            _ if own => SocketForm::Own,
            Some(known) => known.socket,
            None => SocketForm::Listening,
        };
        let accept = (form != SocketForm::Listening).then_some(Path::new(ACCEPT));
        command(accept, form, program, known, &[], &arguments).expect("a command")
    }

    #[test]
    fn the_socket_is_passed_as_the_conventions_or_the_arguments_say() {
        let line = |arguments| line("/usr/bin/x", arguments);
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
        let own = [
            ACCEPT,
            "--socket-path=/tmp/vhost-user.sock",
            "--socket-path=/tmp/vhost-user.sock0",
            "/usr/bin/x",
            "--socket",
            "/tmp/vhost-user.sock",
        ];
        assert_eq!(line(&["--socket", "{socket}"]), own);
    }

    #[test]
    fn known_programs_get_their_arguments() {
        let passt = [
            ACCEPT,
            "/usr/bin/passt",
            "--vhost-user",
            "--foreground",
            "--no-map-gw",
        ];
        let passt = |more: &[&'static str]| [&passt[..], more].concat();
        assert_eq!(line("/usr/bin/passt", &[]), passt(&["--fd=3"]));
        assert_eq!(
            line("/usr/bin/passt", &["--mtu=1500"]),
            passt(&["--fd=3", "--mtu=1500"])
        );
        assert_eq!(
            line("/usr/bin/passt", &["--foreground"])[2..],
            ["--vhost-user", "--no-map-gw", "--fd=3", "--foreground"]
        );
        let rng = line("/usr/bin/vhost-device-rng", &["--max-bytes=64"]);
        assert_eq!(
            rng[4..],
            ["--socket-path=/tmp/vhost-user.sock", "--max-bytes=64"]
        );
        let daemon = Path::new("/usr/bin/qemu-storage-daemon");
        let form = SocketForm::Listening;
        let error = command(None, form, daemon, known::lookup(daemon), &[], &[]);
        let error = error.expect_err("no socket").to_string();
        assert!(error.contains("addr.str={fd}"), "{error}");
    }
}
