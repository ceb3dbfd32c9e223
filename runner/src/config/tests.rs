use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use alga_model::{InstallId, TenantId};

use super::*;

const TOKEN: &str = "a-token-that-is-long-enough";
const OTHER_TOKEN: &str = "another-token-long-enough";

/// A configuration made from what a test says, read in a folder of its own.
#[derive(Default)]
struct Said {
    toml: Option<String>,
    environment: Vec<(OsString, OsString)>,
    flags: Overrides,
}

impl Said {
    fn toml(text: &str) -> Self {
        Self {
            toml: Some(text.to_owned()),
            ..Self::default()
        }
    }

    fn variables(variables: &[(&str, &str)]) -> Self {
        Self::default().and_variables(variables)
    }

    fn and_variables(mut self, variables: &[(&str, &str)]) -> Self {
        let pairs = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.environment.extend(pairs);
        self
    }

    fn and_flags(self, flags: Overrides) -> Self {
        Self { flags, ..self }
    }

    fn load(self) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        if let Some(toml) = self.toml {
            fs::write(directory.path().join("alga.toml"), toml).unwrap();
        }
        let sources = ConfigSources {
            file: None,
            environment: self.environment,
            flags: self.flags,
        };
        Config::load_in(directory.path(), sources)
    }

    fn mistakes(self) -> Vec<String> {
        let error = self.load().unwrap_err();
        error.mistakes().iter().map(Mistake::to_string).collect()
    }
}

fn secret_file(mode: u32, text: &str) -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn without_any_source_the_defaults_hold() {
    let config = Said::default().load().unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7410");
    assert!(!config.server.insecure_dev);
    assert_eq!(
        config.data.storage_database(),
        Path::new("alga-data/storage.sqlite3")
    );
    assert_eq!(config.engine.timeout, Duration::from_secs(10));
    assert_eq!(config.engine.memory_bytes, 128 << 20);
    assert_eq!(config.engine.fuel, None);
    assert!(config.auth.service_tokens.is_empty());
    assert!(config.keys.current().is_none());
}

#[test]
fn the_default_limits_are_those_of_the_storage() {
    assert_eq!(
        Config::default().storage_limits(),
        alga_storage::Limits::default()
    );
}

#[test]
fn a_later_source_is_stronger() {
    let toml = "[server]\nlisten = '127.0.0.1:1'\n[engine]\ntimeout_ms = 11\nmemory_mb = 21\n";
    let variables = [
        ("ALGA_SERVER_LISTEN", "127.0.0.1:2"),
        ("ALGA_ENGINE_TIMEOUT_MS", "12"),
    ];
    let flags = Overrides {
        listen: Some("127.0.0.1:3".into()),
        ..Overrides::default()
    };
    let config = Said::toml(toml)
        .and_variables(&variables)
        .and_flags(flags)
        .load()
        .unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.engine.timeout, Duration::from_millis(12));
    assert_eq!(config.engine.memory_bytes, 21 << 20);
    assert_eq!(config.engine.max_instances, 256);
}

#[test]
fn every_setting_of_the_storage_reaches_its_limits() {
    let toml = "
        [storage]
        timeout_ms = 100
        read_connections = 2
        sweep_interval_seconds = 3
        audit_retention_days = 4
        [storage.limits]
        value_bytes = 101
        metadata_bytes = 102
        min_ttl_seconds = 103
        max_ttl_seconds = 104
        bulk_items = 5
        bulk_bytes = 106
        get_many_keys = 7
        max_page_items = 108
        default_page_items = 9
        page_bytes = 1024
        [storage.quotas]
        namespaces = 11
        keys_per_namespace = 12
        bytes_per_install = 13
        bytes_per_tenant = 14
        warning_percent = 20
        critical_percent = 21
        [storage.rates]
        read_per_second = 15
        read_burst = 16
        write_per_second = 17
        write_burst = 18
        tenant_factor = 19
    ";
    let config = Said::toml(toml).load().unwrap();
    assert_eq!(config.storage.timeout, Duration::from_millis(100));
    assert_eq!(config.storage.read_connections.get(), 2);
    assert_eq!(config.storage.sweep_interval, Duration::from_secs(3));
    assert_eq!(config.storage.audit_retention, Duration::from_hours(4 * 24));
    let limits = config.storage_limits();
    assert_eq!(limits.request.value_bytes, 101);
    assert_eq!(limits.request.metadata_bytes, 102);
    assert_eq!(
        limits.request.ttl,
        (Duration::from_secs(103), Duration::from_secs(104))
    );
    assert_eq!(limits.request.bulk_items, 5);
    assert_eq!(limits.request.bulk_bytes, 106);
    assert_eq!(limits.request.keys, 7);
    assert_eq!(limits.request.page_items, (108, 9));
    assert_eq!(limits.request.page_bytes, 1024);
    assert_eq!(limits.quotas.namespaces, 11);
    assert_eq!(limits.quotas.keys_per_namespace, 12);
    assert_eq!(limits.quotas.bytes_per_install, 13);
    assert_eq!(limits.quotas.bytes_per_tenant, 14);
    assert_eq!(limits.quotas.alert_percent, [20, 21]);
    assert_eq!(
        (limits.rates.read.per_second, limits.rates.read.burst),
        (15, 16)
    );
    assert_eq!(
        (limits.rates.write.per_second, limits.rates.write.burst),
        (17, 18)
    );
    assert_eq!(limits.rates.tenant_read, limits.rates.read.times(19));
    assert_eq!(limits.rates.tenant_write, limits.rates.write.times(19));
}

