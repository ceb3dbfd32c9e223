//! The settings of an install, whose values go in and never come out.

use std::collections::BTreeMap;

use alga_model::InstallId;
use alga_registry::{Config, Install, InstallEdit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::AdminError;
use super::installs::{MASKED, masked};
use super::members::Members;
use super::mistakes::{Mistakes, Name};
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, schema};

/// `GET /v1/installs/{install_id}/config`.
#[derive(Debug)]
pub struct ShowConfig;

/// `PUT /v1/installs/{install_id}/config`.
#[derive(Debug)]
pub struct ReplaceConfig;

/// The settings of an install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigBody {
    /// The install.
    pub install_id: InstallId,
    /// The settings, masked.
    pub config: BTreeMap<String, String>,
    /// The generation of the install.
    pub generation: u64,
}

/// What the settings of an install shall be.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ReplaceConfigBody {
    /// All of them. Null keeps the value that is there.
    pub config: BTreeMap<String, Option<String>>,
}

impl std::fmt::Debug for ReplaceConfigBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.config.keys()).finish()
    }
}

impl Operation for ShowConfig {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/config";
    const SUMMARY: &'static str = "Shows which settings an install has, without their values";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = ConfigBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<ConfigBody, AdminError> {
        Ok(admin.find(by, ask.target).await?.into())
    }
}

impl Operation for ReplaceConfig {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/installs/{install_id}/config";
    const SUMMARY: &'static str =
        "Replaces the settings of an install; null keeps the value of a setting";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = ReplaceConfigBody;
    type Answer = ConfigBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<ConfigBody, AdminError> {
        let install = admin.find(by, ask.target).await?;
        let config = merged(ask.body.config, &install.config)?;
        // A value that is kept must be the one that was there.
        let expected = ask.expected.or(Some(install.generation));
        let edit = InstallEdit::Config(config);
        Ok(admin.edit(by, install.id, edit, expected).await?.into())
    }
}

/// The settings that are asked for, with those values of `present` that are to be kept.
fn merged(asked: BTreeMap<String, Option<String>>, present: &Config) -> Result<Config, AdminError> {
    let mut mistakes = Mistakes::default();
    let mut merged = BTreeMap::new();
    for (name, value) in asked {
        match (value, present.as_map().get(&name)) {
            (Some(value), _) if value == MASKED => mistakes.add(format_args!(
                "config.{}: that is how a value is masked; null keeps the value",
                Name(&name)
            )),
            (Some(value), _) => drop(merged.insert(name, value)),
            (None, Some(kept)) => drop(merged.insert(name, kept.clone())),
            (None, None) => mistakes.add(format_args!(
                "config.{}: there is no value to keep",
                Name(&name)
            )),
        }
    }
    mistakes.ensure_none("the settings are")?;
    Ok(Config::from(merged))
}

impl From<Install> for ConfigBody {
    fn from(install: Install) -> Self {
        Self {
            install_id: install.id,
            config: masked(&install.config),
            generation: install.generation,
        }
    }
}

impl Parameters for ReplaceConfigBody {
    fn read(members: &mut Members) -> Option<Self> {
        let config = members.settings("config")?;
        Some(Self { config })
    }

    fn schema() -> Value {
        let value = json!({ "type": ["string", "null"] });
        schema::parameters(&[("config", schema::map(&value))], &[])
    }
}

impl Answer for ConfigBody {
    const NAME: &'static str = "Config";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("installId", schema::uuid()),
            ("config", schema::map(&json!({ "const": MASKED }))),
            ("generation", schema::count()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect()
    }

    fn present() -> Config {
        Config::from(BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]))
    }

    #[test]
    fn null_keeps_a_value_and_what_is_not_named_goes() {
        let merged_with = |asked| merged(asked, &present()).unwrap().into_map();
        let kept = merged_with(of(&[("token", None), ("mode", Some("fast"))]));
        let expected = of(&[("token", Some("hunter2")), ("mode", Some("fast"))]);
        assert!(
            kept.into_iter().eq(expected
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))))
        );
        assert!(merged_with(of(&[])).is_empty());
    }

    #[test]
    fn a_masked_value_is_not_taken_for_a_value() {
        let asked = of(&[("token", Some(MASKED)), ("gone", None)]);
        let Err(AdminError::Invalid { mistakes, .. }) = merged(asked, &present()) else {
            panic!("it was taken")
        };
        let mistakes = mistakes.texts();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(!mistakes.concat().contains("hunter2"));
    }

    #[test]
    fn mistakes_of_many_settings_are_counted_and_long_names_cut() {
        let name = |number: u32| format!("{number}{}", "m".repeat(10_000));
        let asked = (0..1_000).map(|number| (name(number), None));
        let Err(error) = merged(asked.collect(), &present()) else {
            panic!("it was taken")
        };
        let said = error.details().to_string();
        assert!(
            said.contains("and 900 more") && said.len() < 20_000,
            "{said}"
        );
    }

    #[test]
    fn values_do_not_show_themselves() {
        let body = ReplaceConfigBody {
            config: of(&[("token", Some("hunter2"))]),
        };
        assert!(!format!("{body:?}").contains("hunter2"));
    }
}
