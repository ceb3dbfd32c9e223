mod bundles;
mod keys;
mod rendering;
mod s3;
mod storage;
mod tokens;

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
fn a_setting_is_named_with_the_variable_that_set_it() {
    let said = Said::toml("[engine]\ntimeout_ms = 11\n");
    let config = said.and_variables(&[("ALGA_SERVER", "http://127.0.0.1:2")]);
    let config = config.load().unwrap();
    for (key, expected) in [
        ("client.server", "`client.server` (ALGA_SERVER)"),
        ("engine.timeout_ms", "`engine.timeout_ms`"),
        ("data_dir", "`data_dir`"),
    ] {
        assert_eq!(config.named(key), expected);
    }
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