#[test]
fn a_bulk_put_can_be_raised_to_its_hard_limits_and_no_further() {
    let said = |items: u32, bytes: u32| {
        Said::toml(&format!(
            "[storage.limits]\nbulk_items = {items}\nbulk_bytes = {bytes}"
        ))
    };
    assert_eq!(
        said(100, 1 << 20)
            .load()
            .unwrap()
            .storage_limits()
            .request
            .bulk_items,
        100
    );
    assert_eq!(
        said(101, (1 << 20) + 1).mistakes(),
        [
            "alga.toml: storage.limits.bulk_items must be 1 to 100",
            "alga.toml: storage.limits.bulk_bytes must be 1 to 1048576 bytes",
        ]
    );
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_sources() {
    let toml = "
        datadir = 'x'
        [engine]
        timeout_ms = 'soon'
        [enginn]
        [storage.limits]
        value_byte = 1
    ";
    let variables = [
        ("ALGA_ENGINE_TIMEOUT_MS", "0"),
        ("ALGA_SERVER_LISTN", "x"),
        ("ALGA_FAVOURITE_COLOUR", "blue"),
        ("ALGA_DATA_DIR", ""),
        ("HOME", "/nowhere"),
    ];
    let flags = Overrides {
        listen: Some("localhost:80".into()),
        ..Overrides::default()
    };
    let mistakes = Said::toml(toml)
        .and_variables(&variables)
        .and_flags(flags)
        .mistakes();
    assert_eq!(
        mistakes,
        [
            "environment: ALGA_DATA_DIR is empty; unset it to get the default",
            "flag: --listen must be an IP address with a port, such as 127.0.0.1:7410 or [::]:7410",
            "alga.toml: engine.timeout_ms must be 1 to 600000 ms",
            "environment: ALGA_ENGINE_TIMEOUT_MS must be 1 to 600000 ms",
            "alga.toml: datadir is not a setting; did you mean data_dir?",
            "alga.toml: enginn is not a setting",
            "alga.toml: storage.limits.value_byte is not a setting; did you mean storage.limits.value_bytes?",
            "environment: ALGA_FAVOURITE_COLOUR is not a setting",
            "environment: ALGA_SERVER_LISTN is not a setting; did you mean ALGA_SERVER_LISTEN?",
        ]
    );
}

#[test]
fn an_empty_section_of_a_known_name_is_no_mistake() {
    assert!(Said::toml("[engine]\n[storage.limits]\n").load().is_ok());
}

#[test]
fn a_quoted_key_is_not_the_dotted_one() {
    let mistakes = Said::toml("'engine.timeout_ms' = 5").mistakes();
    assert!(mistakes[0].contains("is not a setting"), "{mistakes:?}");
}

#[test]
fn variables_of_the_command_line_and_of_service_discovery_are_left_alone() {
    let variables = [
        ("ALGA_RUNNER_SERVICE_HOST", "10.0.0.1"),
        ("ALGA_RUNNER_PORT_7410_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(Said::variables(&variables).load().is_ok());
}

#[test]
fn an_environment_that_is_not_utf8_is_reported_where_it_matters() {
    let broken = || OsString::from_vec(vec![0xff]);
    let said = Said {
        environment: vec![
            (broken(), "x".into()),
            ("HOME".into(), broken()),
            ("ALGA_DATA_DIR".into(), broken()),
        ],
        ..Said::default()
    };
    assert_eq!(
        said.mistakes(),
        ["environment: ALGA_DATA_DIR must be UTF-8"]
    );
}

#[test]
fn a_file_that_is_named_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let load = |file: Option<&str>, variable: Option<&str>| {
        let sources = ConfigSources {
            file: file.map(PathBuf::from),
            environment: variable.map(|file| ("ALGA_CONFIG".into(), file.into())),
            flags: Overrides::default(),
        };
        Config::load_in(directory.path(), sources)
    };
    for error in [
        load(Some("other.toml"), None).unwrap_err(),
        load(None, Some("other.toml")).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("other.toml: cannot read the file"), "{text}");
    }
    fs::write(
        directory.path().join("other.toml"),
        "[server]\nlisten = '[::1]:9'",
    )
    .unwrap();
    fs::write(
        directory.path().join("alga.toml"),
        "[server]\nlisten = '[::1]:8'",
    )
    .unwrap();
    assert_eq!(
        load(Some("other.toml"), None).unwrap().server.listen.port(),
        9
    );
    assert_eq!(
        load(Some("alga.toml"), Some("other.toml"))
            .unwrap()
            .server
            .listen
            .port(),
        8
    );
    assert_eq!(
        load(None, Some("other.toml")).unwrap().server.listen.port(),
        9
    );
    assert_eq!(load(None, None).unwrap().server.listen.port(), 8);
}

#[test]
fn a_syntax_error_names_the_line_and_does_not_show_it() {
    let toml = format!("[auth]\n\nservice_tokens = [{{ id = 'x', token = '{TOKEN} }}]");
    let mistakes = Said::toml(&toml).mistakes();
    assert!(
        mistakes[0].starts_with("alga.toml: is no TOML: line 3:"),
        "{mistakes:?}"
    );
    assert!(!mistakes[0].contains(TOKEN), "{mistakes:?}");
}

#[test]
fn the_insecure_mode_listens_on_loopback_only() {
    let said = |listen: &str| {
        Said::toml("[server]\ninsecure_dev = true").and_variables(&[("ALGA_SERVER_LISTEN", listen)])
    };
    for listen in [
        "127.0.0.1:0",
        "127.9.9.9:1",
        "[::1]:0",
        "[::ffff:127.0.0.1]:0",
    ] {
        assert!(said(listen).load().is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", "[::ffff:10.0.0.1]:0"] {
        assert_eq!(
            said(listen).mistakes(),
            [
                "environment: ALGA_SERVER_LISTEN must be a loopback address in the insecure development mode, \
                which lets everybody do everything (see alga.toml: server.insecure_dev)"
            ],
            "{listen}"
        );
    }
}

#[test]
fn the_insecure_mode_takes_no_tokens() {
    let flags = Overrides {
        insecure_dev: true,
        ..Overrides::default()
    };
    let mistakes = Said::variables(&[("ALGA_AUTH_ADMIN_TOKEN", TOKEN)])
        .and_flags(flags)
        .mistakes();
    assert_eq!(
        mistakes,
        [
            "environment: ALGA_AUTH_ADMIN_TOKEN must not be set in the insecure development mode, \
            which asks for no token (see flag: --insecure-dev)"
        ]
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let toml = "
        [engine]
        log_bytes = 100
        [storage.limits]
        min_ttl_seconds = 101
        max_ttl_seconds = 100
        max_page_items = 24
        bulk_items = 10
        get_many_keys = 10
        [storage.quotas]
        warning_percent = 96
        [storage.rates]
        read_burst = 9
        write_burst = 9
    ";
    let mistakes = Said::toml(toml).mistakes();
    let subjects: Vec<_> = mistakes
        .iter()
        .map(|mistake| mistake.split(" must").next().unwrap())
        .collect();
    assert_eq!(
        subjects,
        [
            "default: engine.log_line_bytes",
            "alga.toml: storage.limits.min_ttl_seconds",
            "default: storage.limits.default_page_items",
            "default: storage.quotas.critical_percent",
            "alga.toml: storage.rates.read_burst",
            "alga.toml: storage.rates.write_burst",
        ]
    );
    assert!(
        mistakes[0].ends_with("(see alga.toml: engine.log_bytes)"),
        "{mistakes:?}"
    );
}

#[test]
fn a_quota_may_be_critical_from_the_warning_on_but_not_before() {
    let said = |critical: u8| {
        Said::toml(&format!(
            "[storage.quotas]\nwarning_percent = 50\ncritical_percent = {critical}"
        ))
    };
    assert!(said(50).load().is_ok());
    assert_eq!(
        said(49).mistakes(),
        [
            "alga.toml: storage.quotas.critical_percent must not be below that of the warning \
            (see alga.toml: storage.quotas.warning_percent)"
        ]
    );
}

#[test]
fn tokens_from_a_file_have_ids_and_scopes() {
    let (tenant, install) = (TenantId::generate(), InstallId::generate());
    let file = secret_file(0o640, &format!("{OTHER_TOKEN}\n"));
    let toml = format!(
        "[[auth.service_tokens]]
        id = 'gateway'
        token = '{TOKEN}'
        tenants = ['{tenant}']
        installs = ['{install}']
        [[auth.service_tokens]]
        id = 'worker_2'
        token_file = '{}'",
        file.path().display()
    );
    let tokens = Said::toml(&toml).load().unwrap().auth.service_tokens;
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[0].id, "gateway");
    assert_eq!(tokens[0].token.expose(), TOKEN);
    assert_eq!(tokens[0].scope.tenants, Some([tenant].into()));
    assert_eq!(tokens[0].scope.installs, Some([install].into()));
    assert_eq!(tokens[1].token.expose(), OTHER_TOKEN);
    assert_eq!(tokens[1].scope, TokenScope::default());
}

#[test]
fn no_token_has_an_id_that_the_runner_uses_itself() {
    let load = |id: &str| {
        let toml = format!("[[auth.admin_tokens]]\nid = '{id}'\ntoken = '{TOKEN}'");
        Said::toml(&toml).load().map_err(|error| error.to_string())
    };
    for own in [
        "cli",
        "anybody",
        "local-service",
        "local-admin",
        "env-service-1",
        "env-admin-20",
    ] {
        let said = load(own).map(drop).unwrap_err();
        let expected = format!("must not have the `id` `{own}`, which the runner uses itself");
        assert!(said.contains(&expected), "{said}");
    }
    for free in [
        "cli2",
        "env-service",
        "env-service-x",
        "env-gateway-1",
        "anybody-else",
    ] {
        assert!(load(free).is_ok(), "{free}");
    }
}

#[test]
fn tokens_from_the_environment_replace_those_of_the_file() {
    let toml = format!("[[auth.service_tokens]]\nid = 'gateway'\ntoken = '{TOKEN}'");
    let two = format!("{TOKEN}, {OTHER_TOKEN}");
    let config = Said::toml(&toml)
        .and_variables(&[("ALGA_AUTH_SERVICE_TOKEN", &two)])
        .load()
        .unwrap();
    let tokens = &config.auth.service_tokens;
    let ids: Vec<_> = tokens.iter().map(|token| token.id.as_str()).collect();
    assert_eq!(ids, ["env-service-1", "env-service-2"]);
    assert_eq!(tokens[1].token.expose(), OTHER_TOKEN);
}

#[test]
fn a_token_has_at_least_sixteen_visible_characters() {
    let load = |token: &str| Said::variables(&[("ALGA_AUTH_ADMIN_TOKEN", token)]).load();
    assert!(load("0123456789abcdef").is_ok());
    for token in [
        "0123456789abcde",
        "0123456789 abcdef",
        "0123456789abcdé",
        "a,b",
        ",",
    ] {
        let text = load(token).unwrap_err().to_string();
        assert!(
            text.contains("at least 16 visible ASCII characters"),
            "{text}"
        );
        assert!(!text.contains("0123"), "{text}");
    }
}

#[test]
fn every_mistake_of_a_token_is_reported_without_the_token() {
    let toml = format!(
        "[auth]
        service_tokens = [
            {{ id = 'Gateway', token = '{TOKEN}', tennants = [] }},
            {{ id = '{long}', token = '{TOKEN}', token_file = 'x' }},
            {{ id = 'a', token = '{TOKEN}', tenants = [], installs = ['{TOKEN}'] }},
            '{TOKEN}',
            {{ id = 'b', token_file = '{TOKEN}' }},
        ]
        admin_tokens = '{TOKEN}'",
        long = "x".repeat(65),
    );
    let mistakes = Said::toml(&toml).mistakes();
    let expected = [
        "entry 1 has no field `tennants`",
        "entry 1 must have an `id` of 1 to 64 of a-z, 0-9, - and _",
        "entry 2 must have an `id` of 1 to 64 of a-z, 0-9, - and _",
        "entry 2 must have either a `token` or a `token_file`, as text",
        "entry 3 must have one UUID or more in `tenants`; without the field, all are meant",
        "entry 3 must have one UUID or more in `installs`; without the field, all are meant",
        "entry 4 must be a table",
        "entry 5 has a `token_file` that names a file that cannot be read: ",
        "must be a list of tables; in the variable, tokens separated by commas",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected), "{mistake}");
        assert!(!mistake.contains(TOKEN), "{mistake}");
    }
}

