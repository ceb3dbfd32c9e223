//! Settings that are fine one by one and make no sense together.

use std::collections::{BTreeMap, BTreeSet};

use alga_bundles::SignaturePolicy;

use super::error::{Mistake, Origin, Problem};
use super::{Config, TokenConfig};

/// Everything in `config` that contradicts itself, but for settings that are `unread`: what they would be is not
/// known, and that they could not be read is said already.
pub(super) fn contradictions(config: &Config, unread: &BTreeSet<&'static str>) -> Vec<Mistake> {
    let mut checks = Checks {
        config,
        unread,
        mistakes: Vec::new(),
    };
    checks.insecure_mode();
    checks.tokens();
    checks.bundles();
    checks.keys();
    checks.database();
    checks.engine();
    checks.role();
    checks.storage();
    checks.s3();
    checks.mistakes
}

struct Checks<'a> {
    config: &'a Config,
    unread: &'a BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl<'a> Checks<'a> {
    fn insecure_mode(&mut self) {
        let server = &self.config.server;
        // An IPv4 loopback address may be written as an IPv6 one.
        let is_loopback = server.listen.ip().to_canonical().is_loopback();
        self.refuse(
            server.insecure_dev && !is_loopback,
            ["server.listen", "server.insecure_dev"],
            "must be a loopback address in the insecure development mode, which lets everybody do everything",
        );
        for (key, tokens) in self.tokens_by_key() {
            self.refuse(
                server.insecure_dev && !tokens.is_empty(),
                [key, "server.insecure_dev"],
                "must not be set in the insecure development mode, which asks for no token",
            );
        }
    }

    fn tokens(&mut self) {
        let mut ids = BTreeMap::new();
        let mut secrets = BTreeMap::new();
        for (key, tokens) in self.tokens_by_key() {
            for token in tokens {
                if let Some(other) = ids.insert(&token.id, key) {
                    let text = format!("must not use the id `{}` twice", token.id);
                    self.refuse(true, [key, other], &text);
                }
                if let Some(other) = secrets.insert(token.token.expose(), key) {
                    let text = format!("must not use the token of `{}` twice", token.id);
                    self.refuse(true, [key, other], &text);
                }
            }
        }
    }

    fn bundles(&mut self) {
        let bundles = &self.config.bundles;
        self.refuse(
            bundles.signature_policy == SignaturePolicy::Require && bundles.publishers.is_empty(),
            ["bundles.publishers", "bundles.signatures.policy"],
            "must name a publisher where signatures are required, or nobody can publish",
        );
        self.refuse(
            self.config.bundles.share_code == Some(true) && self.config.keys.current().is_none(),
            ["bundles.share_code", "keys.master_key"],
            "must not be on unless the master key is set: what a key that is made here has sealed is of \
             use to nobody else",
        );
    }

    fn keys(&mut self) {
        let keys = &self.config.keys;
        self.refuse(
            keys.master_key.is_some() && keys.master_key_file.is_some(),
            ["keys.master_key", "keys.master_key_file"],
            "must not be set together with its file",
        );
        self.refuse(
            keys.former_master_key.is_some() && keys.former_master_key_file.is_some(),
            ["keys.former_master_key", "keys.former_master_key_file"],
            "must not be set together with its file",
        );
    }

    fn database(&mut self) {
        let (database, keys) = (&self.config.database, &self.config.keys);
        self.refuse(
            database.url.is_some() && keys.current().is_none(),
            ["keys.master_key", "database.url"],
            "must be set, or its file: processes that share a database share their key, and one that is made here would be this one's alone",
        );
        self.refuse(
            database.direct_url.is_some() && database.url.is_none(),
            ["database.direct_url", "database.url"],
            "must not be set without the other",
        );
    }

    fn role(&mut self) {
        let (role, api) = (self.config.role(), &self.config.storage_api);
        self.refuse(
            role.keeps_storage() && api.url.is_some(),
            ["storage.api.url", "server.role"],
            "must not be set for a process that keeps the storage itself",
        );
        self.refuse(
            !role.keeps_storage() && api.url.is_none(),
            ["storage.api.url", "server.role"],
            "must be set for a process that runs extensions alone: it asks there for their storage",
        );
        self.refuse(
            api.url.is_some() && api.token.is_none() && api.token_file.is_none(),
            ["storage.api.token", "storage.api.url"],
            "must be set, or its file: that server asks who calls",
        );
    }

    fn engine(&mut self) {
        let engine = &self.config.engine;
        self.refuse(
            engine.log_line_bytes > engine.log_bytes && engine.log_bytes > 0,
            ["engine.log_line_bytes", "engine.log_bytes"],
            "must not be more than all lines together may have",
        );
    }

    fn s3(&mut self) {
        let s3 = &self.config.s3;
        let has_secret = s3.secret_key.is_some() || s3.secret_key_file.is_some();
        let said = [
            (s3.endpoint.is_some(), "storage.s3.endpoint"),
            (s3.access_key.is_some(), "storage.s3.access_key"),
            (s3.secret_key.is_some(), "storage.s3.secret_key"),
            (s3.secret_key_file.is_some(), "storage.s3.secret_key_file"),
        ];
        // Once, however much is said of it.
        if let Some((_, key)) = said.into_iter().find(|(is_said, _)| *is_said) {
            self.refuse(
                s3.bundles().is_none() && !self.unread.contains("storage.s3.bundle_bucket"),
                ["storage.s3.bucket", key],
                "must be set where something else of S3 is: without it bundles would be in the data folder",
            );
        }
        self.refuse(
            s3.bundles().is_some() && s3.access_key.is_none(),
            ["storage.s3.access_key", "storage.s3.bucket"],
            "must be set for a bucket",
        );
        self.refuse(
            s3.bundles().is_some()
                && !has_secret
                && !self.unread.contains("storage.s3.secret_key_file"),
            ["storage.s3.secret_key", "storage.s3.bucket"],
            "must be set for a bucket, or its file",
        );
    }

    fn storage(&mut self) {
        let (limits, rates) = (&self.config.request_limits, &self.config.rates);
        self.refuse(
            limits.min_ttl > limits.max_ttl,
            [
                "storage.limits.min_ttl_seconds",
                "storage.limits.max_ttl_seconds",
            ],
            "must not be longer than the longest life",
        );
        self.refuse(
            limits.default_page_items > limits.max_page_items,
            [
                "storage.limits.default_page_items",
                "storage.limits.max_page_items",
            ],
            "must not be more than the most",
        );
        let quotas = &self.config.quotas;
        self.refuse(
            quotas.critical_percent < quotas.warning_percent,
            [
                "storage.quotas.critical_percent",
                "storage.quotas.warning_percent",
            ],
            "must not be below that of the warning",
        );
        self.refuse(
            rates.read_burst < limits.get_many_keys,
            ["storage.rates.read_burst", "storage.limits.get_many_keys"],
            "must be enough for the largest getMany, or it never succeeds",
        );
        self.refuse(
            rates.write_burst < limits.bulk_items,
            ["storage.rates.write_burst", "storage.limits.bulk_items"],
            "must be enough for the largest bulkPut, or it never succeeds",
        );
    }

    fn tokens_by_key(&self) -> [(&'static str, &'a [TokenConfig]); 2] {
        let auth = &self.config.auth;
        [
            ("auth.service_tokens", &auth.service_tokens),
            ("auth.admin_tokens", &auth.admin_tokens),
        ]
    }

    /// Reports `text` about the first of two settings if they are `wrong` together.
    fn refuse(&mut self, wrong: bool, [key, other]: [&'static str; 2], text: &str) {
        // Also where nothing is wrong, so that every test that reads a configuration finds it.
        for key in [key, other] {
            debug_assert!(self.config.setting(key).is_some(), "{key} is no setting");
        }
        if wrong && !self.unread.contains(key) && !self.unread.contains(other) {
            let text = if key == other {
                text.to_owned()
            } else {
                format!("{text} (see {})", self.config.origin(other))
            };
            self.mistakes.push(Mistake::new(
                self.config.origin(key),
                Problem::Contradiction(text),
            ));
        }
    }
}

impl Config {
    fn origin(&self, key: &str) -> Origin {
        self.origins
            .get(key)
            .cloned()
            .unwrap_or_else(|| Origin::Default {
                key: key.to_owned(),
                variable: self.variable(key),
            })
    }
}
