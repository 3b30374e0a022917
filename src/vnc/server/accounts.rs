// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of users, for the log and the service manager.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

/// Most bytes of the file that are read.
const LIMIT: u64 = 4 << 20;

/// The users in /etc/passwd.
#[derive(Debug, Default)]
pub(super) struct Accounts(BTreeMap<u32, String>);

impl Accounts {
    /// Reads them, before the sandbox closes. Without the file there are none.
    pub(super) fn read() -> Self {
        let mut text = Vec::new();
        let read =
            File::open("/etc/passwd").and_then(|file| file.take(LIMIT).read_to_end(&mut text));
        if let Err(e) = read {
            log::debug!("cannot read /etc/passwd: {e}");
        }
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let mut names = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next(), fields.nth(1));
            if let (Some(name), Some(Ok(uid))) = (name, uid.map(str::parse)) {
                // Of several names the first counts, as for the C library.
                names.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }

    /// The user's name, or else its number.
    pub(super) fn name(&self, uid: u32) -> String {
        let name = self.0.get(&uid).cloned();
        name.unwrap_or_else(|| format!("uid {uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_first_name_or_their_number() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nalice:x:1000:\n:::\n";
        let accounts = Accounts::parse(text);
        assert_eq!(accounts.name(0), "root");
        assert_eq!(accounts.name(1000), "alice");
        assert_eq!(accounts.name(1001), "uid 1001");
    }
}
