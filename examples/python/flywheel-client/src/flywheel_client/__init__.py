"""Logs predictions and outcomes to a Flywheel sidecar without making the model wait.

    client = Client("unix:/run/flywheel/sidecar.sock", "flight_delay", model_version="7")
    prediction_id = client.log_prediction(
        entity={"flight_key": "2013-01-01 UA1545"},
        features={"carrier": "UA", "origin": "EWR", "dest": "IAH", "distance_mi": 1400, "dep_delay_min": 2},
        prediction={"late_probability": 0.08},
    )
    client.log_outcome(prediction_id, {"landed": True})

See `Client` for what it promises, `flywheel_client.types` for classes with the types of a contract.
"""

from .client import Client
from .record import Refusal, Stats

__all__ = ["Client", "Refusal", "Stats"]