#[test]
fn an_id_or_a_token_occurs_once_whatever_the_role() {
    let toml = format!(
        "[auth]
        service_tokens = [{{ id = 'a', token = '{TOKEN}' }}]
        admin_tokens = [{{ id = 'a', token = '{OTHER_TOKEN}' }}, {{ id = 'b', token = '{TOKEN}' }}]"
    );
    assert_eq!(
        Said::toml(&toml).mistakes(),
        [
            "alga.toml: auth.admin_tokens must not use the id `a` twice (see alga.toml: auth.service_tokens)",
            "alga.toml: auth.admin_tokens must not use the token of `b` twice (see alga.toml: auth.service_tokens)",
        ]
    );
}

#[test]
fn a_master_key_comes_from_a_variable_or_a_file_but_not_from_both() {
    let hex = "07".repeat(32);
    let file = secret_file(0o600, &format!("{hex}\n"));
    let path = file.path().to_str().unwrap();
    let from_variable = Said::variables(&[("ALGA_KEYS_MASTER_KEY", &hex)])
        .load()
        .unwrap();
    let from_file = Said::variables(&[("ALGA_KEYS_MASTER_KEY_FILE", path)])
        .load()
        .unwrap();
    for config in [from_variable, from_file] {
        assert_eq!(config.keys.current().unwrap().expose(), &[7; 32]);
        assert!(config.keys.former().is_none());
    }
    let both = [
        ("ALGA_KEYS_MASTER_KEY", hex.as_str()),
        ("ALGA_KEYS_MASTER_KEY_FILE", path),
    ];
    let mistakes = Said::variables(&both).mistakes();
    assert!(
        mistakes[0].contains("must not be set together with its file"),
        "{mistakes:?}"
    );
}

