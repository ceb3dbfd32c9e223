//! The same work as was measured of Deno KV, which is the nearest thing that many people know.

use super::{bulk, read, write};
use crate::measure::{Latencies, median};
use crate::report::{Bar, Figure, rounded};
use crate::session::{Bench, Session};

/// Figures of one run of Deno KV over SQLite on a machine of the class this was developed on, with
/// values of 300 bytes. They are for orientation: Deno KV has neither quotas nor audit nor counters,
/// and another machine has other figures.
mod figures {
    /// Puts a second, one after another.
    pub(super) const PUT: f64 = 2_300.0;
    /// Puts a second of 64 writers.
    pub(super) const PUT_64_WRITERS: f64 = 3_400.0;
    /// Records written a second in batches of 20.
    pub(super) const BULK_PUT_20: f64 = 38_000.0;
    /// Records written a second in batches of 100.
    pub(super) const BULK_PUT_100: f64 = 84_000.0;
    /// Gets a second of concurrent readers, the upper end of 10 000 to 17 000.
    pub(super) const GET: f64 = 17_000.0;
    /// Records listed a second, with values.
    pub(super) const LIST: f64 = 182_000.0;
}

const AS_FAST: Bar = Bar::AtLeast(1.0);
const READERS: u32 = 8;

/// Measures every line that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    session.line("storage/deno/put", put).await?;
    let name = "storage/deno/put-64-writers";
    session.line(name, put_64_writers).await?;
    let name = "storage/deno/bulk-put-20";
    session.line(name, bulk_put_20).await?;
    let name = "storage/deno/bulk-put-100";
    session.line(name, bulk_put_100).await?;
    session.line("storage/deno/get", get).await?;
    session.line("storage/deno/list", list).await
}

async fn put(bench: Bench) -> anyhow::Result<Figure> {
    let latencies = write::put_latencies(&bench).await?;
    let rate = median(latencies.iter().map(Latencies::per_second));
    let p50 = median(latencies.iter().map(Latencies::p50));
    let p99 = median(latencies.iter().map(Latencies::p99));
    Ok(Figure::new(rate, "puts/s")
        .against(figures::PUT, AS_FAST)
        .note(format!("p50 {} µs, p99 {} µs", rounded(p50), rounded(p99))))
}

async fn put_64_writers(bench: Bench) -> anyhow::Result<Figure> {
    let rate = write::concurrent_put_rate(&bench).await?;
    Ok(Figure::new(rate, "puts/s").against(figures::PUT_64_WRITERS, AS_FAST))
}

async fn bulk_put_20(bench: Bench) -> anyhow::Result<Figure> {
    let rate = bulk::rate(&bench, 20).await?;
    Ok(Figure::new(rate, "rows/s").against(figures::BULK_PUT_20, AS_FAST))
}

async fn bulk_put_100(bench: Bench) -> anyhow::Result<Figure> {
    let rate = bulk::rate(&bench, 100).await?;
    Ok(Figure::new(rate, "rows/s").against(figures::BULK_PUT_100, AS_FAST))
}

async fn get(bench: Bench) -> anyhow::Result<Figure> {
    let (one, many) = read::get_rates(&bench, READERS).await?;
    let (rate, unit, other) = if many > one {
        let other = format!("1 reader: {} gets/s", rounded(one));
        (many, format!("gets/s, {READERS} readers"), other)
    } else {
        let other = format!("{READERS} readers: {} gets/s", rounded(many));
        (one, "gets/s, 1 reader".to_owned(), other)
    };
    Ok(Figure::new(rate, unit)
        .against(figures::GET, AS_FAST)
        .note(other))
}

async fn list(bench: Bench) -> anyhow::Result<Figure> {
    let rate = read::list_rate(&bench).await?;
    Ok(Figure::new(rate, "rows/s").against(figures::LIST, AS_FAST))
}
