// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Values on the command line that several verbs take.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use conventions::DeviceType;

use crate::instance::UnitKind;

/// A type of device, by its name in the schema.
pub(crate) fn device_type() -> impl TypedValueParser<Value = DeviceType> {
    PossibleValuesParser::new(DeviceType::ALL.map(DeviceType::name))
        .try_map(|name| name.parse::<DeviceType>())
}

/// A type as `list` shows it: of a device, or that of a VNC server.
pub(crate) fn listed_type() -> impl TypedValueParser<Value = String> {
    let devices = DeviceType::ALL.map(DeviceType::name);
    PossibleValuesParser::new(devices.into_iter().chain([UnitKind::Vnc.name()]))
}

/// A number of lines.
pub(crate) fn line_count(text: &str) -> Result<u32, String> {
    // `parse` takes a sign as well.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("'{text}' is not a number of lines"))
}
