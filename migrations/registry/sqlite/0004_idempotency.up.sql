-- Answers that are given again to whoever repeats a request under its key. While a request is being
-- answered, its row has no answer, and stands until the lease is over.
CREATE TABLE registry_answers (
    install_id BLOB    NOT NULL CHECK (length(install_id) = 16),
    key        TEXT    NOT NULL,
    request    BLOB    NOT NULL CHECK (length(request) = 32),
    claim      BLOB    NOT NULL CHECK (length(claim) = 16),
    expires_at INTEGER NOT NULL,
    -- Last, as it may be large.
    answer     BLOB,
    UNIQUE (install_id, key)
) STRICT;

-- Finds what is expired.
CREATE INDEX registry_answers_of_time ON registry_answers (expires_at);
