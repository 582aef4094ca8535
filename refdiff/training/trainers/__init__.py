"""Trainers: one to be read, and one for each fast engine."""

from .choose import *
from .interface import *
from .reference import *
