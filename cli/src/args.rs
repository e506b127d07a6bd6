//! The command line: every command, and what all of them share.

use crate::commands::{
    backup, booking, explain, kpi, machines, members, offers, operate, plan, quote, remote, status, watch,
};
use crate::connection::ConnectionArgs;
use clap::{Parser, Subcommand, ValueEnum};

/// Books, lends, follows and runs the idle hours of an alliance's machines.
#[derive(Parser, Debug)]
#[command(
    name = "millpool",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Getting started:
  export MILLPOOL_ENDPOINTS=node1:7400,node2:7400,node3:7400
  export MILLPOOL_CA=~/.millpool/ca.pem MILLPOOL_TOKEN_FILE=~/.millpool/token
  millpool quote --quantity 20 --material aluminium --size 200x120x60 --mass 3kg \\
      --op \"five-axis family=F1 setup=20m run=6m tol=20\" --op \"cmm family=F2 run=90s\" --due +5d
  millpool book  <the same> --cheapest
  millpool watch

Quantities: times as +5d, 'fri 17:00', 2026-11-28T17:00:00+08:00; durations as 90s, 20m, 1h30m, 5d;
money in CNY as 1,234.56; sizes as 200x120x60 mm; masses as 800g, 3kg.

Exit codes:
  0  done
  1  refused: a coordinator said no, and why
  2  not understood: a flag, a value or a file cannot be used
  3  unavailable: no coordinator could serve, and nothing has happened
  4  outcome unknown: a write may have happened; repeat it with the --request-id that is printed"
)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How answers are shown.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Display")]
pub(crate) struct DisplayArgs {
    /// Answer in JSON, by the field names of the contract
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show times in UTC instead of the local time zone
    #[arg(long, global = true)]
    pub(crate) utc: bool,
    /// Colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub(crate) color: Colour,
}

/// When answers are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Quote(quote::QuoteArgs),
    Book(booking::BookArgs),
    Confirm(booking::ConfirmArgs),
    Show(booking::ShowArgs),
    List(booking::ListArgs),
    Cancel(booking::CancelArgs),
    Explain(explain::ExplainArgs),
    Watch(watch::WatchArgs),
    /// Operate a machine from afar: open, close, list, show, store, start, pause and the rest
    #[command(subcommand)]
    Remote(remote::RemoteCommand),
    Plan(plan::PlanArgs),
    Kpi(kpi::KpiArgs),
    /// Members of the alliance: list, put
    #[command(subcommand)]
    Members(members::MembersCommand),
    /// Plants of the members: list, put
    #[command(subcommand)]
    Plants(members::PlantsCommand),
    /// Machines of the plants: list, put
    #[command(subcommand)]
    Machines(machines::MachinesCommand),
    /// Windows of machines, lent to the alliance: list, create, withdraw
    #[command(subcommand)]
    Offers(offers::OffersCommand),
    Status(status::StatusArgs),
    /// Coordinators of the cluster: list, add, remove, transfer-leader, snapshot
    #[command(subcommand)]
    Nodes(operate::NodesCommand),
    Backup(backup::BackupArgs),
    /// Tells how a backup is restored
    Restore {
        /// The backup
        file: Option<std::path::PathBuf>,
    },
    /// Who may call: list, put, revoke
    #[command(subcommand)]
    Principals(operate::PrincipalsCommand),
    /// The rules that the alliance has given itself: get, put
    #[command(subcommand)]
    Policy(operate::PolicyCommand),
    /// Prints a completion script for a shell
    #[command(after_help = "Example:\n  millpool completions bash > /etc/bash_completion.d/millpool")]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
}
