-- The tenant leads every key, as it is the distribution column on Citus; SQLite keeps the same tables.
-- No triggers, no foreign keys, no unique index without the tenant: Citus takes none of them.

CREATE TABLE ext_storage_records (
    tenant_id      uuid        NOT NULL,
    install_id     uuid        NOT NULL,
    namespace      text        COLLATE "C" NOT NULL,
    key            text        COLLATE "C" NOT NULL,
    revision       bigint      NOT NULL,
    -- Value and metadata together, as they were sent: what quotas count.
    bytes          bigint      NOT NULL,
    -- The bytes of what the last write replaced, none where it made the record: so that an upsert alone
    -- tells what to count.
    replaced_bytes bigint,
    -- What the value was checked against; none where the namespace has no schema.
    schema_version integer,
    expires_at     timestamptz,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    encoding       text        NOT NULL DEFAULT 'json',
    -- Kept as they were sent, which jsonb would not: -0, 1e5, the order of members.
    metadata       json        NOT NULL,
    value          json        NOT NULL,
    PRIMARY KEY (tenant_id, install_id, namespace, key)
) WITH (fillfactor = 90);

-- Finds what is expired in a namespace. Without `bytes`: a column of any index, a partial one too,
-- that changes with a write makes the write one that all indexes have to follow (not HOT).
CREATE INDEX ext_storage_records_expiry
    ON ext_storage_records (tenant_id, install_id, namespace, expires_at)
    WHERE expires_at IS NOT NULL;

-- One row a namespace; one an install, under the empty namespace; one a tenant, under the nil install.
--
-- Bytes and namespaces are held in escrow: a namespace may use `reserved` bytes without asking. The
-- rows of install and tenant hold the sums of what was handed out; they change, as `reserved` and
-- `namespaces` of any row do, only under the lock of the tenant's row. What is really used stands in
-- the rows of namespaces alone.
CREATE TABLE ext_storage_usage (
    tenant_id         uuid        NOT NULL,
    install_id        uuid        NOT NULL,
    namespace         text        COLLATE "C" NOT NULL,
    -- Of a namespace: its records, those that are expired and not removed yet included.
    keys              bigint      NOT NULL DEFAULT 0,
    bytes             bigint      NOT NULL DEFAULT 0,
    -- What it may grow to, or what those below it may; never less than `bytes`.
    reserved          bigint      NOT NULL DEFAULT 0,
    -- Of a namespace: 1 while it counts as one that holds records. Of an install: how many do.
    namespaces        bigint      NOT NULL DEFAULT 0,
    -- Of a namespace: the greatest revision ever removed, and how often a record was changed.
    revision_floor    bigint      NOT NULL DEFAULT 0,
    change_seq        bigint      NOT NULL DEFAULT 0,
    schema_generation bigint      NOT NULL DEFAULT 0,
    -- Of a namespace: the limits under which everything of its install and tenant is reserved, none where
    -- that has to be looked into. Of install and tenant: those of the last write that asked.
    max_namespaces    bigint,
    max_install_bytes bigint,
    max_tenant_bytes  bigint,
    -- Of a namespace: no record of it expires before.
    next_expiry       timestamptz,
    -- Of a namespace: when it was last written. A clock that is set back stands still here.
    last_at           timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, install_id, namespace)
-- Every write updates a row in place; the room lets the versions stay on the page.
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The namespaces of a tenant that may hold expired records.
CREATE INDEX ext_storage_usage_due_namespaces
    ON ext_storage_usage (tenant_id, next_expiry)
    WHERE next_expiry IS NOT NULL;

-- The tenants that may. With the next, the only indexes that don't begin with the tenant: a sweep asks for all.
CREATE INDEX ext_storage_usage_due_tenants
    ON ext_storage_usage (next_expiry, tenant_id)
    WHERE next_expiry IS NOT NULL;

-- One row a request, written in its transaction. Never values. audit_id is a UUID of version 7.
CREATE TABLE ext_storage_audit (
    tenant_id  uuid        NOT NULL,
    audit_id   uuid        NOT NULL,
    at         timestamptz NOT NULL,
    install_id uuid        NOT NULL,
    -- None where expired records were removed: the store doesn't know whose they were.
    extension  text,
    namespace  text        COLLATE "C" NOT NULL,
    operation  text        NOT NULL,
    actor      text        NOT NULL,
    -- None where nobody asked.
    request_id text,
    records    bigint      NOT NULL,
    bytes      bigint      NOT NULL,
    -- Each record that was changed: [key, revision before, revision after, bytes, schema version].
    -- None where expired records were removed.
    changes    json,
    PRIMARY KEY (tenant_id, audit_id)
);

-- Exports and retention go through the audit of all tenants in the order of time.
CREATE INDEX ext_storage_audit_by_time ON ext_storage_audit (audit_id);

-- What was answered to an operation that may be repeated because its answer was lost. Only what was
-- done: a refused operation wrote nothing and may be judged again.
CREATE TABLE ext_storage_idempotency (
    tenant_id    uuid        NOT NULL,
    install_id   uuid        NOT NULL,
    operation_id uuid        NOT NULL,
    -- Of what the write asked for: another one with the same id is refused.
    digest       bytea       NOT NULL,
    -- After a day; sooner where the answer holds values.
    expires_at   timestamptz NOT NULL,
    result       json        NOT NULL,
    PRIMARY KEY (tenant_id, install_id, operation_id)
);

-- For their removal.
CREATE INDEX ext_storage_idempotency_by_expiry ON ext_storage_idempotency (expires_at);

-- The operations that write, one function each: one round trip, one transaction.
--
-- They are VOLATILE and run in READ COMMITTED, so that each statement inside sees what was committed
-- when it began. Having locked the row of a namespace, all that follows is current: records, floor and
-- counters of a namespace change under that lock only.
--
-- Locks, in this order: the queue of a namespace, which a plain put of one record takes and nobody else; the row of
-- the tenant; rows of its namespaces. A write inside what its namespace has reserved locks that one row and then
-- waits for nothing. Who holds a tenant's row may wait for rows of namespaces: their holders wait for nobody. So
-- nobody waits in a circle.
--
-- The names carry a version: while processes are replaced, old ones go on to call what they know.

-- A UUID of version 7 (RFC 9562, 6.2, method 3) for an instant in microseconds since 1970.
CREATE FUNCTION ext_storage_uuid7_1(p_micros bigint) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        substring(int8send(p_micros / 1000) FROM 3)
        || int2send((28672 + p_micros % 1000 * 4096 / 1000)::int2)
        || int8send((random() * 4611686018427387000)::bigint - 9223372036854775807),
        'hex')::uuid
$$;

