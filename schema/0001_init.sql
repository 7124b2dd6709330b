-- The control store, first shape. Applied by spaced/store/migrate.c inside one transaction; the number in the file's
-- name becomes PRAGMA user_version. Times are milliseconds since 1970, ids 24 lower-case hex digits.

CREATE TABLE users (
	id      TEXT NOT NULL PRIMARY KEY,
	name    TEXT NOT NULL COLLATE NOCASE UNIQUE,
	admin   INTEGER NOT NULL DEFAULT 0,
	created INTEGER NOT NULL
) STRICT;

-- Only a keyed hash of a token is kept; the key is a file beside the database (token.key).
CREATE TABLE tokens (
	id        TEXT NOT NULL PRIMARY KEY,
	user_id   TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	label     TEXT NOT NULL DEFAULT '',
	prefix    TEXT NOT NULL,
	hash      BLOB NOT NULL UNIQUE,
	created   INTEGER NOT NULL,
	last_used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tokens_user ON tokens (user_id, created);

CREATE TABLE spaces (
	id             TEXT NOT NULL PRIMARY KEY,
	owner_id       TEXT NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
	name           TEXT NOT NULL COLLATE NOCASE,
	label          TEXT NOT NULL UNIQUE,
	visibility     INTEGER NOT NULL DEFAULT 0,
	stage          TEXT NOT NULL,
	stage_message  TEXT NOT NULL DEFAULT '',
	default_branch TEXT NOT NULL DEFAULT 'main',
	slot           INTEGER NOT NULL UNIQUE CHECK (slot >= 1),
	sdk            TEXT NOT NULL DEFAULT '',
	card           TEXT NOT NULL DEFAULT '{}',
	release_id     TEXT REFERENCES releases (id) ON DELETE SET NULL,
	generation     INTEGER NOT NULL DEFAULT 0,
	created        INTEGER NOT NULL,
	modified       INTEGER NOT NULL,
	UNIQUE (owner_id, name)
) STRICT;
CREATE INDEX spaces_newest ON spaces (created, id);
CREATE INDEX spaces_owner_newest ON spaces (owner_id, created, id);
CREATE INDEX spaces_stage ON spaces (stage);
CREATE INDEX spaces_release ON spaces (release_id);

CREATE TABLE builds (
	id        TEXT NOT NULL PRIMARY KEY,
	space_id  TEXT NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
	commit_id TEXT NOT NULL,
	cause     TEXT NOT NULL,
	state     TEXT NOT NULL,
	phase     TEXT NOT NULL DEFAULT 'queued',
	error     TEXT NOT NULL DEFAULT '',
	queued    INTEGER NOT NULL,
	started   INTEGER NOT NULL DEFAULT 0,
	finished  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX builds_space ON builds (space_id, queued);
CREATE INDEX builds_unfinished ON builds (queued) WHERE state IN ('queued', 'running');

CREATE TABLE releases (
	id        TEXT NOT NULL PRIMARY KEY,
	space_id  TEXT NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
	build_id  TEXT NOT NULL REFERENCES builds (id),
	commit_id TEXT NOT NULL,
	recipe    TEXT NOT NULL,
	created   INTEGER NOT NULL
) STRICT;
CREATE INDEX releases_space ON releases (space_id, created);
CREATE INDEX releases_build ON releases (build_id);

CREATE TABLE layers (
	key     TEXT NOT NULL PRIMARY KEY,
	volume  TEXT NOT NULL UNIQUE,
	created INTEGER NOT NULL,
	used    INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
	id       INTEGER PRIMARY KEY,
	at       INTEGER NOT NULL,
	space_id TEXT REFERENCES spaces (id) ON DELETE CASCADE,
	actor_id TEXT REFERENCES users (id) ON DELETE SET NULL,
	kind     TEXT NOT NULL,
	text     TEXT NOT NULL
) STRICT;
CREATE INDEX events_space ON events (space_id, id);
CREATE INDEX events_actor ON events (actor_id);
