// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds the device on the worker's thread.

use std::io;

use crate::backend::{DeviceBuilder, DeviceContext, SandboxPolicy};
use crate::input::records::RecordError;
use crate::input::source::EventSource;
use crate::input::source::evdev_source::EvdevSource;

use super::Input;
use super::release::GrabControl;

impl InputBuildError {
    pub(super) fn setup(label: &str, source: io::Error) -> Self {
        let label = label.to_owned();
        Self::Setup { label, source }
    }
}

/// Builds an input device with events from `S`.
pub struct InputBuilder<S = EvdevSource> {
    source: S,
    control: GrabControl,
}

/// Why the device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum InputBuildError {
    /// The host has no descriptors or memory left for it.
    #[error("cannot set up the input device {label}: {source}")]
    Setup {
        /// The device.
        label: String,
        /// The error.
        source: io::Error,
    },
    /// The state that the process before this one left cannot be used.
    #[error("cannot go on with the state that the process before left: {0}")]
    State(#[from] RecordError),
}

impl<S: EventSource> InputBuilder<S> {
    /// For a device with events from `source`.
    pub fn new(source: S) -> Self {
        Self {
            source,
            control: GrabControl::default(),
        }
    }

    /// Lets the host ask for the source, and give it again, by `control`.
    #[must_use]
    pub fn with_grab_control(self, control: GrabControl) -> Self {
        Self { control, ..self }
    }
}

impl<S: EventSource> DeviceBuilder for InputBuilder<S> {
    type Device = Input<S>;
    type Error = InputBuildError;

    fn sandbox_policy(&self) -> SandboxPolicy {
        self.source.sandbox_policy()
    }

    fn build(self, context: DeviceContext) -> Result<Input<S>, InputBuildError> {
        Input::new(self.source, self.control, context)
    }
}
