-- After how many seconds without a visit its app is stopped: 0 as the configuration says, -1 never.
ALTER TABLE spaces ADD COLUMN sleep_s INTEGER NOT NULL DEFAULT 0;