#[test]
fn a_key_file_that_everybody_can_read_is_refused() {
    let file = secret_file(0o644, &"07".repeat(32));
    let path = file.path().to_str().unwrap();
    let mistakes = Said::variables(&[("ALGA_KEYS_FORMER_MASTER_KEY_FILE", path)]).mistakes();
    assert!(
        mistakes[0].starts_with("environment: ALGA_KEYS_FORMER_MASTER_KEY_FILE names a file"),
        "{mistakes:?}"
    );
    assert!(
        mistakes[0].contains("mode 0644 lets others read it"),
        "{mistakes:?}"
    );
}

#[test]
fn a_key_in_the_place_of_its_file_is_not_shown() {
    let hex = "07".repeat(32);
    let mistakes = Said::variables(&[("ALGA_KEYS_MASTER_KEY_FILE", &hex)]).mistakes();
    assert!(
        mistakes[0].contains("names a file that cannot be read"),
        "{mistakes:?}"
    );
    assert!(!mistakes[0].contains(&hex), "{mistakes:?}");
}

#[test]
fn no_color_counts_whatever_its_value_unless_it_is_empty() {
    let no_color = |value| {
        Said::variables(&[("NO_COLOR", value)])
            .load()
            .unwrap()
            .log
            .no_color
    };
    assert!(no_color("1"));
    assert!(no_color("0"));
    assert!(!no_color(""));
}

#[test]
fn a_log_filter_that_makes_no_sense_is_refused() {
    let load = |filter: &str| Said::variables(&[("ALGA_LOG_FILTER", filter)]).load();
    assert!(load("warn,alga_runner=debug").is_ok());
    for filter in ["alga_runner=loud", " ", "a[b"] {
        assert!(load(filter).is_err(), "{filter}");
    }
}

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
    let documentation = include_str!("../../../docs/configuration.md");
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
