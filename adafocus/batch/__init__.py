"""Predictions for any number of videos, on one machine or many."""

from adafocus.batch.predictor import VideoPredictor

__all__ = ["VideoPredictor"]
