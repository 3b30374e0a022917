//! The command line: options that every verb takes. What a verb takes by itself lies with the verb.

use clap::{ArgAction, Parser, ValueEnum};

use crate::systemd::Target;
use crate::verbs::Verb;

/// Finds, makes and manages the vhost-user backends of virtual machines.
#[derive(Debug, Parser)]
#[command(
    name = "vhostctl",
    version,
    about = "Find and manage the vhost-user backends of virtual machines.",
    after_help = "Without a verb, 'list' is meant. Exit status is 0 on success, else as systemctl's.",
    override_usage = "vhostctl [OPTIONS...] [VERB] [ARGS...]",
    subcommand_help_heading = "Verbs",
    subcommand_value_name = "VERB",
    disable_help_subcommand = true,
    arg_required_else_help = false
)]
pub struct Args {
    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub target: Target,

    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// How results are shown.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
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
pub enum JsonMode {
    Pretty,
    Short,
    Off,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_last_of_json_and_j_wins() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).expect("valid").output;
        assert_eq!(parse("vhostctl -j --json=off").json, Some(JsonMode::Off));
        assert!(!parse("vhostctl -j --json=off").auto_json);
        assert!(parse("vhostctl --json=off -j").auto_json);
    }

    #[test]
    fn the_manual_page_is_what_the_program_says() -> anyhow::Result<()> {
        let rest = include_str!("../../man/written/vhostctl.1");
        harness::manual::check(Args::command(), "1", rest)
    }
}
