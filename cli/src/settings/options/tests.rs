// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn options(kind: UnitKind, variables: &[&str]) -> ProgramOptions {
    let variables: Vec<_> = variables.iter().map(ToString::to_string).collect();
    ProgramOptions::from_environment(kind, &variables)
}

#[test]
fn device_is_read_from_the_environment() {
    let device = |kind, variables: &[&str]| {
        let options = options(kind, variables);
        options.device().map(str::to_owned)
    };
    let input = ["OPTIONS=--no-grab", "EVDEV_PATH=/dev/input/event3"];
    assert_eq!(
        device(UnitKind::Input, &input).as_deref(),
        Some("/dev/input/event3")
    );
    let gpu = [
        "OPTIONS=",
        "OPTIONS=--virgl --render-node=/dev/dri/renderD129",
    ];
    assert_eq!(
        device(UnitKind::Gpu, &gpu).as_deref(),
        Some("/dev/dri/renderD129")
    );
    assert_eq!(
        device(UnitKind::Input, &["OPTIONS=--no-grab", "EVDEV_PATH="]),
        None
    );
    for kind in UnitKind::ALL {
        assert_eq!(device(kind, &[]), None);
    }
}

#[test]
fn options_are_written_as_they_are_read() {
    for (kind, variables) in [
        (
            UnitKind::Gpu,
            "OPTIONS=--render-node=/dev/a --virgl --max-hostmem=4g --sandbox=off",
        ),
        (
            UnitKind::Gpu,
            "OPTIONS=--max-hostmem=none --render-node-of=x",
        ),
        (UnitKind::Input, "OPTIONS=--no-grab --log-level=debug"),
        (
            UnitKind::Input,
            "OPTIONS=--grab-toggle=alt-alt --grab-group=/run/a/b --grab-toggle=x",
        ),
        (UnitKind::Gpu, "OPTIONS=--resolution=1920x1080,800x600"),
        (UnitKind::Gpu, "OPTIONS=--resolution=wide"),
        (UnitKind::Gpu, "OPTIONS=--virgl --allow-resize --no-dmabuf"),
        (UnitKind::Gpu, "OPTIONS=--allow-resize=no"),
        (
            UnitKind::Gpu,
            "OPTIONS=--venus --render-server=/run/vhost-render/render.sock --max-hostmem=4g",
        ),
        (UnitKind::Gpu, "OPTIONS=--venus --render-server=/tmp/mine"),
        (UnitKind::Input, "OPTIONS=--virtual=tablet --sandbox=off"),
        (UnitKind::Input, "OPTIONS=--virtual=piano"),
        (
            UnitKind::Input,
            "OPTIONS=--evdev-match=046d:b342:a0:b1:c2 --evdev-name=Keyboard --evdev-interface=input1 --no-grab",
        ),
        (UnitKind::Input, "OPTIONS=--evdev-match=046d"),
        (UnitKind::Input, "OPTIONS=--evdev-name=Keyboard"),
        (
            UnitKind::Vnc,
            "OPTIONS=--keyboard-layout=de --log-level=debug",
        ),
    ] {
        let options = options(kind, &[variables]);
        let written = options.environment();
        assert_eq!(written.len(), 1, "{variables}");
        let words = variables.strip_prefix("OPTIONS=").expect("a variable");
        assert_eq!(options.words().join(" "), words);
    }
    let gpu = options(UnitKind::Gpu, &["OPTIONS=--max-hostmem=4g"]);
    let ProgramOptions::Gpu(gpu) = gpu else {
        panic!("not a GPU's");
    };
    assert_eq!(gpu.max_hostmem.map(|size| size.bytes()), Some(4 << 30));
}

#[test]
fn sizes_are_checked_and_repeated_for_further_heads() {
    let sizes = |text: &str| text.parse::<Resolutions>();
    assert_eq!(sizes("1920x1080").map(|it| it.heads()), Ok(1));
    let two = sizes("1920x1080,800x600").expect("good");
    assert_eq!(
        (two.heads(), two.to_string().as_str()),
        (2, "1920x1080,800x600")
    );
    assert_eq!(
        two.clone().with_heads(3).expect("more").to_string(),
        "1920x1080,800x600,800x600"
    );
    assert_eq!(two.with_heads(1), None);
    let none = Resolutions::default();
    assert_eq!(none.clone().with_heads(1), Some(none.clone()));
    assert_eq!(
        none.with_heads(2).expect("more").to_string(),
        "1280x800,1280x800"
    );
    for form in [
        "", "x", "800", "800x", "800X600", "+800x600", "800x600,", "-1x1",
    ] {
        assert!(
            matches!(sizes(form), Err(ResolutionError::Form(_))),
            "{form}"
        );
    }
    for side in ["0x600", "800x16385", "99999999999x1"] {
        assert!(
            matches!(sizes(side), Err(ResolutionError::Side(_))),
            "{side}"
        );
    }
    let many = vec!["1x1"; 17].join(",");
    assert_eq!(sizes(&many), Err(ResolutionError::Heads));
}
