//! Listing extensions.

use uuid::Uuid;

use super::{Outcome, all_pages, at, name, version};
use crate::audit::AuditFilter;
use crate::error::RegistryError;
use crate::install::InstallFilter;
use crate::page::{MAX_PAGE_ITEMS, PageRequest};
use crate::registry::Registry;

/// Extensions come by name, each once, however many versions they have.
pub async fn extensions_are_paged_by_name(registry: &dyn Registry) -> Outcome {
    for extension in ["b", "a-1", "a.b", "a", "c"] {
        registry
            .register_version(&version(extension, "1.0.0"), at(0))
            .await?;
        registry
            .register_version(&version(extension, "1.0.1"), at(0))
            .await?;
    }
    let expected = ["a", "a-1", "a.b", "b", "c"].map(name);
    for limit in [1, 2, 5, 6] {
        let pages = all_pages!(limit, |page| registry.extensions(page));
        assert!(pages.iter().all(|page| page.len() <= limit as usize));
        let names: Vec<_> = pages
            .concat()
            .into_iter()
            .map(|extension| extension.name)
            .collect();
        assert_eq!(names, expected, "in pages of {limit}");
    }
    Ok(())
}

/// Every listing refuses a page of nothing and a page too large.
pub async fn a_page_has_bounds(registry: &dyn Registry) -> Outcome {
    for limit in [0, MAX_PAGE_ITEMS + 1, u32::MAX] {
        let refusals = [
            registry.extensions(PageRequest::first(limit)).await.err(),
            registry
                .versions(Uuid::nil(), PageRequest::first(limit))
                .await
                .err(),
            registry
                .installs(&InstallFilter::default(), PageRequest::first(limit))
                .await
                .err(),
            registry
                .tenants_with_settings(PageRequest::first(limit))
                .await
                .err(),
            registry
                .audit(&AuditFilter::default(), PageRequest::first(limit))
                .await
                .err(),
        ];
        for refusal in refusals {
            assert!(
                matches!(refusal, Some(RegistryError::Invalid { field: "limit", .. })),
                "{refusal:?}"
            );
        }
    }
    for limit in [1, MAX_PAGE_ITEMS] {
        assert!(
            registry
                .extensions(PageRequest::first(limit))
                .await?
                .items
                .is_empty()
        );
    }
    Ok(())
}
