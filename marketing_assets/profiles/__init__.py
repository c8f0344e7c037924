"""User profiles and audiences: segments, propensity, churn, life-time value, the profile score and who belongs where.

What belongs here: everything said about one user from the user's own history. What does not: which items to show
(recommendations), or what an audience costs and earns (response, ad_planning).

matrix.py says what is looked at, training.py what is learned from, linear.py and lifetime.py hold the mathematics,
hazard.py, propensity.py, search.py and value.py the models, segments.py and audiences.py the names; fits.py says when what is
fitted and promoted, build.py puts the tables together.
"""

from marketing_assets.profiles.audiences import AudienceError
from marketing_assets.profiles.build import build_audiences, build_profiles
from marketing_assets.profiles.segments import SEGMENTS

__all__ = ["SEGMENTS", "AudienceError", "build_audiences", "build_profiles"]
