-- What the operator says for one Space: '' is the host's configuration; 'none', 'internet', 'list' (entries in egress_list, a
-- line each).
ALTER TABLE spaces ADD COLUMN egress TEXT NOT NULL DEFAULT '';
ALTER TABLE spaces ADD COLUMN egress_list TEXT NOT NULL DEFAULT '';

-- Bytes from the Internet, and to it, by instance (its generation); 0 has the sum of those long gone.
CREATE TABLE traffic (
	space_id   TEXT NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
	generation INTEGER NOT NULL,
	received   INTEGER NOT NULL,
	sent       INTEGER NOT NULL,
	PRIMARY KEY (space_id, generation)
) STRICT, WITHOUT ROWID;
