"""Cases that are not written yet."""
from rig.case import Inapplicable


def missing(battery, case):
    raise Inapplicable("not written yet")
