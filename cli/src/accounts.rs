// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Users and groups of this host.

use std::cell::RefCell;
use std::collections::HashMap;

use nix::unistd::{Gid, Group, Uid, User};

/// Why a user or group cannot be named in a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(
        "{0:?} is not a valid user or group: names consist of A-Z a-z 0-9 _ - . @, and a number is an id"
    )]
    Name(String),
    #[error(
        "there is no user '{0}' on this host. Use one of /etc/passwd, or create it first (useradd)"
    )]
    NoUser(String),
    #[error(
        "there is no group '{0}' on this host. Use one of /etc/group, or create it first (groupadd)"
    )]
    NoGroup(String),
    #[error("users and groups cannot be looked up: {0}")]
    Lookup(#[source] nix::Error),
}

/// Checks the form of the name or number of a user or group.
pub(crate) fn check_account(name: &str) -> Result<(), AccountError> {
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
        Err(AccountError::Name(name.to_owned()))
    }
}

/// Checks that a user with this name or number exists.
pub(crate) fn check_user(name: &str) -> Result<(), AccountError> {
    check_account(name)?;
    let found = match name.parse() {
        Ok(id) => User::from_uid(Uid::from_raw(id)),
        Err(_) => User::from_name(name),
    };
    match found.map_err(AccountError::Lookup)? {
        Some(_) => Ok(()),
        None => Err(AccountError::NoUser(name.to_owned())),
    }
}

/// Checks that a group with this name or number exists.
pub(crate) fn check_group(name: &str) -> Result<(), AccountError> {
    check_account(name)?;
    let found = match name.parse() {
        Ok(id) => Group::from_gid(Gid::from_raw(id)),
        Err(_) => Group::from_name(name),
    };
    match found.map_err(AccountError::Lookup)? {
        Some(_) => Ok(()),
        None => Err(AccountError::NoGroup(name.to_owned())),
    }
}

/// The name of the user with this number, or the number if no user has it, the lookup fails, or a unit cannot
/// have such a name.
pub(crate) fn user_name(id: u32) -> String {
    let user = User::from_uid(Uid::from_raw(id)).ok().flatten();
    name_or_number(user.map(|user| user.name), id)
}

/// The name of the group with this number, or the number if no group has it, the lookup fails, or a unit cannot
/// have such a name.
pub(crate) fn group_name(id: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(id)).ok().flatten();
    name_or_number(group.map(|group| group.name), id)
}

thread_local! {
    static USERS: RefCell<HashMap<String, Option<User>>> = RefCell::default();
    static GROUPS: RefCell<HashMap<String, Option<Group>>> = RefCell::default();
}

/// The user with this name or number, if there is one. Each is looked up once: many sockets have the same.
pub(crate) fn known_user(name: &str) -> Option<User> {
    known(&USERS, name, |name| match name.parse() {
        Ok(id) => User::from_uid(Uid::from_raw(id)),
        Err(_) => User::from_name(name),
    })
}

/// The group with this name or number, if there is one. Each is looked up once.
pub(crate) fn known_group(name: &str) -> Option<Group> {
    known(&GROUPS, name, |name| match name.parse() {
        Ok(id) => Group::from_gid(Gid::from_raw(id)),
        Err(_) => Group::from_name(name),
    })
}

fn known<T: Clone>(
    all: &'static std::thread::LocalKey<RefCell<HashMap<String, Option<T>>>>,
    name: &str,
    look_up: impl FnOnce(&str) -> nix::Result<Option<T>>,
) -> Option<T> {
    all.with_borrow_mut(|all| match all.get(name) {
        Some(found) => found.clone(),
        None => {
            let found = look_up(name).ok().flatten();
            all.insert(name.to_owned(), found.clone());
            found
        }
    })
}

/// Directories such as LDAP and Active Directory have names like `DOM\group` and `domain users`.
fn name_or_number(name: Option<String>, id: u32) -> String {
    name.filter(|name| check_account(name).is_ok())
        .unwrap_or_else(|| id.to_string())
}

/// Whether no user has this name or number; false if the lookup fails.
pub(crate) fn is_missing_user(name: &str) -> bool {
    matches!(check_user(name), Err(AccountError::NoUser(_)))
}

/// Whether no group has this name or number; false if the lookup fails.
pub(crate) fn is_missing_group(name: &str) -> bool {
    matches!(check_group(name), Err(AccountError::NoGroup(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_without_an_account_stands_for_itself() {
        assert_eq!(user_name(0), "root");
        assert_eq!(group_name(0), "root");
        assert_eq!(user_name(4_000_000_123), "4000000123");
        assert_eq!(group_name(4_000_000_123), "4000000123");
    }

    #[test]
    fn name_that_no_unit_can_have_is_a_number() {
        let name = |name: &str| name_or_number(Some(name.to_owned()), 1234);
        assert_eq!(name("render"), "render");
        assert_eq!(name("domain users"), "1234");
        assert_eq!(name("DOM\\group"), "1234");
    }

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
            assert_eq!(check_account(bad), Err(AccountError::Name(bad.into())));
        }
        assert_eq!(check_user("root"), Ok(()));
        assert_eq!(check_user("0"), Ok(()));
        assert_eq!(check_group("root"), Ok(()));
        assert_eq!(
            check_group("vhostctl-nobodys"),
            Err(AccountError::NoGroup("vhostctl-nobodys".into()))
        );
        let nobodys = "vhostctl-nobodys";
        assert_eq!(
            check_user(nobodys),
            Err(AccountError::NoUser(nobodys.into()))
        );
    }
}
