// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Glyphs beyond ASCII, and their replacements.

/// A glyph of systemd's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glyph {
    Dot,
    Circle,
    Cross,
    Arrow,
    Branch,
    Corner,
    Ellipsis,
}

impl Glyph {
    /// The glyph, or its replacement in ASCII.
    pub(super) fn text(self, utf8: bool) -> &'static str {
        let (sign, ascii) = match self {
            Self::Dot => ("●", "*"),
            Self::Circle => ("○", "*"),
            Self::Cross => ("×", "x"),
            Self::Arrow => ("↻", "@"),
            Self::Branch => ("├─", "|-"),
            Self::Corner => ("└─", "`-"),
            Self::Ellipsis => ("…", "..."),
        };
        if utf8 { sign } else { ascii }
    }
}

/// Whether the locale is UTF-8, by its variables. Without any of them it is, as for systemd's tools; SYSTEMD_UTF8
/// overrides them.
pub(super) fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    match variable("SYSTEMD_UTF8").as_deref() {
        Some("1" | "yes" | "y" | "true" | "t" | "on") => return true,
        Some("0" | "no" | "n" | "false" | "f" | "off") => return false,
        _ => {}
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| variable(name))
        .find(|locale| !locale.is_empty());
    let Some(locale) = locale else { return true };
    // As in de_DE.UTF-8@euro.
    let locale = locale.split('@').next().unwrap_or_default();
    let codeset = locale.split_once('.').map_or("", |(_, codeset)| codeset);
    ["utf-8", "utf8"]
        .iter()
        .any(|name| codeset.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(variables: &[(&str, &str)]) -> bool {
        is_utf8(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_locale_decides_as_for_systemd() {
        for locale in ["C.UTF-8", "de_DE.utf8", "en_US.UTF-8@x"] {
            assert!(utf8(&[("LANG", locale)]), "{locale}");
        }
        for locale in ["C", "POSIX", "de_DE", "de_DE.ISO-8859-1", "de_DE@euro"] {
            assert!(!utf8(&[("LANG", locale)]), "{locale}");
        }
        assert!(utf8(&[]));
        assert!(utf8(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]));
        assert!(!utf8(&[("LC_CTYPE", "C"), ("LANG", "C.UTF-8")]));
        assert!(!utf8(&[("LC_ALL", "C"), ("LC_CTYPE", "C.UTF-8")]));
        assert!(utf8(&[("SYSTEMD_UTF8", "1"), ("LC_ALL", "C")]));
        assert!(!utf8(&[("SYSTEMD_UTF8", "0")]));
    }
}
