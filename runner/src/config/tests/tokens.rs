//! Tokens of services and administrators.

use super::*;

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
