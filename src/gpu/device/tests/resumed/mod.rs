// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device whose process dies, and whose successor goes on: the guest, and who looks at its screen, must not notice.

use super::*;

mod machine;
mod model_display;
mod random;
mod states;
