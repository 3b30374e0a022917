// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The types of backends, as all verbs show them.

use std::collections::BTreeMap;

use crate::instance::{Instance, UnitKind};
use crate::settings::Settings;
use crate::systemd::BackendState;
use crate::unit_folders::UnitFolders;

/// The type of a backend. For the units that serve any type, only their files have it, and only this host's can be read.
pub(super) fn device_type(is_local: bool, instance: &Instance) -> String {
    written(is_local, instance).unwrap_or_else(|| instance.kind().name().to_owned())
}

/// The type in the files of a unit that serves any.
fn written(is_local: bool, instance: &Instance) -> Option<String> {
    match instance.kind() {
        UnitKind::Program if is_local => {
            Settings::read(&UnitFolders::system(), instance).device_type
        }
        _ => None,
    }
}

/// The types of backends that are watched. `vhostctl remove` deletes a backend's files before it stops the units: what they
/// told before counts until then.
#[derive(Debug)]
pub(crate) struct WatchedTypes {
    is_local: bool,
    told: BTreeMap<Instance, String>,
}

impl WatchedTypes {
    /// Begins with those that are there.
    pub(crate) fn new<'a>(is_local: bool, there: impl IntoIterator<Item = &'a Instance>) -> Self {
        let there = there.into_iter();
        let told = there.filter_map(|it| Some((it.clone(), written(is_local, it)?)));
        Self {
            is_local,
            told: told.collect(),
        }
    }

    /// The type of a backend that has this state now.
    pub(crate) fn of(&mut self, instance: &Instance, state: BackendState) -> String {
        self.update(instance, state, written(self.is_local, instance))
    }

    fn update(
        &mut self,
        instance: &Instance,
        state: BackendState,
        written: Option<String>,
    ) -> String {
        let told = match written {
            Some(written) => {
                self.told.insert(instance.clone(), written.clone());
                Some(written)
            }
            // What was removed and has ended may be added again with another type.
            None if state == BackendState::Inactive => self.told.remove(instance),
            None => self.told.get(instance).cloned(),
        };
        told.unwrap_or_else(|| instance.kind().name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_outlives_the_files_until_all_has_ended() {
        let instance = Instance::from_unit("vhost-user@vm1:x.socket").expect("ours");
        let mut types = WatchedTypes::new(true, []);
        let mut update = |state, written: Option<&str>| {
            let told = types.update(&instance, state, written.map(str::to_owned));
            (told, types.told.len())
        };
        let is = |told: &str, kept| (told.to_owned(), kept);
        assert_eq!(update(BackendState::Listening, None), is("backend", 0));
        assert_eq!(update(BackendState::Running, Some("fs")), is("fs", 1));
        assert_eq!(update(BackendState::Stopping, None), is("fs", 1));
        assert_eq!(update(BackendState::Inactive, None), is("fs", 0));
        assert_eq!(update(BackendState::Inactive, None), is("backend", 0));
    }
}
