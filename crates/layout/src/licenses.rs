// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first line of each file of code: its licences, in the words of [SPDX](https://spdx.dev/learn/handling-license-info/).

use crate::finding::{Finding, Rule};
use crate::sources::Sources;

/// Finds the files that do not begin with `// SPDX-License-Identifier:` and `expression`.
#[must_use]
pub fn check(expression: &str, sources: &Sources) -> Vec<Finding> {
    let wanted = format!("// SPDX-License-Identifier: {expression}");
    let lacking = sources
        .iter()
        .filter(|(_, text)| text.lines().next() != Some(&wanted));
    lacking
        .map(|(path, _)| Finding {
            rule: Rule::License,
            key: path.display().to_string(),
            place: (path.to_owned(), 1),
            message: format!("the first line is not \"{wanted}\": insert it"),
        })
        .collect()
}
