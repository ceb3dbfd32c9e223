//! What an install may do, and how far that differs from what it could do before.

use std::collections::BTreeSet;

use alga_bundles::Manifest;
use alga_model::InstallId;
use alga_registry::{Grants, Install, InstallEdit};
use alga_storage::{Access, CAPABILITY, StorageGrant};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::AdminError;
use super::members::Members;
use super::mistakes::{Mistakes, Name};
use super::operation::{Answer, Ask, Guard, Method, Operation, Parameters};
use super::{Admin, Author, manifest, schema};

/// `GET /v1/installs/{install_id}/grants`.
#[derive(Debug)]
pub struct ShowGrants;

/// `PUT /v1/installs/{install_id}/grants`.
#[derive(Debug)]
pub struct ReplaceGrants;

/// What an install may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantsBody {
    /// The install.
    pub install_id: InstallId,
    /// Its grants.
    pub grants: Grants,
    /// The generation of the install.
    pub generation: u64,
}

/// What an install shall be able to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaceGrantsBody {
    /// Its grants; what its manifest asks for where there are none.
    pub grants: Option<Grants>,
}

/// What some grants allow and others don't.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What only the new ones allow.
    pub added: BTreeSet<Permission>,
    /// What only the old ones allow.
    pub removed: BTreeSet<Permission>,
}

/// One thing that a grant allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permission {
    /// The capability.
    pub capability: String,
    /// What it allows: `read notes` of `alga.storage`; of a capability that this release doesn't
    /// know, the grant itself as JSON.
    pub allows: String,
}

impl Operation for ShowGrants {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/grants";
    const SUMMARY: &'static str = "Shows what an install may do";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = ();
    type Body = ();
    type Answer = GrantsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<GrantsBody, AdminError> {
        Ok(admin.find(by, ask.target).await?.into())
    }
}

impl Operation for ReplaceGrants {
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/v1/installs/{install_id}/grants";
    const SUMMARY: &'static str = "Replaces what an install may do, which can't be more than its manifest asks for; null is what it asks for";
    const GUARD: Guard = Guard::Required;
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (404, "NOT_FOUND"),
        (409, "INSTALL_UNINSTALLED"),
    ];

    type Target = InstallId;
    type Query = ();
    type Body = ReplaceGrantsBody;
    type Answer = GrantsBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<GrantsBody, AdminError> {
        let install = admin.find(by, ask.target).await?;
        let manifest = manifest(&admin.version_of(&install).await?)?;
        let grants = ask.body.grants;
        let grants = grants.unwrap_or_else(|| manifest.capabilities());
        ensure_within(&grants, &manifest)?;
        // An upgrade meanwhile would have brought another manifest.
        let expected = ask.expected.or(Some(install.generation));
        let edit = InstallEdit::Grants(grants);
        Ok(admin.edit(by, install.id, edit, expected).await?.into())
    }
}

impl Difference {
    /// From `before` to `after`.
    pub(super) fn between(before: &Grants, after: &Grants) -> Self {
        let (before, after) = (permissions(before), permissions(after));
        Self {
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
        }
    }

    /// Fails where something is added that nobody approved.
    pub(super) fn ensure_approved(&self, approved: bool) -> Result<(), AdminError> {
        if approved || self.added.is_empty() {
            Ok(())
        } else {
            Err(AdminError::ApprovalNeeded(self.clone()))
        }
    }
}

/// Everything that grants allow. A grant that can't be read allows nothing.
fn permissions(grants: &Grants) -> BTreeSet<Permission> {
    let each = grants.iter().flat_map(|(capability, grant)| {
        let allowed = if capability == CAPABILITY {
            uses(grant)
                .into_iter()
                .map(|(namespace, access)| format!("{} {namespace}", access.as_str()))
                .collect()
        } else {
            vec![grant.to_string()]
        };
        allowed.into_iter().map(|allows| Permission {
            capability: capability.clone(),
            allows,
        })
    });
    each.collect()
}

