//! What others rely on word for word, so that a change is seen in review.

use alga_storage::ErrorCode;

use crate::deployment::Deployment;

#[test]
fn the_codes_of_storage_errors() {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    insta::assert_snapshot!(codes.join("\n"));
}

#[test]
fn the_help_of_every_command() {
    let deployment = Deployment::new();
    let commands = [
        vec![],
        vec!["serve"],
        vec!["bundle"],
        vec!["bundle", "pack"],
        vec!["bundle", "inspect"],
        vec!["bundle", "verify"],
        vec!["bundle", "add"],
        vec!["bundle", "keygen"],
        vec!["bundle", "sign"],
        vec!["bundle", "statement"],
        vec!["bundle", "push"],
        vec!["bundle", "sweep"],
        vec!["bundle", "gc"],
        vec!["bundle", "fsck"],
        vec!["install"],
        vec!["install", "create"],
        vec!["install", "list"],
        vec!["install", "show"],
        vec!["install", "grant"],
        vec!["install", "upgrade"],
        vec!["install", "rollback"],
        vec!["install", "enable"],
        vec!["install", "disable"],
        vec!["install", "uninstall"],
        vec!["install", "set"],
        vec!["install", "logs"],
        vec!["install", "invocations"],
        vec!["install", "limits"],
        vec!["extension"],
        vec!["extension", "list"],
        vec!["extension", "show"],
        vec!["tenant"],
        vec!["tenant", "limits"],
        vec!["invoke"],
        vec!["storage"],
        vec!["storage", "get"],
        vec!["storage", "get-many"],
        vec!["storage", "put"],
        vec!["storage", "bulk-put"],
        vec!["storage", "delete"],
        vec!["storage", "list"],
        vec!["storage", "shards"],
        vec!["storage", "sweep"],
        vec!["usage"],
        vec!["usage", "show"],
        vec!["usage", "verify"],
        vec!["switches"],
        vec!["switches", "storage"],
        vec!["switches", "allow"],
        vec!["audit"],
        vec!["migrate"],
        vec!["migrate", "down"],
        vec!["config"],
    ];
    let help = commands.map(|command| {
        let arguments: Vec<_> = command.into_iter().chain(["--help"]).collect();
        format!(
            "$ alga-runner {}\n{}\n",
            arguments.join(" "),
            deployment.ok(&arguments)
        )
    });
    insta::assert_snapshot!(help.join("\n"));
}
