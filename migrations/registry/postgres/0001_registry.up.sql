-- Plain tables, also where the database has Citus: they stay on its coordinator. Extensions and versions
-- belong to no tenant, installs refer to them, and all of it is small and seldom written.
--
-- JSON is kept as the text it was written as, which jsonb would not: a settings value may hold \u0000.
-- Numbers are bigint throughout. Texts are compared by their bytes.

CREATE TABLE registry_extensions (
    id         uuid        PRIMARY KEY,
    name       text        COLLATE "C" NOT NULL UNIQUE,
    publisher  text        NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE registry_versions (
    id           uuid        PRIMARY KEY,
    extension_id uuid        NOT NULL REFERENCES registry_extensions (id),
    version      text        COLLATE "C" NOT NULL,
    content_hash bytea       NOT NULL UNIQUE CHECK (octet_length(content_hash) = 32),
    size         bigint      NOT NULL CHECK (size >= 0),
    created_at   timestamptz NOT NULL,
    manifest     json        NOT NULL,
    UNIQUE (extension_id, version)
);

-- Pages the versions of an extension, and lets an install name its extension and version as a pair.
CREATE UNIQUE INDEX registry_versions_of_extension ON registry_versions (extension_id, id);

-- What the versions that were removed consisted of: the name and number of a version stand for one content for ever.
CREATE TABLE registry_removed_versions (
    extension_id uuid        NOT NULL REFERENCES registry_extensions (id),
    version      text        COLLATE "C" NOT NULL,
    content_hash bytea       NOT NULL CHECK (octet_length(content_hash) = 32),
    removed_at   timestamptz NOT NULL,
    PRIMARY KEY (extension_id, version)
);

CREATE TABLE registry_installs (
    id                    uuid        PRIMARY KEY,
    tenant_id             uuid        NOT NULL,
    extension_id          uuid        NOT NULL,
    version_id            uuid        NOT NULL,
    state                 text        COLLATE "C" NOT NULL CHECK (state IN ('enabled', 'disabled', 'uninstalled')),
    allow_envelope_config boolean     NOT NULL,
    generation            bigint      NOT NULL CHECK (generation > 0),
    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    -- How many calls run at once, where that is not what the configuration says.
    concurrency           bigint      CHECK (concurrency > 0),
    -- What it was before its last upgrade, for as long as it can go back to that.
    former_version_id     uuid        REFERENCES registry_versions (id),
    former_grants         json,
    limits                json,
    grants                json        NOT NULL,
    config                json        NOT NULL,
    FOREIGN KEY (extension_id, version_id) REFERENCES registry_versions (extension_id, id)
);

CREATE INDEX registry_installs_of_tenant ON registry_installs (tenant_id, id);
CREATE INDEX registry_installs_of_tenant_extension ON registry_installs (tenant_id, extension_id, id);
CREATE INDEX registry_installs_of_extension ON registry_installs (extension_id, id);
CREATE INDEX registry_installs_of_version ON registry_installs (extension_id, version_id);

-- Finds who would go back to a version.
CREATE INDEX registry_installs_of_former_version ON registry_installs (former_version_id)
    WHERE former_version_id IS NOT NULL;

-- What applies to the whole deployment. One row, there from the beginning so that it can be locked.
CREATE TABLE registry_switches (
    id                 bigint      PRIMARY KEY CHECK (id = 1),
    storage            boolean     NOT NULL,
    generation         bigint      NOT NULL CHECK (generation >= 0),
    -- NULL until they are first changed.
    updated_at         timestamptz,
    -- A JSON array of names; NULL allows all.
    allowed_extensions json
);

INSERT INTO registry_switches (id, storage, generation) VALUES (1, true, 0);

-- What applies to all installs of a tenant. No row until it is first changed.
CREATE TABLE registry_tenants (
    tenant_id  uuid        PRIMARY KEY,
    storage    boolean     NOT NULL,
    generation bigint      NOT NULL CHECK (generation > 0),
    updated_at timestamptz NOT NULL,
    limits     json
);

-- No references to the rows above: the audit outlives what it describes.
CREATE TABLE registry_audit (
    seq        bigint      PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor      text        NOT NULL,
    request_id text,
    action     text        COLLATE "C" NOT NULL,
    tenant_id  uuid,
    install_id uuid,
    extension  text        COLLATE "C",
    details    json        NOT NULL
);

CREATE INDEX registry_audit_of_tenant ON registry_audit (tenant_id, seq);
CREATE INDEX registry_audit_of_install ON registry_audit (install_id, seq);
CREATE INDEX registry_audit_of_extension ON registry_audit (extension, seq);

-- Finds the oldest records, which are removed first.
CREATE INDEX registry_audit_of_time ON registry_audit (at, seq);

-- The last number that was given. Not a sequence: whoever takes a number holds this row until it commits,
-- so that records become visible in the order of their numbers, and an export that goes on behind the
-- last one it has seen misses none.
CREATE TABLE registry_audit_last (
    id  bigint PRIMARY KEY CHECK (id = 1),
    seq bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 20);

INSERT INTO registry_audit_last (id, seq) VALUES (1, 0);

-- Answers that are given again to whoever repeats a request under its key. While a request is being
-- answered, its row has no status, and stands until the lease is over.
CREATE TABLE registry_answers (
    install_id uuid        NOT NULL,
    tenant_id  uuid        NOT NULL,
    key        text        COLLATE "C" NOT NULL,
    request    bytea       NOT NULL CHECK (octet_length(request) = 32),
    claim      uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    status     bigint,
    bytes      bigint      CHECK ((bytes IS NULL) = (status IS NULL)),
    -- May be large. Without one, only that there was an answer is known.
    answer     bytea       CHECK (answer IS NULL OR status IS NOT NULL),
    PRIMARY KEY (install_id, key)
);

-- Finds what is expired.
CREATE INDEX registry_answers_of_time ON registry_answers (expires_at);

-- Find the oldest ones, and the oldest ones that have their content. Claims have ids that grow with time.
CREATE INDEX registry_answers_of_install ON registry_answers (install_id, expires_at, claim)
    WHERE status IS NOT NULL;
CREATE INDEX registry_answers_of_tenant ON registry_answers (tenant_id, expires_at, claim)
    WHERE status IS NOT NULL;
CREATE INDEX registry_answers_whole_of_install ON registry_answers (install_id, expires_at, claim)
    WHERE answer IS NOT NULL;
CREATE INDEX registry_answers_whole_of_tenant ON registry_answers (tenant_id, expires_at, claim)
    WHERE answer IS NOT NULL;

-- How many answers there are and how large their contents are together, by install and by tenant.
-- The triggers keep it true whichever statement changes answers, so that nobody has to count.
--
-- Who changes or removes answers, rather than claims, first locks the rows of their tenants, in the order
-- of ids. All other rows change under those locks only.
CREATE TABLE registry_answer_counts (
    kind    text   COLLATE "C" NOT NULL CHECK (kind IN ('install', 'tenant')),
    id      uuid   NOT NULL,
    answers bigint NOT NULL CHECK (answers >= 0),
    bytes   bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 50);

-- Once a statement and not once a row: a removal of thousands updates each count once.
CREATE FUNCTION registry_answers_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO registry_answer_counts (kind, id, answers, bytes)
    SELECT DISTINCT owner.kind, owner.id, 0, 0
    FROM after AS a, LATERAL (VALUES ('install', a.install_id), ('tenant', a.tenant_id)) AS owner (kind, id)
    ON CONFLICT (kind, id) DO NOTHING;

    UPDATE registry_answer_counts AS c SET answers = c.answers + d.answers, bytes = c.bytes + d.bytes
    FROM (
        SELECT owner.kind, owner.id, sum(a.sign) AS answers,
               coalesce(sum(a.sign * octet_length(a.answer)), 0) AS bytes
        FROM (SELECT 1 AS sign, * FROM after UNION ALL SELECT -1, * FROM before) AS a,
             LATERAL (VALUES ('install', a.install_id), ('tenant', a.tenant_id)) AS owner (kind, id)
        WHERE a.status IS NOT NULL
        GROUP BY owner.kind, owner.id
    ) AS d
    WHERE c.kind = d.kind AND c.id = d.id;
    RETURN NULL;
END $$;

CREATE FUNCTION registry_answers_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE registry_answer_counts AS c SET answers = c.answers - d.answers, bytes = c.bytes - d.bytes
    FROM (
        SELECT owner.kind, owner.id, count(*) AS answers, coalesce(sum(octet_length(b.answer)), 0) AS bytes
        FROM before AS b,
             LATERAL (VALUES ('install', b.install_id), ('tenant', b.tenant_id)) AS owner (kind, id)
        WHERE b.status IS NOT NULL
        GROUP BY owner.kind, owner.id
    ) AS d
    WHERE c.kind = d.kind AND c.id = d.id;
    RETURN NULL;
END $$;

-- A row is inserted as a claim, which doesn't count; there is no trigger for that.
CREATE TRIGGER registry_answers_changed AFTER UPDATE ON registry_answers
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION registry_answers_changed();

CREATE TRIGGER registry_answers_removed AFTER DELETE ON registry_answers
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION registry_answers_removed();
