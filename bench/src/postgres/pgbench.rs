//! The function that writes a record, beside an upsert of the record alone, both sent by `pgbench`: what quotas,
//! counters and audit cost in the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Stage, start_server};
use crate::measure::{in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::{Bench, Session};
use crate::storage::sample::value;

/// Transactions of a round, of all clients together at least.
const TRANSACTIONS: u32 = 16_000;
/// Transactions of a client in a round at least. At first it plans its statements, and there are more of them in the
/// function than in the upsert, which servers do once and not with every thousandth write.
const A_CLIENT: u32 = 1_000;

/// As the function does it, without a lock, counters or audit.
const UPSERT: &str = "
INSERT INTO ext_storage_records AS r
    (tenant_id, install_id, namespace, key, revision, bytes, created_at, updated_at, metadata, value)
VALUES (@tenant, @install, @namespace, @key, 1, @bytes, now(), now(), '{}'::text::json, :v::text::json)
ON CONFLICT (tenant_id, install_id, namespace, key) DO UPDATE SET
    revision = r.revision + 1, replaced_bytes = r.bytes, bytes = excluded.bytes,
    expires_at = excluded.expires_at, updated_at = excluded.updated_at, metadata = excluded.metadata,
    value = excluded.value
RETURNING revision, created_at;
";
const PUT: &str = "
SELECT * FROM ext_storage_put_one_1(@tenant, @install, @namespace, @key, :v::text, '{}', @bytes,
    NULL, NULL, NULL, 1000, 10000000, 1099511627776, 1099511627776, false, false, 'com.example.bench',
    'invocation:019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e5f', '019aa6a5-3c4f-7d1e-8f00-5d1c2b3a4e60');
";

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for (name, clients, choice) in [
        ("pgbench/put-1", 1, Choice::InTurns),
        ("pgbench/put-8", 8, Choice::InTurns),
        ("pgbench/put-32", 32, Choice::InTurns),
        ("pgbench/put-32-at-random", 32, Choice::AtRandom),
        ("pgbench/put-8-one-namespace", 8, Choice::TheSame),
    ] {
        let measure = |bench| measure(bench, clients, choice);
        session.line(name, measure).await?;
    }
    Ok(())
}

/// Which namespace a client writes to next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    /// As on the lines of the gate: its own share of them in turns, so that no two clients meet.
    InTurns,
    /// Any, so that clients meet: of 32 clients, two in three find another one where they go.
    AtRandom,
    /// The only one, where all meet.
    TheSame,
}

impl Choice {
    const fn namespaces(self) -> usize {
        match self {
            Self::InTurns | Self::AtRandom => 32,
            Self::TheSame => 1,
        }
    }

    /// The number of the next one, from 1 on, as `pgbench` reckons it.
    fn expression(self, clients: u32) -> String {
        let namespaces = self.namespaces();
        match self {
            Self::InTurns | Self::TheSame => {
                format!("(:turn * {clients} + :client_id) % {namespaces} + 1")
            }
            Self::AtRandom => format!("random(1, {namespaces})"),
        }
    }
}

async fn measure(bench: Bench, clients: u32, choice: Choice) -> anyhow::Result<Figure> {
    let server = start_server().await?;
    let stage = Stage::open(&bench, &server.url(), choice.namespaces()).await?;
    let run_of = |name: &str, statement| {
        let path = bench.path(name);
        fs::write(
            &path,
            script(&stage, &choice.expression(clients), statement),
        )?;
        anyhow::Ok(Pgbench {
            program: program(),
            url: server.url(),
            script: path,
            clients,
        })
    };
    let (bare, ours) = (run_of("bare.sql", UPSERT)?, run_of("ours.sql", PUT)?);
    let turns = in_turns(
        &bench,
        |_| bare.clone().transactions_per_second(),
        |_| ours.clone().transactions_per_second(),
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    let figure = Figure::new(ours, "puts/s");
    Ok(match choice {
        Choice::InTurns => figure.against(bare, Bar::AtLeast(0.5)),
        Choice::AtRandom | Choice::TheSame => {
            figure.note(format!("bare {}, ratio {:.2}", bare.round(), ours / bare))
        }
    })
}

/// A script that writes any record of the place that `place` tells.
fn script(stage: &Stage, place: &str, statement: &str) -> String {
    let any = |column: String, cast: &str| format!("(ARRAY[{column}]::{cast}[])[:place]");
    let column = |of: &dyn Fn(&super::Place) -> String| {
        let texts = stage.0.iter().map(|place| format!("'{}'", of(place)));
        texts.collect::<Vec<_>>().join(",")
    };
    let tenants = any(column(&|place| place.install.tenant().to_string()), "uuid");
    let installs = any(column(&|place| place.install.id().to_string()), "uuid");
    let namespaces = any(column(&|place| place.namespace.as_str().to_owned()), "text");
    let keys = "'item-' || lpad(:key::text, 8, '0')";
    let statement = statement
        .replace("@tenant", &tenants)
        .replace("@install", &installs)
        .replace("@namespace", &namespaces)
        .replace("@key", keys)
        .replace("@bytes", &(value(0).len() + "{}".len()).to_string());
    format!(
        "\\set turn :turn + 1\n\\set place {place}\n\\set key random(0, {})\n{}\n",
        super::KEYS - 1,
        // A statement ends with its line here.
        statement.trim().replace('\n', " ")
    )
}

/// A run of `pgbench` to be.
#[derive(Debug, Clone)]
struct Pgbench {
    program: PathBuf,
    url: String,
    script: PathBuf,
    clients: u32,
}

impl Pgbench {
    async fn transactions_per_second(self) -> anyhow::Result<f64> {
        tokio::task::spawn_blocking(move || self.run()).await?
    }

    fn run(&self) -> anyhow::Result<f64> {
        let value = format!("v={}", value(0));
        let ran = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared", "--client"])
            .arg(self.clients.to_string())
            .arg("--jobs")
            .arg(self.clients.min(2).to_string())
            .arg("--transactions")
            .arg((TRANSACTIONS / self.clients).max(A_CLIENT).to_string())
            .args(["--define", &value, "--define", "turn=0"])
            .arg("--file")
            .args([&self.script, Path::new(&self.url)])
            .output()
            .context("cannot run pgbench")?;
        let said = String::from_utf8_lossy(&ran.stdout);
        let complaint = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "pgbench failed: {complaint}");
        let failed = said.contains("number of failed transactions: 0 ");
        ensure!(failed, "transactions failed: {said}{complaint}");
        rate(&said).with_context(|| format!("pgbench tells no rate: {said}"))
    }
}

/// The rate in what `pgbench` says, without the time that it took to connect.
fn rate(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

/// The newest `pgbench` that Debian knows, or the one on the path.
fn program() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let programs = installed
        .flatten()
        .map(|version| version.path().join("bin/pgbench"));
    let newest = programs.filter(|program| program.exists()).max();
    newest.unwrap_or_else(|| "pgbench".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_in_what_pgbench_says() {
        let said = "number of clients: 8\ninitial connection time = 12.3 ms\n\
            tps = 6473.123456 (without initial connection time)\n";
        assert!((rate(said).unwrap() - 6_473.123_456).abs() < 1e-9);
        assert_eq!(rate("tps: none"), None);
    }
}
