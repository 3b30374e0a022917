// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which code belongs to the product, by its `#[cfg]`.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Lit, Meta, Token};

/// Whether code is in a build, as far as the two conditions of tests and test doors decide it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Built {
    Never,
    Always,
    Perhaps,
}

/// Whether code with these attributes is in no product: `#[cfg(test)]`, `#[cfg(feature = "fuzzing")]`.
pub(crate) fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<Meta>()
                    .is_ok_and(|condition| built(&condition) == Built::Never))
    })
}

fn built(condition: &Meta) -> Built {
    match condition {
        Meta::Path(path) if path.is_ident("test") => Built::Never,
        Meta::NameValue(value) if value.path.is_ident("feature") => match &value.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(feature),
                ..
            }) if feature.value() == "fuzzing" => Built::Never,
            _ => Built::Perhaps,
        },
        Meta::List(list) => {
            let parts = list
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .map(|parts| parts.iter().map(built).collect::<Vec<_>>())
                .unwrap_or_default();
            if list.path.is_ident("not") {
                match parts.first() {
                    Some(Built::Never) => Built::Always,
                    Some(Built::Always) => Built::Never,
                    _ => Built::Perhaps,
                }
            } else if list.path.is_ident("any") {
                combine(&parts, Built::Always, Built::Never)
            } else if list.path.is_ident("all") {
                combine(&parts, Built::Never, Built::Always)
            } else {
                Built::Perhaps
            }
        }
        _ => Built::Perhaps,
    }
}

/// One `deciding` part decides; all parts `neutral` are neutral.
fn combine(parts: &[Built], deciding: Built, neutral: Built) -> Built {
    if parts.contains(&deciding) {
        deciding
    } else if parts.iter().all(|part| *part == neutral) {
        neutral
    } else {
        Built::Perhaps
    }
}
