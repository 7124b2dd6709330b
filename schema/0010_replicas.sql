-- How many instances a Space is to have, and the key of the cookie that keeps a visitor to one ('': there is none).
ALTER TABLE spaces ADD COLUMN replicas INTEGER NOT NULL DEFAULT 1;
ALTER TABLE spaces ADD COLUMN sticky TEXT NOT NULL DEFAULT '';

-- The instances (their generations) that serve beside spaces.serving: after a restart of control they are adopted with it.
CREATE TABLE replicas (
	space_id   TEXT NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
	generation INTEGER NOT NULL,
	PRIMARY KEY (space_id, generation)
) STRICT, WITHOUT ROWID;
