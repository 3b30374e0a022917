//! Builds the device on the worker's thread.

use std::io;

use crate::backend::{DeviceBuilder, DeviceContext, SandboxPolicy};
use crate::input::source::EventSource;
use crate::input::source::evdev_source::EvdevSource;

use super::Input;

/// Builds an input device with events from `S`.
pub struct InputBuilder<S = EvdevSource> {
    source: S,
}

/// The host has no descriptors or memory left for the device.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the input device {label}: {source}")]
pub struct InputBuildError {
    label: String,
    source: io::Error,
}

impl<S: EventSource> InputBuilder<S> {
    /// For a device with events from `source`.
    pub fn new(source: S) -> Self {
        Self { source }
    }
}

impl<S: EventSource> DeviceBuilder for InputBuilder<S> {
    type Device = Input<S>;
    type Error = InputBuildError;

    fn sandbox_policy(&self) -> SandboxPolicy {
        self.source.sandbox_policy()
    }

    fn build(self, context: DeviceContext) -> Result<Input<S>, InputBuildError> {
        let label = self.source.label();
        Input::new(self.source, context).map_err(|source| InputBuildError { label, source })
    }
}
