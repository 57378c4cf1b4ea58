#!/usr/bin/env bash
# Outcomes that name an entity and no prediction become outcomes of predictions: landings that know only the aircraft go to
# its last departure of the day before. Give it again, every hour say: what was imported states nothing twice, and a landing
# waits until every departure that could be its own has landed in the tables.
#
#   JOINER_CONFIG=joiner.toml SIDECAR=http://localhost:8700 examples/spark/attribute.sh
#
# The catalog's settings for Spark stand in spark-defaults.conf, those of compact.sql with spark.sql.defaultCatalog=ice. The
# landings are in flywheel.landings (outcome_id, event_time, tail_number, label_landed).
set -euo pipefail

joiner() { flywheel-joiner --config "${JOINER_CONFIG:?the settings of the joiner}" "$@"; }

query=$(joiner sql attribution-last-touch --model flight_delay --engine spark --outcomes flywheel.landings \
    --entity tail_number --label landed --window 24h)
spark-sql -e "CREATE OR REPLACE TABLE flywheel.landings_attributed USING iceberg AS $query"
joiner import outcomes landings_attributed --model flight_delay --to "${SIDECAR:?where a sidecar listens}"