-- Removes at most `p_limit` expired records of a namespace. The caller holds its row.
CREATE FUNCTION ext_storage_expire_1(
    p_tenant uuid, p_install uuid, p_namespace text, p_at timestamptz, p_limit bigint,
    OUT removed_records bigint, OUT removed_bytes bigint
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_due timestamptz;
    v_floor bigint;
BEGIN
    -- Nothing expires before, so the scans below begin behind the dead entries of what was removed
    -- earlier: however long vacuum takes, a batch costs the same.
    SELECT u.next_expiry INTO v_due FROM ext_storage_usage AS u
    WHERE u.tenant_id = p_tenant AND u.install_id = p_install AND u.namespace = p_namespace;

    WITH removed AS (
        DELETE FROM ext_storage_records AS r
        WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace
          AND r.key = ANY (ARRAY(
            SELECT e.key FROM ext_storage_records AS e
            WHERE e.tenant_id = p_tenant AND e.install_id = p_install AND e.namespace = p_namespace
              AND e.expires_at >= v_due AND e.expires_at <= p_at
            ORDER BY e.expires_at LIMIT p_limit))
        RETURNING r.revision, r.bytes
    )
    SELECT count(*), coalesce(sum(d.bytes), 0), coalesce(max(d.revision), 0)
    INTO removed_records, removed_bytes, v_floor FROM removed AS d;

    UPDATE ext_storage_usage AS u SET
        keys = greatest(u.keys - removed_records, 0),
        bytes = greatest(u.bytes - removed_bytes, 0),
        revision_floor = greatest(u.revision_floor, v_floor),
        change_seq = u.change_seq + removed_records,
        next_expiry = (
            SELECT min(r.expires_at) FROM ext_storage_records AS r
            WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace
              AND r.expires_at >= v_due),
        last_at = greatest(u.last_at, p_at)
    WHERE u.tenant_id = p_tenant AND u.install_id = p_install AND u.namespace = p_namespace;

    IF removed_records > 0 THEN
        INSERT INTO ext_storage_audit
            (tenant_id, audit_id, at, install_id, namespace, operation, actor, records, bytes)
        VALUES
            (p_tenant, ext_storage_uuid7_1((date_part('epoch', p_at) * 1000000)::bigint),
             p_at, p_install, p_namespace, 'expire', 'system:expiry',
             removed_records, removed_bytes);
    END IF;
END $$;

-- Removes some expired records of whichever other namespace of a tenant has waited longest: on the way
-- of a write, which has locked its own namespace and goes by its counters. Waits for nobody.
CREATE FUNCTION ext_storage_pass_by_1(
    p_tenant uuid, p_install uuid, p_namespace text, p_at timestamptz,
    OUT removed_records bigint, OUT removed_bytes bigint
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_due record;
BEGIN
    removed_records := 0;
    removed_bytes := 0;
    SELECT u.install_id, u.namespace INTO v_due FROM ext_storage_usage AS u
    WHERE u.tenant_id = p_tenant AND u.next_expiry <= p_at
      AND NOT (u.install_id = p_install AND u.namespace = p_namespace)
    ORDER BY u.next_expiry LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        SELECT e.removed_records, e.removed_bytes INTO removed_records, removed_bytes
        FROM ext_storage_expire_1(p_tenant, v_due.install_id, v_due.namespace, p_at, 64) AS e;
    END IF;
END $$;

-- Removes expired records of an install, or of a whole tenant where `p_install` is null, to make room
-- for a write. The caller holds the tenant's row, and so may wait for those of namespaces.
CREATE FUNCTION ext_storage_make_room_1(
    p_tenant uuid, p_install uuid, p_at timestamptz, p_limit bigint,
    OUT removed_records bigint, OUT removed_bytes bigint,
    -- Whether there may be more: of namespaces that have nothing expired yet it is not known before they
    -- were looked into.
    OUT more boolean
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_due record;
    v_removed record;
    v_visited integer := 0;
BEGIN
    removed_records := 0;
    removed_bytes := 0;
    FOR v_due IN
        SELECT u.install_id, u.namespace FROM ext_storage_usage AS u
        WHERE u.tenant_id = p_tenant AND u.next_expiry <= p_at
          AND (p_install IS NULL OR u.install_id = p_install)
        ORDER BY u.next_expiry LIMIT 64
    LOOP
        v_visited := v_visited + 1;
        PERFORM FROM ext_storage_usage AS u
        WHERE u.tenant_id = p_tenant AND u.install_id = v_due.install_id AND u.namespace = v_due.namespace
        FOR UPDATE;
        SELECT * INTO v_removed FROM ext_storage_expire_1(
            p_tenant, v_due.install_id, v_due.namespace, p_at, p_limit - removed_records);
        removed_records := removed_records + v_removed.removed_records;
        removed_bytes := removed_bytes + v_removed.removed_bytes;
        EXIT WHEN removed_records >= p_limit;
    END LOOP;
    more := v_visited = 64;
END $$;

-- Takes back what the namespaces of an install, or of a whole tenant where `p_install` is null, have
-- reserved and don't use. The caller holds the tenant's row. Afterwards what is reserved is what is used.
CREATE FUNCTION ext_storage_reclaim_1(p_tenant uuid, p_install uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    -- Waits for writes under way, then reads the row anew.
    UPDATE ext_storage_usage AS u SET reserved = u.bytes, namespaces = least(u.keys, 1)
    WHERE u.tenant_id = p_tenant AND (p_install IS NULL OR u.install_id = p_install) AND u.namespace <> ''
      AND (u.reserved > u.bytes OR u.namespaces > u.keys);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE ext_storage_usage AS i SET reserved = s.reserved, namespaces = s.namespaces
    FROM (
        SELECT n.install_id, sum(n.reserved) AS reserved, sum(n.namespaces) AS namespaces
        FROM ext_storage_usage AS n
        WHERE n.tenant_id = p_tenant AND (p_install IS NULL OR n.install_id = p_install) AND n.namespace <> ''
        GROUP BY n.install_id
    ) AS s
    WHERE i.tenant_id = p_tenant AND i.install_id = s.install_id AND i.namespace = '';
    UPDATE ext_storage_usage AS t SET reserved = (
        SELECT coalesce(sum(i.reserved), 0) FROM ext_storage_usage AS i
        WHERE i.tenant_id = p_tenant AND i.install_id <> t.install_id AND i.namespace = '')
    WHERE t.tenant_id = p_tenant AND t.install_id = '00000000-0000-0000-0000-000000000000' AND t.namespace = '';
END $$;

-- A record, as a write may have to answer with it. Times are milliseconds since 1970.
CREATE FUNCTION ext_storage_seen_1(p_tenant uuid, p_install uuid, p_namespace text, p_key text) RETURNS json
LANGUAGE sql VOLATILE AS $$
    SELECT json_build_object(
        'revision', r.revision, 'value', r.value, 'metadata', r.metadata,
        'expiresAt', floor(extract(epoch FROM r.expires_at) * 1000)::bigint,
        'createdAt', floor(extract(epoch FROM r.created_at) * 1000)::bigint,
        'updatedAt', floor(extract(epoch FROM r.updated_at) * 1000)::bigint)
    FROM ext_storage_records AS r
    WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace AND r.key = p_key
$$;

-- Writes all items or none.
--
-- Answers one row an item (`written`, or `repeated` where that was done before by a call with the same
-- p_operation and p_digest), or a single row that says why not: `taken` (the id is another write's), `conflict`, `quota`, `schema`
-- (validate again), `again` (call again with p_ordered; what was done so far is worth keeping).
--
-- p_guards: null any, 0 absent, -1 exists, n > 0 exactly. p_ttls in milliseconds.
CREATE FUNCTION ext_storage_put_1(
    p_tenant uuid, p_install uuid, p_namespace text,
    p_keys text[], p_values text[], p_metadata text[], p_bytes bigint[], p_ttls bigint[],
    p_guards bigint[], p_schema_versions integer[],
    p_max_namespaces bigint, p_max_keys bigint, p_max_install_bytes bigint, p_max_tenant_bytes bigint,
    p_return_previous boolean, p_return_current boolean,
    p_extension text, p_actor text, p_request text,
    p_operation uuid DEFAULT NULL, p_digest bytea DEFAULT NULL, p_schema_generation bigint DEFAULT NULL,
    p_ordered boolean DEFAULT false, p_now timestamptz DEFAULT NULL
) RETURNS TABLE (
    code text, item integer,
    revision bigint, expires_at timestamptz, created_at timestamptz, updated_at timestamptz,
    -- What is told now and then: `seen`, the record that was replaced or that a guard found; `quota`; of the
    -- first row of a write `counted`, before and after: keys of the namespace, and, where the write asked,
    -- namespaces and bytes of the install and bytes of the tenant; `removed`, records and bytes.
    detail json
) LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
DECLARE
    c_nil constant uuid := '00000000-0000-0000-0000-000000000000';
    -- Removed in passing, and at most for a write that needs the room.
    c_on_the_way constant bigint := 64;
    c_for_room constant bigint := 1000;
    -- The most that a namespace reserves beyond what it needs.
    c_chunk constant bigint := 1048576;
    v_items constant integer := cardinality(p_keys);
    v_sum bigint := 0;
    v_ordered boolean := p_ordered;
    -- The row of the namespace.
    v_exists boolean;
    v_same boolean;
    v_keys bigint; v_used bigint; v_reserved bigint; v_slot bigint; v_floor bigint;
    v_generation bigint; v_next_expiry timestamptz; v_last_at timestamptz;
    -- What install and tenant have handed out, and the install its namespaces.
    v_install bigint; v_slots bigint; v_tenant bigint;
    v_now timestamptz;
    v_removed record;
    v_repeats boolean;
    v_result json;
    -- The record of an item.
    v_revision bigint; v_size bigint; v_expires timestamptz; v_created timestamptz;
    v_live boolean;
    -- As they will be; and as they are, without what is expired of the same keys.
    v_keys_after bigint; v_bytes_after bigint; v_floor_after bigint;
    v_keys_before bigint; v_bytes_before bigint;
    v_before bigint[]; v_after bigint[]; v_since timestamptz[];
    v_keys_at bigint[]; v_bytes_at bigint[];
    v_grow bigint; v_need bigint; v_more bigint;
    v_min_expiry timestamptz;
    v_changes text;
    v_answers json[];
    v_tells_values boolean := false;
    v_seen json; v_counted bigint[]; v_quota text; v_limit bigint; v_quota_used bigint; v_attempted bigint;
    v_removed_records bigint := 0; v_removed_bytes bigint := 0;
BEGIN
    FOR i IN 1 .. v_items LOOP
        v_sum := v_sum + p_bytes[i];
    END LOOP;

    IF NOT v_ordered THEN
        SELECT n.keys, n.bytes, n.reserved, n.revision_floor, n.schema_generation, n.next_expiry, n.last_at
        INTO v_keys, v_used, v_reserved, v_floor, v_generation, v_next_expiry, v_last_at
        FROM ext_storage_usage AS n
        WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace
          AND n.bytes + v_sum <= n.reserved AND n.max_namespaces = p_max_namespaces
          AND n.max_install_bytes = p_max_install_bytes AND n.max_tenant_bytes = p_max_tenant_bytes
        FOR UPDATE;
        IF FOUND THEN
            v_exists := true;
            v_same := true;
            v_slot := 1;
        ELSIF pg_current_xact_id_if_assigned() IS NULL THEN
            v_ordered := true;
        ELSE
            -- The row was locked before it turned out to have too little. To wait for the tenant's row
            -- now would be out of order.
            code := 'again';
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF v_ordered THEN
        SELECT t.reserved, t.max_tenant_bytes IS NOT DISTINCT FROM p_max_tenant_bytes INTO v_tenant, v_same
        FROM ext_storage_usage AS t
        WHERE t.tenant_id = p_tenant AND t.install_id = c_nil AND t.namespace = '' FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace)
            VALUES (p_tenant, c_nil, '') ON CONFLICT DO NOTHING;
            SELECT t.reserved, t.max_tenant_bytes IS NOT DISTINCT FROM p_max_tenant_bytes INTO v_tenant, v_same
            FROM ext_storage_usage AS t
            WHERE t.tenant_id = p_tenant AND t.install_id = c_nil AND t.namespace = '' FOR UPDATE;
        END IF;
        IF NOT v_same THEN
            -- From now on every namespace has to ask once.
            UPDATE ext_storage_usage AS n SET max_tenant_bytes = NULL
            WHERE n.tenant_id = p_tenant AND n.namespace <> '' AND n.max_tenant_bytes IS NOT NULL;
            UPDATE ext_storage_usage AS t SET max_tenant_bytes = p_max_tenant_bytes
            WHERE t.tenant_id = p_tenant AND t.install_id = c_nil AND t.namespace = '';
        END IF;
        SELECT i.reserved, i.namespaces,
               i.max_namespaces IS NOT DISTINCT FROM p_max_namespaces
               AND i.max_install_bytes IS NOT DISTINCT FROM p_max_install_bytes
        INTO v_install, v_slots, v_same FROM ext_storage_usage AS i
        WHERE i.tenant_id = p_tenant AND i.install_id = p_install AND i.namespace = '';
        IF NOT FOUND THEN
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace, max_namespaces, max_install_bytes)
            VALUES (p_tenant, p_install, '', p_max_namespaces, p_max_install_bytes);
            v_install := 0;
            v_slots := 0;
        ELSIF NOT v_same THEN
            UPDATE ext_storage_usage AS n SET max_install_bytes = NULL
            WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace <> ''
              AND n.max_install_bytes IS NOT NULL;
            UPDATE ext_storage_usage AS i SET max_namespaces = p_max_namespaces, max_install_bytes = p_max_install_bytes
            WHERE i.tenant_id = p_tenant AND i.install_id = p_install AND i.namespace = '';
        END IF;
    END IF;

    -- Judges, makes room where a quota is in the way, and judges again.
    LOOP
        IF v_ordered THEN
            SELECT n.keys, n.bytes, n.reserved, n.namespaces, n.revision_floor, n.schema_generation,
                   n.next_expiry, n.last_at
            INTO v_keys, v_used, v_reserved, v_slot, v_floor, v_generation, v_next_expiry, v_last_at
            FROM ext_storage_usage AS n
            WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace FOR UPDATE;
            v_exists := FOUND;
            IF NOT v_exists THEN
                v_keys := 0; v_used := 0; v_reserved := 0; v_slot := 0; v_floor := 0; v_generation := 0;
            END IF;
        END IF;

        -- Under the lock, so that no write to a namespace goes by an earlier time than the one before it.
        IF v_now IS NULL THEN
            v_now := greatest(coalesce(p_now, clock_timestamp()), v_last_at + interval '1 microsecond');
            IF p_operation IS NOT NULL THEN
                SELECT o.digest = p_digest, o.result INTO v_repeats, v_result FROM ext_storage_idempotency AS o
                WHERE o.tenant_id = p_tenant AND o.install_id = p_install AND o.operation_id = p_operation;
                IF FOUND THEN
                    PERFORM set_config('synchronous_commit', 'off', true);
                    IF v_repeats IS NOT TRUE THEN
                        code := 'taken';
                        item := 0;
                        RETURN NEXT;
                        RETURN;
                    END IF;
                    RETURN QUERY SELECT 'repeated', r.* FROM json_to_recordset(v_result) AS r(
                        item integer, revision bigint, expires_at timestamptz, created_at timestamptz,
                        updated_at timestamptz, detail json)
                    ORDER BY r.item;
                    RETURN;
                END IF;
            END IF;
            IF p_schema_generation <> v_generation THEN
                code := 'schema';
                PERFORM set_config('synchronous_commit', 'off', true);
                RETURN NEXT;
                RETURN;
            END IF;
            IF v_next_expiry <= v_now THEN
                SELECT * INTO v_removed FROM ext_storage_expire_1(p_tenant, p_install, p_namespace, v_now, c_on_the_way);
                v_removed_records := v_removed.removed_records;
                v_removed_bytes := v_removed.removed_bytes;
                SELECT n.keys, n.bytes, n.revision_floor, n.next_expiry INTO v_keys, v_used, v_floor, v_next_expiry
                FROM ext_storage_usage AS n
                WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace;
            END IF;
        END IF;

        v_keys_before := v_keys; v_bytes_before := v_used;
        v_keys_after := v_keys; v_bytes_after := v_used; v_floor_after := v_floor;
        FOR i IN 1 .. v_items LOOP
            SELECT r.revision, r.bytes, r.expires_at, r.created_at
            INTO v_revision, v_size, v_expires, v_created FROM ext_storage_records AS r
            WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace
              AND r.key = p_keys[i];
            v_live := v_revision IS NOT NULL AND (v_expires IS NULL OR v_expires > v_now);
            -- Saturating: a counter that has drifted must not stop anybody from cleaning up.
            IF v_revision IS NOT NULL THEN
                v_keys_after := greatest(v_keys_after - 1, 0);
                v_bytes_after := greatest(v_bytes_after - v_size, 0);
                IF NOT v_live THEN
                    v_keys_before := greatest(v_keys_before - 1, 0);
                    v_bytes_before := greatest(v_bytes_before - v_size, 0);
                    v_floor_after := greatest(v_floor_after, v_revision);
                END IF;
            END IF;
            IF NOT v_live THEN
                v_revision := NULL;
            END IF;
            IF p_guards[i] IS NOT NULL AND (CASE p_guards[i]
                WHEN 0 THEN v_live
                WHEN -1 THEN NOT v_live
                ELSE v_revision IS DISTINCT FROM p_guards[i] END)
            THEN
                code := 'conflict';
                item := i - 1;
                revision := v_revision;
                IF v_live AND p_return_current THEN
                    detail := json_build_object('seen', ext_storage_seen_1(p_tenant, p_install, p_namespace, p_keys[i]));
                END IF;
                -- Nothing was written that anybody would miss: no need to wait for the disk.
                PERFORM set_config('synchronous_commit', 'off', true);
                RETURN NEXT;
                RETURN;
            END IF;
            v_keys_after := v_keys_after + 1;
            v_bytes_after := v_bytes_after + p_bytes[i];
            v_keys_at[i] := v_keys_after;
            v_bytes_at[i] := v_bytes_after;
            v_before[i] := v_revision;
            v_after[i] := coalesce(v_revision, v_floor_after) + 1;
            v_since[i] := CASE WHEN v_live THEN v_created ELSE v_now END;
        END LOOP;

        -- What grows nothing is never refused, so that an install whose quotas were lowered can shrink.
        v_quota := NULL;
        v_grow := v_bytes_after - v_bytes_before;
        IF v_ordered THEN
            v_need := greatest(v_bytes_after - v_reserved, 0);
            IF v_slots - v_slot + 1 > p_max_namespaces OR v_install + v_need > p_max_install_bytes
               OR v_tenant + v_need > p_max_tenant_bytes
            THEN
                PERFORM ext_storage_reclaim_1(p_tenant, (CASE WHEN v_tenant + v_need <= p_max_tenant_bytes THEN p_install END));
                SELECT i.reserved, i.namespaces, t.reserved INTO v_install, v_slots, v_tenant
                FROM ext_storage_usage AS i, ext_storage_usage AS t
                WHERE i.tenant_id = p_tenant AND i.install_id = p_install AND i.namespace = ''
                  AND t.tenant_id = p_tenant AND t.install_id = c_nil AND t.namespace = '';
                v_reserved := v_used;
                v_slot := least(v_keys, 1);
                v_need := greatest(v_bytes_after - v_reserved, 0);
            END IF;
            IF v_keys_before = 0 AND v_slots - v_slot + 1 > p_max_namespaces THEN
                v_quota := 'namespaces';
                v_limit := p_max_namespaces;
                v_quota_used := v_slots - v_slot;
                v_attempted := v_quota_used + 1;
            END IF;
        END IF;
        IF v_quota IS NULL AND v_keys_after > p_max_keys AND v_keys_after > v_keys_before THEN
            v_quota := 'keys-per-namespace';
            v_limit := p_max_keys;
            v_quota_used := v_keys_before;
            v_attempted := v_keys_after;
        END IF;
        IF v_quota IS NULL AND v_ordered AND v_grow > 0 THEN
            IF v_install + v_need > p_max_install_bytes THEN
                v_quota := 'bytes-per-install';
                v_limit := p_max_install_bytes;
                v_attempted := v_install - v_reserved + v_bytes_after;
                v_quota_used := v_attempted - v_grow;
            ELSIF v_tenant + v_need > p_max_tenant_bytes THEN
                v_quota := 'bytes-per-tenant';
                v_limit := p_max_tenant_bytes;
                v_attempted := v_tenant - v_reserved + v_bytes_after;
                v_quota_used := v_attempted - v_grow;
            END IF;
        END IF;
        EXIT WHEN v_quota IS NULL;

        -- What is expired doesn't count. Remove it before refusing, a part at a time.
        IF v_removed_records >= c_for_room THEN
            code := 'again';
            RETURN NEXT;
            RETURN;
        END IF;
        IF v_quota = 'keys-per-namespace' THEN
            SELECT e.*, false AS more INTO v_removed FROM ext_storage_expire_1(
                p_tenant, p_install, p_namespace, v_now, c_for_room - v_removed_records) AS e;
        ELSE
            SELECT * INTO v_removed FROM ext_storage_make_room_1(
                p_tenant, CASE WHEN v_quota <> 'bytes-per-tenant' THEN p_install END,
                least(v_now, coalesce(p_now, clock_timestamp())), c_for_room - v_removed_records);
        END IF;
        IF v_removed.removed_records = 0 AND v_removed.more THEN
            code := 'again';
            RETURN NEXT;
            RETURN;
        END IF;
        IF v_removed.removed_records = 0 THEN
            code := 'quota';
            item := 0;
            -- The item with which it was exceeded.
            FOR i IN 1 .. v_items LOOP
                item := i - 1;
                EXIT WHEN (CASE v_quota
                    WHEN 'namespaces' THEN true
                    WHEN 'keys-per-namespace' THEN v_keys_at[i] > greatest(v_limit, v_quota_used)
                    ELSE v_quota_used + v_bytes_at[i] - v_bytes_before > greatest(v_limit, v_quota_used) END);
            END LOOP;
            detail := json_build_object('quota', v_quota, 'limit', v_limit, 'used', v_quota_used, 'attempted', v_attempted);
            IF v_removed_records = 0 THEN
                PERFORM set_config('synchronous_commit', 'off', true);
            END IF;
            RETURN NEXT;
            RETURN;
        END IF;
        v_removed_records := v_removed_records + v_removed.removed_records;
        v_removed_bytes := v_removed_bytes + v_removed.removed_bytes;
        IF NOT v_ordered THEN
            SELECT n.keys, n.bytes, n.revision_floor, n.next_expiry INTO v_keys, v_used, v_floor, v_next_expiry
            FROM ext_storage_usage AS n
            WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace;
        END IF;
    END LOOP;

    v_counted := ARRAY[v_keys_before, v_keys_after];
    IF v_ordered THEN
        -- Reserves more than is needed while there is plenty, and nothing more near a limit.
        v_more := v_need;
        -- Also where there would be no room for as much again, or such a namespace would ask every time.
        IF v_need > 0 OR v_bytes_after + v_sum > v_reserved THEN
            v_more := v_need + greatest(0, least(c_chunk,
                (p_max_install_bytes - v_install - v_need) / 64, (p_max_tenant_bytes - v_tenant - v_need) / 64));
        END IF;
        v_counted := v_counted || ARRAY[v_slots, v_slots + 1 - v_slot, v_install, v_install + v_more, v_tenant, v_tenant + v_more];
        IF v_more > 0 OR v_slot = 0 THEN
            UPDATE ext_storage_usage SET reserved = reserved + v_more, namespaces = namespaces + 1 - v_slot
            WHERE tenant_id = p_tenant AND install_id = p_install AND namespace = '';
            UPDATE ext_storage_usage SET reserved = reserved + v_more
            WHERE tenant_id = p_tenant AND install_id = c_nil AND namespace = '';
        END IF;
        v_reserved := v_reserved + v_more;
        -- Beyond a limit that was lowered, every write has to ask.
        v_same := v_install + v_more <= p_max_install_bytes AND v_tenant + v_more <= p_max_tenant_bytes
            AND v_slots + 1 - v_slot <= p_max_namespaces;
        IF NOT v_exists THEN
            INSERT INTO ext_storage_usage (tenant_id, install_id, namespace) VALUES (p_tenant, p_install, p_namespace);
        END IF;
    END IF;

    SELECT * INTO v_removed FROM ext_storage_pass_by_1(
        p_tenant, p_install, p_namespace, least(v_now, coalesce(p_now, clock_timestamp())));
    v_removed_records := v_removed_records + v_removed.removed_records;
    v_removed_bytes := v_removed_bytes + v_removed.removed_bytes;

    FOR i IN 1 .. v_items LOOP
        item := i - 1;
        code := 'written';
        revision := v_after[i];
        expires_at := date_trunc('milliseconds', v_now) + p_ttls[i] * interval '1 millisecond';
        created_at := v_since[i];
        updated_at := v_now;
        v_min_expiry := least(v_min_expiry, expires_at);
        IF p_return_previous THEN
            v_seen := CASE WHEN v_before[i] IS NOT NULL
                THEN ext_storage_seen_1(p_tenant, p_install, p_namespace, p_keys[i]) END;
            v_tells_values := v_tells_values OR v_seen IS NOT NULL;
        END IF;
        INSERT INTO ext_storage_records AS r
            (tenant_id, install_id, namespace, key, revision, bytes, schema_version,
             expires_at, created_at, updated_at, metadata, value)
        VALUES
            (p_tenant, p_install, p_namespace, p_keys[i], v_after[i], p_bytes[i],
             p_schema_versions[i], expires_at, v_since[i], v_now,
             p_metadata[i]::json, p_values[i]::json)
        ON CONFLICT (tenant_id, install_id, namespace, key) DO UPDATE SET
            revision = excluded.revision, bytes = excluded.bytes,
            replaced_bytes = r.bytes, schema_version = excluded.schema_version, expires_at = excluded.expires_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at, encoding = excluded.encoding,
            metadata = excluded.metadata, value = excluded.value;
        v_changes := concat_ws(',', v_changes,
            json_build_array(p_keys[i], v_before[i], v_after[i], p_bytes[i], p_schema_versions[i]));
        detail := CASE WHEN i = 1 OR v_seen IS NOT NULL THEN json_build_object('seen', v_seen, 'counted', v_counted,
            'removed', json_build_array(v_removed_records, v_removed_bytes)) END;
        IF p_operation IS NOT NULL THEN
            v_answers[i] := json_build_object(
                'item', item, 'revision', revision, 'expires_at', expires_at, 'created_at', created_at,
                'updated_at', updated_at,
                'detail', CASE WHEN v_seen IS NOT NULL THEN json_build_object('seen', v_seen) END);
        END IF;
        RETURN NEXT;
        v_counted := NULL;
    END LOOP;

    WITH counters AS (
        UPDATE ext_storage_usage SET
            keys = v_keys_after, bytes = v_bytes_after, reserved = v_reserved, namespaces = 1,
            max_namespaces = CASE WHEN v_same THEN p_max_namespaces END,
            max_install_bytes = p_max_install_bytes, max_tenant_bytes = p_max_tenant_bytes,
            revision_floor = v_floor_after, change_seq = change_seq + v_items,
            next_expiry = least(v_next_expiry, v_min_expiry), last_at = v_now
        WHERE tenant_id = p_tenant AND install_id = p_install AND namespace = p_namespace
    )
    INSERT INTO ext_storage_audit
        (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id, records, bytes, changes)
    VALUES
        (p_tenant, ext_storage_uuid7_1((date_part('epoch', v_now) * 1000000)::bigint), v_now, p_install, p_extension,
         p_namespace, 'put', p_actor, p_request, v_items, v_sum, ('[' || v_changes || ']')::json);
    IF p_operation IS NOT NULL THEN
        INSERT INTO ext_storage_idempotency
            (tenant_id, install_id, operation_id, digest, expires_at, result)
        VALUES (p_tenant, p_install, p_operation, p_digest,
                v_now + CASE WHEN v_tells_values THEN interval '10 minutes' ELSE interval '24 hours' END,
                array_to_json(v_answers));
    END IF;
END $$;

-- Writes one record; answers as ext_storage_put_1 does.
CREATE FUNCTION ext_storage_put_one_1(
    p_tenant uuid, p_install uuid, p_namespace text,
    p_key text, p_value text, p_metadata text, p_bytes bigint, p_ttl bigint, p_guard bigint, p_schema_version integer,
    p_max_namespaces bigint, p_max_keys bigint, p_max_install_bytes bigint, p_max_tenant_bytes bigint,
    p_return_previous boolean, p_return_current boolean,
    p_extension text, p_actor text, p_request text,
    p_operation uuid DEFAULT NULL, p_digest bytea DEFAULT NULL, p_schema_generation bigint DEFAULT NULL,
    p_ordered boolean DEFAULT false, p_now timestamptz DEFAULT NULL
) RETURNS TABLE (
    code text, item integer,
    revision bigint, expires_at timestamptz, created_at timestamptz, updated_at timestamptz,
    detail json
) LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
DECLARE
    v_at constant timestamptz := coalesce(p_now, clock_timestamp());
    v_replaced bigint;
    v_keys bigint; v_seq bigint;
    v_removed record;
BEGIN
    -- Most writes are of one record, without a guard and far from every limit. The statements here are
    -- all of them: what is expired, refused, remembered or read before is the business of what follows.
    IF NOT p_ordered AND p_operation IS NULL AND p_guard IS NULL AND NOT p_return_previous THEN
        IF current_setting('citus.shard_count', true) IS NULL THEN
            -- Writers of a namespace queue here, before they hold anything, one after the other. Queueing for the row
            -- instead, each that gets it would run the statement again for the row as it has become, and wake the
            -- rest. The row is locked as well: by those who come here, and by all that do without this queue.
            -- (In a condition, which needs no statement of its own.)
            IF pg_advisory_xact_lock(hashtextextended(p_install::text || p_namespace, 0)) IS NULL THEN
                RETURN;
            END IF;
            -- Its snapshot is from before the lock of the row, but nothing comes of that: FOR UPDATE gives the row
            -- as it is when it is locked, and ON CONFLICT replaces the record that is there by then.
            INSERT INTO ext_storage_records AS r
                (tenant_id, install_id, namespace, key, revision, bytes, schema_version,
                 expires_at, created_at, updated_at, metadata, value)
            SELECT p_tenant, p_install, p_namespace, p_key, n.revision_floor + 1, p_bytes,
                p_schema_version, date_trunc('milliseconds', t.at) + p_ttl * interval '1 millisecond', t.at, t.at,
                p_metadata::json, p_value::json
            FROM ext_storage_usage AS n,
                LATERAL (SELECT greatest(v_at, n.last_at + interval '1 microsecond') AS at) AS t
            WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace
              AND n.bytes + p_bytes <= n.reserved AND n.keys < p_max_keys
              AND n.max_namespaces = p_max_namespaces
              AND n.max_install_bytes = p_max_install_bytes AND n.max_tenant_bytes = p_max_tenant_bytes
              -- Nothing is expired, so what is there is alive.
              AND (n.next_expiry IS NULL OR n.next_expiry > t.at)
              AND (p_schema_generation IS NULL OR p_schema_generation = n.schema_generation)
            FOR UPDATE OF n
            ON CONFLICT (tenant_id, install_id, namespace, key) DO UPDATE SET
                revision = r.revision + 1, bytes = excluded.bytes,
                replaced_bytes = r.bytes, schema_version = excluded.schema_version,
                expires_at = excluded.expires_at, updated_at = excluded.updated_at,
                encoding = excluded.encoding, metadata = excluded.metadata, value = excluded.value
            RETURNING r.revision, r.expires_at, r.created_at, r.updated_at, r.replaced_bytes
            INTO revision, expires_at, created_at, updated_at, v_replaced;
        ELSE
            -- The same in two statements, as Citus has no plan of one shard for that one; and without the queue, with
            -- which eight clients were a third slower there.
            SELECT n.revision_floor + 1, t.at INTO revision, updated_at
            FROM ext_storage_usage AS n,
                LATERAL (SELECT greatest(v_at, n.last_at + interval '1 microsecond') AS at) AS t
            WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace
              AND n.bytes + p_bytes <= n.reserved AND n.keys < p_max_keys
              AND n.max_namespaces = p_max_namespaces
              AND n.max_install_bytes = p_max_install_bytes AND n.max_tenant_bytes = p_max_tenant_bytes
              AND (n.next_expiry IS NULL OR n.next_expiry > t.at)
              AND (p_schema_generation IS NULL OR p_schema_generation = n.schema_generation)
            FOR UPDATE OF n;
            IF FOUND THEN
                INSERT INTO ext_storage_records AS r
                    (tenant_id, install_id, namespace, key, revision, bytes, schema_version,
                     expires_at, created_at, updated_at, metadata, value)
                VALUES
                    (p_tenant, p_install, p_namespace, p_key, revision, p_bytes, p_schema_version,
                     date_trunc('milliseconds', updated_at) + p_ttl * interval '1 millisecond', updated_at, updated_at,
                     p_metadata::json, p_value::json)
                ON CONFLICT (tenant_id, install_id, namespace, key) DO UPDATE SET
                    revision = r.revision + 1, bytes = excluded.bytes,
                    replaced_bytes = r.bytes, schema_version = excluded.schema_version,
                    expires_at = excluded.expires_at, updated_at = excluded.updated_at,
                    encoding = excluded.encoding, metadata = excluded.metadata, value = excluded.value
                RETURNING r.revision, r.expires_at, r.created_at, r.updated_at, r.replaced_bytes
                INTO revision, expires_at, created_at, updated_at, v_replaced;
            END IF;
        END IF;
        IF FOUND THEN
            UPDATE ext_storage_usage AS u SET
                keys = u.keys + CASE WHEN v_replaced IS NULL THEN 1 ELSE 0 END,
                bytes = u.bytes + p_bytes - coalesce(v_replaced, 0),
                change_seq = u.change_seq + 1, next_expiry = least(u.next_expiry, expires_at), last_at = updated_at
            WHERE u.tenant_id = p_tenant AND u.install_id = p_install AND u.namespace = p_namespace
            RETURNING u.keys, u.change_seq INTO v_keys, v_seq;
            INSERT INTO ext_storage_audit
                (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id, records, bytes, changes)
            VALUES
                (p_tenant, ext_storage_uuid7_1((date_part('epoch', updated_at) * 1000000)::bigint), updated_at, p_install,
                 p_extension, p_namespace, 'put', p_actor, p_request, 1, p_bytes,
                 json_build_array(json_build_array(
                    p_key, CASE WHEN v_replaced IS NOT NULL THEN revision - 1 END, revision, p_bytes, p_schema_version)));
            code := 'written';
            item := 0;
            -- Worth telling only where a threshold may be near.
            IF v_replaced IS NULL AND v_keys >= p_max_keys / 2 THEN
                detail := json_build_object('counted', json_build_array(v_keys - 1, v_keys));
            END IF;
            -- To look every time would cost every write a tenth.
            IF v_seq % 4 = 0 THEN
                SELECT * INTO v_removed FROM ext_storage_pass_by_1(p_tenant, p_install, p_namespace, v_at);
                IF v_removed.removed_records > 0 THEN
                    detail := json_build_object('counted', detail -> 'counted',
                        'removed', json_build_array(v_removed.removed_records, v_removed.removed_bytes));
                END IF;
            END IF;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM ext_storage_put_1(
        p_tenant, p_install, p_namespace, ARRAY[p_key], ARRAY[p_value], ARRAY[p_metadata], ARRAY[p_bytes], ARRAY[p_ttl],
        ARRAY[p_guard], ARRAY[p_schema_version], p_max_namespaces, p_max_keys, p_max_install_bytes, p_max_tenant_bytes,
        p_return_previous, p_return_current, p_extension, p_actor, p_request, p_operation, p_digest,
        p_schema_generation, p_ordered, p_now);
END $$;

-- Removes a record. Answers `deleted`, `absent`, `conflict` or `taken`; p_guard as for items of a put.
CREATE FUNCTION ext_storage_delete_1(
    p_tenant uuid, p_install uuid, p_namespace text, p_key text, p_guard bigint,
    p_extension text, p_actor text, p_request text,
    p_operation uuid DEFAULT NULL, p_digest bytea DEFAULT NULL, p_now timestamptz DEFAULT NULL,
    -- Of the record that was removed, or that a guard found.
    OUT code text, OUT revision bigint, OUT bytes bigint, OUT deleted_at timestamptz,
    -- Of what was removed on the way.
    OUT removed_records bigint, OUT removed_bytes bigint
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_next_expiry timestamptz; v_last_at timestamptz; v_now timestamptz;
    v_removed record;
    v_repeats boolean;
    v_result json;
BEGIN
    removed_records := 0;
    removed_bytes := 0;
    SELECT n.next_expiry, n.last_at INTO v_next_expiry, v_last_at FROM ext_storage_usage AS n
    WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace FOR UPDATE;
    IF NOT FOUND THEN
        code := CASE WHEN p_guard IS NULL THEN 'absent' ELSE 'conflict' END;
        RETURN;
    END IF;
    v_now := greatest(coalesce(p_now, clock_timestamp()), v_last_at + interval '1 microsecond');
    IF p_operation IS NOT NULL THEN
        SELECT o.digest = p_digest, o.result INTO v_repeats, v_result FROM ext_storage_idempotency AS o
        WHERE o.tenant_id = p_tenant AND o.install_id = p_install AND o.operation_id = p_operation;
        IF FOUND THEN
            code := CASE WHEN v_repeats THEN 'deleted' ELSE 'taken' END;
            revision := (v_result ->> 'revision')::bigint;
            PERFORM set_config('synchronous_commit', 'off', true);
            RETURN;
        END IF;
    END IF;
    IF v_next_expiry <= v_now THEN
        SELECT * INTO v_removed FROM ext_storage_expire_1(p_tenant, p_install, p_namespace, v_now, 64);
        removed_records := v_removed.removed_records;
        removed_bytes := v_removed.removed_bytes;
    END IF;
    SELECT r.revision, r.bytes INTO revision, bytes FROM ext_storage_records AS r
    WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace AND r.key = p_key
      AND (r.expires_at IS NULL OR r.expires_at > v_now);
    IF p_guard IS NOT NULL AND (p_guard = -1 AND revision IS NULL OR p_guard > 0 AND revision IS DISTINCT FROM p_guard) THEN
        code := 'conflict';
    ELSIF revision IS NULL THEN
        code := 'absent';
    END IF;
    IF code IS NOT NULL THEN
        IF removed_records = 0 THEN
            PERFORM set_config('synchronous_commit', 'off', true);
        END IF;
        RETURN;
    END IF;
    code := 'deleted';
    deleted_at := v_now;
    DELETE FROM ext_storage_records AS r
    WHERE r.tenant_id = p_tenant AND r.install_id = p_install AND r.namespace = p_namespace AND r.key = p_key;
    -- What it reserves it keeps, and its place among the namespaces too: taken back when somebody needs it.
    UPDATE ext_storage_usage AS n SET
        keys = greatest(n.keys - 1, 0), bytes = greatest(n.bytes - ext_storage_delete_1.bytes, 0),
        revision_floor = greatest(n.revision_floor, ext_storage_delete_1.revision), change_seq = n.change_seq + 1, last_at = v_now
    WHERE n.tenant_id = p_tenant AND n.install_id = p_install AND n.namespace = p_namespace;
    INSERT INTO ext_storage_audit
        (tenant_id, audit_id, at, install_id, extension, namespace, operation, actor, request_id, records, bytes, changes)
    VALUES
        (p_tenant, ext_storage_uuid7_1((date_part('epoch', v_now) * 1000000)::bigint), v_now, p_install, p_extension,
         p_namespace, 'delete', p_actor, p_request, 1, bytes,
         json_build_array(json_build_array(p_key, revision, NULL, bytes, NULL)));
    IF p_operation IS NOT NULL THEN
        INSERT INTO ext_storage_idempotency
            (tenant_id, install_id, operation_id, digest, expires_at, result)
        VALUES (p_tenant, p_install, p_operation, p_digest, v_now + interval '24 hours', json_build_object('revision', revision));
    END IF;
END $$;

-- Removes at most `p_limit` expired records of a tenant. Waits for nobody: namespaces that are being
-- written are left to their writers, and where another process sweeps the tenant nothing is done.
CREATE FUNCTION ext_storage_sweep_1(
    p_tenant uuid, p_limit bigint, p_now timestamptz DEFAULT NULL,
    OUT removed_records bigint, OUT removed_bytes bigint, OUT more boolean
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_now constant timestamptz := coalesce(p_now, clock_timestamp());
    v_due record;
    v_removed record;
    v_visited integer := 0;
BEGIN
    removed_records := 0;
    removed_bytes := 0;
    more := false;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('ext_storage_sweep:' || p_tenant, 0)) THEN
        RETURN;
    END IF;
    FOR v_due IN
        SELECT u.install_id, u.namespace FROM ext_storage_usage AS u
        WHERE u.tenant_id = p_tenant AND u.next_expiry <= v_now ORDER BY u.next_expiry LIMIT 64
    LOOP
        v_visited := v_visited + 1;
        PERFORM FROM ext_storage_usage AS u
        WHERE u.tenant_id = p_tenant AND u.install_id = v_due.install_id AND u.namespace = v_due.namespace
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        SELECT * INTO v_removed FROM ext_storage_expire_1(
            p_tenant, v_due.install_id, v_due.namespace, v_now, p_limit - removed_records);
        removed_records := removed_records + v_removed.removed_records;
        removed_bytes := removed_bytes + v_removed.removed_bytes;
        EXIT WHEN removed_records >= p_limit;
    END LOOP;
    more := removed_records >= p_limit OR v_visited = 64;
END $$;

-- Tells where the counters of a tenant differ from what its records say; with `p_repair` mends them.
-- The caller reads namespaces of install and tenant as null where they are of totals.
CREATE FUNCTION ext_storage_verify_1(p_tenant uuid, p_repair boolean)
RETURNS TABLE (install_id uuid, namespace text, counter text, stored bigint, counted bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF p_repair THEN
        -- Whoever writes waits, in the order of all locks; a namespace that isn't there yet needs the first.
        INSERT INTO ext_storage_usage (tenant_id, install_id, namespace)
        VALUES (p_tenant, '00000000-0000-0000-0000-000000000000', '') ON CONFLICT DO NOTHING;
        PERFORM FROM ext_storage_usage AS u
        WHERE u.tenant_id = p_tenant AND u.install_id = '00000000-0000-0000-0000-000000000000' AND u.namespace = ''
        FOR UPDATE;
        PERFORM FROM ext_storage_usage AS u WHERE u.tenant_id = p_tenant FOR UPDATE;
    END IF;
    -- One statement, one snapshot: records and counters change together.
    RETURN QUERY
    WITH counted AS (
        SELECT r.install_id, r.namespace, count(*) AS keys,
               sum(octet_length(r.value::text) + octet_length(r.metadata::text))::bigint AS bytes, min(r.expires_at) AS next_expiry,
               count(*) FILTER (WHERE r.bytes <> octet_length(r.value::text) + octet_length(r.metadata::text)) AS missized
        FROM ext_storage_records AS r WHERE r.tenant_id = p_tenant AND r.encoding = 'json'
        GROUP BY r.install_id, r.namespace
    ), rows AS (
        SELECT u.install_id, u.namespace, u.keys, u.bytes, u.reserved, u.namespaces, u.next_expiry
        FROM ext_storage_usage AS u WHERE u.tenant_id = p_tenant
    ), sums AS (
        SELECT u.install_id, ''::text AS namespace, sum(u.reserved)::bigint AS reserved, sum(u.namespaces)::bigint AS namespaces
        FROM rows AS u WHERE u.namespace <> '' GROUP BY u.install_id
    )
    SELECT coalesce(u.install_id, c.install_id), coalesce(u.namespace, c.namespace), d.counter, d.stored, d.counted
    FROM rows AS u
    FULL JOIN counted AS c ON c.install_id = u.install_id AND c.namespace = u.namespace
    CROSS JOIN LATERAL (VALUES
        ('keys', u.keys, coalesce(c.keys, 0)),
        ('bytes', u.bytes, coalesce(c.bytes, 0)),
        ('missizedRecords', coalesce(c.missized, 0), 0::bigint),
        ('nextExpiry', (date_part('epoch', u.next_expiry) * 1000)::bigint,
            CASE WHEN c.next_expiry < coalesce(u.next_expiry, 'infinity') THEN (date_part('epoch', c.next_expiry) * 1000)::bigint
                 ELSE (date_part('epoch', u.next_expiry) * 1000)::bigint END)
    ) AS d (counter, stored, counted)
    WHERE coalesce(u.namespace, c.namespace) <> '' AND d.stored IS DISTINCT FROM d.counted
    UNION ALL
    SELECT u.install_id, u.namespace, d.counter, d.stored, d.counted
    FROM rows AS u
    LEFT JOIN sums AS s ON s.install_id = u.install_id
    CROSS JOIN LATERAL (VALUES
        ('reserved', u.reserved, CASE WHEN u.install_id = '00000000-0000-0000-0000-000000000000'
            THEN (SELECT coalesce(sum(x.reserved), 0)::bigint FROM rows AS x
                  WHERE x.namespace = '' AND x.install_id <> u.install_id)
            ELSE coalesce(s.reserved, 0) END),
        ('namespaces', u.namespaces, coalesce(s.namespaces, 0))
    ) AS d (counter, stored, counted)
    WHERE u.namespace = '' AND d.stored <> d.counted;
    IF p_repair AND FOUND THEN
        UPDATE ext_storage_records AS r SET bytes = octet_length(r.value::text) + octet_length(r.metadata::text)
        WHERE r.tenant_id = p_tenant AND r.encoding = 'json' AND r.bytes <> octet_length(r.value::text) + octet_length(r.metadata::text);
        -- The floor of a row that was lost can't be known; above the greatest revision there is, most guards
        -- that were taken before still fail.
        INSERT INTO ext_storage_usage AS u
            (tenant_id, install_id, namespace, keys, bytes, reserved, namespaces, next_expiry, revision_floor)
        SELECT p_tenant, r.install_id, r.namespace, count(*), sum(r.bytes), sum(r.bytes), 1, min(r.expires_at), max(r.revision)
        FROM ext_storage_records AS r WHERE r.tenant_id = p_tenant GROUP BY r.install_id, r.namespace
        ON CONFLICT (tenant_id, install_id, namespace) DO UPDATE SET
            keys = excluded.keys, bytes = excluded.bytes, reserved = excluded.reserved, namespaces = 1,
            next_expiry = excluded.next_expiry;
        UPDATE ext_storage_usage AS u SET keys = 0, bytes = 0, reserved = 0, namespaces = 0, next_expiry = NULL
        WHERE u.tenant_id = p_tenant AND u.namespace <> '' AND NOT EXISTS (
            SELECT FROM ext_storage_records AS r
            WHERE r.tenant_id = p_tenant AND r.install_id = u.install_id AND r.namespace = u.namespace);
        INSERT INTO ext_storage_usage AS i (tenant_id, install_id, namespace, reserved, namespaces)
        SELECT p_tenant, n.install_id, '', sum(n.reserved), sum(n.namespaces)
        FROM ext_storage_usage AS n WHERE n.tenant_id = p_tenant AND n.namespace <> '' GROUP BY n.install_id
        ON CONFLICT (tenant_id, install_id, namespace) DO UPDATE SET
            reserved = excluded.reserved, namespaces = excluded.namespaces;
        UPDATE ext_storage_usage AS t SET reserved = (
            SELECT coalesce(sum(i.reserved), 0) FROM ext_storage_usage AS i
            WHERE i.tenant_id = p_tenant AND i.install_id <> t.install_id AND i.namespace = ''), namespaces = 0
        WHERE t.tenant_id = p_tenant AND t.install_id = '00000000-0000-0000-0000-000000000000' AND t.namespace = '';
    END IF;
END $$;
