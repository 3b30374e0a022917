// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may connect to a socket, and so controls the device: what is typed, the files, the disk, the host's GPU.

use std::fs;

use crate::accounts::{self, AccountError};
use crate::instance::{Instance, UnitKind};
use crate::unit_syntax::{Directive, quoted};

use super::args::AccessArgs;

/// The default users of libvirt's QEMU: on Debian and Ubuntu; on Fedora and openSUSE.
const QEMU_USERS: [&str; 2] = ["libvirt-qemu", "qemu"];
/// The file that sets another user for libvirt's QEMU.
const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";

/// Who may connect to one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    user: String,
    group: String,
    mode: u32,
}

impl Access {
    /// The access by the command line, or a safe default for this backend. `None` if the template of the unit has the
    /// same; `host_gpu` is whether the backend uses the host's GPU.
    pub(super) fn choose(
        args: &AccessArgs,
        instance: &Instance,
        host_gpu: bool,
    ) -> Result<Option<Self>, AccountError> {
        let said = args.are_given();
        if instance.kind() == UnitKind::Gpu && !host_gpu && !said {
            return Ok(None);
        }
        let user = match &args.socket_user {
            Some(user) => {
                accounts::check_user(user)?;
                user.clone()
            }
            None => qemu_user().unwrap_or_else(|| ROOT.to_owned()),
        };
        if let Some(group) = &args.socket_group {
            accounts::check_group(group)?;
        }
        let mode = if args.socket_group.is_some() {
            0o660
        } else {
            PRIVATE
        };
        let access = Self {
            user,
            group: args.socket_group.clone().unwrap_or_else(|| ROOT.to_owned()),
            mode: args.socket_mode.unwrap_or(mode),
        };
        let is_templates = instance.kind() != UnitKind::Gpu && access.is_roots();
        Ok((!is_templates).then_some(access))
    }

    fn is_roots(&self) -> bool {
        self.user == ROOT && self.group == ROOT && self.mode == PRIVATE
    }

    /// Who may connect, as the subject of a sentence.
    pub(super) fn named(&self) -> String {
        format!("User {} and root", self.user)
    }

