"""The fastest feasible trial of a run, and the lines that launch it; measures nothing."""

from zbench.recommend.choose import recommend
from zbench.recommend.recommendation import Recommendation

__all__ = ["Recommendation", "recommend"]
