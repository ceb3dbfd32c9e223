-- Distributes what is not distributed yet, where the citus extension is there; else does nothing. Run
-- after every migration, and again when Citus has been added to a database that has data already.
--
-- A call is passed on to the worker that holds the tenant where it is the only function of a statement
-- (SELECT … FROM f($1, …)), its arguments are constants or parameters, and no transaction is open.
DO $$
DECLARE
    v_table text;
    v_function regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        RETURN;
    END IF;
    -- Functions are not distributed in a transaction that has been to several shards at once.
    PERFORM set_config('citus.multi_shard_modify_mode', 'sequential', true);
    -- Several processes migrate at once: the migration's own lock is held by now.
    FOREACH v_table IN ARRAY ARRAY[
        'ext_storage_records', 'ext_storage_usage', 'ext_storage_audit', 'ext_storage_idempotency']
    LOOP
        IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = v_table::regclass) THEN
            CONTINUE;
        END IF;
        PERFORM create_distributed_table(v_table, 'tenant_id',
            colocate_with => CASE v_table WHEN 'ext_storage_records' THEN 'none' ELSE 'ext_storage_records' END);
    END LOOP;
    -- What is distributed already is left alone: all nodes would have to be there to hear of it again, and a
    -- process is to start while one is away.
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.proname ~ '^ext_storage_[a-z0-9_]+_[0-9]+$'
          AND p.pronamespace = (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = 'ext_storage_records'::regclass)
          AND NOT EXISTS (
            SELECT FROM pg_dist_object AS o
            WHERE o.classid = 'pg_proc'::regclass AND o.objid = p.oid
              AND (o.distribution_argument_index = 0 OR p.proargnames[1] <> 'p_tenant'))
        ORDER BY p.oid
    LOOP
        IF 'p_tenant' = (SELECT p.proargnames[1] FROM pg_proc AS p WHERE p.oid = v_function) THEN
            PERFORM create_distributed_function(v_function, 'p_tenant', colocate_with => 'ext_storage_records');
        ELSE
            PERFORM create_distributed_function(v_function);
        END IF;
    END LOOP;
END $$;
