-- Requests per second that a Space may get: -1 is the host's configuration, 0 without a limit.
ALTER TABLE spaces ADD COLUMN rate INTEGER NOT NULL DEFAULT -1;
