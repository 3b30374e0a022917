// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program as a service: events for its main thread, and notifications to the service manager.

pub(crate) mod main_thread_channel;
pub(crate) mod notify;
pub(crate) mod status_line;
