//! What is to be done about the bundles that `bundle fsck` found damaged.

use std::collections::BTreeMap;

use alga_model::ContentHash;

use crate::bundle_care::{Damage, Finding, VersionName};

/// The most versions that are named. All of them are in what is printed for programs.
const MOST_NAMED: usize = 20;

/// What is left to be done about a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// A repair.
    Repair,
    /// Its bundle must be published again.
    Publish,
    /// A repair, and then the same.
    RepairAndPublish,
    /// Nobody knows, as it could not be read.
    Unknown,
}

impl Left {
    /// Where nothing was repaired.
    pub(super) const fn without_repair(finding: &Finding) -> Self {
        match finding.damage {
            // What the registry doesn't know, nobody needs.
            Damage::Content { .. } if finding.version.is_none() => Self::Repair,
            Damage::Content { .. } => Self::RepairAndPublish,
            Damage::Missing { .. } => Self::Publish,
            Damage::Manifest { .. } => Self::Repair,
            Damage::Unreadable { .. } => Self::Unknown,
        }
    }

    /// After a repair, which says whether the bundle is as it should be.
    pub(super) const fn after_repair(finding: &Finding, is_whole: bool) -> Self {
        match finding.damage {
            _ if is_whole => Self::Nothing,
            Damage::Unreadable { .. } => Self::Unknown,
            _ => Self::Publish,
        }
    }
}

/// The bundles in which something was found, each of them once.
#[derive(Debug, Default)]
pub(super) struct Advice(BTreeMap<ContentHash, Bundle>);

#[derive(Debug, Default)]
struct Bundle {
    name: Option<VersionName>,
    /// What is left of each of its damages.
    left: Vec<Left>,
}

impl Bundle {
    fn has(&self, left: Left) -> bool {
        self.left.contains(&left)
    }

    fn needs_publishing(&self) -> bool {
        self.has(Left::Publish) || self.has(Left::RepairAndPublish)
    }

    fn needs_repair(&self) -> bool {
        // Publishing puts the manifest beside the bundle as well.
        self.has(Left::RepairAndPublish) || (self.has(Left::Repair) && !self.needs_publishing())
    }

    fn is_damaged(&self) -> bool {
        self.needs_publishing() || self.needs_repair()
    }

    fn is_unreadable(&self) -> bool {
        self.has(Left::Unknown)
    }

    fn is_settled(&self) -> bool {
        !self.is_damaged() && !self.is_unreadable()
    }
}

