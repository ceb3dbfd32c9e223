//! What can be configured, read once at the start into one typed [`Config`].
//!
//! Sources, later ones stronger: the defaults, `alga.toml`, the environment, flags. A mistake in
//! any of them stops the start, and all are reported at once. No other part of the program reads
//! the environment.
//!
//! To add a setting, declare it in the section it belongs to, and add its row to
//! `docs/configuration.md`, which a test asks for. What it rules out together with other settings
//! is in `check`.

mod admission;
mod auth;
mod bundles;
mod check;
mod client;
mod data;
mod database;
mod engine;
mod error;
mod flags;
mod idempotency;
mod keys;
mod kind;
mod log;
mod reader;
mod s3;
pub(crate) mod secret_file;
mod server;
mod setting;
mod storage;
mod storage_api;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

pub use admission::AdmissionConfig;
pub(crate) use auth::own_ids;
pub use auth::{AuthConfig, TokenConfig, TokenScope};
pub use bundles::BundlesConfig;
pub use client::ClientConfig;
pub use data::DataConfig;
pub use database::DatabaseConfig;
pub use engine::EngineConfig;
use error::BothNames;
pub use error::{ConfigError, Mistake, Origin, Problem};
pub use flags::Overrides;
pub use idempotency::IdempotencyConfig;
pub use keys::KeysConfig;
pub use kind::KeyFile;
pub(crate) use kind::parse_key;
pub use log::{LogConfig, LogFormat};
use reader::{Origins, ReadThrough, Reader, SettingsFile};
pub use s3::S3Config;
pub use secret_file::SecretFileError;
pub use server::{Role, ServerConfig};
use setting::{Section, Setting, Shown};
pub use storage::{QuotasConfig, RatesConfig, RequestLimitsConfig, StorageConfig};
pub use storage_api::StorageApiConfig;

/// The configuration of a runner. The default is a complete system on one machine.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where data is kept.
    pub data: DataConfig,
    /// Where records and installs are kept.
    pub database: DatabaseConfig,
    /// How the server is reached.
    pub server: ServerConfig,
    /// Who may call it.
    pub auth: AuthConfig,
    /// Whom commands ask.
    pub client: ClientConfig,
    /// Who may publish what, and how bundles are fetched.
    pub bundles: BundlesConfig,
    /// The master key.
    pub keys: KeysConfig,
    /// What an invocation may use.
    pub engine: EngineConfig,
    /// How many invocations there may be at once.
    pub admission: AdmissionConfig,
    /// How much is kept for those who repeat a request.
    pub idempotency: IdempotencyConfig,
    /// How the database of records is used.
    pub storage: StorageConfig,
    /// Where they are instead, if another process serves them.
    pub storage_api: StorageApiConfig,
    /// Where bundles are kept.
    pub s3: S3Config,
    /// What a request to the storage may hold; see [`Config::storage_limits`].
    pub request_limits: RequestLimitsConfig,
    /// What may be stored; see [`Config::storage_limits`].
    pub quotas: QuotasConfig,
    /// How often the storage may be called; see [`Config::storage_limits`].
    pub rates: RatesConfig,
    /// The log.
    pub log: LogConfig,
    origins: Origins,
}

/// Where a configuration is read from.
#[derive(Debug, Clone)]
pub struct ConfigSources<E> {
    /// The file that the user named, which must exist. Without one, the variable `ALGA_CONFIG` may
    /// name one; without that, `alga.toml` in the working directory counts if it is there.
    pub file: Option<PathBuf>,
    /// The environment: names and values.
    pub environment: E,
    /// The command line.
    pub flags: Overrides,
}

impl ConfigSources<std::env::VarsOs> {
    /// The environment of this process, and what the command line says.
    pub fn of_process(file: Option<PathBuf>, flags: Overrides) -> Self {
        Self {
            file,
            environment: std::env::vars_os(),
            flags,
        }
    }
}

impl Config {
    /// The file that is read from the working directory where no other is named.
    pub const FILE_NAME: &str = "alga.toml";
    /// The variable that may name another file.
    pub const FILE_VARIABLE: &str = "ALGA_CONFIG";

    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load<E>(sources: ConfigSources<E>) -> Result<Self, ConfigError>
    where
        E: IntoIterator<Item = (OsString, OsString)>,
    {
        Self::load_in(Path::new(""), sources)
    }

