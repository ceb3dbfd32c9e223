//! Settings of who may call the server.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use alga_model::{InstallId, Secret, TenantId};

use super::kind::{Kind, MASK, Raw, toml_text};
use super::secret_file::{self, Readers};
use super::setting::section;

section! {
    /// Who may call the server. Where no token is configured, one of each role is made in the data
    /// folder.
    pub struct AuthConfig {
        /// The tokens of the gateway and other services. In a file a list of tables with `id`,
        /// `token` or `token_file`, and optionally `tenants` and `installs`.
        service_tokens: Vec<TokenConfig> = Vec::new(),
            "auth.service_tokens" or "ALGA_AUTH_SERVICE_TOKEN": TokenList { role: "service" };
        /// The tokens of administrators, written alike.
        admin_tokens: Vec<TokenConfig> = Vec::new(),
            "auth.admin_tokens" or "ALGA_AUTH_ADMIN_TOKEN": TokenList { role: "admin" };
    }
}

/// A token that the server accepts.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// What stands for the token in logs and in the audit: 1–64 of `a`–`z`, `0`–`9`, `-` and `_`.
    pub id: String,
    /// The token: at least 16 visible ASCII characters.
    pub token: Secret<String>,
    /// What it is good for.
    pub scope: TokenScope,
}

/// The tenants and installs that a token is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenScope {
    /// The tenants; all where there is no list.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// The installs; all where there is no list.
    pub installs: Option<BTreeSet<InstallId>>,
}

impl TokenScope {
    /// Whether it holds an install of a tenant.
    pub fn allows(&self, tenant: TenantId, install: InstallId) -> bool {
        let tenants = self.tenants.as_ref();
        tenants.is_none_or(|tenants| tenants.contains(&tenant)) && self.knows(install)
    }

    /// Whether it may hold an install, whose tenant isn't known.
    pub fn knows(&self, install: InstallId) -> bool {
        let installs = self.installs.as_ref();
        installs.is_none_or(|installs| installs.contains(&install))
    }
}

/// Whom logs and the audit name where no configured token was presented. No configured token has
/// such an id, so that nobody can be taken for another.
pub(crate) mod own_ids {
    /// Who works on the data folder.
    pub(crate) const CLI: &str = "cli";
    /// Who calls in the insecure mode.
    pub(crate) const ANYBODY: &str = "anybody";
    /// The service token that is made in the data folder.
    pub(crate) const LOCAL_SERVICE: &str = "local-service";
    /// The admin token that is made there.
    pub(crate) const LOCAL_ADMIN: &str = "local-admin";

    /// The id of a token from the environment.
    pub(super) fn in_variable(role: &str, number: usize) -> String {
        format!("env-{role}-{number}")
    }

    /// Whether no configured token may have this id.
    pub(super) fn contain(id: &str) -> bool {
        let in_variable = |role: &str| {
            let number = id.strip_prefix("env-")?.strip_prefix(role)?;
            number.strip_prefix('-')?.parse::<u64>().ok()
        };
        [CLI, ANYBODY, LOCAL_SERVICE, LOCAL_ADMIN].contains(&id)
            || ["service", "admin"]
                .into_iter()
                .any(|role| in_variable(role).is_some())
    }
}

/// Guessing a token of 16 random characters is hopeless even offline; shorter ones are chosen by
/// people who think of a password.
const MIN_TOKEN_BYTES: usize = 16;
const MAX_ID_BYTES: usize = 64;

/// A list of tokens.
struct TokenList {
    role: &'static str,
}

impl Kind for TokenList {
    type Value = Vec<TokenConfig>;

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>> {
        match raw {
            Raw::Text(text) => collect(
                text.split(',')
                    .enumerate()
                    .map(|(index, token)| self.numbered(index + 1, token.trim())),
            ),
            Raw::Toml(toml::Value::Array(entries)) => collect(
                entries
                    .iter()
                    .enumerate()
                    .map(|(index, entry)| from_toml(index + 1, entry)),
            ),
            Raw::Toml(_) => self.expect_value(None),
        }
    }

    fn show(&self, value: &Self::Value) -> Option<String> {
        let entries: Vec<_> = value.iter().map(show_token).collect();
        Some(format!("[{}]", entries.join(", ")))
    }

    fn expects(&self) -> String {
        "a list of tables; in the variable, tokens separated by commas".into()
    }
}

impl TokenList {
    fn numbered(&self, number: usize, token: &str) -> Result<TokenConfig, Vec<String>> {
        ensure_token(token).map_err(|problem| vec![format!("token {number} {problem}")])?;
        Ok(TokenConfig {
            id: own_ids::in_variable(self.role, number),
            token: Secret::new(token.to_owned()),
            scope: TokenScope::default(),
        })
    }
}

