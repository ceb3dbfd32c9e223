//! `alga-runner storage sweep`: what a running server does from time to time, now and to its end.

use serde_json::json;

use crate::app::Stores;
use crate::cli::output::{self, Tally};
use crate::config::Config;
use crate::upkeep::{Swept, sweep};

/// May be interrupted at any time: what is removed is removed in whole batches, and what is left is
/// as good as removed for everybody but the disk.
pub(super) async fn run(stores: &Stores, config: &Config) -> anyhow::Result<()> {
    let storage = stores.storage.here()?;
    let mut tally = Tally::new("records removed:");
    let mut total = Swept::default();
    loop {
        tally.show(total.records + total.audit_records + total.answers);
        let swept = sweep(
            Some(&**storage as _),
            &*stores.registry,
            &*stores.clock,
            config.storage.audit_retention,
        );
        let swept = swept.await?;
        total.records += swept.records;
        total.bytes += swept.bytes;
        total.audit_records += swept.audit_records;
        total.answers += swept.answers;
        if !swept.more {
            break;
        }
    }
    drop(tally);
    Ok(output::json(&json!({
        "records": total.records,
        "bytes": total.bytes,
        "auditRecords": total.audit_records,
        "answers": total.answers,
    }))?)
}
