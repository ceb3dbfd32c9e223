//! `alga-runner storage shards`: where what is stored is, and whose.

use alga_storage::{Distribution, Share};
use clap::Args;

use crate::app::Stores;
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Shards {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Shards {
    pub(super) async fn run(self, stores: &Stores) -> anyhow::Result<()> {
        let found = stores.storage.here()?.distribution().await?;
        if self.json {
            return Ok(output::json(&found)?);
        }
        print(&found)
    }
}

fn print(found: &Distribution) -> anyhow::Result<()> {
    let tables = found.tables.iter();
    let tables: Vec<_> = tables
        .map(|size| [size.table.clone(), mebibytes(size.disk_bytes)])
        .collect();
    output::table(["TABLE", "ON DISK"], &tables)?;
    if !found.shards.is_empty() {
        print_shards(found)?;
    }
    let tenants = found.largest_tenants.iter().map(|tenant| {
        let shard = tenant.shard.map_or("-".to_owned(), |id| id.to_string());
        [
            tenant.tenant_id.to_string(),
            shard,
            tenant.records.to_string(),
            mebibytes(tenant.bytes),
        ]
    });
    output::line("")?;
    output::table(
        ["TENANT", "SHARD", "RECORDS", "BYTES"],
        &tenants.collect::<Vec<_>>(),
    )?;
    let Share {
        tenants,
        records,
        bytes,
        disk_bytes,
    } = found.total;
    output::note(format_args!(
        "tenants: {tenants}, records: {records}, values and metadata: {}, on disk: {}",
        mebibytes(bytes),
        mebibytes(disk_bytes)
    ));
    Ok(())
}

fn print_shards(found: &Distribution) -> anyhow::Result<()> {
    let nodes = found
        .nodes
        .iter()
        .map(|node| row(&node.node, node.shards.to_string(), &node.share));
    output::line("")?;
    output::table(
        ["NODE", "SHARDS", "TENANTS", "RECORDS", "BYTES", "ON DISK"],
        &nodes.collect::<Vec<_>>(),
    )?;
    let shards = found
        .shards
        .iter()
        .map(|shard| row(&shard.shard.to_string(), shard.node.clone(), &shard.share));
    output::line("")?;
    output::table(
        ["SHARD", "NODE", "TENANTS", "RECORDS", "BYTES", "ON DISK"],
        &shards.collect::<Vec<_>>(),
    )?;
    if let Some(skew) = found.skew {
        output::note(format_args!(
            "the largest node has {:.2} times the mean, the largest shard {:.2} times",
            skew.nodes, skew.shards
        ));
    }
    Ok(())
}

fn row(name: &str, beside: String, share: &Share) -> [String; 6] {
    [
        name.to_owned(),
        beside,
        share.tenants.to_string(),
        share.records.to_string(),
        mebibytes(share.bytes),
        mebibytes(share.disk_bytes),
    ]
}

/// In MiB with a decimal, rounded up.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_there_is_shown_as_nothing() {
        for (bytes, shown) in [
            (0, "0.0 MiB"),
            (1, "0.1 MiB"),
            (10 << 20, "10.0 MiB"),
            ((10 << 20) + 1, "10.1 MiB"),
        ] {
            assert_eq!(mebibytes(bytes), shown, "{bytes}");
        }
    }
}
