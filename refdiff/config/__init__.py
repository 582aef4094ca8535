"""The configuration of a run: frozen dataclasses, TOML files, and single keys changed."""

from ..data.settings import DataConfig as DataConfig
from ..objectives.schedule import ScheduleConfig as ScheduleConfig
from ..sampling.settings import SampleConfig as SampleConfig
from .config import *
from .likelihood_presets import *
from .networks import *
from .presets import *
from .rules import *
from .train import *
