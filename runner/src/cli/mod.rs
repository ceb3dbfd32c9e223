//! The command line.
//!
//! Results go to standard output, in a form that other programs can read; everything said besides
//! goes to standard error.

mod audit;
mod bundle;
mod compile;
mod config;
mod duration;
mod extension;
mod input;
mod install;
mod invoke;
mod limits;
mod migrate;
mod moment;
mod output;
mod serve;
mod session;
mod storage;
mod switches;
mod tenant;
mod usage;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alga_postgres::PostgresError;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::admin::Refused;
use crate::config::{Config, ConfigSources, LogConfig, Overrides};
use crate::telemetry;

/// Runs third-party extensions: WebAssembly components with a durable store
#[derive(Debug, Parser)]
#[command(name = "alga-runner", bin_name = "alga-runner", version)]
struct Cli {
    /// Read settings from this file instead of alga.toml in the working folder
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    #[command(subcommand)]
    command: Command,
}

/// Settings that matter to every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// Keep databases, bundles and caches in this folder
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<String>,

    /// Ask the server at this URL instead of working on the data folder: install, extension, tenant,
    /// switches, usage show, audit and bundle push
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,

    /// Trust the certificates in this PEM file, instead of the system's, to vouch for that server
    #[arg(long, global = true, value_name = "FILE")]
    server_ca: Option<String>,

    /// Present the administrator's token in this file to that server
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<String>,

    /// Write the log as auto, text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,

    /// Write log events of this level, or of these levels by module
    #[arg(long, global = true, value_name = "FILTER")]
    log_filter: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Pack, check and publish bundles
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Install extensions for tenants and grant them what they may use
    #[command(subcommand)]
    Install(install::Command),
    /// Look at what is published
    #[command(subcommand)]
    Extension(extension::Command),
    /// Set what applies to all installs of a tenant
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Run a component or a bundle once, here, with a store of its own that is gone afterwards
    Invoke(invoke::Invoke),
    /// Read and write the records of an install
    #[command(subcommand)]
    Storage(storage::Command),
    /// Show how much is stored, and check the counters
    #[command(subcommand)]
    Usage(usage::Command),
    /// Show whether the storage may be used, and by which extensions, as JSON; or change it
    Switches(switches::Switches),
    /// Print who changed what as JSON lines, the oldest first: records, installs, limits and switches
    Audit(audit::Audit),
    /// Bring the databases up to date, or back to an older schema
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Look at the settings
    #[command(subcommand)]
    Config(config::Command),
    /// Compile the component on standard input; the runner starts itself so, and nobody else does
    #[command(hide = true)]
    Compile(compile::Compile),
}

impl Command {
    /// Whether it is one of administration, which a server does as well.
    const fn may_ask_a_server(&self) -> bool {
        match self {
            Self::Install(_)
            | Self::Extension(_)
            | Self::Tenant(_)
            | Self::Switches(_)
            | Self::Usage(usage::Command::Show(_))
            | Self::Bundle(bundle::Command::Push(_))
            | Self::Audit(_) => true,
            Self::Serve(_)
            | Self::Bundle(_)
            | Self::Invoke(_)
            | Self::Storage(_)
            | Self::Usage(usage::Command::Verify(_))
            | Self::Migrate(_)
            | Self::Config(_)
            | Self::Compile(_) => false,
        }
    }

    /// What is said where it was told to ask a server and doesn't.
    const fn refusal_of_a_server(&self) -> &'static str {
        match self {
            Self::Storage(storage::Command::Records(_)) => {
                "this command works on the data folder; it takes no --server. For records that another process keeps, set \
                 STORAGE_API_BASE_URL to its URL and RUNNER_STORAGE_API_TOKEN to a service token of it"
            }
            _ => "this command works on the data folder; it takes no --server",
        }
    }
}

