-- Compaction with Trino, safe while the joiner writes. Put the namespace in the place of `flywheel`. Run it daily.

ALTER TABLE iceberg.flywheel.flight_delay_training EXECUTE optimize(file_size_threshold => '64MB');
ALTER TABLE iceberg.flywheel.flight_delay_predictions EXECUTE optimize(file_size_threshold => '64MB');
ALTER TABLE iceberg.flywheel.flight_delay_outcomes EXECUTE optimize(file_size_threshold => '64MB');
