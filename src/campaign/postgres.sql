CREATE TABLE IF NOT EXISTS campaign (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version BIGINT NOT NULL,
    name    TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS campaign_row (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,
    params   TEXT NOT NULL,
    state    TEXT NOT NULL DEFAULT 'new'
             CHECK (state IN ('new', 'intended', 'made', 'finished', 'done', 'failed')),
    attempt  BIGINT NOT NULL DEFAULT 1,
    owner    TEXT,
    back_end TEXT,
    intended BIGINT,
    job      TEXT,
    reserved DOUBLE PRECISION,
    cost     DOUBLE PRECISION,
    folder   TEXT UNIQUE,
    files    TEXT,
    error    TEXT
);

CREATE INDEX IF NOT EXISTS campaign_row_open ON campaign_row (state) WHERE state NOT IN ('done', 'failed');

-- Attempts that failed on a back-end, and what they have cost.
CREATE TABLE IF NOT EXISTS campaign_attempt (
    row_id   BIGINT NOT NULL REFERENCES campaign_row (id),
    attempt  BIGINT NOT NULL,
    back_end TEXT,
    job      TEXT,
    cost     DOUBLE PRECISION,
    error    TEXT,
    PRIMARY KEY (row_id, attempt)
);

-- For people and their tools: one line for each job that was made, or is to be made.
CREATE OR REPLACE VIEW campaign_ledger AS
    SELECT id AS row_id, key, attempt, state, back_end, job, reserved, cost, folder, error FROM campaign_row
    UNION ALL
    SELECT row_id, key, a.attempt, 'failed', a.back_end, a.job, NULL::double precision, a.cost, NULL::text, a.error
    FROM campaign_attempt a JOIN campaign_row r ON r.id = a.row_id;
