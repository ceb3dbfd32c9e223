//! Reads settings from their sources, and keeps account of what was said where.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::error::{Mistake, Origin, Problem};
use super::kind::{Kind, Raw};
use super::setting::Setting;

/// What the names of variables begin with that nobody else uses, beside [`Setting::PREFIX`].
const S3_PREFIX: &str = "STORAGE_S3_";

/// Variables with our prefix that are no settings.
const OTHER_VARIABLES: [&str; 1] = ["ALGA_CONFIG"];

/// Settings whose value is a table with names that users choose.
const TABLES: [&str; 1] = ["bundles.publishers"];

/// Where the value of each setting that isn't the default comes from.
pub(super) type Origins = BTreeMap<&'static str, Origin>;

/// What was read of all sources.
pub(super) struct ReadThrough {
    /// Where the values come from.
    pub origins: Origins,
    /// What is wrong.
    pub mistakes: Vec<Mistake>,
    /// The settings of which a source says something that could not be read, so that their values are not what
    /// the user meant.
    pub unread: BTreeSet<&'static str>,
}

/// A file of settings.
pub(super) struct SettingsFile {
    /// How the user named it.
    pub name: String,
    /// What it says.
    pub table: toml::Table,
}

/// A setting given on the command line.
pub(super) struct FlagValue {
    pub key: &'static str,
    pub flag: &'static str,
    pub value: String,
}

/// Hands out what the sources say about each setting; what nobody asked for in the end is a
/// mistake of the user.
pub(super) struct Reader {
    file: String,
    in_file: BTreeMap<String, toml::Value>,
    environment: BTreeMap<String, OsString>,
    flags: Vec<FlagValue>,
    asked: Vec<Setting>,
    origins: Origins,
    mistakes: Vec<Mistake>,
    unread: BTreeSet<&'static str>,
}

impl Reader {
    /// A reader of these sources, later ones stronger.
    pub(super) fn new(
        file: Option<SettingsFile>,
        environment: BTreeMap<String, OsString>,
        flags: Vec<FlagValue>,
    ) -> Self {
        let mut in_file = BTreeMap::new();
        let mut name = String::new();
        if let Some(file) = file {
            name = file.name;
            flatten("", file.table, &mut in_file);
        }
        Self {
            file: name,
            in_file,
            environment,
            flags,
            asked: Vec::new(),
            origins: Origins::new(),
            mistakes: Vec::new(),
            unread: BTreeSet::new(),
        }
    }

    /// The value of `setting` from the strongest source that says one. Every source that does is
    /// checked, since a mistake that is hidden today shows when the stronger source goes away.
    pub(super) fn read<K: Kind>(
        &mut self,
        setting: &Setting,
        kind: &K,
        default: K::Value,
    ) -> K::Value {
        self.asked.push(*setting);
        let said = [
            self.take_from_file(setting),
            self.take_from_environment(setting),
            self.take_from_flags(setting),
        ];
        let mut value = default;
        for (origin, raw) in said.into_iter().flatten() {
            match kind.parse(&raw) {
                Ok(parsed) => {
                    value = parsed;
                    self.origins.insert(setting.key, origin);
                }
                Err(problems) => {
                    self.unread.insert(setting.key);
                    self.mistakes.extend(
                        problems
                            .into_iter()
                            .map(|problem| Mistake::new(origin.clone(), Problem::Invalid(problem))),
                    );
                }
            }
        }
        value
    }

    /// Where the values come from, and all mistakes, to which whatever no setting asked for adds.
    pub(super) fn finish(mut self) -> ReadThrough {
        let keys: Vec<String> = self.asked.iter().map(|it| it.key.to_owned()).collect();
        for (key, value) in std::mem::take(&mut self.in_file) {
            let section = format!("{key}.");
            let is_empty_section = value.as_table().is_some_and(toml::Table::is_empty)
                && keys.iter().any(|known| known.starts_with(&section));
            if !is_empty_section {
                let nearest = nearest(&key, &keys);
                let origin = self.origin_in_file(&key);
                self.mistakes
                    .push(Mistake::new(origin, Problem::Unknown { nearest }));
            }
        }
        let variables: Vec<String> = self.asked.iter().map(Setting::variable).collect();
        for (variable, value) in self.environment {
            // Names that others chose come with their custom, also where they are misspelt.
            let is_said = is_ours(&variable) || !value.is_empty();
            if is_said && must_be_a_setting(&variable) {
                let nearest = nearest(&variable, &variables);
                let origin = Origin::Environment { variable };
                self.mistakes
                    .push(Mistake::new(origin, Problem::Unknown { nearest }));
            }
        }
        ReadThrough {
            origins: self.origins,
            mistakes: self.mistakes,
            unread: self.unread,
        }
    }

