// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a node is found by what it says of itself.

use conventions::{InputIds, InputMatch};

use crate::devices::InputDevice;
use crate::verbs::error::AddError;

use super::find::described;

/// The rule for `device`, which the user wants to be found by the numbers `wanted`.
///
/// # Errors
/// If another device, or another node of the same one, says the same.
pub(super) fn of_ids(
    device: &InputDevice,
    wanted: &InputIds,
    all: &[InputDevice],
) -> Result<InputMatch, AddError> {
    let Some(ids) = device.own_ids(wanted) else {
        return Err(AddError::NoDevice {
            text: format!("{} with the numbers {wanted}", device.node),
            kind: "input",
        });
    };
    narrowed(device, ids, all).map_err(|twins| {
        let candidates = twins.iter().map(|twin| described(twin)).collect();
        let ids = wanted.to_string();
        let same_serial = |twin: &&InputDevice| twin.serial == device.serial;
        let others = twins.iter().filter(|twin| twin.node != device.node);
        let are_told_apart = others.copied().filter(same_serial).count() == 0;
        match are_told_apart && wanted.serial.is_none() {
            true => AddError::NeedsSerial { ids, candidates },
            false => AddError::Twins { ids, candidates },
        }
    })
}

/// The rule for `device`, if there is one that means no other device.
pub(super) fn of_node(device: &InputDevice, all: &[InputDevice]) -> Option<InputMatch> {
    narrowed(device, device.ids()?, all).ok()
}

/// The shortest rule that begins with `ids` and means only `device`; otherwise the devices that are not told apart.
fn narrowed<'a>(
    device: &InputDevice,
    ids: InputIds,
    all: &'a [InputDevice],
) -> Result<InputMatch, Vec<&'a InputDevice>> {
    let identity = device.identity.as_ref();
    let mut rule = InputMatch::new(ids);
    let meant = |rule: &InputMatch| -> Vec<&'a InputDevice> {
        all.iter().filter(|other| other.is_meant_by(rule)).collect()
    };
    let is_alone = |rule: &InputMatch| meant(rule).len() <= 1;
    if is_alone(&rule) {
        return Ok(rule);
    }
    rule.name = identity.map(|identity| identity.name.clone());
    if is_alone(&rule) {
        return Ok(rule);
    }
    rule.interface = identity
        .and_then(|identity| identity.interface())
        .map(str::to_owned);
    match is_alone(&rule) {
        true => Ok(rule),
        false => Err(meant(&rule)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::add::input::testing::{Node, node};

    const ONE: Node = Node {
        name: "Acme Keyboard",
        serial: "",
        port: "1-1:1.0",
        phys: "usb-1/input0",
    };

    fn rule(at: usize, wanted: &str, all: &[InputDevice]) -> Result<String, AddError> {
        let rule = of_ids(&all[at], &wanted.parse().expect(wanted), all)?;
        Ok(rule.to_string())
    }

    #[test]
    fn rule_says_no_more_than_it_has_to() {
        let media = Node {
            name: "Acme Keyboard Consumer Control",
            port: "1-1:1.1",
            phys: "usb-1/input1",
            ..ONE
        };
        let same = Node {
            name: ONE.name,
            ..media
        };
        let all = [node(1, ONE)];
        assert_eq!(rule(0, "046d:c31c", &all).expect("a rule"), "046d:c31c");
        let all = [node(1, ONE), node(2, media)];
        let wanted = "046D:C31C";
        assert_eq!(
            rule(0, wanted, &all).expect("a rule"),
            "046d:c31c, Acme Keyboard"
        );
        let all = [node(1, ONE), node(2, same), node(3, media)];
        let expected = "046d:c31c, Acme Keyboard, input1";
        assert_eq!(rule(1, wanted, &all).expect("a rule"), expected);
        // Two nodes of one interface with one name.
        let all = [node(1, ONE), node(2, ONE)];
        assert!(matches!(rule(0, wanted, &all), Err(AddError::Twins { .. })));
        assert_eq!(of_node(&all[0], &all), None);
        let no = rule(0, "046d:c31d", &all).expect_err("other numbers");
        assert!(matches!(no, AddError::NoDevice { .. }));
    }

    #[test]
    fn twins_need_a_serial_number_or_a_path() {
        let twin = Node {
            port: "1-2:1.0",
            phys: "usb-2/input0",
            ..ONE
        };
        let all = [node(1, ONE), node(2, twin)];
        let said = rule(0, "046d:c31c", &all).expect_err("two match");
        assert!(matches!(said, AddError::Twins { .. }), "{said}");
        assert_eq!(of_node(&all[0], &all), None);
        let all = [
            node(1, Node { serial: "A", ..ONE }),
            node(
                2,
                Node {
                    serial: "B",
                    ..twin
                },
            ),
        ];
        let said = rule(0, "046d:c31c", &all).expect_err("two match");
        assert!(matches!(said, AddError::NeedsSerial { .. }), "{said}");
        assert_eq!(rule(1, "046d:c31c:B", &all).expect("a rule"), "046d:c31c:B");
        let by_itself = of_node(&all[0], &all).map(|rule| rule.to_string());
        assert_eq!(by_itself.as_deref(), Some("046d:c31c:A"));
        let all = [
            node(1, Node { serial: "A", ..ONE }),
            node(
                2,
                Node {
                    serial: "A",
                    ..twin
                },
            ),
        ];
        let said = rule(0, "046d:c31c:A", &all).expect_err("two match");
        assert!(matches!(said, AddError::Twins { .. }), "{said}");
    }

    /// lsusb and udev print the numbers of the receiver.
    #[test]
    fn numbers_of_a_receiver_mean_what_is_paired_with_it() {
        let mut paired = node(1, ONE);
        paired.usb = Some("046d:c52b:R".parse().expect("numbers"));
        let all = [paired];
        for wanted in ["046d:c52b", "046d:c52b:R"] {
            assert_eq!(rule(0, wanted, &all).expect("a rule"), "046d:c31c");
        }
        assert!(rule(0, "046d:c52b:S", &all).is_err());
    }
}
