-- What makes a request the same one has changed, so no answer of before can be given again.
DROP TABLE registry_answers;

-- Answers that are given again to whoever repeats a request under its key. While a request is being
-- answered, its row has no status, and stands until the lease is over.
CREATE TABLE registry_answers (
    install_id BLOB    NOT NULL CHECK (length(install_id) = 16),
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    key        TEXT    NOT NULL,
    request    BLOB    NOT NULL CHECK (length(request) = 32),
    claim      BLOB    NOT NULL CHECK (length(claim) = 16),
    expires_at INTEGER NOT NULL,
    status     INTEGER,
    bytes      INTEGER CHECK ((bytes IS NULL) = (status IS NULL)),
    -- Last, as it may be large. Without one, only that there was an answer is known.
    answer     BLOB    CHECK (answer IS NULL OR status IS NOT NULL),
    UNIQUE (install_id, key)
) STRICT;

-- Finds what is expired.
CREATE INDEX registry_answers_of_time ON registry_answers (expires_at);

-- Find the oldest ones, and the oldest ones that have their content.
CREATE INDEX registry_answers_of_install ON registry_answers (install_id, expires_at)
    WHERE status IS NOT NULL;
CREATE INDEX registry_answers_of_tenant ON registry_answers (tenant_id, expires_at)
    WHERE status IS NOT NULL;
CREATE INDEX registry_answers_whole_of_install ON registry_answers (install_id, expires_at)
    WHERE answer IS NOT NULL;
CREATE INDEX registry_answers_whole_of_tenant ON registry_answers (tenant_id, expires_at)
    WHERE answer IS NOT NULL;

-- How many answers there are and how large their contents are together, by install and by tenant.
-- The triggers keep it true whichever statement changes an answer, so that nobody has to count.
CREATE TABLE registry_answer_counts (
    kind    TEXT    NOT NULL CHECK (kind IN ('install', 'tenant')),
    id      BLOB    NOT NULL CHECK (length(id) = 16),
    answers INTEGER NOT NULL CHECK (answers >= 0),
    bytes   INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- A row is inserted as a claim, which doesn't count; there is no trigger for that.
CREATE TRIGGER registry_answers_changed AFTER UPDATE OF status, answer ON registry_answers
BEGIN
    INSERT INTO registry_answer_counts (kind, id, answers, bytes)
        VALUES ('install', NEW.install_id, 0, 0) ON CONFLICT (kind, id) DO NOTHING;
    INSERT INTO registry_answer_counts (kind, id, answers, bytes)
        VALUES ('tenant', NEW.tenant_id, 0, 0) ON CONFLICT (kind, id) DO NOTHING;
    UPDATE registry_answer_counts
        SET answers = answers + (NEW.status IS NOT NULL) - (OLD.status IS NOT NULL),
            bytes = bytes + coalesce(length(NEW.answer), 0) - coalesce(length(OLD.answer), 0)
        WHERE kind = 'install' AND id = NEW.install_id;
    UPDATE registry_answer_counts
        SET answers = answers + (NEW.status IS NOT NULL) - (OLD.status IS NOT NULL),
            bytes = bytes + coalesce(length(NEW.answer), 0) - coalesce(length(OLD.answer), 0)
        WHERE kind = 'tenant' AND id = NEW.tenant_id;
END;

CREATE TRIGGER registry_answers_removed AFTER DELETE ON registry_answers WHEN OLD.status IS NOT NULL
BEGIN
    UPDATE registry_answer_counts
        SET answers = answers - 1, bytes = bytes - coalesce(length(OLD.answer), 0)
        WHERE kind = 'install' AND id = OLD.install_id;
    UPDATE registry_answer_counts
        SET answers = answers - 1, bytes = bytes - coalesce(length(OLD.answer), 0)
        WHERE kind = 'tenant' AND id = OLD.tenant_id;
END;
