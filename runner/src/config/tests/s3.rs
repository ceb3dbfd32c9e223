use super::*;

const BUCKET: (&str, &str) = ("STORAGE_S3_BUCKET", "shared");
const ACCESS_KEY: (&str, &str) = ("STORAGE_S3_ACCESS_KEY", "someone");
const SECRET_KEY: (&str, &str) = ("STORAGE_S3_SECRET_KEY", "something-secret");

#[test]
fn a_bucket_of_bundles_is_stronger_than_the_one_for_everything() {
    let said = [BUCKET, ACCESS_KEY, SECRET_KEY];
    let config = Said::variables(&said).load().unwrap();
    assert_eq!(config.s3.bundles(), Some("shared"));
    let said = Said::variables(&said).and_variables(&[("STORAGE_S3_BUNDLE_BUCKET", "bundles")]);
    assert_eq!(said.load().unwrap().s3.bundles(), Some("bundles"));
    assert_eq!(Said::default().load().unwrap().s3.bundles(), None);
}

#[test]
fn half_a_bucket_is_a_mistake_that_names_what_is_missing() {
    for (said, missing) in [
        (
            &[BUCKET, SECRET_KEY][..],
            "storage.s3.access_key (STORAGE_S3_ACCESS_KEY)",
        ),
        (
            &[BUCKET, ACCESS_KEY],
            "storage.s3.secret_key (STORAGE_S3_SECRET_KEY)",
        ),
        (
            &[("STORAGE_S3_BUNDLE_BUCKET", "bundles"), ACCESS_KEY],
            "storage.s3.secret_key (STORAGE_S3_SECRET_KEY)",
        ),
        (&[ACCESS_KEY], "storage.s3.bucket (STORAGE_S3_BUCKET)"),
        (&[SECRET_KEY], "storage.s3.bucket (STORAGE_S3_BUCKET)"),
        (
            &[("STORAGE_S3_ENDPOINT", "http://127.0.0.1:9000")],
            "storage.s3.bucket (STORAGE_S3_BUCKET)",
        ),
    ] {
        let mistakes = Said::variables(said).mistakes();
        let [mistake] = mistakes.as_slice() else {
            panic!("{mistakes:?}");
        };
        assert!(
            mistake.starts_with(&format!("default: {missing} must be set")),
            "{mistake}"
        );
    }
}

#[test]
fn a_missing_bucket_is_said_once_however_much_else_is_set() {
    let said = [
        ("STORAGE_S3_ENDPOINT", "http://127.0.0.1:9000"),
        ACCESS_KEY,
        SECRET_KEY,
    ];
    assert_eq!(
        Said::variables(&said).mistakes(),
        [
            "default: storage.s3.bucket (STORAGE_S3_BUCKET) must be set where something else of S3 is: without it bundles would \
             be in the data folder (see environment: STORAGE_S3_ENDPOINT)"
        ]
    );
}

#[test]
fn what_a_bad_value_would_have_been_is_no_second_mistake() {
    for (name, value, key) in [
        ("STORAGE_S3_BUCKET", "a/b", "bucket"),
        ("STORAGE_S3_BUNDLE_BUCKET", "a/b", "bundle bucket"),
    ] {
        let said = [(name, value), ACCESS_KEY, SECRET_KEY];
        let mistakes = Said::variables(&said).mistakes();
        assert_eq!(mistakes.len(), 1, "{key}: {mistakes:?}");
        assert!(mistakes[0].contains(name), "{mistakes:?}");
    }
    let said = [BUCKET, ACCESS_KEY, ("STORAGE_S3_SECRET_KEY_FILE", "")];
    assert_eq!(Said::variables(&said).mistakes().len(), 1, "it is not set");
}

#[test]
fn a_typing_error_in_a_name_of_s3_is_noticed() {
    let said = [
        ("STORAGE_S3_BUKET", "x"),
        ("STORAGE_S3_FAVOURITE_COLOUR", "blue"),
        // As platforms set what they have no value for.
        ("STORAGE_S3_SESSION_TOKEN", ""),
        ("STORAGE_S3_SERVICE_HOST", "10.0.0.1"),
        ("STORAGE_S4_BUCKET", "x"),
    ];
    assert_eq!(
        Said::variables(&said).mistakes(),
        [
            "environment: STORAGE_S3_BUKET is not a setting; did you mean STORAGE_S3_BUCKET?",
            "environment: STORAGE_S3_FAVOURITE_COLOUR is not a setting",
        ]
    );
}

#[test]
fn the_file_of_a_secret_key_is_enough() {
    let file = secret_file(0o600, "something-secret");
    let path = file.path().to_str().unwrap();
    let said = [BUCKET, ACCESS_KEY, ("STORAGE_S3_SECRET_KEY_FILE", path)];
    Said::variables(&said).load().unwrap();
}

#[test]
fn keys_are_shown_nowhere() {
    let config = Said::variables(&[BUCKET, ACCESS_KEY, SECRET_KEY])
        .load()
        .unwrap();
    for text in [config.render(), format!("{config:?}")] {
        assert!(text.contains("shared"));
        assert!(!text.contains(ACCESS_KEY.1) && !text.contains(SECRET_KEY.1));
    }
}

#[test]
fn names_that_would_change_a_request_are_refused() {
    let long = "a".repeat(256);
    for name in ["", "a/b", "../a", "a b", "a?b", "-a", "_a", "a%2fb", &long] {
        let said = [("STORAGE_S3_BUCKET", name), ACCESS_KEY, SECRET_KEY];
        Said::variables(&said).load().unwrap_err();
    }
    for name in ["no_such", "a.b-c", "9", &long[1..]] {
        let said = [("STORAGE_S3_BUCKET", name), ACCESS_KEY, SECRET_KEY];
        Said::variables(&said).load().unwrap();
    }
    let said = [("STORAGE_S3_BUCKET", "a/b"), ACCESS_KEY, SECRET_KEY];
    let mistakes = Said::variables(&said).mistakes();
    assert!(mistakes[0].contains("underscores"), "{mistakes:?}");
}
