//! What may stand in a unit. A value comes from the command line, from a descriptor or from udev, and
//! goes into a file in which a line more is a directive more.

use nix::unistd::{Gid, Group, Uid, User};

/// Why a value cannot be written into a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("{0:?} has a control character in it, which a unit cannot hold")]
    Control(String),
    #[error("{0:?} is not UTF-8, as the paths in a unit are")]
    Encoding(String),
    #[error("'{0}' is no path of a device node: a service may only open what lies below /dev")]
    Node(String),
    #[error(
        "systemd 257 starts no service that may open '{0}': it takes the blank for the end of the path. Make a \
         symbolic link to it with a plain name"
    )]
    BlankNode(String),
    #[error(
        "systemd cannot run '{0}': the path of a program is absolute, and has no quote, backslash or $ in it. Make \
         a symbolic link to it with a plain name"
    )]
    Program(String),
    #[error(
        "{0:?} cannot be the name of a user or group: names are made of A-Z a-z 0-9 _ - . @, and a number is an id"
    )]
    Account(String),
    #[error(
        "there is no user '{0}' on this host. Take one of /etc/passwd, or make it first (useradd)"
    )]
    NoUser(String),
    #[error(
        "there is no group '{0}' on this host. Take one of /etc/group, or make it first (groupadd)"
    )]
    NoGroup(String),
    #[error("users and groups cannot be looked up: {0}")]
    Lookup(String),
}

/// Any text: a unit file has no escape for control characters that all directives would understand.
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

/// The path of a device node, for `DeviceAllow=`: systemd ignores one that lies elsewhere.
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

/// The path of a program, for `ExecStart=`.
pub(crate) fn check_program(path: &str) -> Result<(), ValueError> {
    check_text(path)?;
    let odd = |c: char| matches!(c, '"' | '\'' | '\\' | '$');
    if !path.starts_with('/') || path.ends_with('/') || path.contains(odd) {
        return Err(ValueError::Program(path.to_owned()));
    }
    Ok(())
}

/// The name of a user or group, or its number.
pub(crate) fn check_account(name: &str) -> Result<(), ValueError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    // systemd knows no user whose number stands for "none" in 16 or 32 bits.
    let number = |text: &str| {
        let canonical = text == "0" || !text.starts_with('0');
        let id = text.parse::<u32>().ok().filter(|_| canonical);
        id.is_some_and(|id| id != u32::MAX && id != u32::from(u16::MAX))
    };
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    // Accounts of machines end so.
    let stem = name.strip_suffix('$').unwrap_or(name);
    if number(name) || stem.starts_with(starts) && stem.chars().all(plain) {
        Ok(())
    } else {
        Err(ValueError::Account(name.to_owned()))
    }
}

/// Sees that there is a user with this name or number.
pub(crate) fn check_user(name: &str) -> Result<(), ValueError> {
    check_account(name)?;
    let found = match name.parse() {
        Ok(id) => User::from_uid(Uid::from_raw(id)),
        Err(_) => User::from_name(name),
    };
    match found.map_err(|error| ValueError::Lookup(error.to_string()))? {
        Some(_) => Ok(()),
        None => Err(ValueError::NoUser(name.to_owned())),
    }
}

/// Sees that there is a group with this name or number.
pub(crate) fn check_group(name: &str) -> Result<(), ValueError> {
    check_account(name)?;
    let found = match name.parse() {
        Ok(id) => Group::from_gid(Gid::from_raw(id)),
        Err(_) => Group::from_name(name),
    };
    match found.map_err(|error| ValueError::Lookup(error.to_string()))? {
        Some(_) => Ok(()),
        None => Err(ValueError::NoGroup(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_names_or_numbers() {
        for good in [
            "root",
            "_x",
            "libvirt-qemu",
            "a.b@example.com",
            "host$",
            "0",
            "1000",
        ] {
            assert_eq!(check_account(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "root\nUser=0",
            "root\rUser=0",
            "a b",
            "%u",
            "$USER",
            "a$b",
            "-a",
            "1a",
            "00",
            "65535",
            "4294967295",
            "99999999999",
            "a:b",
            "a/b",
            r"a\",
            "a;b",
            "\"a\"",
            "ä",
            "$",
        ] {
            assert_eq!(check_account(bad), Err(ValueError::Account(bad.into())));
        }
        assert_eq!(check_user("root"), Ok(()));
        assert_eq!(check_user("0"), Ok(()));
        assert_eq!(check_group("root"), Ok(()));
        assert_eq!(
            check_group("vhostctl-nobodys"),
            Err(ValueError::NoGroup("vhostctl-nobodys".into()))
        );
        let nobodys = "vhostctl-nobodys";
        assert_eq!(check_user(nobodys), Err(ValueError::NoUser(nobodys.into())));
    }

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
