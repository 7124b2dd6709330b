-- Host names of a Space's own beside {label}.DOMAIN: lower-case A-labels, or "*." before one.
CREATE TABLE domains (
	host     TEXT NOT NULL PRIMARY KEY,
	space_id TEXT NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
	created  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX domains_space ON domains (space_id, created);
