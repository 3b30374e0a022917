//! Reports where the code breaks the rules of the house, or with `--arrows` which module imports from which.

use std::process::ExitCode;

use anyhow::Result;
use layout::modules::Modules;

fn main() -> Result<ExitCode> {
    if std::env::args().any(|argument| argument == "--arrows") {
        let modules = Modules::parse(&layout::product()?, layout::house::HOUSE.crates)?;
        for (parent, arrows) in layout::rules::arrows(&modules) {
            println!("{}", modules.get(parent).name);
            for ((from, to), places) in arrows {
                println!("  {from} -> {to} ({})", places.len());
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut found = layout::check()?;
    found.extend(layout::check_documents()?);
    for finding in &found {
        println!("{finding}");
    }
    println!("{} findings", found.len());
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}
