"""The fastest feasible trial of each piece of work, and the lines that launch it; measures nothing."""

from zbench.analysis.constraints import Limits
from zbench.analysis.objectives import OBJECTIVES
from zbench.recommend.choose import recommend
from zbench.recommend.recommendation import Advice, NoAnswer, Recommendation
from zbench.recommend.uses import Goal

__all__ = ["OBJECTIVES", "Advice", "Goal", "Limits", "NoAnswer", "Recommendation", "recommend"]
