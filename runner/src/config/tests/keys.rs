//! The master key.

use super::*;

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