impl Advice {
    /// Takes a finding into account, of which so much is left.
    pub(super) fn add(&mut self, finding: &Finding, left: Left) {
        let bundle = self.0.entry(finding.damage.content_hash()).or_default();
        if bundle.name.is_none() {
            bundle.name.clone_from(&finding.version);
        }
        bundle.left.push(left);
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_settled(&self) -> bool {
        self.0.values().all(Bundle::is_settled)
    }

    /// What to tell a person, where so many bundles were looked at; none where not everything was.
    pub(super) fn lines(&self, looked_at: Option<u64>) -> Vec<String> {
        let count = |is: fn(&Bundle) -> bool| self.0.values().filter(|it| is(it)).count() as u64;
        let of_all = |count| match looked_at {
            Some(all) => format!("{count} of {}", bundles(all)),
            None => bundles(count),
        };
        let mut lines = Vec::new();
        if let Some(all) = looked_at.filter(|_| self.0.is_empty()) {
            lines.push(format!("{} looked at, nothing found", bundles(all)));
        }
        let unreadable = count(Bundle::is_unreadable);
        for (number, what) in [
            (count(Bundle::is_settled), "repaired"),
            (count(Bundle::is_damaged), "damaged"),
            (unreadable, "could not be read"),
        ] {
            if number > 0 {
                lines.push(format!("{} {what}", of_all(number)));
            }
        }
        let repair = self.0.values().any(Bundle::needs_repair);
        match (repair, self.to_publish()) {
            (true, None) => lines.push("run again with --repair".to_owned()),
            (true, Some(names)) => {
                lines.push(format!("run again with --repair, then publish: {names}"));
            }
            (false, Some(names)) => lines.push(format!("publish again: {names}")),
            (false, None) => {}
        }
        if unreadable > 0 {
            lines.push("run again when the store can be read".to_owned());
        }
        lines
    }

    /// The names of the bundles that must be published again.
    fn to_publish(&self) -> Option<String> {
        let to_publish = self
            .0
            .iter()
            .filter(|(_, bundle)| bundle.needs_publishing());
        let mut names: Vec<_> = to_publish
            .map(|(hash, bundle)| {
                let name = bundle.name.as_ref();
                name.map_or_else(|| hash.to_string(), ToString::to_string)
            })
            .collect();
        names.sort();
        let more = names.len().saturating_sub(MOST_NAMED);
        names.truncate(MOST_NAMED);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

fn bundles(count: u64) -> String {
    match count {
        1 => "1 bundle".to_owned(),
        count => format!("{count} bundles"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bundle: &str, damage: fn(ContentHash) -> Damage) -> Finding {
        Finding {
            damage: damage(ContentHash::of(bundle.as_bytes())),
            version: Some(VersionName {
                extension: format!("com.example.{bundle}").parse().unwrap(),
                version: "1.0.0".to_owned(),
            }),
        }
    }

    const fn manifest(content_hash: ContentHash) -> Damage {
        Damage::Manifest { content_hash }
    }

    const fn missing(content_hash: ContentHash) -> Damage {
        Damage::Missing { content_hash }
    }

    const fn content(content_hash: ContentHash) -> Damage {
        Damage::Content {
            content_hash,
            actual: content_hash,
        }
    }

    fn unreadable(content_hash: ContentHash) -> Damage {
        Damage::Unreadable {
            content_hash,
            key: String::new(),
            reason: String::new(),
        }
    }

    fn advice(findings: &[Finding]) -> Advice {
        let mut advice = Advice::default();
        for finding in findings {
            advice.add(finding, Left::without_repair(finding));
        }
        advice
    }

    #[test]
    fn where_nothing_was_found_it_is_said_in_how_many_bundles() {
        let nothing = Advice::default();
        assert!(nothing.is_settled());
        for (looked_at, line) in [
            (0, "0 bundles looked at, nothing found"),
            (1, "1 bundle looked at, nothing found"),
            (2, "2 bundles looked at, nothing found"),
        ] {
            assert_eq!(nothing.lines(Some(looked_at)), [line]);
        }
        assert_eq!(nothing.lines(None), [""; 0]);
    }

    #[test]
    fn a_missing_copy_of_a_manifest_needs_a_repair_alone() {
        let advice = advice(&[of("notes", manifest)]);
        assert!(!advice.is_settled());
        let expected = ["1 of 3 bundles damaged", "run again with --repair"];
        assert_eq!(advice.lines(Some(3)), expected);
    }

    #[test]
    fn a_bundle_without_anything_counts_once_and_is_published_again() {
        let advice = advice(&[of("notes", missing), of("notes", manifest)]);
        let expected = [
            "1 of 3 bundles damaged",
            "publish again: com.example.notes 1.0.0",
        ];
        assert_eq!(advice.lines(Some(3)), expected);
    }

    #[test]
    fn other_bytes_are_removed_before_they_are_published_again() {
        let findings = [
            of("notes", content),
            of("notes", manifest),
            of("echo", missing),
            of("tickets", manifest),
        ];
        let expected = [
            "3 bundles damaged",
            "run again with --repair, then publish: com.example.echo 1.0.0, com.example.notes 1.0.0",
        ];
        assert_eq!(advice(&findings).lines(None), expected);

        let mut repaired = Advice::default();
        for (finding, is_whole) in findings.iter().zip([false, true, false, true]) {
            repaired.add(finding, Left::after_repair(finding, is_whole));
        }
        assert!(!repaired.is_settled());
        let expected = [
            "1 of 4 bundles repaired",
            "2 of 4 bundles damaged",
            "publish again: com.example.echo 1.0.0, com.example.notes 1.0.0",
        ];
        assert_eq!(repaired.lines(Some(4)), expected);
    }

    #[test]
    fn what_nobody_knows_needs_no_publishing_and_what_cannot_be_read_another_try() {
        let unknown = Finding {
            version: None,
            ..of("stray", content)
        };
        let advice = advice(&[unknown, of("notes", unreadable), of("notes", unreadable)]);
        let expected = [
            "1 of 2 bundles damaged",
            "1 of 2 bundles could not be read",
            "run again with --repair",
            "run again when the store can be read",
        ];
        assert_eq!(advice.lines(Some(2)), expected);
    }

    #[test]
    fn not_more_are_named_than_a_person_reads() {
        let findings: Vec<_> = (0..22)
            .map(|number| of(&format!("notes{number:02}"), missing))
            .collect();
        let lines = advice(&findings).lines(Some(22));
        assert!(
            lines[1].contains("com.example.notes19 1.0.0, and 2 more"),
            "{lines:?}"
        );
    }
}
