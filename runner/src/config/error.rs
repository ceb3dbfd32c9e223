//! What can be wrong with a configuration, and where it was said.

use std::fmt;

/// Everything that is wrong with a configuration, each mistake with its source.
#[derive(Debug)]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

impl ConfigError {
    pub(super) const fn new(mistakes: Vec<Mistake>) -> Self {
        Self { mistakes }
    }

    /// The mistakes; at least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot use the configuration")?;
        self.mistakes
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {problem}")]
pub struct Mistake {
    /// Where it was said.
    pub origin: Origin,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Mistake {
    pub(super) const fn new(origin: Origin, problem: Problem) -> Self {
        Self { origin, problem }
    }
}

/// What is wrong with something that was said. Values are never part of it, since any value may
/// turn out to be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no setting of that name.
    #[error("is not a setting{}", hint(nearest.as_deref()))]
    Unknown {
        /// The setting whose name is most like it, if one is.
        nearest: Option<String>,
    },
    /// The value is not one that the setting takes.
    #[error("{0}")]
    Invalid(String),
    /// The value is fine, but not together with that of another setting.
    #[error("{0}")]
    Contradiction(String),
    /// The file can't be read or isn't TOML.
    #[error("{0}")]
    Unreadable(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Where the value of a setting comes from. Shown as users know it: `alga.toml: engine.timeout_ms`,
/// `environment: ALGA_ENGINE_TIMEOUT_MS`, `flag: --listen`, and by both names where it is to be said yet:
/// `default: engine.timeout_ms (ALGA_ENGINE_TIMEOUT_MS)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default {
        /// The key of the setting.
        key: String,
        /// The variable that may set it.
        variable: String,
    },
    /// A configuration file.
    File {
        /// The file, as it was named.
        file: String,
        /// The key of the setting; none where the file as a whole is meant.
        key: Option<String>,
    },
    /// The environment of the process.
    Environment {
        /// The variable.
        variable: String,
    },
    /// The command line.
    Flag {
        /// The flag, with its dashes.
        flag: &'static str,
    },
}

/// A setting by its key and its variable.
pub(super) struct BothNames<'a, K>(pub(super) K, pub(super) &'a str);

impl<K: fmt::Display> fmt::Display for BothNames<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, variable) = self;
        write!(f, "{key} ({variable})")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { key, variable } => write!(f, "default: {}", BothNames(key, variable)),
            Self::File { file, key: None } => write!(f, "{}:", file.escape_debug()),
            Self::File {
                file,
                key: Some(key),
            } => write!(f, "{}: {}", file.escape_debug(), key.escape_debug()),
            Self::Environment { variable } => write!(f, "environment: {}", variable.escape_debug()),
            Self::Flag { flag } => write!(f, "flag: {flag}"),
        }
    }
}