/// All tokens, or the problems of all.
fn collect(
    tokens: impl Iterator<Item = Result<TokenConfig, Vec<String>>>,
) -> Result<Vec<TokenConfig>, Vec<String>> {
    let mut fine = Vec::new();
    let mut problems = Vec::new();
    for token in tokens {
        match token {
            Ok(token) => fine.push(token),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() {
        Ok(fine)
    } else {
        Err(problems)
    }
}

/// Reads the entry by hand: what a deserializer reports contains the value, which may be a secret.
fn from_toml(number: usize, entry: &toml::Value) -> Result<TokenConfig, Vec<String>> {
    let Some(entry) = entry.as_table() else {
        return Err(vec![format!("entry {number} must be a table")]);
    };
    let mut problems: Vec<String> = entry
        .keys()
        .filter(|key| !["id", "token", "token_file", "tenants", "installs"].contains(&key.as_str()))
        .map(|key| format!("has no field `{}`", key.escape_debug()))
        .collect();
    let mut keep = |problem| problems.push(problem);
    let id = id_field(entry).map_err(&mut keep).ok();
    let token = token_field(entry).map_err(&mut keep).ok();
    let tenants = ids_field(entry, "tenants").map_err(&mut keep).ok();
    let installs = ids_field(entry, "installs").map_err(&mut keep).ok();
    match (id, token, tenants, installs) {
        (Some(id), Some(token), Some(tenants), Some(installs)) if problems.is_empty() => {
            let scope = TokenScope { tenants, installs };
            Ok(TokenConfig { id, token, scope })
        }
        _ => Err(problems
            .into_iter()
            .map(|problem| format!("entry {number} {problem}"))
            .collect()),
    }
}

fn id_field(entry: &toml::Table) -> Result<String, String> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let fine = |id: &&str| (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(allowed);
    let id = entry.get("id").and_then(toml::Value::as_str).filter(fine);
    let id = id.ok_or("must have an `id` of 1 to 64 of a-z, 0-9, - and _")?;
    if own_ids::contain(id) {
        return Err(format!(
            "must not have the `id` `{id}`, which the runner uses itself"
        ));
    }
    Ok(id.to_owned())
}

fn token_field(entry: &toml::Table) -> Result<Secret<String>, String> {
    let token = match (entry.get("token"), entry.get("token_file")) {
        (Some(toml::Value::String(token)), None) => Secret::new(token.clone()),
        (None, Some(toml::Value::String(path))) => {
            let text = secret_file::read(Path::new(path), Readers::Group)
                .map_err(|error| format!("has a `token_file` that {}", error.without_path()))?;
            Secret::new(text.expose().trim().to_owned())
        }
        _ => return Err("must have either a `token` or a `token_file`, as text".into()),
    };
    ensure_token(token.expose())?;
    Ok(token)
}

fn ids_field<T: FromStr + Ord>(
    entry: &toml::Table,
    field: &'static str,
) -> Result<Option<BTreeSet<T>>, String> {
    let Some(value) = entry.get(field) else {
        return Ok(None);
    };
    let ids = value.as_array().filter(|ids| !ids.is_empty());
    ids.and_then(|ids| ids.iter().map(|id| id.as_str()?.parse().ok()).collect())
        .map(Some)
        .ok_or_else(|| {
            format!("must have one UUID or more in `{field}`; without the field, all are meant")
        })
}

fn ensure_token(token: &str) -> Result<(), String> {
    if token.len() < MIN_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "must be at least {MIN_TOKEN_BYTES} visible ASCII characters"
        ));
    }
    Ok(())
}

fn show_token(token: &TokenConfig) -> String {
    let list = |field: &str, ids: Vec<String>| {
        let ids: Vec<_> = ids.iter().map(|id| toml_text(id)).collect();
        format!("{field} = [{}]", ids.join(", "))
    };
    let TokenScope { tenants, installs } = &token.scope;
    let fields = [
        Some(format!("id = {}", toml_text(&token.id))),
        Some(format!("token = {MASK}")),
        (tenants.as_ref())
            .map(|ids| list("tenants", ids.iter().map(TenantId::to_string).collect())),
        (installs.as_ref())
            .map(|ids| list("installs", ids.iter().map(InstallId::to_string).collect())),
    ];
    let fields: Vec<_> = fields.into_iter().flatten().collect();
    format!("{{ {} }}", fields.join(", "))
}
