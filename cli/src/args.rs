// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. The arguments of a verb are defined with the verb.

use clap::Parser;

use crate::output::OutputArgs;
use crate::systemd::Target;
use crate::verbs::Verb;

/// The command line of vhostctl.
#[derive(Debug, Parser)]
#[command(
    name = "vhostctl",
    version,
    about = "Find and manage the vhost-user backends of virtual machines.",
    after_help = "Without a verb, 'list' is meant. vhostctl(1) lists the exit statuses.",
    override_usage = "vhostctl [OPTIONS...] [VERB] [ARGS...]",
    subcommand_help_heading = "Verbs",
    subcommand_value_name = "VERB",
    disable_help_subcommand = true,
    args_override_self = true,
    arg_required_else_help = false
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub target: Target,

    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::output::JsonMode;

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
    fn manual_page_matches_the_command_line() -> anyhow::Result<()> {
        let rest = include_str!("../../man/written/vhostctl.1");
        harness::manual::check(Args::command(), "1", rest)
    }
}
