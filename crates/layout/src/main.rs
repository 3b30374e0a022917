// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reports where the code breaks the rules of its layout. With `--draw` it draws the pictures in the documents
//! instead, and with `--arrows` it lists all imports between neighbours.

use std::fs;
use std::process::ExitCode;

use anyhow::{Result, bail};
use layout::house::{HOUSE, PICTURES};
use layout::modules::Modules;
use layout::pictures;
use layout::rules::arrows;

fn main() -> Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        None => report(),
        Some("--draw") => draw(),
        Some("--arrows") => list_arrows(),
        Some(other) => bail!("unknown option {other}: --draw and --arrows are known"),
    }
}

fn report() -> Result<ExitCode> {
    let mut found = layout::check()?;
    found.extend(layout::check_documents()?);
    found.extend(layout::check_licenses()?);
    found.extend(layout::check_releases()?);
    for finding in &found {
        println!("{finding}");
    }
    println!("{} findings", found.len());
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

fn draw() -> Result<ExitCode> {
    let modules = Modules::parse(&layout::product()?, HOUSE.crates)?;
    for file in PICTURES {
        let path = layout::root().join(file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, pictures::draw(&HOUSE, &modules, &text))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list_arrows() -> Result<ExitCode> {
    let modules = Modules::parse(&layout::product()?, HOUSE.crates)?;
    for (parent, arrows) in arrows(&modules) {
        println!("{}", modules.get(parent).name);
        for ((from, to), places) in arrows {
            println!("  {from} -> {to} ({})", places.len());
        }
    }
    Ok(ExitCode::SUCCESS)
}
