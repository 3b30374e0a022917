// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks of values before they are written into a unit file. A value comes from the command line, a descriptor or
//! udev, and a line break in it would start another directive.

use crate::accounts::AccountError;

/// Why a value cannot be written into a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("{0:?} contains a control character, which a unit file cannot hold")]
    Control(String),
    #[error("{0:?} is not UTF-8, which paths in a unit file have to be")]
    Encoding(String),
    #[error("'{0}' is not the path of a device node: a service can open only nodes below /dev")]
    Node(String),
    #[error(
        "systemd 257 does not start a service that may open '{0}': it ends the path at the space. Create a \
         symbolic link to it without a space in its name"
    )]
    BlankNode(String),
    #[error(
        "systemd cannot run '{0}': the path of a program must be absolute, without quotes, backslashes and $. \
         Create a symbolic link to it with a plain name"
    )]
    Program(String),
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// Checks any text: there is no escape for control characters that all directives understand.
pub(crate) fn check_text(text: &str) -> Result<(), ValueError> {
    if text.contains(char::is_control) {
        return Err(ValueError::Control(text.to_owned()));
    }
    // What a path that is not UTF-8 was made into.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(ValueError::Encoding(text.to_owned()));
    }
    Ok(())
}

/// Checks the path of a device node for `DeviceAllow=`: systemd ignores paths outside of /dev.
pub(crate) fn check_node(path: &str) -> Result<(), ValueError> {
    check_text(path)?;
    let below = path.strip_prefix("/dev/").unwrap_or_default();
    if below.is_empty() || below.split('/').any(|part| part == "..") {
        return Err(ValueError::Node(path.to_owned()));
    }
    if path.contains(' ') {
        return Err(ValueError::BlankNode(path.to_owned()));
    }
    Ok(())
}

/// Checks the path of a program for `ExecStart=`.
pub(crate) fn check_program(path: &str) -> Result<(), ValueError> {
    check_text(path)?;
    let odd = |c: char| matches!(c, '"' | '\'' | '\\' | '$');
    if !path.starts_with('/') || path.ends_with('/') || path.contains(odd) {
        return Err(ValueError::Program(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_lie_below_dev() {
        for good in ["/dev/x", r"/dev/input/by-id/a\x20b", "/dev/ab\"c'd;$%\\"] {
            assert_eq!(check_node(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/dev/",
            "/dev",
            "dev/x",
            "/run/x",
            "/dev/../run/x",
            "char-input",
        ] {
            assert_eq!(check_node(bad), Err(ValueError::Node(bad.into())));
        }
        let blank = "/dev/a b";
        assert_eq!(check_node(blank), Err(ValueError::BlankNode(blank.into())));
        for bad in ["/dev/a\nb", "/dev/a\rb", "/dev/a\0b", "/dev/a\tb"] {
            assert_eq!(check_node(bad), Err(ValueError::Control(bad.into())));
        }
        assert!(matches!(
            check_node("/dev/\u{fffd}"),
            Err(ValueError::Encoding(_))
        ));
    }

    #[test]
    fn programs_are_those_that_systemd_runs() {
        for good in ["/usr/bin/x", "/opt/a b/100%;x"] {
            assert_eq!(check_program(good), Ok(()), "{good}");
        }
        for bad in [
            "x",
            "",
            "/",
            "/bin/",
            "/bin/a$b",
            "/bin/a'b",
            "/bin/a\"b",
            r"/bin/a\b",
        ] {
            assert_eq!(check_program(bad), Err(ValueError::Program(bad.into())));
        }
    }
}
