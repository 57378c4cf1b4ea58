-- A training set that comes out the same whenever it is asked for: the rows known by an instant up to which the table
-- is complete. Settings as in compact.sql.

SHOW TBLPROPERTIES ice.flywheel.flight_delay_training ('flywheel.complete-through');

SELECT carrier, origin, distance_mi, dep_delay_min, temp_f, wind_mph, precip_in, visibility_mi, label_late15
FROM ice.flywheel.flight_delay_training
WHERE as_of <= TIMESTAMP '2013-02-01 00:00:00 UTC' AND label_late15_status = 'observed'
ORDER BY prediction_id;
