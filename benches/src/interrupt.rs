// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SIGINT and SIGTERM: the measurement ends between two pieces of work, and takes the programs that it started with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, ensure};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Notices these signals from now on. The second one ends this program at once.
///
/// # Errors
/// As `sigaction(2)`.
pub(crate) fn watch() -> anyhow::Result<()> {
    for signal in TERM_SIGNALS {
        let handled = flag::register_conditional_default(*signal, INTERRUPTED.clone())
            .and_then(|_| flag::register(*signal, INTERRUPTED.clone()));
        handled.with_context(|| format!("signal {signal}"))?;
    }
    Ok(())
}

/// Whether there was such a signal.
pub(crate) fn is_noticed() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Ends what the caller does if there was such a signal.
///
/// # Errors
/// If there was.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(!is_noticed(), "interrupted");
    Ok(())
}
