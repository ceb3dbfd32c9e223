DROP TABLE registry_answer_counts, registry_answers, registry_audit_last, registry_audit, registry_tenants,
    registry_switches, registry_installs, registry_removed_versions, registry_versions, registry_extensions;
DROP FUNCTION registry_answers_changed, registry_answers_removed;
