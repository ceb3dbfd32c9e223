//! The cost of a put in a table that holds much.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{KEYS, Stage, new_database, start_server};
use crate::measure::{Latencies, in_turns, median};
use crate::report::{Bar, Figure, rounded};
use crate::session::Bench;
use crate::storage::sample::Numbers;

/// Puts of a round.
const PUTS: u32 = 300;
const SMALL: u32 = 100_000;
const LARGE: u32 = 10_000_000;
/// Records of each namespace of the others, and those of each tenant.
const OF_NAMESPACE: u32 = 1_000;
const OF_TENANT: u32 = 10_000;

/// How long a put to a namespace of 500 takes beside ten million records, by one beside a hundred thousand.
pub(super) async fn put(bench: Bench) -> anyhow::Result<Figure> {
    let server = start_server().await?;
    let small = open(&bench, &new_database(&server, "small").await?, SMALL).await?;
    let large = open(&bench, &new_database(&server, "large").await?, LARGE).await?;
    let turns = in_turns(
        &bench,
        |round| puts(Arc::clone(&small), round),
        |round| puts(Arc::clone(&large), round),
    )
    .await?;
    let in_small = median(turns.iter().map(|(small, _)| small.p50()));
    let in_large = median(turns.iter().map(|(_, large)| large.p50()));
    let p99 = median(turns.iter().map(|(_, large)| large.p99()));
    Ok(Figure::new(in_large, "µs p50")
        .against(in_small, Bar::AtMost(1.2))
        .note(format!("p99 {} µs", rounded(p99))))
}

async fn open(bench: &Bench, url: &str, others: u32) -> anyhow::Result<Arc<Stage>> {
    let stage = Stage::open(bench, url, 1).await?;
    bench.progress(&format!("writing {others} records of others"));
    let mut connection = PgConnection::connect(url).await?;
    // In the order of the primary key, or it would take ten times as long.
    let fill = format!(
        r#"
        CREATE TEMPORARY TABLE others AS
            SELECT md5(nth::text)::uuid AS tenant_id FROM generate_series(1, {tenants}) AS nth;
        INSERT INTO ext_storage_records
            (tenant_id, install_id, namespace, key, revision, bytes, created_at, updated_at, metadata, value)
        SELECT tenant_id, tenant_id, 'orders-' || namespace, 'item-' || lpad(key::text, 8, '0'), 1, 9, now(), now(),
               '{{}}', '{{"n":1}}'
        FROM (SELECT tenant_id FROM others ORDER BY tenant_id) AS ordered,
             generate_series(1, {namespaces}) AS namespace, generate_series(1, {keys}) AS key;
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, keys, bytes, reserved, namespaces)
        SELECT tenant_id, tenant_id, 'orders-' || namespace, {keys}, {keys} * 9, {keys} * 9, 1
        FROM others, generate_series(1, {namespaces}) AS namespace;"#,
        tenants = others / OF_TENANT,
        namespaces = OF_TENANT / OF_NAMESPACE,
        keys = OF_NAMESPACE,
    );
    connection.execute(AssertSqlSafe(fill)).await?;
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        connection.execute(statement).await?;
    }
    connection.close().await?;
    Ok(Arc::new(stage))
}

/// Puts over records that are there.
async fn puts(stage: Arc<Stage>, round: u32) -> anyhow::Result<Latencies> {
    let mut numbers = Numbers::seeded(round.into());
    let mut latencies = Latencies::default();
    let place = stage.place(0)?;
    for _ in 0..PUTS {
        let put = place.do_once(super::Operation::Put, numbers.below(KEYS));
        latencies.time(put).await?;
    }
    Ok(latencies)
}
