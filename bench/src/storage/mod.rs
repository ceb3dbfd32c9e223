//! Storage, as a guest's calls meet it: through the gate and the service, in a file.

mod bare;
mod bulk;
mod deno;
mod grown;
pub(crate) mod install;
mod read;
pub(crate) mod sample;
mod stage;
mod write;

use self::write::Pattern;
use crate::session::Session;

/// Measures every line of storage that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    session.line("storage/get", read::get).await?;
    session.line("storage/list", read::list).await?;
    let name = "storage/put-64-writers";
    session
        .line(name, |bench| {
            write::put_64_writers(bench, Pattern::Appending)
        })
        .await?;
    let name = "storage/put-64-writers-scattered";
    session
        .line(name, |bench| {
            write::put_64_writers(bench, Pattern::Scattered)
        })
        .await?;
    session
        .line("storage/bulk-put-20", bulk::bulk_put_20)
        .await?;
    session.line("storage/put-at-1m", grown::put).await?;
    deno::run(session).await
}
