// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of dynamic users (`DynamicUser=`): one for each instance, where its template cannot name it.

use crate::instance::{Instance, UnitKind, UnitType};

/// The most characters that the name of a user has.
pub(super) const USER_MAX: usize = 31;

/// Name of the dynamic user that the service of an instance runs as; `None` where the template names it.
pub(super) fn dynamic_user(instance: &Instance) -> Option<String> {
    let kind = match instance.kind() {
        UnitKind::Gpu => "gpu",
        UnitKind::Input => "input",
        UnitKind::Program => "dev",
        UnitKind::Vnc => "vnc",
    };
    user(instance, kind)
}

/// The same of the render server beside a GPU.
pub(super) fn render_server_user(instance: &Instance) -> Option<String> {
    user(instance, "rnd")
}

fn user(instance: &Instance, kind: &str) -> Option<String> {
    let joined = match instance.name() {
        Some(name) => format!("{}-{name}", instance.vm()),
        None => instance.vm().to_owned(),
    };
    let plain = format!("vu-{kind}-{joined}");
    let parts = [Some(instance.vm()), instance.name()];
    // "a-b:c" and "a:b-c" are not to be the same user.
    let clear = instance.name().is_none() || !parts.iter().flatten().any(|part| part.contains('-'));
    if plain.len() <= USER_MAX && !joined.contains('.') && clear {
        return instance.name().map(|_| plain);
    }
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let hash = fnv1a(instance.unit(UnitType::Service).as_bytes()) & 0xffff_ffff_ffff;
    let room = USER_MAX.saturating_sub("vu--".len() + kind.len() + "-".len() + 12);
    let start: String = joined
        .chars()
        .map(safe)
        .take(room.saturating_add(1))
        .collect();
    Some(format!(
        "vu-{kind}-{}-{hash:012x}",
        start.get(..room).unwrap_or(&start)
    ))
}

/// The FNV-1a hash, 64 bits: the same on every machine and in every version, unlike the standard
/// library's.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