/// How long work that can't be interrupted, a compilation for instance, may hold up the end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there is anything that a process which reads hostile bytes has no use for.
    if let Command::Compile(compile) = &cli.command {
        return compile.run();
    }
    // A server that can't say where it listens has failed; others only had their output cut short.
    let may_be_cut_short = !matches!(cli.command, Command::Serve(_));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&anyhow::Error::new(error).context("cannot start the async runtime"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(cli));
    runtime.shutdown_timeout(LAST_WORK);
    match done {
        Ok(code) => code,
        Err(error) if may_be_cut_short && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(mistake) => mistake.exit(),
            Err(error) => {
                output::error(&error);
                hint(&error);
                exit_code(&error)
            }
        },
    }
}

/// Says what may help.
fn hint(error: &anyhow::Error) {
    let Some(refused) = error.downcast_ref::<Refused>() else {
        return;
    };
    let missing = (refused.code == "NOT_FOUND").then(|| refused.details.get("what"));
    match missing.flatten().and_then(serde_json::Value::as_str) {
        Some("install") => output::note("`alga-runner install list` shows those there are"),
        Some("extension") => output::note("`alga-runner extension list` shows those there are"),
        Some("version") => output::note("`alga-runner bundle add` publishes one"),
        _ => {}
    }
}

/// What scripts branch on; every failure but that of a command on records, or of a database that is
/// away, is the same.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(refusal) = error.downcast_ref::<storage::Refusal>() {
        return refusal.exit_code();
    }
    match error.downcast_ref() {
        Some(PostgresError::Driver { source, .. }) if source.is_passing() => {
            storage::TRY_AGAIN.into()
        }
        _ => ExitCode::FAILURE,
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if cli.settings.server.is_some() && !cli.command.may_ask_a_server() {
        let mistake = format!("{}\n", cli.command.refusal_of_a_server());
        return Err(clap::Error::raw(ErrorKind::ArgumentConflict, mistake).into());
    }
    let overrides = overrides(cli.settings, &cli.command);
    let config = Config::load(ConfigSources::of_process(cli.config, overrides))?;
    if let Command::Config(command) = cli.command {
        return command.run(&config);
    }
    telemetry::init(&log_config(&config.log, &cli.command))?;
    match cli.command {
        Command::Serve(_) => serve::run(&config).await,
        Command::Bundle(command) => command.run(&config).await,
        Command::Install(command) => command.run(&config).await,
        Command::Extension(command) => command.run(&config).await,
        Command::Invoke(invoke) => invoke.run(config).await,
        Command::Tenant(command) => command.run(&config).await,
        Command::Storage(command) => command.run(&config).await,
        Command::Usage(command) => command.run(&config).await,
        Command::Switches(command) => command.run(&config).await,
        Command::Audit(command) => command.run(&config).await,
        Command::Migrate(command) => command.run(&config).await,
        Command::Config(command) => command.run(&config),
        Command::Compile(compile) => Ok(compile.run()),
    }
}

/// Commands say what they have to say themselves; of the log, their users want the troubles, and of a
/// guest they invoke everything. What is configured otherwise counts.
fn log_config(configured: &LogConfig, command: &Command) -> LogConfig {
    let filter = match command {
        _ if configured.filter != LogConfig::default().filter => return configured.clone(),
        Command::Serve(_) => return configured.clone(),
        Command::Invoke(_) => "warn,guest=trace",
        _ => "warn",
    };
    LogConfig {
        filter: filter.to_owned(),
        ..configured.clone()
    }
}

fn overrides(settings: Settings, command: &Command) -> Overrides {
    let Settings {
        data_dir,
        server,
        server_ca,
        token_file,
        log_format,
        log_filter,
    } = settings;
    let everywhere = Overrides {
        data_dir,
        server,
        server_ca,
        token_file,
        log_format,
        log_filter,
        ..Overrides::default()
    };
    match command {
        Command::Serve(serve) => Overrides {
            listen: serve.listen.clone(),
            role: serve.role.clone(),
            insecure_dev: serve.insecure_dev,
            ..everywhere
        },
        _ => everywhere,
    }
}

/// Whoever read our output, `head` for instance, has had enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_may_stand_anywhere() {
        for line in [
            "alga-runner --data-dir d switches storage off",
            "alga-runner switches --data-dir d storage off",
            "alga-runner switches storage off --data-dir d",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.settings.data_dir.as_deref(), Some("d"), "{line}");
        }
    }
}