    /// Who may view a VM's screen, by the command line. `None` for root alone, as in the template of the unit.
    pub(super) fn of_viewers(
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Self>, AccountError> {
        user.map_or(Ok(()), accounts::check_user)?;
        group.map_or(Ok(()), accounts::check_group)?;
        let access = Self {
            user: user.unwrap_or(ROOT).to_owned(),
            group: group.unwrap_or(ROOT).to_owned(),
            mode: if group.is_some() { 0o660 } else { PRIVATE },
        };
        Ok((!access.is_roots()).then_some(access))
    }

    /// The directives of the socket.
    pub(super) fn directives(&self) -> Vec<Directive> {
        vec![
            Directive::new("SocketUser", quoted(&self.user)),
            Directive::new("SocketGroup", quoted(&self.group)),
            Directive::new("SocketMode", format!("{:04o}", self.mode)),
        ]
    }
}

const ROOT: &str = "root";
/// For the owner alone.
const PRIVATE: u32 = 0o600;

/// Who may connect, for the user, unless the command line says it.
pub(super) fn hint(args: &AccessArgs, access: Option<&Access>, kind: UnitKind) -> Option<String> {
    if args.are_given() {
        return None;
    }
    match access {
        None if kind == UnitKind::Gpu => None,
        Some(access) if access.user != ROOT => Some(format!(
            "{} may connect. Use --socket-user= for a VMM that runs as another user.",
            access.named()
        )),
        _ => Some(
            "Only root may connect. Use --socket-user= for a VMM that runs as another user."
                .to_owned(),
        ),
    }
}

/// The user that libvirt runs QEMU as on this host.
fn qemu_user() -> Option<String> {
    let exists = |user: &String| accounts::check_user(user).is_ok();
    let configured = fs::read_to_string(QEMU_CONF).ok();
    configured
        .and_then(|text| configured_user(&text))
        .into_iter()
        .chain(QEMU_USERS.map(str::to_owned))
        .find(exists)
}

/// The user that qemu.conf names.
fn configured_user(text: &str) -> Option<String> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix("user")?.trim_start();
        let value = value.strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (name, _) = value.get(1..)?.split_once(quote)?;
        // A number is written with a plus.
        Some(name.strip_prefix('+').unwrap_or(name).to_owned())
    };
    text.lines().filter_map(value).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_conf_names_the_user() {
        let user = |text: &str| configured_user(text);
        assert_eq!(user("# user = \"a\"\n#user = \"b\"\n"), None);
        assert_eq!(user("user = \"root\"\n").as_deref(), Some("root"));
        assert_eq!(
            user("group = \"kvm\"\n  user='a b'\nuser=\"+64055\" # x\n").as_deref(),
            Some("64055")
        );
        assert_eq!(
            user("users = \"a\"\nuser\nuser = a\nuser = \"\nuser_x = \"b\"\n"),
            None
        );
    }

    #[test]
    fn a_named_value_is_kept_and_the_others_are_safe() {
        let args = |user: Option<&str>, group: Option<&str>, mode| AccessArgs {
            socket_user: user.map(str::to_owned),
            socket_group: group.map(str::to_owned),
            socket_mode: mode,
        };
        let gpu = Instance::checked(UnitKind::Gpu, "vm1", None).expect("a name");
        let kbd = Instance::checked(UnitKind::Input, "vm1", Some("kbd")).expect("a name");
        let choose =
            |args: AccessArgs, instance| Access::choose(&args, instance, false).expect("good");
        let access = |user: &str, group: &str, mode| {
            Some(Access {
                user: user.to_owned(),
                group: group.to_owned(),
                mode,
            })
        };
        // What the templates have is not written.
        assert_eq!(choose(args(None, None, None), &gpu), None);
        assert_eq!(choose(args(Some("root"), None, None), &kbd), None);
        // A GPU that was given to somebody is no longer the group's.
        assert_eq!(
            choose(args(Some("root"), None, None), &gpu),
            access("root", "root", 0o600)
        );
        let grouped = args(Some("root"), Some("daemon"), None);
        assert_eq!(choose(grouped, &kbd), access("root", "daemon", 0o660));
        let open = args(Some("daemon"), None, Some(0o666));
        assert_eq!(choose(open, &kbd), access("daemon", "root", 0o666));
        let three_d = Access::choose(&args(Some("root"), None, None), &gpu, true).expect("good");
        assert_eq!(three_d, access("root", "root", 0o600));
        for bad in [
            args(Some("x\ny"), None, None),
            args(None, Some("vhostctl-nobodys"), None),
        ] {
            assert!(Access::choose(&bad, &kbd, false).is_err());
        }
    }

    #[test]
    fn viewers_are_root_and_who_was_named() {
        let viewers = |user, group| Access::of_viewers(user, group).expect("accounts that exist");
        assert_eq!(viewers(None, None), None);
        assert_eq!(viewers(Some("root"), None), None);
        let modes = [(Some("daemon"), None), (None, Some("daemon"))]
            .map(|(user, group)| viewers(user, group).map(|access| access.mode));
        assert_eq!(modes, [Some(0o600), Some(0o660)]);
        assert!(Access::of_viewers(Some("vhostctl-nobodys"), None).is_err());
        assert!(Access::of_viewers(None, Some("x\ny")).is_err());
    }

    #[test]
    fn the_templates_are_as_safe() {
        let template = |text: &str| {
            let all = crate::unit_syntax::parse(text);
            ["SocketUser", "SocketGroup", "SocketMode"].map(|key| {
                let found = all
                    .iter()
                    .rfind(|it| it.section == "Socket" && it.key == key);
                found.expect(key).value.clone()
            })
        };
        let private = [ROOT, ROOT, "0600"];
        assert_eq!(
            template(include_str!("../../../../systemd/vhost-user-input@.socket")),
            private
        );
        assert_eq!(
            template(include_str!("../../../../systemd/vhost-user@.socket")),
            private
        );
        assert_eq!(
            template(include_str!("../../../../systemd/vhost-vnc@.socket")),
            private
        );
        let gpu = template(include_str!("../../../../systemd/vhost-user-gpu@.socket"));
        assert_eq!(gpu, [ROOT, "kvm", "0660"]);
    }
}
