//! How what is stored is spread: over tables, over the shards of a cluster, and over tenants.

use std::collections::BTreeMap;

use alga_model::TenantId;
use serde::Serialize;

/// Tenants that are named.
const LARGEST: usize = 10;
/// Tenants that are held at once to find those.
const HELD: usize = 1_000;

/// Where what is stored is, and whose. Records and bytes are what counters say; what disks hold is
/// what databases say, indexes and audit included.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Everything together.
    pub total: Share,
    /// The tables, all shards of each together; one that stands for all where they are a file.
    pub tables: Vec<TableSize>,
    /// The nodes of a cluster; none where there is no cluster.
    pub nodes: Vec<NodeShare>,
    /// The shards of a cluster; those that keep the same tenants count as one.
    pub shards: Vec<ShardShare>,
    /// How evenly they are filled; none where there is no cluster.
    pub skew: Option<Skew>,
    /// Those with most bytes, at most ten, the largest first.
    pub largest_tenants: Vec<TenantShare>,
}

/// A part of what is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Tenants that have ever stored anything.
    pub tenants: u64,
    /// Their records.
    pub records: u64,
    /// Values and metadata.
    pub bytes: u64,
    /// What the tables take on disk.
    pub disk_bytes: u64,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSize {
    /// Which.
    pub table: String,
    /// What it takes on disk, its indexes included.
    pub disk_bytes: u64,
}

/// What a node of a cluster keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeShare {
    /// Host and port.
    pub node: String,
    /// How many shards are there.
    pub shards: u64,
    /// What is in them.
    #[serde(flatten)]
    pub share: Share,
}

/// What a shard keeps, with those of the other tables for the same tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardShare {
    /// The shard of the records.
    pub shard: u64,
    /// Host and port of where it is.
    pub node: String,
    /// What is in it.
    #[serde(flatten)]
    pub share: Share,
}

/// How many times the mean the largest one takes on disk: 1 where all are alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skew {
    /// Of the nodes.
    pub nodes: f64,
    /// Of the shards.
    pub shards: f64,
}

/// What a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantShare {
    /// Who.
    pub tenant_id: TenantId,
    /// Records, those that are expired and not removed yet included.
    pub records: u64,
    /// Their values and metadata.
    pub bytes: u64,
    /// The shard of its records; none where there is no cluster.
    pub shard: Option<u64>,
}

/// A shard of one table, as the cluster tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) table: String,
    pub(crate) shard: u64,
    /// The same for the shards that keep the same tenants.
    pub(crate) range: String,
    pub(crate) node: String,
    pub(crate) disk_bytes: u64,
}

/// A distribution that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    total: Share,
    tables: BTreeMap<String, u64>,
    shards: BTreeMap<u64, ShardShare>,
    tenants: Vec<TenantShare>,
}

impl Survey {
    /// Tables that are each in one piece.
    pub(crate) fn of_tables(tables: impl IntoIterator<Item = TableSize>) -> Self {
        let mut survey = Self::default();
        for TableSize { table, disk_bytes } in tables {
            survey.add_table(table, disk_bytes);
        }
        survey
    }

    /// Tables in pieces; a shard goes by the name of its piece of `records`.
    pub(crate) fn of_pieces(records: &str, pieces: Vec<Piece>) -> Self {
        let mut survey = Self::default();
        let mut of_range = BTreeMap::new();
        for piece in pieces.iter().filter(|piece| piece.table == records) {
            of_range.insert(piece.range.clone(), piece.shard);
            let shard = ShardShare {
                shard: piece.shard,
                node: piece.node.clone(),
                share: Share::default(),
            };
            survey.shards.insert(piece.shard, shard);
        }
        for piece in pieces {
            let shard = of_range.get(&piece.range);
            if let Some(shard) = shard.and_then(|shard| survey.shards.get_mut(shard)) {
                shard.share.disk_bytes += piece.disk_bytes;
            }
            survey.add_table(piece.table, piece.disk_bytes);
        }
        survey
    }

    fn add_table(&mut self, table: String, disk_bytes: u64) {
        self.total.disk_bytes += disk_bytes;
        *self.tables.entry(table).or_default() += disk_bytes;
    }

    pub(crate) fn add_tenant(&mut self, tenant: TenantShare) {
        let shard = tenant.shard.and_then(|shard| self.shards.get_mut(&shard));
        for share in shard
            .map(|shard| &mut shard.share)
            .into_iter()
            .chain([&mut self.total])
        {
            share.tenants += 1;
            share.records += tenant.records;
            share.bytes += tenant.bytes;
        }
        self.tenants.push(tenant);
        if self.tenants.len() > HELD {
            self.keep_largest();
        }
    }

    fn keep_largest(&mut self) {
        self.tenants
            .sort_by_key(|tenant| (u64::MAX - tenant.bytes, tenant.tenant_id));
        self.tenants.truncate(LARGEST);
    }

    pub(crate) fn finish(mut self) -> Distribution {
        self.keep_largest();
        let shards: Vec<_> = self.shards.into_values().collect();
        let nodes = nodes_of(&shards);
        let skew = (!shards.is_empty()).then(|| Skew {
            nodes: skew(nodes.iter().map(|node| node.share.disk_bytes)),
            shards: skew(shards.iter().map(|shard| shard.share.disk_bytes)),
        });
        let tables = self.tables.into_iter();
        Distribution {
            total: self.total,
            tables: tables
                .map(|(table, disk_bytes)| TableSize { table, disk_bytes })
                .collect(),
            nodes,
            shards,
            skew,
            largest_tenants: self.tenants,
        }
    }
}

