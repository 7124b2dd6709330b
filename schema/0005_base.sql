-- What a Space stands on: the name of a base image, 'host', or '' for the default (the file bases/default of the state folder).
ALTER TABLE spaces ADD COLUMN base TEXT NOT NULL DEFAULT '';