    fn load_in<E>(directory: &Path, sources: ConfigSources<E>) -> Result<Self, ConfigError>
    where
        E: IntoIterator<Item = (OsString, OsString)>,
    {
        let environment: BTreeMap<String, OsString> = sources
            .environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let named = sources
            .file
            .or_else(|| environment.get(Self::FILE_VARIABLE).map(PathBuf::from));
        let (file, unreadable) = match read_file(directory, named) {
            Ok(file) => (file, None),
            Err(mistake) => (None, Some(mistake)),
        };
        let mut reader = Reader::new(file, environment, sources.flags.into_values());
        let mut config = Self::read(&mut reader);
        let ReadThrough {
            origins,
            mut mistakes,
            unread,
        } = reader.finish();
        config.origins = origins;
        mistakes.extend(unreadable);
        mistakes.extend(check::contradictions(&config, &unread));
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::new(mistakes))
        }
    }

    fn read(reader: &mut Reader) -> Self {
        Self {
            data: Section::read(reader),
            database: Section::read(reader),
            server: Section::read(reader),
            auth: Section::read(reader),
            client: Section::read(reader),
            bundles: Section::read(reader),
            keys: Section::read(reader),
            engine: Section::read(reader),
            admission: Section::read(reader),
            idempotency: Section::read(reader),
            storage: Section::read(reader),
            storage_api: Section::read(reader),
            s3: Section::read(reader),
            request_limits: Section::read(reader),
            quotas: Section::read(reader),
            rates: Section::read(reader),
            log: Section::read(reader),
            origins: Origins::new(),
        }
    }

    /// What this process does: what is said, or else all but what another process is named for.
    pub fn role(&self) -> Role {
        self.server.role.unwrap_or(match self.storage_api.url {
            Some(_) => Role::Runner,
            None => Role::All,
        })
    }

    /// What applies to installs that have no limits of their own.
    pub fn storage_limits(&self) -> alga_storage::Limits {
        storage::limits(&self.request_limits, &self.quotas, &self.rates)
    }

    /// The configuration as a file in TOML: each setting with its meaning and the source of its
    /// value, secrets masked.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for shown in self.shown() {
            let Shown {
                setting,
                value,
                expects,
            } = shown;
            let (own_section, name) = setting.split();
            if own_section != section {
                section = own_section;
                write_line(&mut text, format_args!("\n[{section}]"));
            }
            write_line(&mut text, format_args!("# {}", setting.about.trim()));
            let source = self.source(setting.key);
            match value {
                Some(value) => write_line(&mut text, format_args!("{name} = {value} # {source}")),
                None => write_line(&mut text, format_args!("# {name} is not set: {expects}")),
            }
        }
        text
    }

    /// Every setting, in the order of a file; those without a section first.
    fn shown(&self) -> Vec<Shown> {
        let sections: [&dyn Section; _] = [
            &self.data,
            &self.database,
            &self.server,
            &self.auth,
            &self.client,
            &self.bundles,
            &self.keys,
            &self.engine,
            &self.admission,
            &self.idempotency,
            &self.storage,
            &self.storage_api,
            &self.s3,
            &self.request_limits,
            &self.quotas,
            &self.rates,
            &self.log,
        ];
        sections
            .iter()
            .flat_map(|section| section.shown())
            .collect()
    }

    /// A setting, and its variable where that set it, for a sentence about its value.
    pub(crate) fn named(&self, key: &str) -> String {
        debug_assert!(self.setting(key).is_some(), "{key} is no setting");
        match self.origins.get(key) {
            Some(Origin::Environment { variable }) => {
                BothNames(format_args!("`{key}`"), variable).to_string()
            }
            _ => format!("`{key}`"),
        }
    }

    /// The variable that may set `key`.
    fn variable(&self, key: &str) -> String {
        let setting = self.setting(key);
        let setting =
            setting.expect("a key in a check is that of a setting, which `refuse` asserts");
        setting.variable()
    }

    /// The setting with that key, if there is one.
    fn setting(&self, key: &str) -> Option<Setting> {
        let mut settings = self.shown().into_iter().map(|shown| shown.setting);
        settings.find(|setting| setting.key == key)
    }

    /// Where the value of a setting comes from, for a comment beside it.
    fn source(&self, key: &str) -> String {
        match self.origins.get(key) {
            None => "default".to_owned(),
            Some(Origin::File { file, .. }) => file.escape_debug().to_string(),
            Some(origin) => origin.to_string(),
        }
    }
}

fn write_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

/// The settings in the file that is `named`, or else in that of the directory if there is one.
fn read_file(directory: &Path, named: Option<PathBuf>) -> Result<Option<SettingsFile>, Mistake> {
    let must_exist = named.is_some();
    let file = named.unwrap_or_else(|| Config::FILE_NAME.into());
    let name = file.display().to_string();
    let mistake = |problem: String| {
        let origin = Origin::File {
            file: name.clone(),
            key: None,
        };
        Mistake::new(origin, Problem::Unreadable(problem))
    };
    let text = match std::fs::read_to_string(directory.join(&file)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => return Err(mistake(format!("cannot read the file: {error}"))),
    };
    let table = text
        .parse()
        .map_err(|error| mistake(describe_syntax_error(&error, &text)))?;
    Ok(Some(SettingsFile { name, table }))
}

/// Says what is wrong and in which line. The error's own text shows the line, which may hold a
/// secret.
fn describe_syntax_error(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("is no TOML: line {line}: {}", error.message())
}

#[cfg(test)]
mod tests;
