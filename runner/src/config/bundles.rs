//! Settings of bundles: who may publish them, and how a process has them at hand.

use std::time::Duration;

use alga_bundles::{Manifest, PublicKey, PublisherKeys, SignaturePolicy, SignatureRules};

use super::kind::{Flag, Kind, OneOf, Optional, Raw, bytes, count, millis, toml_text};
use super::setting::section;

section! {
    /// Who may publish what, and how bundles come from their store into the cache.
    pub struct BundlesConfig {
        /// Whether extensions run from what is in the cache alone, and the store is asked for nothing.
        offline: bool = false, "bundles.offline": Flag;
        /// How long the store may take to answer, or to send anything more of a bundle, until it is
        /// asked again.
        stall: Duration = Duration::from_secs(30), "bundles.stall_timeout_ms": millis(1..=600_000);
        /// The disk space for unpacked bundles; what was used least recently goes first, and nothing that
        /// is in use.
        cache_bytes: u64 = 10 << 30, "bundles.cache_bytes": bytes(0..=1 << 50);
        /// Whether compiled code is left in the store for other processes, which need the same
        /// `keys.master_key`. Not set, it is where bundles are in a bucket and that key is set.
        share_code: Option<bool> = None, "bundles.share_code": Optional(Flag);
        /// Whether publishing takes the hash of an upload that was computed while it came, where the store still has
        /// that very object, instead of hashing it again. It is read and judged all the same.
        trust_stream_hash: bool = false, "bundles.trust_stream_hash": Flag;
        /// How many uploads are published at once; others wait. Each keeps a component in memory while it is
        /// compiled.
        finalizes_at_once: u32 = 2, "bundles.finalizes_at_once": count(1..=64);
        /// The public keys of publishers, by the name in their manifests. In a file a table
        /// `[bundles.publishers."Example Ltd"]` with `keys`, a list, for each.
        publishers: PublisherKeys = PublisherKeys::new(), "bundles.publishers": Publishers;
        /// What happens to a bundle that its publisher didn't sign: nothing, a warning, or a refusal.
        signature_policy: SignaturePolicy = SignaturePolicy::Off, "bundles.signatures.policy": OneOf(&[
            ("off", SignaturePolicy::Off),
            ("warn", SignaturePolicy::Warn),
            ("require", SignaturePolicy::Require),
        ]);
        /// How many uploads one actor may begin in a minute, in each process.
        uploads_per_minute: u32 = 30, "bundles.uploads.per_minute": count(1..=100_000);
        /// How many uploads are received at once; others wait. Each holds up to 15 MiB in memory.
        uploads_at_once: u32 = 16, "bundles.uploads.at_once": count(1..=1_000);
        /// How long whoever sends an upload may send nothing.
        upload_silence: Duration = Duration::from_secs(60), "bundles.uploads.silence_ms": millis(1..=3_600_000);
    }
}

impl BundlesConfig {
    /// Who may sign, and whether somebody must.
    pub fn signature_rules(&self) -> SignatureRules {
        SignatureRules {
            policy: self.signature_policy,
            publishers: self.publishers.clone(),
        }
    }
}

/// The keys of each publisher: a table of tables.
struct Publishers;

impl Kind for Publishers {
    type Value = PublisherKeys;

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>> {
        let table = match raw {
            Raw::Toml(value) => value.as_table().cloned(),
            Raw::Text(text) => inline_table(text),
        };
        let table = table.ok_or_else(|| vec![format!("must be {}", self.expects())])?;
        let mut publishers = PublisherKeys::new();
        let mut problems = Vec::new();
        for (name, entry) in &table {
            match publisher(name, entry) {
                Ok(keys) => {
                    publishers.insert(name.clone(), keys);
                }
                Err(problem) => {
                    problems.push(format!("entry `{}` {problem}", name.escape_debug()));
                }
            }
        }
        if problems.is_empty() {
            Ok(publishers)
        } else {
            Err(problems)
        }
    }

    fn show(&self, value: &Self::Value) -> Option<String> {
        let entries: Vec<_> = value.iter().map(show_publisher).collect();
        Some(if entries.is_empty() {
            "{}".to_owned()
        } else {
            format!("{{ {} }}", entries.join(", "))
        })
    }

    fn expects(&self) -> String {
        "a table of tables; in the variable, the same in braces".into()
    }
}

/// What a variable says, in the way a file would say it on one line.
fn inline_table(text: &str) -> Option<toml::Table> {
    let mut table: toml::Table = format!("publishers = {text}").parse().ok()?;
    match table.remove("publishers") {
        Some(toml::Value::Table(publishers)) if table.is_empty() => Some(publishers),
        _ => None,
    }
}

fn publisher(name: &str, entry: &toml::Value) -> Result<Vec<PublicKey>, String> {
    // A name that no manifest can have would never be asked for.
    Manifest::check_publisher(name).map_err(|problem| format!("is not a publisher: {problem}"))?;
    let entry = entry.as_table().ok_or("must be a table")?;
    if let Some(field) = entry.keys().find(|field| *field != "keys") {
        return Err(format!("has no field `{}`", field.escape_debug()));
    }
    let keys = entry.get("keys").and_then(toml::Value::as_array);
    let keys = keys.filter(|keys| !keys.is_empty());
    let keys = keys.ok_or("must have one key or more in `keys`")?;
    let mut parsed: Vec<PublicKey> = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let key = key.as_str().and_then(|key| key.parse().ok());
        let key = key.filter(|key| !parsed.contains(key));
        let number = index + 1;
        parsed.push(key.ok_or_else(|| {
            format!("must have a public key of minisign, and each once: key {number} is none")
        })?);
    }
    Ok(parsed)
}

fn show_publisher((name, keys): (&String, &Vec<PublicKey>)) -> String {
    let keys: Vec<_> = keys.iter().map(|key| toml_text(&key.to_string())).collect();
    format!("{} = {{ keys = [{}] }}", toml_text(name), keys.join(", "))
}