    fn take_from_file(&mut self, setting: &Setting) -> Option<(Origin, Raw)> {
        let value = self.in_file.remove(setting.key)?;
        Some((self.origin_in_file(setting.key), Raw::Toml(value)))
    }

    fn take_from_environment(&mut self, setting: &Setting) -> Option<(Origin, Raw)> {
        let variable = setting.variable();
        let value = self.environment.remove(&variable)?;
        // Names that others chose come with their custom: empty means not set.
        if value.is_empty() && !is_ours(&variable) {
            return None;
        }
        let origin = Origin::Environment { variable };
        let problem = match value.into_string() {
            Ok(text) if text.is_empty() => "is empty; unset it to get the default",
            Ok(text) => return Some((origin, Raw::Text(text))),
            Err(_) => "must be UTF-8",
        };
        self.unread.insert(setting.key);
        self.mistakes
            .push(Mistake::new(origin, Problem::Invalid(problem.into())));
        None
    }

    fn take_from_flags(&mut self, setting: &Setting) -> Option<(Origin, Raw)> {
        let index = self.flags.iter().position(|it| it.key == setting.key)?;
        let FlagValue { flag, value, .. } = self.flags.swap_remove(index);
        Some((Origin::Flag { flag }, Raw::Text(value)))
    }

    fn origin_in_file(&self, key: &str) -> Origin {
        Origin::File {
            file: self.file.clone(),
            key: Some(key.to_owned()),
        }
    }
}

/// Puts the values of `table` into `into` under dotted keys. An empty table counts as a value, so
/// that a misspelt section is seen even if nothing is in it.
fn flatten(section: &str, table: toml::Table, into: &mut BTreeMap<String, toml::Value>) {
    for (name, value) in table {
        // A quoted key with a dot in it is another key than the dotted one.
        let name = if name.contains('.') {
            format!("{name:?}")
        } else {
            name
        };
        let key = if section.is_empty() {
            name
        } else {
            format!("{section}.{name}")
        };
        match value {
            toml::Value::Table(table) if !table.is_empty() && !TABLES.contains(&&*key) => {
                flatten(&key, table, into);
            }
            value => {
                into.insert(key, value);
            }
        }
    }
}

fn is_ours(variable: &str) -> bool {
    variable.starts_with(Setting::PREFIX)
}

/// Whether a variable that is no setting is a mistake.
fn must_be_a_setting(variable: &str) -> bool {
    (is_ours(variable) || variable.starts_with(S3_PREFIX)) && !is_no_setting(variable)
}

fn is_no_setting(variable: &str) -> bool {
    OTHER_VARIABLES.contains(&variable) || is_service_link(variable)
}

/// Whether Kubernetes or Docker set the variable: for a service called `alga-runner` they put
/// `ALGA_RUNNER_PORT_7410_TCP_ADDR` and its kind into the environment of every container.
fn is_service_link(variable: &str) -> bool {
    let port = |text: &str| {
        let mut parts = text.split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        let what = matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"));
        number && protocol && what && parts.next().is_none()
    };
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
        || variable.ends_with("_PORT")
        || variable
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| port(rest))
}

/// The name among `known` that is most like `name`, if one is like it at all.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    // A slip changes a few letters; beyond that a suggestion misleads.
    const FARTHEST: usize = 4;
    const LONGEST: usize = 128;
    if name.len() > LONGEST {
        return None;
    }
    let (distance, nearest) = known
        .iter()
        .map(|known| (strsim::levenshtein(name, known), known))
        .min()?;
    (distance <= FARTHEST).then(|| nearest.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_service_discovery_are_told_from_misspelt_ones() {
        for variable in [
            "ALGA_RUNNER_SERVICE_HOST",
            "ALGA_RUNNER_SERVICE_PORT",
            "ALGA_RUNNER_SERVICE_PORT_HTTP",
            "ALGA_RUNNER_PORT",
            "ALGA_RUNNER_PORT_7410_TCP",
            "ALGA_RUNNER_PORT_7410_TCP_ADDR",
            "ALGA_PORT_53_UDP_PROTO",
            "STORAGE_S3_SERVICE_HOST",
            "STORAGE_S3_PORT_9000_TCP",
        ] {
            assert!(is_service_link(variable), "{variable}");
        }
        for variable in [
            "ALGA_SERVER_LISTEN",
            "ALGA_PORT_HTTP",
            "ALGA_PORT_7410_TCP_NAME",
            "ALGA_PORT_7410_TCP_ADDR_X",
            "ALGA_PORT_99999_TCP",
        ] {
            assert!(!is_service_link(variable), "{variable}");
        }
    }
}