/// The uses of namespaces that a storage grant allows.
fn uses(grant: &Value) -> BTreeSet<(String, Access)> {
    let grant = StorageGrant::parse(grant).unwrap_or_default();
    grant
        .uses()
        .map(|(namespace, access)| (namespace.as_str().to_owned(), access))
        .collect()
}

/// Fails unless `manifest` asks for everything that is granted.
pub(super) fn ensure_within(grants: &Grants, manifest: &Manifest) -> Result<(), AdminError> {
    let asked = manifest.capabilities();
    let mut mistakes = Mistakes::default();
    for (capability, grant) in grants {
        let name = Name(capability);
        match asked.get(capability) {
            None => mistakes.add(format_args!(
                "the manifest does not ask for {name}, so it can't be granted"
            )),
            Some(asked) if capability == CAPABILITY => match StorageGrant::parse(grant) {
                // Its own words quote the grant.
                Err(_) => mistakes.add(format_args!(
                    r#"the grant of {name} must be {{"namespaces": [{{"name": "…", "access": ["read", "write"]}}]}}, each name once"#
                )),
                Ok(grant) if !is_within(&grant, asked) => mistakes.add(format_args!(
                    "the grant of {name} is wider than what the manifest asks for"
                )),
                Ok(_) => {}
            },
            Some(asked) if grant == asked => {}
            Some(_) => mistakes.add(format_args!(
                "the grant of {name} must be what the manifest asks for, or be left out: this release doesn't know {name}, and so can't tell what is less"
            )),
        }
    }
    mistakes.ensure_none("the grants are")
}

fn is_within(grant: &StorageGrant, asked: &Value) -> bool {
    StorageGrant::parse(asked).is_ok_and(|asked| grant.is_within(&asked))
}

/// What an install is granted in another version, unless told otherwise: what that version asks for,
/// but for what the present one asks for as well and was not given.
pub(super) fn carried_over(granted: &Grants, present: &Manifest, next: &Manifest) -> Grants {
    let (present, next) = (present.capabilities(), next.capabilities());
    let carried = next.into_iter().filter_map(|(capability, asked)| {
        let (before, given) = (present.get(&capability), granted.get(&capability));
        let grant = if capability == CAPABILITY {
            let before = before.map(uses).unwrap_or_default();
            let given = given.map(uses).unwrap_or_default();
            only(asked, |used| given.contains(used) || !before.contains(used))
        } else if before == Some(&asked) {
            given.map(|_| asked)
        } else {
            Some(asked)
        };
        Some((capability, grant?))
    });
    carried.collect()
}

/// A storage grant without the uses that are not to be kept; nothing where none is left.
fn only(mut grant: Value, keep: impl Fn(&(String, Access)) -> bool) -> Option<Value> {
    let namespaces = grant.get_mut("namespaces")?.as_array_mut()?;
    namespaces.retain_mut(|namespace| {
        let Some(name) = namespace.get("name").and_then(Value::as_str) else {
            return false;
        };
        let name = name.to_owned();
        let Some(accesses) = namespace.get_mut("access").and_then(Value::as_array_mut) else {
            return false;
        };
        accesses.retain(|access| {
            [Access::Read, Access::Write].into_iter().any(|known| {
                access.as_str() == Some(known.as_str()) && keep(&(name.clone(), known))
            })
        });
        !accesses.is_empty()
    });
    let is_left = !namespaces.is_empty();
    is_left.then_some(grant)
}

impl From<Install> for GrantsBody {
    fn from(install: Install) -> Self {
        Self {
            install_id: install.id,
            grants: install.grants,
            generation: install.generation,
        }
    }
}

impl Parameters for ReplaceGrantsBody {
    fn read(members: &mut Members) -> Option<Self> {
        let grants = members.nullable("grants")?;
        Some(Self { grants })
    }

