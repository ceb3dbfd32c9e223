//! What is shown of a configuration.

use super::*;

#[test]
fn what_is_rendered_names_sources_and_hides_secrets() {
    let hex = "07".repeat(32);
    let toml = format!(
        "data_dir = 'da\"ta'\n[[auth.service_tokens]]\nid = 'gateway'\ntoken = '{TOKEN}'\ntenants = ['{}']",
        TenantId::generate()
    );
    let flags = Overrides {
        listen: Some("127.0.0.1:0".into()),
        ..Overrides::default()
    };
    let variables = [
        ("ALGA_KEYS_MASTER_KEY", hex.as_str()),
        ("ALGA_ENGINE_TIMEOUT_MS", "5000"),
    ];
    let config = Said::toml(&toml)
        .and_variables(&variables)
        .and_flags(flags)
        .load()
        .unwrap();
    let text = config.render();
    for line in [
        "listen = \"127.0.0.1:0\" # flag: --listen",
        "data_dir = 'da\"ta' # alga.toml",
        "timeout_ms = 5000 # environment: ALGA_ENGINE_TIMEOUT_MS",
        "master_key = \"***\" # environment: ALGA_KEYS_MASTER_KEY",
        "memory_mb = 128 # default",
        "# How long an invocation may take.",
        "# fuel is not set: 1 to 9223372036854775807",
        "[storage.limits]",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(
        text.contains("service_tokens = [{ id = \"gateway\", token = \"***\", tenants = ["),
        "{text}"
    );
    for shown in [text.clone(), format!("{config:?}")] {
        assert!(
            !shown.contains(TOKEN) && !shown.contains(&hex) && !shown.contains("[7, 7"),
            "{shown}"
        );
    }
    text.parse::<toml::Table>().unwrap();
}

#[test]
fn what_is_rendered_can_be_loaded_again() {
    let toml = "[engine]\nfuel = 7\n[log]\nformat = 'json'\nfilter = 'info,\"x\"=debug'\n";
    let rendered = Said::toml(toml.replace(",\"x\"=debug", ",x=debug").as_str())
        .load()
        .unwrap()
        .render();
    let again = Said::toml(&rendered).load().unwrap();
    assert_eq!(again.engine.fuel, Some(7));
    assert_eq!(again.log.format, LogFormat::Json);
    assert_eq!(again.log.filter, "info,x=debug");
    assert_eq!(again.storage_limits(), Config::default().storage_limits());
}

#[test]
fn the_table_in_the_documentation_has_every_setting() {
    let documentation = include_str!("../../../../docs/configuration.md");
    let (_, table) = documentation.split_once("|---|---|---|---|---|\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let expected: Vec<String> = Config::default()
        .shown()
        .into_iter()
        .map(
            |Shown {
                 setting,
                 value,
                 expects,
             }| {
                let default = value.map_or_else(String::new, |value| format!("`{value}`"));
                format!(
                    "| `{}` | `{}` | {default} | {expects} | {} |",
                    setting.key,
                    setting.variable(),
                    setting.about.trim(),
                )
            },
        )
        .collect();
    let expected = expected.join("\n");
    assert!(table == expected, "the table should be\n{expected}");
}
