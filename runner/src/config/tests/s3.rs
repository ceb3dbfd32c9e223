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
        (&[BUCKET, SECRET_KEY][..], "storage.s3.access_key"),
        (&[BUCKET, ACCESS_KEY], "storage.s3.secret_key"),
        (
            &[("STORAGE_S3_BUNDLE_BUCKET", "bundles"), ACCESS_KEY],
            "storage.s3.secret_key",
        ),
        (&[ACCESS_KEY], "storage.s3.bucket"),
        (&[SECRET_KEY], "storage.s3.bucket"),
        (
            &[("STORAGE_S3_ENDPOINT", "http://127.0.0.1:9000")],
            "storage.s3.bucket",
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
    for name in ["", "a/b", "../a", "a b", "a?b", "-a", "a%2fb"] {
        let said = [("STORAGE_S3_BUCKET", name), ACCESS_KEY, SECRET_KEY];
        Said::variables(&said).load().unwrap_err();
    }
}
