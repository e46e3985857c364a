from .caption import CaptionResult as CaptionResult
from .zero_shot import refine_classes as refine_classes
