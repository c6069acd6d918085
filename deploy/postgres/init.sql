-- Runs once, when the volume is empty: a login and a database for each of the two tenants.
-- A server of your own needs the same; `storage/provision.py` says what each login is for.

\getenv temporal_password TEMPORAL_DB_PASSWORD
\getenv owner_password EVERBILL_DB_OWNER_PASSWORD
\getenv application_password EVERBILL_DB_PASSWORD

-- Temporal's schema job makes Temporal's two databases itself.
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'temporal_password';

CREATE ROLE everbill_app NOLOGIN;
CREATE ROLE everbill_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE everbill LOGIN PASSWORD :'application_password' IN ROLE everbill_app;
CREATE DATABASE everbill OWNER everbill_owner;
REVOKE CONNECT ON DATABASE everbill FROM PUBLIC;
GRANT CONNECT ON DATABASE everbill TO everbill_app;
