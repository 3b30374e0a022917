// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles that ask for another size.

use display_protocol::ResizeResult;

use super::*;
use crate::common::asker::Asker;

#[test]
fn sizes_are_the_vmms_where_it_has_a_display() {
    let mut vm = with_vmm();
    let mut asker = Asker::connect(&mut vm.program);
    for (wanted, result) in [
        ((0, 640, 480), ResizeResult::Refused),
        ((15, 16384, 1), ResizeResult::Refused),
        ((16, 640, 480), ResizeResult::NoSuchScanout),
        ((u32::MAX, 0, 0), ResizeResult::NoSuchScanout),
        ((0, 0, 480), ResizeResult::InvalidSize),
        ((0, 640, 16385), ResizeResult::InvalidSize),
    ] {
        assert_eq!(asker.ask(wanted), result, "{wanted:?}");
    }
    vm.finish();
}

/// Between the pictures of a guest that draws.
#[test]
fn answers_are_in_the_order_of_the_requests() {
    let mut vm = with_vmm();
    vm.painted(1, XRGB, SIZE);
    let mut asker = Asker::connect(&mut vm.program);
    for n in 0..20 {
        asker.send((n, 640, 480));
        show_on_0(&mut vm.gpu, ALL);
    }
    for n in 0..20 {
        let expected = match n {
            ..16 => ResizeResult::Refused,
            _ => ResizeResult::NoSuchScanout,
        };
        assert_eq!(asker.answer(), expected);
    }
    vm.finish();
}
