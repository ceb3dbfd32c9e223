//! The keys of publishers.

use alga_bundles::SignaturePolicy;

use super::*;

const KEY: &str = "RWSkttj8n8NzstI4NSitL4HcItTPed+8BS7pcLY1vr8ylixhMg1C5i9d";
const OTHER_KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn each_publisher_has_keys_of_its_own_whatever_it_is_called() {
    let toml = format!(
        "[bundles.signatures]
        policy = 'require'
        [bundles.publishers.'Example Ltd']
        keys = ['{KEY}', '{OTHER_KEY}']
        [bundles.publishers.\"A.B. \\\"C\\\"\"]
        keys = ['{OTHER_KEY}']"
    );
    let config = Said::toml(&toml).load().unwrap();
    let check = |config: &Config| {
        let rules = config.bundles.signature_rules();
        assert_eq!(rules.policy, SignaturePolicy::Require);
        let names: Vec<_> = rules.publishers.keys().collect();
        assert_eq!(names, ["A.B. \"C\"", "Example Ltd"]);
        let keys: Vec<_> = rules.publishers["Example Ltd"]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(keys, [KEY, OTHER_KEY]);
    };
    check(&config);
    check(&Said::toml(&config.render()).load().unwrap());
    assert!(Said::toml(&Config::default().render()).load().is_ok());
}

#[test]
fn a_variable_holds_the_same_on_one_line() {
    let table = format!("{{ 'Example Ltd' = {{ keys = ['{KEY}'] }} }}");
    let variables = [
        ("ALGA_BUNDLES_PUBLISHERS", table.as_str()),
        ("ALGA_BUNDLES_SIGNATURES_POLICY", "warn"),
    ];
    let config = Said::variables(&variables).load().unwrap();
    assert_eq!(config.bundles.signature_policy, SignaturePolicy::Warn);
    assert_eq!(config.bundles.publishers["Example Ltd"].len(), 1);
    for text in ["", "Example Ltd", "{}\ndata_dir = 'x'", "{", "[]"] {
        let said = Said::variables(&[("ALGA_BUNDLES_PUBLISHERS", text)]);
        assert_eq!(said.mistakes().len(), 1, "{text}");
    }
}

#[test]
fn every_mistake_about_a_publisher_is_reported() {
    let toml = format!(
        "[bundles.signatures]
        policy = 'sometimes'
        [bundles.publishers.' x']
        keys = ['{KEY}']
        [bundles.publishers.a]
        keys = []
        [bundles.publishers.b]
        key = '{KEY}'
        [bundles.publishers.c]
        keys = ['{KEY}', '{KEY}']
        [bundles.publishers.d]
        keys = ['{KEY}', 'RWS']
        [bundles.publishers]
        e = '{KEY}'"
    );
    assert_eq!(
        Said::toml(&toml).mistakes(),
        [
            "alga.toml: bundles.publishers entry ` x` is not a publisher: a publisher must not start or end with space",
            "alga.toml: bundles.publishers entry `a` must have one key or more in `keys`",
            "alga.toml: bundles.publishers entry `b` has no field `key`",
            "alga.toml: bundles.publishers entry `c` must have a public key of minisign, and each once: key 2 is none",
            "alga.toml: bundles.publishers entry `d` must have a public key of minisign, and each once: key 2 is none",
            "alga.toml: bundles.publishers entry `e` must be a table",
            "alga.toml: bundles.signatures.policy must be off or warn or require",
        ]
    );
}

#[test]
fn a_key_that_is_none_does_not_make_its_publisher_missing() {
    let variables = [
        ("ALGA_BUNDLES_PUBLISHERS", "{ a = { keys = ['RWS'] } }"),
        ("ALGA_BUNDLES_SIGNATURES_POLICY", "require"),
    ];
    assert_eq!(
        Said::variables(&variables).mistakes(),
        [
            "environment: ALGA_BUNDLES_PUBLISHERS entry `a` must have a public key of minisign, and each once: \
             key 1 is none"
        ]
    );
}

#[test]
fn signatures_of_nobody_cannot_be_required() {
    let said = Said::variables(&[("ALGA_BUNDLES_SIGNATURES_POLICY", "require")]);
    assert_eq!(
        said.mistakes(),
        [
            "default: bundles.publishers (ALGA_BUNDLES_PUBLISHERS) must name a publisher where signatures are required, or \
             nobody can publish (see environment: ALGA_BUNDLES_SIGNATURES_POLICY)"
        ]
    );
}
