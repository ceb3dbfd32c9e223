-- Every answer that is kept and every claim is lost: whoever repeats a request of before has it done again.
DROP TABLE registry_answers;
DROP TABLE registry_answer_counts;

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

CREATE INDEX registry_answers_of_time ON registry_answers (expires_at);
