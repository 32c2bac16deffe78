"""Calibration: the ranges of a model's activations over data, in memory that does not grow with the data."""

from onnxcompress.calibration.channels import ChannelObserver, ChannelStatistics
from onnxcompress.calibration.collect import Observing, calibrate, calibrate_channels, stream
from onnxcompress.calibration.fingerprint import fingerprint
from onnxcompress.calibration.observers import METHODS, Observer, create_observer
from onnxcompress.calibration.ranges import Ranges

__all__ = [
    "METHODS",
    "ChannelObserver",
    "ChannelStatistics",
    "Observer",
    "Observing",
    "Ranges",
    "calibrate",
    "calibrate_channels",
    "create_observer",
    "fingerprint",
    "stream",
]
