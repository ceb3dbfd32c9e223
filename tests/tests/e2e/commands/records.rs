//! The records of an install, written and read by commands.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use alga_e2e::guest;
use alga_model::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::meddle;
use super::{bulk_of, json_of, lines_of, run_with};
use crate::deployment::{Deployment, path};

/// The extension with the namespace `notes`.
fn install(deployment: &Deployment) -> String {
    let installed = deployment.install("com.example.echo", &guest::echo());
    installed.install
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim_end()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn records_are_written_and_read_under_guards() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let put = |key: &str, value: &str, more: &[&str]| {
        let mut arguments = vec!["storage", "put", &install, "notes", key, value];
        arguments.extend(more);
        deployment.run(&arguments)
    };
    let revision =
        |output: std::process::Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!(
        revision(put(
            "a",
            r#"{ "n": 1e5, "t": "ü" }"#,
            &["--if-absent", "--metadata", r#"{"by": "me"}"#]
        )),
        "1"
    );
    assert!(!put("a", "2", &["--if-absent"]).status.success());
    assert!(!put("a", "2", &["--if-revision", "7"]).status.success());
    assert!(!put("b", "2", &["--if-exists"]).status.success());
    let unquoted = put("a", "hello", &[]);
    assert!(stderr(&unquoted).contains(r#"'"hello"'"#), "{unquoted:?}");
    let cut_off = put("a", r#"{"a": "#, &[]);
    assert!(!stderr(&cut_off).contains("hello"), "{cut_off:?}");
    assert_eq!(
        deployment.ok(&["storage", "get", &install, "notes", "a"]),
        r#"{"n":1e5,"t":"ü"}"#
    );
    assert_eq!(revision(put("a", "2", &["--if-revision", "1"])), "2");
    for i in 0..30 {
        assert!(
            put(&format!("k{i:02}"), "0", &["--ttl", "1m"])
                .status
                .success()
        );
    }
    let listed = deployment.ok(&[
        "storage", "list", &install, "notes", "--prefix", "k", "--values", "--limit", "3",
    ]);
    let keys: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|record| {
            assert!(
                record["ttlExpiresAt"].is_string() && record["value"] == 0,
                "{record}"
            );
        })
        .map(|record| record["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["k00", "k01", "k02"]);
    assert_eq!(
        deployment
            .ok(&["storage", "list", &install, "notes"])
            .lines()
            .count(),
        31
    );
}

#[test]
fn a_guard_that_fails_tells_what_is_there() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let put = |value: &str, more: &[&str]| {
        let put = ["storage", "put", &install, "notes", "a", value];
        deployment.run(&[&put, more].concat())
    };
    let nothing = put("1", &["--if-revision", "3", "--return-current"]);
    assert_eq!((nothing.status.code(), stdout(&nothing)), (Some(4), ""));
    assert!(stderr(&nothing).contains("no such record"), "{nothing:?}");

    let first = put(
        r#"{"n": 1e5}"#,
        &["--if-revision", "0", "--return-previous"],
    );
    let first = json_of(stdout(&first));
    assert_eq!(
        (&first["revision"], &first["previous"]),
        (&json!(1), &Value::Null)
    );
    let second = put("2", &["--return-previous"]);
    assert!(
        stdout(&second)
            .contains(r#""previous":{"key":"a","revision":1,"value":{"n":1e5},"metadata":{}"#),
        "{second:?}"
    );

    for guard in [&["--if-absent"][..], &["--if-revision", "1"]] {
        let silent = put("3", guard);
        assert_eq!((silent.status.code(), stdout(&silent)), (Some(4), ""));
        assert!(stderr(&silent).contains("revision 2"), "{silent:?}");
        let telling = put("3", &[guard, &["--return-current"]].concat());
        let current = json_of(stdout(&telling));
        assert_eq!(telling.status.code(), Some(4));
        assert_eq!(
            (&current["revision"], &current["value"]),
            (&json!(2), &json!(2))
        );
    }

    let get = ["storage", "get", &install, "notes", "a", "--if-revision"];
    assert_eq!(deployment.ok(&[&get[..], &["2"]].concat()), "2");
    let stale = deployment.fails(&[&get[..], &["1"]].concat());
    assert!(stale.contains("revision 2"), "{stale}");
    let zero = deployment.fails(&[&get[..], &["0"]].concat());
    assert!(zero.contains("ifRevision"), "{zero}");
}

#[test]
fn a_delete_says_whether_there_was_a_record() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    deployment.ok(&["storage", "put", &install, "notes", "a", "1"]);
    let delete = ["storage", "delete", &install, "notes", "a"];
    let with = |more: &[&'static str]| [&delete[..], more].concat();
    let stale = deployment.fails(&with(&["--if-revision", "2"]));
    assert!(stale.contains("revision 1"), "{stale}");
    let deleted = deployment.ok(&with(&["--if-revision", "1"]));
    assert_eq!(deleted, r#"{"deleted":true}"#);
    assert_eq!(deployment.ok(&delete), r#"{"deleted":false}"#);
    for guard in [&["--if-exists"][..], &["--if-revision", "1"]] {
        let nothing = deployment.fails(&with(guard));
        assert!(nothing.contains("no such record"), "{nothing}");
    }
    let absent = deployment.fails(&with(&["--if-revision", "0"]));
    assert!(absent.contains("ifRevision"), "{absent}");
}

#[test]
fn several_records_are_read_in_the_order_asked() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    for key in ["a", "b"] {
        deployment.ok(&["storage", "put", &install, "notes", key, "[1.0]"]);
    }
    let get_many = ["storage", "get-many", &install, "notes"];
    let printed = deployment.ok(&[&get_many[..], &["b", "none", "a", "b"]].concat());
    let keys: Vec<_> = lines_of(&printed)
        .iter()
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["b", "none", "a", "b"]);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[1], r#"{"key":"none","found":false}"#);
    assert!(
        lines[0].contains(r#""value":[1.0],"metadata":{}"#),
        "{printed}"
    );

    assert!(deployment.fails(&get_many).contains("<KEY>"));
    let keys: Vec<_> = (0..101).map(|i| format!("k{i}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    assert_eq!(
        lines_of(&deployment.ok(&[&get_many[..], &keys[..100]].concat())).len(),
        100
    );
    let too_many = deployment.fails(&[&get_many[..], &keys].concat());
    assert!(too_many.contains("at most 100, not 101"), "{too_many}");
    let bad = deployment.fails(&[&get_many[..], &["a", "b/c", "d"]].concat());
    assert!(
        bad.contains("key 'b/c'\n  because: VALIDATION_FAILED: "),
        "{bad}"
    );
}

#[test]
fn a_bulk_is_written_as_a_whole_or_not_at_all() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let bulk_put = ["storage", "bulk-put", &install, "notes"];
    let bulk = |input: &str| run_with(&deployment, &bulk_put, input);

    let file = deployment.scratch("bulk.jsonl");
    let items = [
        r#"{"key": "b", "value": { "n": 1e5 }, "metadata": {"by": "me"}, "ttlSeconds": 60}"#,
        "",
        r#"{"key": "a", "value": null, "ifRevision": 0}"#,
    ];
    fs::write(&file, items.join("\n")).unwrap();
    let written = lines_of(&deployment.ok(&[&bulk_put[..], &[path(&file)]].concat()));
    let [b, a] = &written[..] else {
        panic!("{written:?}")
    };
    assert_eq!((&b["key"], &b["revision"]), (&json!("b"), &json!(1)));
    assert!(b["ttlExpiresAt"].is_string() && a["ttlExpiresAt"].is_null());
    let stored = deployment.ok(&["storage", "get-many", &install, "notes", "a", "b"]);
    assert!(
        stored.contains(r#""value":null,"#)
            && stored.contains(r#""value":{"n":1e5},"metadata":{"by":"me"}"#),
        "{stored}"
    );

    let good = r#"{"key": "new", "value": 1}"#;
    for (bad, reason) in [
        (
            r#"{"key": "a", "value": 2, "ifRevision": 0}"#,
            "key 'a'\n  because: REVISION_MISMATCH: the guard",
        ),
        (
            r#"{"key": "c", "value": 2, "ifExists": true}"#,
            "no such record",
        ),
        (
            r#"{"key": "c", "value": 2, "ttlSeconds": 59}"#,
            "at least 60, not 59",
        ),
        (r#"{"key": "c", "value": "\u0000"}"#, "U+0000"),
        (r#"{"key": "c", "value": 2, "metadata": []}"#, "metadata"),
        (r#"{"key": "new", "value": 2}"#, "twice"),
        (r#"{"key": "c", "vlaue": 2}"#, "vlaue"),
        (r#"{"key": "c", "value": 2"#, "at column"),
        (
            r#"{"key": "c", "value": 2, "schemaVersion": 1}"#,
            "schema version 1",
        ),
    ] {
        let refused = bulk(&format!("{good}\n\n{bad}\n"));
        assert!(!refused.status.success() && stdout(&refused).is_empty());
        let said = stderr(&refused);
        assert!(
            said.contains("nothing was written\n  because: cannot write line 3 (item 1)")
                && said.contains(reason),
            "{said}"
        );
    }
    let array = bulk(r#"[{"key": "new", "value": 1}, {"key": "a", "value": 2, "ifAbsent": true}]"#);
    assert_eq!(array.status.code(), Some(4));
    assert!(
        stderr(&array).contains("cannot write item 1, key 'a'"),
        "{array:?}"
    );
    let too_many = bulk(&bulk_of("k", 21));
    assert!(
        stderr(&too_many).contains("at most 20, not 21"),
        "{too_many:?}"
    );
    let empty = bulk("\n");
    assert!(stderr(&empty).contains("nothing to write"), "{empty:?}");
    assert_eq!(empty.status.code(), Some(5));
    let list = ["storage", "list", &install, "notes"];
    assert_eq!(
        deployment.ok(&list).lines().count(),
        2,
        "nothing was written"
    );

    let full = bulk(&bulk_of("k", 20));
    assert_eq!(lines_of(stdout(&full)).len(), 20, "{full:?}");
    assert_eq!(deployment.ok(&list).lines().count(), 22);
    let missing = deployment.fails(&[&bulk_put[..], &["no-such-file"]].concat());
    assert!(missing.contains("no-such-file"), "{missing}");
}

#[test]
fn a_listing_keeps_within_bounds_and_goes_on_to_its_end() {
    let mut deployment = Deployment::new();
    // Pages so small, and reads so rare, that a listing has to turn pages and to wait.
    for (name, value) in [
        ("ALGA_STORAGE_LIMITS_MAX_PAGE_ITEMS", "2"),
        ("ALGA_STORAGE_LIMITS_DEFAULT_PAGE_ITEMS", "1"),
        ("ALGA_STORAGE_LIMITS_GET_MANY_KEYS", "1"),
        ("ALGA_STORAGE_RATES_READ_BURST", "1"),
        ("ALGA_STORAGE_RATES_READ_PER_SECOND", "50"),
    ] {
        deployment.set(name, value);
    }
    let install = install(&deployment);
    let written = run_with(
        &deployment,
        &["storage", "bulk-put", &install, "notes"],
        &bulk_of("k", 7),
    );
    assert!(written.status.success(), "{written:?}");
    let list = |more: &[&str]| -> String {
        let list = ["storage", "list", &install, "notes"];
        lines_of(&deployment.ok(&[&list[..], more].concat()))
            .iter()
            .map(|line| {
                line["key"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches("k0")
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(list(&[]), "0123456");
    assert_eq!(list(&["--start", "k02", "--end", "k06"]), "2345");
    assert_eq!(
        list(&["--start", "k02", "--end", "k06", "--reverse"]),
        "5432"
    );
    assert_eq!(list(&["--start", "k02", "--limit", "3"]), "234");
    assert_eq!(list(&["--start", "k06", "--end", "k02"]), "");
    assert_eq!(list(&["--prefix", "k", "--end", "k01"]), "0");
    assert_eq!(list(&["--limit", "4294967295"]), "0123456");
    let none = deployment.run(&["storage", "list", &install, "notes", "--limit", "0"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

#[test]
fn a_namespace_is_copied_by_writing_what_is_listed() {
    let mut deployment = Deployment::new();
    // Writes so rare that the batches have to wait.
    deployment.set("ALGA_STORAGE_RATES_WRITE_BURST", "20");
    deployment.set("ALGA_STORAGE_RATES_WRITE_PER_SECOND", "200");
    let (from, to) = (install(&deployment), install(&deployment));
    let bulk_put = |install: &str, input: &str| {
        let bulk_put = ["storage", "bulk-put", install, "notes", "--batch", "50"];
        run_with(&deployment, &bulk_put, input)
    };
    let original = (0..45).map(|i| match i % 3 {
        0 => format!(r#"{{"key": "k{i}", "value": {{"n": 1e{i}}}, "ttlSeconds": 86400}}"#),
        1 => format!(r#"{{"key": "k{i}", "value": null, "metadata": {{"i": {i}}}}}"#),
        _ => format!(r#"{{"key": "k{i}", "value": "{}"}}"#, "x".repeat(60_000)),
    });
    let original: Vec<_> = original.collect();
    let written = bulk_put(&from, &original.join("\n"));
    assert_eq!(lines_of(stdout(&written)).len(), 45, "{written:?}");
    deployment.ok(&["storage", "put", &from, "notes", "k0", "0", "--ttl", "1d"]);

    let list = |install| deployment.ok(&["storage", "list", install, "notes", "--values"]);
    let listed = list(&from);
    let gone = r#"{"key":"gone","value":1,"ttlExpiresAt":"2020-01-01T00:00:00.000Z"}"#;
    let copied = bulk_put(&to, &format!("{gone}\n{listed}\n"));
    assert!(copied.status.success(), "{copied:?}");
    assert!(
        stderr(&copied).contains("skipped line 1 (item 0), key 'gone': it expired at 2020"),
        "{copied:?}"
    );
    let (before, after) = (lines_of(&listed), lines_of(&list(&to)));
    assert_eq!(before.len(), after.len());
    let end = |record: &Value| {
        let end = record["ttlExpiresAt"].as_str()?.parse::<Timestamp>();
        Some(end.unwrap().as_millis())
    };
    for (old, new) in before.iter().zip(&after) {
        for member in ["key", "value", "metadata"] {
            assert_eq!(old[member], new[member]);
        }
        assert_eq!(new["revision"], 1);
        match (end(old), end(new)) {
            (None, None) => {}
            (Some(old), Some(new)) => assert!(old.abs_diff(new) < 60_000, "{old} {new}"),
            different => panic!("{different:?}"),
        }
    }
    assert!(list(&to).contains(r#""value":{"n":1e3},"#));
}

#[test]
fn a_batch_that_fails_says_what_was_written_before() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let bulk_put = ["storage", "bulk-put", &install, "notes", "--batch", "3"];
    let bulk = |input: &str| run_with(&deployment, &bulk_put, input);
    let count = || {
        let listed = deployment.ok(&["storage", "list", &install, "notes"]);
        listed.lines().count()
    };
    let lines = format!(
        "{}{}\n{}",
        bulk_of("a", 7),
        r#"{"key": "b", "value": 1, "ifExists": true}"#,
        bulk_of("c", 5)
    );
    let failed = bulk(&lines);
    assert_eq!(failed.status.code(), Some(4));
    assert_eq!((lines_of(stdout(&failed)).len(), count()), (6, 6));
    assert!(
        stderr(&failed).contains(
            "error: 6 records were written, up to line 6 (item 5)\n  \
             because: cannot write line 8 (item 7), key 'b'\n  because: REVISION_MISMATCH: "
        ),
        "{failed:?}"
    );
    let unread = bulk(&format!("{}{{\n", bulk_of("a", 3)));
    assert!(
        stderr(&unread).contains("nothing was written\n  because: cannot write line 4 (item 3)"),
        "{unread:?}"
    );
    let folder = deployment.fails(&[
        "storage", "bulk-put", &install, "notes", "/", "--batch", "3",
    ]);
    assert!(folder.contains("cannot read /"), "{folder}");
    for bad in ["0", "101"] {
        let refused = deployment.run(&[&bulk_put[..5], &[bad]].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

#[test]
fn batches_are_written_though_nobody_reads_the_results() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let mut child = deployment
        .command(&["storage", "bulk-put", &install, "notes", "--batch", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(bulk_of("k", 9).as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let listed = deployment.ok(&["storage", "list", &install, "notes"]);
    assert_eq!(listed.lines().count(), 9);
}

#[test]
fn value_or_metadata_is_read_from_standard_input() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let put = |value: &str, metadata: &str, input: &str| {
        let put = ["storage", "put", &install, "notes", "a", value];
        run_with(
            &deployment,
            &[&put[..], &["--metadata", metadata]].concat(),
            input,
        )
    };
    assert!(put("1", "-", "{\"by\": 1e2}\n").status.success());
    let stored = deployment.ok(&["storage", "get-many", &install, "notes", "a"]);
    assert!(stored.contains(r#""metadata":{"by":1e2}"#), "{stored}");
    assert!(put("-", "{}", "2").status.success());
    assert_eq!(
        deployment.ok(&["storage", "get", &install, "notes", "a"]),
        "2"
    );
    let both = put("-", "-", "{}");
    assert!(stderr(&both).contains("can't be both"), "{both:?}");
    let bad = put("1", "-", "[]");
    assert_eq!(bad.status.code(), Some(5));
    assert!(stderr(&bad).contains("metadata"), "{bad:?}");
}

#[test]
fn scripts_tell_failures_apart() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let put = ["storage", "put", &install, "notes", "a", "1"];
    deployment.ok(&put);
    let with = |more: &[&'static str]| [&put[..], more].concat();
    for (command, status, code) in [
        (
            vec!["storage", "get", &install, "notes", "none"],
            3,
            "NOT_FOUND",
        ),
        (with(&["--if-absent"]), 4, "REVISION_MISMATCH"),
        (with(&["--ttl", "59"]), 5, "LIMIT_EXCEEDED"),
        (with(&["--schema-version", "1"]), 5, "VALIDATION_FAILED"),
        (
            vec!["storage", "get", &install, "other", "a"],
            5,
            "NAMESPACE_DENIED",
        ),
        (
            vec!["storage", "get", &install, "No", "a"],
            5,
            "VALIDATION_FAILED",
        ),
        (with(&["--ttl", "soon"]), 2, "--ttl"),
        (
            vec![
                "storage",
                "get",
                "0a65bd21-6d4b-4d08-a02a-3a9a94cd1ea3",
                "notes",
                "a",
            ],
            1,
            "there is no install",
        ),
    ] {
        let failed = deployment.run(&command);
        assert_eq!(failed.status.code(), Some(status), "{failed:?}");
        assert!(stderr(&failed).contains(code), "{failed:?}");
    }
    let limit = deployment.fails(&with(&["--ttl", "31d"]));
    assert!(
        limit.contains(&format!("`alga-runner install limits {install}`")),
        "{limit}"
    );
}

#[test]
fn a_damaged_record_is_named() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    for key in ["a", "b"] {
        deployment.ok(&["storage", "put", &install, "notes", key, "1"]);
    }
    let damage = "UPDATE ext_storage_records SET value = '{oops' WHERE key = 'b'";
    meddle(&deployment, "storage.sqlite3", damage);
    for command in [
        &["storage", "list", &install, "notes", "--values"][..],
        &["storage", "get-many", &install, "notes", "a", "b"],
    ] {
        let damaged = deployment.run(command);
        assert_eq!(damaged.status.code(), Some(1));
        assert_eq!(lines_of(stdout(&damaged)).len(), 1, "{damaged:?}");
        assert!(
            stderr(&damaged).contains("the record 'b' in the namespace 'notes' is damaged"),
            "{damaged:?}"
        );
    }
}

#[test]
fn records_of_an_install_that_does_not_run_are_out_of_reach() {
    let deployment = Deployment::new();
    let install = install(&deployment);
    let stranger = Uuid::new_v4().to_string();
    let unknown = deployment.fails(&["storage", "delete", &stranger, "notes", "a"]);
    assert!(unknown.contains("install list"), "{unknown}");
    deployment.ok(&["install", "grant", &install, "--none"]);
    let denied = deployment.fails(&["storage", "get-many", &install, "notes", "a"]);
    for hint in ["show", "grant"] {
        let hint = format!("`alga-runner install {hint} {install}`");
        assert!(denied.contains(&hint), "{denied}");
    }
    deployment.ok(&["install", "disable", &install]);
    let disabled = deployment.run(&["storage", "list", &install, "notes"]);
    assert_eq!(disabled.status.code(), Some(5));
    let hint = format!("is disabled; `alga-runner install enable {install}`");
    assert!(stderr(&disabled).contains(&hint), "{disabled:?}");
}
