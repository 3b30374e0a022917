// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn parsed(unit: &str) -> Option<(UnitKind, String, Option<String>, UnitType)> {
    UnitName::parse(unit).map(|it| {
        (
            it.instance.kind,
            it.instance.vm,
            it.instance.name,
            it.unit_type,
        )
    })
}

#[test]
fn units_are_read() {
    assert_eq!(
        parsed("vhost-user-gpu@vm1.socket"),
        Some((UnitKind::Gpu, "vm1".into(), None, UnitType::Socket))
    );
    assert_eq!(
        parsed("vhost-user-input@vm1:kbd.service"),
        Some((
            UnitKind::Input,
            "vm1".into(),
            Some("kbd".into()),
            UnitType::Service
        ))
    );
    assert_eq!(
        parsed(r"vhost-user-gpu@web.example\x20com.socket"),
        Some((
            UnitKind::Gpu,
            r"web.example\x20com".into(),
            None,
            UnitType::Socket
        ))
    );
    assert_eq!(
        parsed("vhost-user-input@a:b:c@d.socket"),
        Some((
            UnitKind::Input,
            "a".into(),
            Some("b:c@d".into()),
            UnitType::Socket
        ))
    );
    assert_eq!(
        parsed("vhost-user-input@vm1.socket"),
        Some((UnitKind::Input, "vm1".into(), None, UnitType::Socket))
    );
    assert_eq!(
        parsed("vhost-vnc@vm1.service"),
        Some((UnitKind::Vnc, "vm1".into(), None, UnitType::Service))
    );
    assert_eq!(
        parsed("vhost-user-display@vm1.socket"),
        Some((UnitKind::Gpu, "vm1".into(), None, UnitType::Console))
    );
    assert_eq!(
        parsed("vhost-user-events@vm1:tablet.socket"),
        Some((
            UnitKind::Input,
            "vm1".into(),
            Some("tablet".into()),
            UnitType::Console
        ))
    );
}

#[test]
fn other_units_are_not_ours() {
    for unit in [
        "vhost-user-gpu@.socket",
        "vhost-user-gpu.socket",
        "vhost-user-gpu@vm1.slice",
        "vhost-user-gpu@vm1",
        "vhost-user-blk@vm1.socket",
        "vhost-user-display@vm1.service",
        "vhost-user-events@vm1:kbd.service",
        "getty@tty1.service",
        "",
    ] {
        assert_eq!(parsed(unit), None, "{unit}");
    }
}

#[test]
fn names_are_checked() {
    for good in ["vm1", "web.example-2", "_", "9"] {
        assert_eq!(check_name(good), Ok(()));
    }
    assert_eq!(check_name(""), Err(NameError::Empty));
    assert_eq!(check_name("-a"), Err(NameError::Dash("-a".into())));
    for dots in [".", ".."] {
        assert_eq!(check_name(dots), Err(NameError::Dots(dots.into())));
    }
    assert_eq!(check_name("..."), Ok(()));
    for (bad, c) in [
        ("my vm", ' '),
        ("a:b", ':'),
        (r"a\x2db", '\\'),
        ("a/b", '/'),
        ("Tänzer", 'ä'),
    ] {
        assert_eq!(check_name(bad), Err(NameError::Character(c, bad.into())));
    }
}

#[test]
fn a_new_instance_fits_its_socket() {
    // "/run/vhost-user/input/" and ":kbd.sock" leave 76 bytes for the VM.
    let longest = "v".repeat(76);
    let instance = Instance::checked(UnitKind::Input, &longest, Some("kbd")).expect("fits");
    assert_eq!(instance.socket().len(), SOCKET_PATH_MAX);
    let error = Instance::checked(UnitKind::Input, &format!("{longest}v"), Some("kbd"));
    assert!(matches!(error, Err(NameError::Length { .. })), "{error:?}");
    let message = error.expect_err("too long").to_string();
    assert!(message.contains("108 bytes"), "{message}");
}

#[test]
fn a_gpu_has_no_name_and_the_others_have() {
    assert_eq!(
        Instance::checked(UnitKind::Gpu, "vm1", Some("a")),
        Err(NameError::Needless)
    );
    assert_eq!(
        Instance::checked(UnitKind::Program, "vm1", None),
        Err(NameError::Empty)
    );
    for name in ["gpu", "vnc"] {
        assert!(matches!(
            Instance::checked(UnitKind::Input, "vm1", Some(name)),
            Err(NameError::Reserved { .. })
        ));
        assert!(Instance::checked(UnitKind::Program, "vm1", Some(name)).is_err());
    }
}

#[test]
fn a_unit_is_named_as_it_was_read() {
    for unit in [
        "vhost-user-gpu@vm1.socket",
        "vhost-user-display@vm1.socket",
        "vhost-user-input@vm1:kbd.service",
        "vhost-user-events@vm1:kbd.socket",
        "vhost-vnc@vm1.socket",
        r"vhost-user-gpu@a\x2db.service",
    ] {
        let name = UnitName::parse(unit).expect("ours");
        assert_eq!(name.instance.unit(name.unit_type), unit);
    }
}

#[test]
fn a_vm_is_listed_gpu_first() {
    let mut all: Vec<_> = [
        "vhost-vnc@a.socket",
        "vhost-user-input@b:kbd.socket",
        "vhost-user-input@a:mouse.socket",
        "vhost-user-gpu@b.socket",
        "vhost-user-input@a:kbd.socket",
        "vhost-user-gpu@a.socket",
    ]
    .iter()
    .filter_map(|unit| UnitName::parse(unit))
    .map(|name| name.instance.unit(name.unit_type))
    .collect();
    all.sort_by_key(|unit| Instance::from_unit(unit));
    assert_eq!(
        all,
        [
            "vhost-user-gpu@a.socket",
            "vhost-user-input@a:kbd.socket",
            "vhost-user-input@a:mouse.socket",
            "vhost-vnc@a.socket",
            "vhost-user-gpu@b.socket",
            "vhost-user-input@b:kbd.socket",
        ]
    );
}

#[test]
fn an_instance_is_shown_as_it_is_selected() {
    for (unit, shown) in [
        ("vhost-user-gpu@vm1.socket", "vm1:gpu"),
        ("vhost-user-input@vm1:kbd.socket", "vm1:kbd"),
        ("vhost-vnc@vm1.socket", "vm1:vnc"),
    ] {
        let instance = Instance::from_unit(unit).expect("ours");
        assert_eq!(instance.to_string(), shown);
    }
}
