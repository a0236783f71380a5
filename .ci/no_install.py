"""What `pip install` calls: the project is run from its clone, for `reward` and `learner` are no names for site-packages."""

import sys

REMEDY = "LAPDOG-Ray is not installed but run from its clone: pip install -r requirements.txt, then python launch.py"


def build_wheel(*arguments: object, **settings: object) -> str:
    sys.exit(REMEDY)


build_sdist = build_editable = get_requires_for_build_wheel = get_requires_for_build_editable = build_wheel
