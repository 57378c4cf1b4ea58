-- Compaction with Spark, safe while the joiner writes: it adds no rows, and a commit of the joiner that comes between is
-- kept. Run it daily.
--
--   spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0,org.apache.iceberg:iceberg-aws-bundle:1.12.0 \
--     --conf spark.sql.extensions=org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions \
--     --conf spark.sql.catalog.ice=org.apache.iceberg.spark.SparkCatalog \
--     --conf spark.sql.catalog.ice.type=rest --conf spark.sql.catalog.ice.uri=http://localhost:8181 \
--     --conf spark.sql.catalog.ice.warehouse=warehouse \
--     -f compact.sql
--
-- Put the namespace (the demonstration's --prefix) in the place of `flywheel`.

CALL ice.system.rewrite_data_files(table => 'flywheel.flight_delay_training', options => map('min-input-files', '4'));
CALL ice.system.rewrite_data_files(table => 'flywheel.flight_delay_predictions', options => map('min-input-files', '4'));
CALL ice.system.rewrite_data_files(table => 'flywheel.flight_delay_outcomes', options => map('min-input-files', '4'));
CALL ice.system.rewrite_manifests('flywheel.flight_delay_training');
