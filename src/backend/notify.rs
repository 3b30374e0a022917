//! What the service manager is told, by sd_notify(3).

use std::fmt::Display;

use sd_notify::NotifyState;

/// Tells the service manager in words what is served (`STATUS=`). Nothing without `NOTIFY_SOCKET`.
pub fn status(text: impl Display) {
    let text = text.to_string();
    log::debug!("status: {text}");
    tell(&[NotifyState::Status(&text)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::debug!("cannot notify the service manager: {e}");
    }
}
