-- How each model version did, from the training table alone.

SELECT model_version, count(*) AS flights, avg(prediction_late_probability) AS predicted,
    avg(IF(label_late15, 1e0, 0e0)) AS late,
    -avg(IF(label_late15, ln(prediction_late_probability), ln(1 - prediction_late_probability))) AS log_loss
FROM iceberg.flywheel.flight_delay_training
WHERE label_late15_status = 'observed'
GROUP BY model_version
ORDER BY model_version;
