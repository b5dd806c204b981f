#!/bin/sh
# Two roles for PostgreSQL: the owner, who migrates, and the one that workers and clients use.
#
# The image runs this once, when it makes the database. POSTGRES_USER owns the database and whatever
# `llmchatlinker migrate` makes in it. Elsewhere: docs/security.md has the same as plain SQL.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
     --set password="$POSTGRES_RUNTIME_PASSWORD" <<'SQL'
CREATE ROLE llmchatlinker_runtime LOGIN PASSWORD :'password'
       NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO llmchatlinker_runtime;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO llmchatlinker_runtime;
-- For what the owner makes from now on, by migrations.
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO llmchatlinker_runtime;
SQL
