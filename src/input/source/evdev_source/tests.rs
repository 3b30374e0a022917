// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is opened, and what is not.

use std::path::Path;

use conventions::InputMatch;

use crate::backend::testing::kept_state::KeptState;
use crate::input::records::RecordError;

use super::*;

/// The guest took the program over, and had it record the keyboard that the host keeps.
#[test]
fn forged_record_of_another_device_is_refused() {
    let told = |name: &str| {
        let mut info = DeviceInfo {
            name: name.to_owned(),
            ..DeviceInfo::default()
        };
        (info.ids.vendor, info.ids.product) = (0x46d, 0xc52b);
        info
    };
    let mut rule = InputMatch::new("046d:c52b".parse().expect("numbers"));
    rule.name = Some("Receiver Mouse".to_owned());
    let address = EvdevAddress::Match(rule.into());
    let go_on = |info: &DeviceInfo| {
        let mut state = KeptState::new().expect("descriptors");
        let continuity = state.next_process().expect("memory");
        let ledger = continuity.ledger(Owner::Device);
        device_info::kept::put(info, &ledger);
        KeptDevice::new(&continuity).set(None, &address, true);
        ledger.commit();
        let continuity = state.next_process().expect("the state is valid");
        let options = EvdevOptions {
            address: address.clone(),
            grab: true,
            sandbox: SandboxMode::Off,
            description: None,
        };
        EvdevSource::open(options, &continuity).map(|source| source.info.name)
    };
    assert_eq!(
        go_on(&told("Receiver Mouse")).expect("it is meant"),
        "Receiver Mouse"
    );
    match go_on(&told("Receiver Keyboard")) {
        Err(EvdevOpenError::State(RecordError::Device)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn open_error_says_what_the_file_is_not() {
    let folder = tempfile::tempdir().expect("cannot make a folder");
    let open = |path: &Path| {
        let options = EvdevOptions {
            address: EvdevAddress::Path(path.to_path_buf()),
            grab: true,
            sandbox: SandboxMode::On,
            description: None,
        };
        EvdevSource::open(options, &Continuity::default())
    };
    let missing = folder.path().join("event0");
    let error = open(&missing).expect_err("there is no such file");
    let address = EvdevAddress::Path(missing);
    assert!(matches!(&error, EvdevOpenError::Missing(missing) if *missing == address));
    assert!(error.to_string().contains("event0"));
    for path in [folder.path(), Path::new("/dev/null")] {
        let error = open(path).expect_err("it is not an evdev device");
        assert!(matches!(error, EvdevOpenError::NotEvdev { .. }), "{error}");
    }
}
