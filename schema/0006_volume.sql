-- Which persistent volume is the Space's: data-{id} for 0, data-{id}-{volume} after. Switching storage off takes the next number, so
-- that what was deleted can never come back, whatever of it is still there.
ALTER TABLE spaces ADD COLUMN volume INTEGER NOT NULL DEFAULT 0;