    fn schema() -> Value {
        schema::parameters(&[("grants", schema::nullable(&schema::grants()))], &[])
    }
}

impl Answer for GrantsBody {
    const NAME: &'static str = "Grants";

    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }

    fn schema() -> Value {
        schema::answer(&[
            ("installId", schema::uuid()),
            ("grants", schema::grants()),
            ("generation", schema::count()),
        ])
    }
}

/// The schema of a [`Difference`].
pub(super) fn difference_schema() -> Value {
    let permission = schema::answer(&[("capability", schema::text()), ("allows", schema::text())]);
    schema::answer(&[
        ("added", schema::list(&permission)),
        ("removed", schema::list(&permission)),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage(namespaces: &[(&str, &[&str])]) -> Value {
        let namespaces: Vec<_> = namespaces
            .iter()
            .map(|(name, access)| json!({ "name": name, "access": access }))
            .collect();
        json!({ "namespaces": namespaces })
    }

    fn grants(namespaces: &[(&str, &[&str])]) -> Grants {
        Grants::from([(CAPABILITY.to_owned(), storage(namespaces))])
    }

    fn asking(capabilities: &Value) -> Manifest {
        let manifest = json!({
            "name": "com.example.notes",
            "publisher": "Tests",
            "version": "1.0.0",
            "runtime": "wasm-component@1",
            "capabilities": capabilities,
        });
        Manifest::parse(manifest.to_string().as_bytes())
            .unwrap()
            .manifest
    }

    fn said(permissions: &BTreeSet<Permission>) -> Vec<&str> {
        permissions.iter().map(|it| it.allows.as_str()).collect()
    }

    #[test]
    fn a_difference_is_told_by_namespace_and_access() {
        let before = grants(&[("notes", &["read", "write"]), ("cache", &["read"])]);
        let after = grants(&[("notes", &["read"]), ("cache", &["read", "write"])]);
        let difference = Difference::between(&before, &after);
        assert_eq!(said(&difference.added), ["write cache"]);
        assert_eq!(said(&difference.removed), ["write notes"]);
        assert_eq!(Difference::between(&before, &before), Difference::default());
    }

    #[test]
    fn order_and_repetition_are_no_difference() {
        let one = grants(&[("a", &["read", "write"]), ("b", &["read"])]);
        let other = grants(&[("b", &["read", "read"]), ("a", &["write", "read"])]);
        assert_eq!(Difference::between(&one, &other), Difference::default());
    }

    #[test]
    fn a_capability_that_is_not_known_differs_as_a_whole() {
        let of = |grant: Value| Grants::from([("alga.teleport".to_owned(), grant)]);
        let difference = Difference::between(&of(json!({"far": 1})), &of(json!({"far": 2})));
        assert_eq!(said(&difference.added), [r#"{"far":2}"#]);
        assert_eq!(said(&difference.removed), [r#"{"far":1}"#]);
    }

    #[test]
    fn what_could_not_be_read_was_not_granted() {
        let broken = Grants::from([(CAPABILITY.to_owned(), json!({"namespaces": 1}))]);
        let difference = Difference::between(&broken, &grants(&[("notes", &["read"])]));
        assert_eq!(said(&difference.added), ["read notes"]);
        assert!(difference.removed.is_empty());
    }

    #[test]
    fn only_what_is_wider_needs_approval() {
        let narrow = grants(&[("notes", &["read"])]);
        let wide = grants(&[("notes", &["read", "write"])]);
        let widening = Difference::between(&narrow, &wide);
        assert!(matches!(
            widening.ensure_approved(false),
            Err(AdminError::ApprovalNeeded(difference)) if difference == widening
        ));
        assert!(widening.ensure_approved(true).is_ok());
        assert!(
            Difference::between(&wide, &narrow)
                .ensure_approved(false)
                .is_ok()
        );
    }

    #[test]
    fn every_grant_beyond_the_manifest_is_named() {
        let manifest = asking(&json!({
            CAPABILITY: storage(&[("notes", &["read"])]),
            "alga.known": {},
        }));
        let within = grants(&[("notes", &["read"])]);
        assert!(ensure_within(&within, &manifest).is_ok());
        assert!(ensure_within(&Grants::new(), &manifest).is_ok());
        let mut beyond = grants(&[("notes", &["write"])]);
        beyond.insert("alga.teleport".to_owned(), json!({}));
        let Err(AdminError::Invalid { mistakes, .. }) = ensure_within(&beyond, &manifest) else {
            panic!("it was granted")
        };
        assert_eq!(mistakes.texts().len(), 2, "{mistakes:?}");
    }

    #[test]
    fn a_capability_that_is_not_known_is_granted_as_it_is_asked_for_or_not_at_all() {
        let manifest = asking(&json!({"alga.teleport": {"far": 1}}));
        let of = |grant: Value| Grants::from([("alga.teleport".to_owned(), grant)]);
        assert!(ensure_within(&of(json!({"far": 1})), &manifest).is_ok());
        assert!(ensure_within(&Grants::new(), &manifest).is_ok());
        for other in [
            json!({"far": 2}),
            json!({}),
            json!({"far": 1, "fast": true}),
            json!(null),
        ] {
            assert!(
                ensure_within(&of(other.clone()), &manifest).is_err(),
                "{other}"
            );
        }
    }

    #[test]
    fn mistakes_of_grants_are_counted_and_quote_no_grant() {
        let manifest = asking(&json!({CAPABILITY: storage(&[("notes", &["read"])])}));
        let unknown =
            (0..1_000).map(|number| (format!("a{number}{}", "a".repeat(10_000)), json!(1)));
        let mut grants: Grants = unknown.collect();
        grants.insert(CAPABILITY.to_owned(), json!({"namespaces": "hunter2"}));
        let error = ensure_within(&grants, &manifest).unwrap_err();
        let said = error.details().to_string();
        assert!(
            said.contains("and 901 more") && said.len() < 20_000,
            "{said}"
        );
        grants.retain(|capability, _| capability == CAPABILITY);
        let error = ensure_within(&grants, &manifest).unwrap_err();
        let said = error.details().to_string();
        assert!(
            said.contains(CAPABILITY) && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn what_was_withheld_stays_withheld_and_what_is_new_is_granted() {
        let present = asking(&json!({
            CAPABILITY: storage(&[("notes", &["read", "write"]), ("old", &["read"]), ("no", &["read"])]),
            "alga.same": {"a": 1},
            "alga.other": {"a": 1},
            "alga.withheld": {},
        }));
        let next = asking(&json!({
            CAPABILITY: storage(&[("notes", &["read", "write"]), ("new", &["write"]), ("no", &["read"])]),
            "alga.same": {"a": 1},
            "alga.other": {"a": 2},
            "alga.withheld": {},
        }));
        let mut granted = grants(&[("notes", &["read"]), ("old", &["read"])]);
        granted.insert("alga.same".to_owned(), json!({"a": 1}));
        granted.insert("alga.other".to_owned(), json!({"a": 1}));
        let carried = carried_over(&granted, &present, &next);
        let mut expected = grants(&[("notes", &["read"]), ("new", &["write"])]);
        expected.insert("alga.same".to_owned(), json!({"a": 1}));
        expected.insert("alga.other".to_owned(), json!({"a": 2}));
        assert_eq!(carried, expected);
        assert!(ensure_within(&carried, &next).is_ok());
    }

    #[test]
    fn where_nothing_is_left_of_a_grant_there_is_none() {
        let manifest = asking(&json!({ CAPABILITY: storage(&[("notes", &["read"])]) }));
        assert_eq!(
            carried_over(&Grants::new(), &manifest, &manifest),
            Grants::new()
        );
    }
}
