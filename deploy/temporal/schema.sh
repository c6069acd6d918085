#!/bin/sh
# Brings the schemas of Temporal's two databases up to this release of the server. Run it again
# after every upgrade; where nothing is new, nothing changes.
# SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD say where.
set -eu

schemas=${TEMPORAL_SCHEMAS:-/etc/temporal/schema/postgresql/v12}

bring_up() {
    temporal-sql-tool --db "$1" create
    temporal-sql-tool --db "$1" setup-schema -v 0.0
    temporal-sql-tool --db "$1" update-schema -d "$schemas/$2/versioned"
}

bring_up temporal temporal
bring_up temporal_visibility visibility
