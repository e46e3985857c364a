"""Every option of the program, declared once.

An option is a field of one of the dataclasses of this package. From the fields are made the command
line, the rows of a batch manifest, the keys of a configuration file, the environment variables, the
parameters of the Python functions, the parameter list of the QGIS plugin and the options page of
the documentation. A command's options are one dataclass that inherits from shared groups; a
function that needs some of them takes the group as its parameter, and gets the whole.

This package uses the standard library and ``rssc_geo.errors`` alone, so that the plugin's build and
``--help`` can read it without loading anything; its names are plain imports for that reason.
"""

from rssc_geo.options.commands import COMMANDS as COMMANDS
from rssc_geo.options.commands import SHARED as SHARED
from rssc_geo.options.commands import all_options as all_options
from rssc_geo.options.commands import describe_options as describe_options
from rssc_geo.options.declaration import ENVIRONMENT_PREFIX as ENVIRONMENT_PREFIX
from rssc_geo.options.declaration import GROUPS as GROUPS
from rssc_geo.options.declaration import Option as Option
from rssc_geo.options.declaration import check_suffixes as check_suffixes
from rssc_geo.options.declaration import files_read as files_read
from rssc_geo.options.declaration import given_of as given_of
from rssc_geo.options.declaration import narrowed as narrowed
from rssc_geo.options.declaration import options_of as options_of
from rssc_geo.options.declaration import values_of as values_of
from rssc_geo.options.finished import AccuracyOptions as AccuracyOptions
from rssc_geo.options.finished import AreasOptions as AreasOptions
from rssc_geo.options.finished import AssessmentTargetOptions as AssessmentTargetOptions
from rssc_geo.options.finished import ChangeOptions as ChangeOptions
from rssc_geo.options.finished import LegendOptions as LegendOptions
from rssc_geo.options.finished import ReferenceOptions as ReferenceOptions
from rssc_geo.options.finished import RefineOptions as RefineOptions
from rssc_geo.options.finished import SampleOptions as SampleOptions
from rssc_geo.options.kinds import CSV as CSV
from rssc_geo.options.kinds import JSON as JSON
from rssc_geo.options.kinds import PARQUET as PARQUET
from rssc_geo.options.maps import CaptionOptions as CaptionOptions
from rssc_geo.options.maps import CaptionSourceOptions as CaptionSourceOptions
from rssc_geo.options.maps import ClassifyOptions as ClassifyOptions
from rssc_geo.options.maps import ExplainOptions as ExplainOptions
from rssc_geo.options.maps import MapOptions as MapOptions
from rssc_geo.options.maps import OutputOptions as OutputOptions
from rssc_geo.options.maps import ReportOptions as ReportOptions
from rssc_geo.options.maps import SceneOptions as SceneOptions
from rssc_geo.options.maps import ZeroShotOptions as ZeroShotOptions
from rssc_geo.options.maps import ZoneOptions as ZoneOptions
from rssc_geo.options.models import CaptionerOptions as CaptionerOptions
from rssc_geo.options.models import ClassChoiceOptions as ClassChoiceOptions
from rssc_geo.options.models import ClassNamesOptions as ClassNamesOptions
from rssc_geo.options.models import ComputeOptions as ComputeOptions
from rssc_geo.options.models import DescribingOptions as DescribingOptions
from rssc_geo.options.models import DeviceOptions as DeviceOptions
from rssc_geo.options.models import ImportOptions as ImportOptions
from rssc_geo.options.models import ModelInfoOptions as ModelInfoOptions
from rssc_geo.options.models import ModelOptions as ModelOptions
from rssc_geo.options.models import NamedClassOptions as NamedClassOptions
from rssc_geo.options.models import PredictorOptions as PredictorOptions
from rssc_geo.options.rasters import InfoOptions as InfoOptions
from rssc_geo.options.rasters import ReadingOptions as ReadingOptions
from rssc_geo.options.rasters import SourceOptions as SourceOptions
from rssc_geo.options.rasters import TileOptions as TileOptions
from rssc_geo.options.rasters import TilingOptions as TilingOptions
from rssc_geo.options.runs import BatchRunOptions as BatchRunOptions
from rssc_geo.options.runs import OverwriteOptions as OverwriteOptions
from rssc_geo.options.runs import PrintOptions as PrintOptions
from rssc_geo.options.runs import RunOptions as RunOptions
from rssc_geo.options.runs import ScenesRunOptions as ScenesRunOptions
from rssc_geo.options.runs import ServeOptions as ServeOptions
from rssc_geo.options.runs import TargetOptions as TargetOptions
from rssc_geo.options.scenes import BatchAreasOptions as BatchAreasOptions
from rssc_geo.options.scenes import BatchOptions as BatchOptions
from rssc_geo.options.scenes import BatchSceneOptions as BatchSceneOptions
from rssc_geo.options.scenes import EmbedOptions as EmbedOptions
from rssc_geo.options.scenes import IndexOptions as IndexOptions
from rssc_geo.options.scenes import ManyScenesOptions as ManyScenesOptions
from rssc_geo.options.scenes import SearchOptions as SearchOptions
from rssc_geo.options.scenes import SearchTargetOptions as SearchTargetOptions
from rssc_geo.options.training import BaselineOptions as BaselineOptions
from rssc_geo.options.training import CardOptions as CardOptions
from rssc_geo.options.training import ClassFieldOptions as ClassFieldOptions
from rssc_geo.options.training import EvaluateOptions as EvaluateOptions
from rssc_geo.options.training import EvaluationTargetOptions as EvaluationTargetOptions
from rssc_geo.options.training import PatchOptions as PatchOptions
from rssc_geo.options.training import PolygonSourceOptions as PolygonSourceOptions
from rssc_geo.options.training import SplitOptions as SplitOptions
from rssc_geo.options.training import TaxonomyOptions as TaxonomyOptions
from rssc_geo.options.training import TrainOnPolygonsOptions as TrainOnPolygonsOptions
from rssc_geo.options.training import TrainOptions as TrainOptions
