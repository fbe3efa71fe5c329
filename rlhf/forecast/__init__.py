"""How long a recipe will take here, said before it starts, and put right after each stage."""

from rlhf.forecast.forecast import Forecast, forecast_of

__all__ = ["Forecast", "forecast_of"]
