// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file by which management software finds a backend program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use conventions::DeviceType;
use serde_json::{Map, Value};

use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::target::DescriptorFile;
use crate::trial::Trial;

const SCHEMA: &str = "vhost-user.json, VHostUserBackend";
/// More than any descriptor has, in bytes.
const SIZE_MAX: u64 = 64 << 10;

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "conventions/descriptor-schema",
        SCHEMA,
        "The descriptor is a JSON object with description, type and binary as strings, and tags, if any, as a list of \
         strings; the type is one of the schema.",
        schema,
    ),
    Point::required(
        "conventions/descriptor-place",
        SCHEMA,
        "The descriptor lies in one of the folders that are searched, its name ends with .json, and no file of the same \
         name in a more specific folder replaces it.",
        place,
    ),
    Point::required(
        "conventions/descriptor-binary",
        SCHEMA,
        "The descriptor's binary is an absolute path of a program that can be executed.",
        binary,
    ),
    Point::required(
        "conventions/descriptor-type",
        SCHEMA,
        "The program's capabilities tell the same type as its descriptor.",
        device_type,
    ),
];

fn file(trial: &Trial) -> Result<&DescriptorFile, Flaw> {
    match &trial.target.descriptor {
        Some(file) => Ok(file),
        None => not_tried("the program was given by its path, not by a descriptor"),
    }
}

fn content(trial: &Trial) -> Result<Map<String, Value>, Flaw> {
    let path = &file(trial)?.path;
    match fs::metadata(path) {
        Ok(data) if data.len() > SIZE_MAX => return fails(format!("it has {} bytes", data.len())),
        Ok(_) => {}
        Err(error) => return fails(format!("{}: {error}", path.display())),
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fails(format!("{}: {error}", path.display())),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(content)) => Ok(content),
        Ok(_) => fails("it is JSON, but not an object"),
        Err(error) => fails(format!("it is not JSON: {error}")),
    }
}

fn member<'a>(content: &'a Map<String, Value>, name: &str) -> Result<&'a str, Flaw> {
    match content.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text),
        None => fails(format!("it has no string '{name}'")),
    }
}

fn schema(trial: &Trial) -> Seen {
    let content = content(trial)?;
    member(&content, "description")?;
    let told = member(&content, "type")?;
    member(&content, "binary")?;
    if let Err(error) = told.parse::<DeviceType>() {
        return fails(error.to_string());
    }
    match content.get("tags") {
        None => {}
        Some(Value::Array(tags)) if tags.iter().all(Value::is_string) => {}
        Some(_) => return fails("'tags' is not a list of strings"),
    }
    // Members that the schema does not have are ignored by libvirt, as 'comment'.
    Ok(format!("type {told}"))
}

fn place(trial: &Trial) -> Seen {
    let DescriptorFile { path, folders } = file(trial)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return fails(format!("{} is no file in a folder", path.display()));
    };
    if path.extension().is_none_or(|extension| extension != "json") {
        return fails(format!("{} does not end with .json", path.display()));
    }
    let Some(at) = folders.iter().position(|searched| searched == folder) else {
        return fails(format!("{} is not searched", folder.display()));
    };
    let more_specific = folders.iter().take(at).map(|folder| folder.join(name));
    match more_specific.into_iter().find(|path| path.exists()) {
        Some(other) => fails(format!("{} replaces it", other.display())),
        None => Ok(path.display().to_string()),
    }
}

fn binary(trial: &Trial) -> Seen {
    let content = content(trial)?;
    let path = PathBuf::from(member(&content, "binary")?);
    let shown = path.display();
    if !path.is_absolute() {
        return fails(format!("{shown} is not absolute"));
    }
    match fs::metadata(&path) {
        Err(error) => fails(format!("{shown}: {error}")),
        Ok(data) if !data.is_file() || data.permissions().mode() & 0o111 == 0 => {
            fails(format!("{shown} is not executable"))
        }
        Ok(_) => Ok(shown.to_string()),
    }
}

fn device_type(trial: &Trial) -> Seen {
    let content = content(trial)?;
    let told = member(&content, "type")?;
    match &trial.facts.capabilities {
        None => not_tried("the program prints no capabilities"),
        Some(capabilities) if capabilities.device_type == told => Ok(format!("both say {told}")),
        Some(capabilities) => fails(format!(
            "the descriptor says {told}, the program {}",
            capabilities.device_type
        )),
    }
}