fn nodes_of(shards: &[ShardShare]) -> Vec<NodeShare> {
    let mut nodes: BTreeMap<&str, (u64, Share)> = BTreeMap::new();
    for ShardShare { node, share, .. } in shards {
        let (count, of_node) = nodes.entry(node).or_default();
        *count += 1;
        of_node.tenants += share.tenants;
        of_node.records += share.records;
        of_node.bytes += share.bytes;
        of_node.disk_bytes += share.disk_bytes;
    }
    let nodes = nodes.into_iter();
    nodes
        .map(|(node, (shards, share))| NodeShare {
            node: node.to_owned(),
            shards,
            share,
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio is right to a few digits"
)]
fn skew(sizes: impl Iterator<Item = u64>) -> f64 {
    let (mut count, mut sum, mut largest) = (0_u64, 0, 0);
    for size in sizes {
        count += 1;
        sum += size;
        largest = largest.max(size);
    }
    if sum == 0 {
        return 1.0;
    }
    (largest as f64) * (count as f64) / (sum as f64)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(nth: u32, bytes: u64, shard: Option<u64>) -> TenantShare {
        TenantShare {
            tenant_id: TenantId::new(Uuid::from_u128(nth.into())),
            records: 2,
            bytes,
            shard,
        }
    }

    fn piece(table: &str, shard: u64, range: &str, node: &str, disk_bytes: u64) -> Piece {
        Piece {
            table: table.to_owned(),
            shard,
            range: range.to_owned(),
            node: node.to_owned(),
            disk_bytes,
        }
    }

    #[test]
    fn without_a_cluster_there_are_tables_and_tenants_alone() {
        let tables = [("b", 7), ("a", 3)].map(|(table, disk_bytes)| TableSize {
            table: table.to_owned(),
            disk_bytes,
        });
        let mut survey = Survey::of_tables(tables);
        survey.add_tenant(tenant(1, 10, None));
        survey.add_tenant(tenant(2, 20, None));
        let found = survey.finish();
        let total = Share {
            tenants: 2,
            records: 4,
            bytes: 30,
            disk_bytes: 10,
        };
        assert_eq!(found.total, total);
        let tables: Vec<_> = found
            .tables
            .iter()
            .map(|size| (&*size.table, size.disk_bytes))
            .collect();
        assert_eq!(tables, [("a", 3), ("b", 7)]);
        assert_eq!((found.nodes.len(), found.shards.len()), (0, 0));
        assert_eq!(found.skew, None);
    }

    #[test]
    fn shards_for_the_same_tenants_are_one() {
        let mut survey = Survey::of_pieces(
            "records",
            vec![
                piece("usage", 20, "low", "a:1", 1),
                piece("records", 10, "low", "a:1", 9),
                piece("records", 11, "high", "b:1", 20),
                piece("usage", 21, "high", "b:1", 0),
                piece("records", 12, "top", "b:1", 30),
            ],
        );
        survey.add_tenant(tenant(1, 5, Some(10)));
        survey.add_tenant(tenant(2, 6, Some(12)));
        survey.add_tenant(tenant(3, 7, Some(12)));
        let found = survey.finish();
        let shards: Vec<_> = found
            .shards
            .iter()
            .map(|shard| {
                let Share {
                    tenants,
                    bytes,
                    disk_bytes,
                    ..
                } = shard.share;
                (shard.shard, &*shard.node, tenants, bytes, disk_bytes)
            })
            .collect();
        let expected = [
            (10, "a:1", 1, 5, 10),
            (11, "b:1", 0, 0, 20),
            (12, "b:1", 2, 13, 30),
        ];
        assert_eq!(shards, expected);
        let nodes: Vec<_> = found
            .nodes
            .iter()
            .map(|node| {
                (
                    &*node.node,
                    node.shards,
                    node.share.tenants,
                    node.share.disk_bytes,
                )
            })
            .collect();
        assert_eq!(nodes, [("a:1", 1, 1, 10), ("b:1", 2, 2, 50)]);
        let skew = found.skew.unwrap();
        assert!((skew.shards - 1.5).abs() < 1e-9, "{skew:?}");
        assert!((skew.nodes - 50.0 / 30.0).abs() < 1e-9, "{skew:?}");
        assert_eq!(found.total.disk_bytes, 60);
    }

    #[test]
    fn the_ten_largest_tenants_are_named_however_many_there_are() {
        let mut survey = Survey::default();
        for nth in 0..5_000_u32 {
            // In an order in which neither the first nor the last are the largest.
            survey.add_tenant(tenant(nth, u64::from(nth * 7_919 % 5_000), None));
        }
        let found = survey.finish();
        let bytes: Vec<_> = found
            .largest_tenants
            .iter()
            .map(|tenant| tenant.bytes)
            .collect();
        assert_eq!(bytes, (4_990..5_000).rev().collect::<Vec<_>>());
        assert_eq!(found.total.tenants, 5_000);
    }

    #[test]
    fn what_is_empty_is_even() {
        let survey = Survey::of_pieces("records", vec![piece("records", 1, "all", "a:1", 0)]);
        let skew = survey.finish().skew.unwrap();
        assert!((skew.nodes - 1.0).abs() < 1e-9 && (skew.shards - 1.0).abs() < 1e-9);
    }
}
