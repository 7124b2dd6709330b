-- Which instance serves (its generation; 0: none, or a static release). Their order does not tell: one that is being
-- started, stopped or drained may run beside it when control dies.
ALTER TABLE spaces ADD COLUMN serving INTEGER NOT NULL DEFAULT 0;
UPDATE spaces SET serving = generation WHERE release_id IS NOT NULL;
