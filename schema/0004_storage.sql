-- Bytes of a Space's persistent volume, data-{id}, which its app sees at /data; 0: it has none.
ALTER TABLE spaces ADD COLUMN storage INTEGER NOT NULL DEFAULT 0;
