// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options that select how results are shown.

use clap::{ArgAction, ValueEnum};

/// How results are shown.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OutputArgs {
    /// Generate JSON output (pretty, short, off)
    #[arg(
        hide_possible_values = true,
        long,
        global = true,
        value_name = "MODE",
        value_enum,
        overrides_with = "auto_json"
    )]
    pub json: Option<JsonMode>,

    /// Same as --json=pretty on a terminal, --json=short otherwise
    #[arg(short = 'j', global = true, action = ArgAction::SetTrue, overrides_with = "json")]
    pub auto_json: bool,

    /// Do not show headers and footers
    #[arg(long, global = true)]
    pub no_legend: bool,

    /// Do not pipe output into a pager
    #[arg(long, global = true)]
    pub no_pager: bool,

    /// Show results only: no headers, footers and hints
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The values of `--json=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonMode {
    Pretty,
    Short,
    Off,
}
